"""Source of backbones: the classification networks of torchvision."""

import os
from collections import OrderedDict

import torchvision.models
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from ..exceptions import WeightsError
from ._building import PooledTokens, behead, building, fill
from ._download import official_digest, official_file
from ._spec import (
    BackboneSpec,
    Preprocessing,
    check_patches,
    check_smallest,
    pooling_key,
    random_fingerprint,
)
from ._torchvision_widths import WIDTHS
from ._weights import SUFFIXES, file_digest, read_choice

#: Vision transformers and the sides of their patches. They are built for one image size.
_PATCHES = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}


def names():
    offered = torchvision.models.list_models(module=torchvision.models)
    return sorted(WIDTHS.keys() & set(offered))


def matches(backbone):
    return backbone in WIDTHS


def license(name):
    return _license(_member(name, "DEFAULT"))


def _license(member):
    # Only the SWAG weights have a license of their own.
    return "cc-by-nc-4.0" if "license" in member.meta else "bsd-3-clause"


def resolve(name, weights, image_size, pooling):
    members = torchvision.models.get_model_weights(name)
    if isinstance(weights, torchvision.models.WeightsEnum) and not isinstance(weights, members):
        raise WeightsError(
            f"{weights} does not belong to {name!r}.\n"
            f"Hint: pass one of {[str(member) for member in members]}."
        )
    weights = read_choice(weights)
    official = isinstance(weights, str)
    member = _member(name, weights if official else "DEFAULT")
    preset = member.transforms()
    size, resize_size = preset.crop_size[0], preset.resize_size[0]
    channels = tuple(preset.mean), tuple(preset.std)
    preprocessing = Preprocessing(size, resize_size, preset.interpolation.value, *channels)
    if image_size is not None and image_size != preprocessing.image_size:
        if name == "maxvit_t":
            raise ValueError(
                f"{name!r} takes images of {preprocessing.image_size} pixels only, got "
                f"image_size={image_size}.\nHint: pass image_size=None, or choose another network."
            )
        if name in _PATCHES:
            check_patches(name, image_size, _PATCHES[name])
        else:
            check_smallest(name, image_size, max(member.meta["min_size"]))
        preprocessing = preprocessing.for_size(image_size)
    if name not in _PATCHES:
        pooling = "auto"
    label = member.name if official else weights and str(weights)
    width = WIDTHS[name] * (2 if pooling == "cls+mean" else 1)
    terms = _license(member) if official else None
    return BackboneSpec(name, label, "", width, preprocessing, pooling=pooling, license=terms)


def fingerprint(spec):
    name, weights, size = spec.name, spec.weights, spec.preprocessing.image_size
    suffix = pooling_key(spec.pooling)
    if name in _PATCHES:
        suffix = f":built_for={size}{suffix}"
    if weights is None:
        return random_fingerprint("torchvision", name) + suffix
    if os.path.isabs(weights):
        return f"torchvision:{name}:sha256={file_digest(weights)}{suffix}"
    return f"torchvision:{name}:{weights}:{official_digest(_member(name, weights).url)}{suffix}"


def load(spec):
    name, weights, url = spec.name, spec.weights, None
    if weights is not None and not os.path.isabs(weights):
        url = _member(name, weights).url
        weights = official_file(url, repr(name))
    options, aux = {}, ()
    if name in ("googlenet", "inception_v3"):
        # The official weights of these two come from another library, which scales its input.
        pretrained = weights is not None
        options = {"aux_logits": False, "init_weights": False, "transform_input": pretrained}
        aux = ("aux1.", "aux2.", "AuxLogits.")
    elif name in _PATCHES:
        options = {"image_size": spec.preprocessing.image_size}
    with building(random=weights is None):
        network = torchvision.models.get_model(name, weights=None, **options)

    def rename(state):
        if name in _PATCHES and "encoder.pos_embedding" in state:  # for another image size
            return interpolate_embeddings(spec.preprocessing.image_size, _PATCHES[name], state)
        return state

    network = fill(behead(network, aux), weights, name, rename)
    if spec.pooling != "auto":
        # The network takes the first of these tokens.
        pooled = PooledTokens(network.encoder, spec.pooling, n_prefix=1)
        parts = OrderedDict(encoder=pooled, unflatten=nn.Unflatten(1, (1, -1)))
        network.encoder = nn.Sequential(parts)
    if url is not None:
        official_file(url, repr(name))  # it was not replaced while it was being read
    return network


def _member(name, weights):
    members = torchvision.models.get_model_weights(name)
    if weights == "DEFAULT":
        return members.DEFAULT
    offered = [member.name for member in members]
    if weights == "IMAGENET1K_FEATURES":
        raise WeightsError(
            f"The weights {weights!r} of {name!r} lack the classifier layers, which the embedding "
            f"needs.\nHint: pass one of {[n for n in offered if n != weights]}."
        )
    if weights not in offered:
        raise WeightsError(
            f"There are no official weights {weights!r} for {name!r}.\nHint: pass one of "
            f"{offered}, or the path of a weights file ({', '.join(SUFFIXES)})."
        )
    return members[weights]
