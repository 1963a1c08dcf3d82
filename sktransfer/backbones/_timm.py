"""Source of backbones: the networks of timm, as ``"timm:NAME"``."""

import functools
import importlib.util
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from .._utils._optional import import_optional
from ..exceptions import WeightsError
from ._building import Headless, PooledTokens, building, fill
from ._spec import (
    BackboneSpec,
    Preprocessing,
    check_patches,
    check_smallest,
    pooling_key,
    random_fingerprint,
    unknown_backbone,
)
from ._weights import file_digest, first_line, read_choice

PREFIX = "timm:"


def names():
    if importlib.util.find_spec("timm") is None:
        return []
    return [PREFIX + name for name in _timm().list_models()]


def matches(backbone):
    return isinstance(backbone, str) and backbone.startswith(PREFIX)


def license(name):
    configuration = _configuration(name.removeprefix(PREFIX))
    return configuration.license if configuration.has_weights else None


def resolve(name, weights, image_size, pooling):
    weights = read_choice(weights)
    architecture = _architecture(name, weights)
    if pooling == "auto" and "dinov3" in architecture.partition(".")[0]:
        pooling = "cls"  # as the authors of DINOv3 and EUPE do; timm's default is "mean"
    preprocessing = _preprocessing(architecture, image_size)
    n_features, pooling = _probe(architecture, preprocessing.image_size, pooling)
    official = isinstance(weights, str)
    name, label = PREFIX + architecture, "pretrained" if official else weights and str(weights)
    terms = license(architecture) if official else None
    return BackboneSpec(name, label, "", n_features, preprocessing, pooling=pooling, license=terms)


def fingerprint(spec):
    architecture, weights = spec.name.removeprefix(PREFIX), spec.weights
    suffix = pooling_key(spec.pooling)
    if size := _size_to_build(architecture, spec.preprocessing.image_size):
        suffix = f":built_for={size['img_size']}{suffix}"
    if weights is None:
        version = f"timm={_timm().__version__}"
        return f"{random_fingerprint('timm', architecture)}:{version}{suffix}"
    if os.path.isabs(weights):
        return f"timm:{architecture}:sha256={file_digest(weights)}{suffix}"
    return f"timm:{architecture}:{_location(architecture)}{suffix}"


def _location(architecture):
    """Return where timm's weights are, with the commit in the Hub's cache or on the Hub."""
    configuration = _configuration(architecture)
    repository = configuration.hf_hub_id
    if not repository:
        return configuration.url
    hub = import_optional("huggingface_hub", "timm", "timm")
    with suppress(Exception):  # the client of the hub raises many unrelated kinds
        return f"{repository}@{Path(hub.snapshot_download(repository, local_files_only=True)).name}"
    with suppress(Exception):
        return f"{repository}@{hub.model_info(repository, timeout=5).sha}"
    return repository


def load(spec):
    architecture = spec.name.removeprefix(PREFIX)
    if spec.weights == "pretrained":
        network = _load_pretrained(architecture, spec.preprocessing.image_size)
    else:
        network = create(architecture, spec.weights is None, spec.preprocessing.image_size)
        classifiers = _configuration(architecture).classifier or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        headless = Headless(network, tuple(f"{classifier}." for classifier in classifiers))
        fill(headless, spec.weights, spec.name, functools.partial(_rename, network))
    return _pooled(network, spec.name, spec.pooling)


def _load_pretrained(architecture, image_size):
    """Build a network with timm's own weights, from the Hugging Face hub."""
    where = _configuration(architecture)
    location = _location(architecture)
    try:
        with building(random=False):
            # With the classifier in place, timm checks that the file has every tensor.
            network = _timm().create_model(
                architecture,
                pretrained=True,
                pretrained_cfg_overlay={"hf_hub_id": location} if where.hf_hub_id else None,
                **_size_to_build(architecture, image_size),
            )
            network.reset_classifier(0)
            return network
    except Exception as error:  # the client of the hub raises many unrelated kinds
        url = where.url
        if where.hf_hub_id:
            file = where.hf_hub_filename or "model.safetensors"
            url = f"https://huggingface.co/{where.hf_hub_id}/resolve/main/{file}"
        raise WeightsError(
            f"The weights of 'timm:{architecture}' are unavailable: {first_line(error)}\n"
            f"Hint: fetch {url} in another way, save it anywhere and pass its path as `weights`."
        ) from error


