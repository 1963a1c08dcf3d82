"""Backbones by name: their weights, preprocessing and fingerprint, found without loading them."""

import difflib
import os
import re
from functools import cache
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open

from ..exceptions import UnknownBackboneError, WeightsError
from . import _networks
from ._spec import BackboneSpec, Preprocessing
from ._weights import SUFFIXES, file_digest, official_digest, official_file
from ._widths import TORCHVISION_WIDTHS

TIMM = "timm:"
_BUNDLED_FOLDER = Path(__file__).parent / "weights"
_BUNDLED_MIN_SIZE = 32


def _unknown(name, candidates):
    close = difflib.get_close_matches(name, candidates, n=3)
    hint = "Hint: sktransfer.backbones.list_backbones() lists them all"
    if close:
        hint = "Did you mean " + " or ".join(repr(c) for c in close) + "?\n" + hint
    return UnknownBackboneError(
        f"There is no backbone named {name!r}.\n{hint}; timm's are written 'timm:NAME', and "
        "an own torch.nn.Module can be passed instead of a name."
    )


def resolve_named(name, weights, image_size):
    """Return the specification of a backbone given by name; see ``resolve_backbone``."""
    if name in _networks.BUNDLED_WIDTHS:
        return _resolve_bundled(name, _read_choice(weights), image_size)
    if name.startswith(TIMM):
        return _resolve_timm(name, _read_choice(weights), image_size)
    if name in TORCHVISION_WIDTHS:
        _check_enum(name, weights)
        return _resolve_torchvision(name, _read_choice(weights), image_size)
    raise _unknown(name, [*_networks.BUNDLED_WIDTHS, *_networks.torchvision_names()])


def load_named(spec):
    """Build the network of a specification and load its weights; download them when needed."""
    if spec.name in _networks.BUNDLED_WIDTHS:
        return _load_bundled(spec)
    return _load_timm(spec) if spec.name.startswith(TIMM) else _load_torchvision(spec)


def named_fingerprint(spec):
    """Compute the fingerprint of a specification anew, from what is there now."""
    weights = spec.weights
    if weights is not None and os.path.isabs(weights):
        weights = Path(weights)
    if spec.name in _networks.BUNDLED_WIDTHS:
        return _bundled_fingerprint(spec.name, weights)
    if spec.name.startswith(TIMM):
        return _timm_fingerprint(spec.name.removeprefix(TIMM), weights)
    return _torchvision_fingerprint(spec.name, weights, spec.preprocessing.image_size)


def _read_choice(weights):
    """Read `weights` as None, a member name, or the absolute path of a file as a Path."""
    if weights is None:
        return None
    if isinstance(weights, torchvision.models.WeightsEnum):
        return weights.name
    if isinstance(weights, os.PathLike) or (
        isinstance(weights, str) and (weights.endswith(SUFFIXES) or os.sep in weights)
    ):
        path = Path(os.path.abspath(os.path.expanduser(weights)))
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"A weights file ends in {', '.join(SUFFIXES)}; got {str(weights)!r}."
            )
        return path
    if isinstance(weights, str):
        return weights
    raise TypeError(
        'weights is "DEFAULT", the name of official weights, the path of a weights file or None; '
        f"got {type(weights)}."
    )


def _check_enum(name, weights):
    """Check that torchvision's own weights are meant for this network."""
    if not isinstance(weights, torchvision.models.WeightsEnum):
        return
    expected = torchvision.models.get_model_weights(name)
    if not isinstance(weights, expected):
        raise WeightsError(
            f"{weights} are weights of another network than {name!r}, whose are "
            f"{[str(member) for member in expected]}."
        )


def _random_fingerprint(family, name):
    versions = f"torch={torch.__version__}:torchvision={torchvision.__version__}"
    return f"{family}:{name}:random:seed={_networks.RANDOM_SEED}:{versions}"


def _check_smallest(name, image_size, smallest):
    if image_size < smallest:
        raise ValueError(
            f"{name!r} needs images of at least {smallest} pixels; got image_size={image_size}."
        )


# -------------------------------------------------------------------------------- torchvision


