"""Source of backbones: the classification networks of torchvision."""

import os

import torchvision.models

from ..exceptions import WeightsError
from ._building import behead, building, fill
from ._download import official_digest, official_file
from ._spec import BackboneSpec, Preprocessing, check_smallest, random_fingerprint
from ._torchvision_widths import WIDTHS
from ._weights import SUFFIXES, file_digest, read_choice

#: Networks whose image size is fixed when they are built, and the parameter for it.
_FIXED_SIZE = {
    **dict.fromkeys(["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"], "image_size"),
    "maxvit_t": "input_size",
}


def names():
    offered = torchvision.models.list_models(module=torchvision.models)
    return sorted(WIDTHS.keys() & set(offered))


def matches(backbone):
    return backbone in WIDTHS


def resolve(name, weights, image_size):
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
    preprocessing = Preprocessing(
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )
    if image_size is not None and image_size != preprocessing.image_size:
        if name not in _FIXED_SIZE:
            check_smallest(name, image_size, max(member.meta["min_size"]))
        elif official or name == "maxvit_t":
            raise ValueError(
                f"{name!r} with the weights {member.name} takes images of "
                f"{preprocessing.image_size} pixels only, got image_size={image_size}.\nHint: pass "
                "image_size=None, or choose other official weights or a convolutional network."
            )
        preprocessing = preprocessing.for_size(image_size)
    label = member.name if official else weights and str(weights)
    text = _fingerprint(name, label, preprocessing.image_size)
    return BackboneSpec(name, label, text, WIDTHS[name], preprocessing)


def fingerprint(spec):
    return _fingerprint(spec.name, spec.weights, spec.preprocessing.image_size)


def _fingerprint(name, weights, image_size):
    built_for = f":built_for={image_size}" if name in _FIXED_SIZE else ""
    if weights is None:
        return random_fingerprint("torchvision", name) + built_for
    if os.path.isabs(weights):
        return f"torchvision:{name}:sha256={file_digest(weights)}{built_for}"
    return f"torchvision:{name}:{weights}:{official_digest(_member(name, weights).url)}"


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
    elif name in _FIXED_SIZE:
        size = spec.preprocessing.image_size
        options = {_FIXED_SIZE[name]: (size, size) if name == "maxvit_t" else size}
    with building(random=weights is None):
        network = torchvision.models.get_model(name, weights=None, **options)
    network = fill(behead(network, aux), weights, name)
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