def create(architecture, random, image_size):
    options = _size_to_build(architecture, image_size)
    with building(random):
        return _timm().create_model(architecture, pretrained=False, num_classes=0, **options)


def _size_to_build(architecture, image_size):
    """Return timm's option for a network that is built for one image size, and not its default."""
    configuration = _configuration(architecture)
    if configuration.fixed_input_size and image_size != configuration.input_size[1]:
        return {"img_size": image_size}
    return {}


def _pooled(network, name, pooling):
    if pooling == "auto" or not hasattr(network, "num_prefix_tokens"):
        return network
    if "cls" in pooling and getattr(network, "cls_token", None) is None:
        raise ValueError(
            f"{name!r} has no class token, got pooling={pooling!r}.\n"
            'Hint: pass pooling="mean" or "auto".'
        )
    if getattr(network, "attn_pool", None) is not None:
        network.reset_classifier(0, "avg")  # removes the pooling by attention
    return PooledTokens(network, pooling, network.num_prefix_tokens)


def _rename(network, state):
    """Rename the tensors of an original checkpoint as timm does for this architecture."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    own = network.state_dict()
    fits = all(key in state and state[key].shape == own[key].shape for key in own)
    if convert is not None and not fits:
        with suppress(Exception):  # it has another layout, and the check that follows says which
            return convert(state, network)
    return state


def _timm():
    return import_optional("timm", "timm", "A backbone whose name starts with 'timm:'")


@functools.lru_cache(maxsize=256)
def _configuration(architecture):
    """Return what timm records about the weights, as its ``PretrainedCfg``; None if unknown."""
    return import_optional("timm.models", "timm", "timm").get_pretrained_cfg(architecture)


@functools.lru_cache(maxsize=256)
def _probe(architecture, image_size, pooling):
    """Return the width of the embedding and the pooling, from a run that computes no numbers."""
    name = PREFIX + architecture
    try:
        with torch.device("meta"), torch.inference_mode():
            network = create(architecture, random=False, image_size=image_size).eval()
            patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
            check_patches(name, image_size, np.max(patch_size))
            network = _pooled(network, name, pooling)
            output = network(torch.empty(1, 3, image_size, image_size))
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{name!r} cannot run with image_size={image_size} and pooling={pooling!r}: "
            f"{first_line(error)}\nHint: pass image_size=None, or choose a convolutional network."
        ) from error
    if output.ndim != 2:
        raise ValueError(f"{name!r} returns {tuple(output.shape)}, which is no embedding.")
    return output.shape[1], pooling if isinstance(network, PooledTokens) else "auto"


@functools.lru_cache(maxsize=256)
def _architecture(name, weights):
    """Check name and tag; return ``architecture[.tag]`` as timm takes it."""
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    _timm()
    if _configuration(base) is None:
        raise unknown_backbone(name, names())
    if isinstance(weights, str):
        if tag and weights not in ("DEFAULT", tag):
            raise WeightsError(
                f"{name!r} names the weights {tag!r}, but weights={weights!r}. Pass one of them."
            )
        tag = tag if weights == "DEFAULT" else weights
        tags = [full.partition(".")[2] for full in _timm().list_models(base, pretrained=True)]
        if not tags or (tag and tag not in tags):
            raise WeightsError(
                f"timm has no pretrained weights {tag or 'DEFAULT'!r} for {base!r}; it has "
                f"{tags or 'none'}.\nHint: pass a weights file, or None for random weights."
            )
    return f"{base}.{tag}" if tag else base


@functools.lru_cache(maxsize=256)
def _preprocessing(architecture, image_size):
    configuration = _configuration(architecture)
    timm_data = import_optional("timm.data", "timm", "timm")
    data = timm_data.resolve_data_config(pretrained_cfg=configuration.to_dict())
    channels, height, width = data["input_size"]
    if channels != 3 or height != width or data["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"'timm:{architecture}' takes images of {data['input_size']} (channels, height, "
            f"width) with crop_mode={data['crop_mode']!r}; only square RGB images with "
            "crop_mode 'center' or 'squash' are supported."
        )
    size = height if image_size is None else int(image_size)
    if configuration.min_input_size:
        check_smallest(PREFIX + architecture, size, max(configuration.min_input_size[1:]))
    resize_size, channels = None, (tuple(data["mean"]), tuple(data["std"]))
    if data["crop_mode"] == "center":
        resize_size = math.floor(size / data["crop_pct"])  # as timm's transforms compute it
    return Preprocessing(size, resize_size, data["interpolation"], *channels)
