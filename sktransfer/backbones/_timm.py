"""Source of backbones: the networks of timm, as ``"timm:NAME"``."""

import functools
import importlib.util
import math
import os
import sys

from .._utils._optional import import_optional
from ..exceptions import WeightsError
from ._building import Headless, building, fill
from ._spec import (
    BackboneSpec,
    Preprocessing,
    check_smallest,
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


def resolve(name, weights, image_size):
    weights = read_choice(weights)
    architecture = _architecture(name, weights)
    label = "pretrained" if isinstance(weights, str) else weights and str(weights)
    return BackboneSpec(
        PREFIX + architecture,
        label,
        _fingerprint(architecture, label),
        _width(architecture),
        _preprocessing(architecture, image_size),
    )


def fingerprint(spec):
    return _fingerprint(spec.name.removeprefix(PREFIX), spec.weights)


def _fingerprint(architecture, weights):
    version = f"timm={_timm().__version__}"
    if weights is None:
        return f"{random_fingerprint('timm', architecture)}:{version}"
    if os.path.isabs(weights):
        return f"timm:{architecture}:sha256={file_digest(weights)}"
    configuration = _configuration(architecture)
    return f"timm:{architecture}:{configuration.hf_hub_id or configuration.url}:{version}"


def load(spec):
    architecture = spec.name.removeprefix(PREFIX)
    if spec.weights == "pretrained":
        return _load_pretrained(architecture)
    network = create(architecture, random=spec.weights is None)
    classifiers = _configuration(architecture).classifier or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    headless = Headless(network, tuple(f"{classifier}." for classifier in classifiers))
    return fill(headless, spec.weights, spec.name, functools.partial(_rename, network))


def _load_pretrained(architecture):
    """Build a network with timm's own weights, from the Hugging Face hub."""
    try:
        with building(random=False):
            # With the classifier in place, timm checks that the file has every tensor.
            network = _timm().create_model(architecture, pretrained=True)
            network.reset_classifier(0)
            return network
    except Exception as error:  # the client of the hub raises many unrelated kinds
        where = _configuration(architecture)
        url = where.url
        if where.hf_hub_id:
            file = where.hf_hub_filename or "model.safetensors"
            url = f"https://huggingface.co/{where.hf_hub_id}/resolve/main/{file}"
        raise WeightsError(
            f"The weights of 'timm:{architecture}' are unavailable: {first_line(error)}\n"
            f"Hint: fetch {url} in another way, save it anywhere and pass its path as `weights`."
        ) from error


def create(architecture, random):
    with building(random):
        return _timm().create_model(architecture, pretrained=False, num_classes=0)


def _rename(network, state):
    """Rename the tensors of an original checkpoint as timm does for this architecture."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None or state.keys() >= network.state_dict().keys():
        return state
    return convert(state, network)


def _timm():
    return import_optional("timm", "timm", "A backbone whose name starts with 'timm:'")


@functools.lru_cache(maxsize=256)
def _configuration(architecture):
    """Return what timm records about the weights, as its ``PretrainedCfg``; None if unknown."""
    return import_optional("timm.models", "timm", "timm").get_pretrained_cfg(architecture)


@functools.lru_cache(maxsize=256)
def _tags(base):
    return [full.partition(".")[2] for full in _timm().list_models(base, pretrained=True)]


@functools.lru_cache(maxsize=256)
def _width(architecture):
    network = create(architecture, random=False)
    return getattr(network, "head_hidden_size", None) or network.num_features


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
        tags = _tags(base)
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
    if size != height and configuration.fixed_input_size:
        raise ValueError(
            f"'timm:{architecture}' takes images of {height} pixels only, got "
            f"image_size={image_size}.\nHint: pass image_size=None, or choose a convolutional "
            "network."
        )
    if configuration.min_input_size:
        check_smallest(PREFIX + architecture, size, max(configuration.min_input_size[1:]))
    squash = data["crop_mode"] == "squash"
    return Preprocessing(
        size,
        None if squash else math.floor(size / data["crop_pct"]),  # as timm's transforms compute it
        data["interpolation"],
        tuple(data["mean"]),
        tuple(data["std"]),
    )