def _resolve_torchvision(name, weights, image_size):
    member = _torchvision_member(name, "DEFAULT" if isinstance(weights, Path) else weights)
    preprocessing = _torchvision_preprocessing(member)
    official = isinstance(weights, str)
    if image_size is not None and image_size != preprocessing.image_size:
        _check_torchvision_size(name, image_size, member, official)
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        name,
        member.name if official else weights and str(weights),
        _torchvision_fingerprint(name, weights, preprocessing.image_size),
        TORCHVISION_WIDTHS[name],
        preprocessing,
    )


def _torchvision_member(name, weights):
    members = torchvision.models.get_model_weights(name)
    if weights is None or weights == "DEFAULT":
        return members.DEFAULT
    offered = [member.name for member in members]
    if weights == "IMAGENET1K_FEATURES":
        raise WeightsError(
            f"The weights {weights!r} of {name!r} have no classifier layers, which the embedding "
            f"needs.\nHint: choose one of {[n for n in offered if n != weights]}."
        )
    if weights not in offered:
        raise WeightsError(
            f"There are no official weights {weights!r} for {name!r}; there are {offered}.\n"
            f"Hint: a weights file of your own ends in {', '.join(SUFFIXES)}."
        )
    return members[weights]


def _torchvision_preprocessing(member):
    preset = member.transforms()
    return Preprocessing(
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


def _check_torchvision_size(name, image_size, member, official):
    if name in _networks.FIXED_SIZE and (official or name == "maxvit_t"):
        raise ValueError(
            f"{name!r} with the weights {member.name} takes images of "
            f"{member.meta['min_size'][0]} pixels only; got image_size={image_size}.\n"
            "Hint: leave image_size at None, choose other official weights, or take a "
            "convolutional network."
        )
    if name not in _networks.FIXED_SIZE:
        _check_smallest(name, image_size, max(member.meta["min_size"]))


def _torchvision_fingerprint(name, weights, image_size):
    if isinstance(weights, str):
        member = _torchvision_member(name, weights)
        return f"torchvision:{name}:{member.name}:{official_digest(member.url)}"
    built_for = f":built_for={image_size}" if name in _networks.FIXED_SIZE else ""
    if weights is None:
        return _random_fingerprint("torchvision", name) + built_for
    return f"torchvision:{name}:sha256={file_digest(weights)}{built_for}"


def _load_torchvision(spec):
    weights = spec.weights
    if weights is not None and not os.path.isabs(weights):
        weights = official_file(_torchvision_member(spec.name, weights).url, repr(spec.name))
    return _networks.build_torchvision(spec.name, spec.preprocessing.image_size, weights)


# ------------------------------------------------------------------------------------ bundled


def _resolve_bundled(name, weights, image_size):
    if isinstance(weights, str) and weights != "DEFAULT":
        raise WeightsError(
            f'The bundled {name!r} has one set of weights, "DEFAULT"; got {weights!r}.'
        )
    file = weights if isinstance(weights, Path) else _own(name)
    preprocessing = _bundled_preprocessing(name, file)
    if image_size is not None:
        _check_smallest(name, image_size, _BUNDLED_MIN_SIZE)
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        name,
        "bundled" if weights == "DEFAULT" else weights and str(weights),
        _bundled_fingerprint(name, weights),
        _networks.BUNDLED_WIDTHS[name],
        preprocessing,
    )


def _own(name):
    return _BUNDLED_FOLDER / f"{name}.safetensors"


def _bundled_preprocessing(name, file):
    """Read the preprocessing from the header of a weights file: it belongs to the weights.

    A file without one, such as a ``.pth``, is taken to hold weights for that of the bundled file.
    """
    for source in (file, _own(name)):
        # A missing file is reported as such by its digest.
        preprocessing = _preprocessing_of_version(source, file_digest(source))
        if preprocessing is not None:
            return preprocessing
    raise WeightsError(f"{str(_own(name))!r} has lost its header. Hint: install sktransfer again.")


@cache
def _preprocessing_of_version(file, digest):
    """Read it once for each content: every `fit` and `transform` asks. None without a header."""
    header = _header(file)
    if "image_size" not in header:
        return None
    try:
        numbers = {
            key: tuple(float(v) for v in re.findall(r"[-+.\deE]+", header[key]))
            for key in ("mean", "std")
            if key in header
        }
        return Preprocessing(
            int(header["image_size"]),
            int(header["resize_size"]) if header.get("resize_size") else None,
            header.get("interpolation", "bilinear"),
            **numbers,
        )
    except ValueError as error:
        raise WeightsError(
            f"The header of {str(file)!r} describes no preprocessing: {error}. It is {header}."
        ) from error


def _header(file):
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"The weights file {str(file)!r} is broken: {error}.") from error


def _bundled_fingerprint(name, weights):
    family = f"sktransfer:{_networks.BUNDLED_WIDTHS[name]}"
    if weights is None:
        return _random_fingerprint(family, name)
    file = weights if isinstance(weights, Path) else _own(name)
    return f"{family}:{name}:sha256={file_digest(file)}"


def _load_bundled(spec):
    weights = _own(spec.name) if spec.weights == "bundled" else spec.weights
    return _networks.build_bundled(spec.name, weights)


# --------------------------------------------------------------------------------------- timm


def _resolve_timm(name, weights, image_size):
    architecture = _timm_architecture(name, weights)
    preprocessing = _timm_preprocessing(architecture, image_size)
    official = isinstance(weights, str)
    return BackboneSpec(
        TIMM + architecture,
        "pretrained" if official else weights and str(weights),
        _timm_fingerprint(architecture, "pretrained" if official else weights),
        _networks.timm_width(architecture),
        preprocessing,
    )


def _timm_architecture(name, weights):
    """Check name and tag, and return ``architecture[.tag]`` as timm takes it."""
    timm = _networks.import_timm()
    base, _, tag = name.removeprefix(TIMM).partition(".")
    if _networks.timm_configuration(base) is None:
        raise _unknown(name, [TIMM + known for known in timm.list_models()])
    tags = [full.partition(".")[2] for full in timm.list_models(base, pretrained=True)]
    if isinstance(weights, str):
        if tag and weights not in ("DEFAULT", tag):
            raise WeightsError(
                f"{name!r} names the weights {tag!r}, and weights={weights!r} others. Leave one of "
                "them out."
            )
        tag = tag if weights == "DEFAULT" else weights
        if not tags or (tag and tag not in tags):
            raise WeightsError(
                f"timm has no pretrained weights {tag or 'DEFAULT'!r} for {base!r}; it has "
                f"{tags or 'none at all'}.\nHint: pass a weights file, or None for random weights."
            )
    return f"{base}.{tag}" if tag else base


def _timm_preprocessing(architecture, image_size):
    data = _networks.timm_data(architecture)
    channels, height, width = data["input_size"]
    if channels != 3 or height != width or data["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"'timm:{architecture}' takes images of {data['input_size']} (channels, height, "
            f"width) with crop_mode={data['crop_mode']!r}; only square RGB ones with "
            "'center' or 'squash' are supported."
        )
    size = height if image_size is None else int(image_size)
    configuration = _networks.timm_configuration(architecture)
    if size != height and configuration.fixed_input_size:
        raise ValueError(
            f"'timm:{architecture}' takes images of {height} pixels only; got "
            f"image_size={image_size}.\nHint: leave image_size at None, or take a convolutional "
            "network."
        )
    if configuration.min_input_size:
        _check_smallest(TIMM + architecture, size, max(configuration.min_input_size[1:]))
    squash = data["crop_mode"] == "squash"
    return Preprocessing(
        size,
        None if squash else _networks.timm_resize_size(size, data["crop_pct"]),
        data["interpolation"],
        tuple(data["mean"]),
        tuple(data["std"]),
    )


def _timm_fingerprint(architecture, weights):
    version = f"timm={_networks.import_timm().__version__}"
    if weights is None:
        return f"{_random_fingerprint('timm', architecture)}:{version}"
    if weights != "pretrained":
        return f"timm:{architecture}:sha256={file_digest(weights)}"
    configuration = _networks.timm_configuration(architecture)
    source = configuration.hf_hub_id or configuration.url
    return f"timm:{architecture}:{source}:{version}"


def _load_timm(spec):
    name = spec.name.removeprefix(TIMM)
    if spec.weights == "pretrained":
        return _networks.build_pretrained_timm(name)
    return _networks.build_timm(name, spec.weights)
