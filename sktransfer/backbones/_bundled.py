"""Source of backbones: the two networks whose weights come with the package."""

import re
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .._utils._fork import IMPORTING
from ..exceptions import WeightsError
from ._spec import BackboneSpec, Preprocessing, check_smallest, random_fingerprint
from ._weights import file_digest, read_choice

_FOLDER = Path(__file__).parent / "weights"
_SMALLEST = 32


#: Width of the embedding of each network.
_WIDTHS = {"tiny_mobilenet": 576, "tiny_resnet": 768}


def names():
    return list(_WIDTHS)


def matches(backbone):
    return backbone in _WIDTHS


def license(name):
    return "bsd-3-clause"


def resolve(name, weights, image_size, pooling):
    weights = read_choice(weights)
    if isinstance(weights, str) and weights != "DEFAULT":
        raise WeightsError(
            f'The bundled backbone {name!r} has one set of weights, "DEFAULT"; got {weights!r}.'
        )
    preprocessing = _preprocessing(name, _file(name, weights))
    if image_size is not None:
        check_smallest(name, image_size, _SMALLEST)
        preprocessing = preprocessing.for_size(image_size)
    label = "bundled" if weights == "DEFAULT" else weights and str(weights)
    terms = license(name) if label == "bundled" else None
    return BackboneSpec(name, label, "", _WIDTHS[name], preprocessing, license=terms)


def fingerprint(spec):
    family = f"sktransfer:{_WIDTHS[spec.name]}"
    if spec.weights is None:
        return random_fingerprint(family, spec.name)
    return f"{family}:{spec.name}:sha256={file_digest(_file(spec.name, spec.weights))}"


def load(spec):
    with IMPORTING:
        from ._bundled_networks import load_network
    file = None if spec.weights is None else _file(spec.name, spec.weights)
    return load_network(spec.name, file)


def _file(name, weights):
    if weights in (None, "DEFAULT", "bundled"):
        return _FOLDER / f"{name}.safetensors"
    return Path(weights)


def _preprocessing(name, file):
    """Read the preprocessing from the header of a weights file, or else of the bundled one."""
    header = _read_header(file, file_digest(file))
    if "image_size" not in header:
        file = _file(name, None)
        header = _read_header(file, file_digest(file))
    try:
        given = {name: header[name] for name in ("mean", "std") if name in header}
        channels = {n: tuple(map(float, re.findall(r"[-+.\deE]+", v))) for n, v in given.items()}
        resize_size = int(header["resize_size"]) if header.get("resize_size") else None
        interpolation = header.get("interpolation", "bilinear")
        return Preprocessing(int(header["image_size"]), resize_size, interpolation, **channels)
    except ValueError as error:
        raise WeightsError(
            f"The header of {str(file)!r} describes no valid preprocessing: {error} The header is "
            f"{header}."
        ) from error


@lru_cache(maxsize=256)
def _read_header(file, digest):
    """Read the header, once for each content of the file."""
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, framework="numpy") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"The weights file {str(file)!r} is damaged: {error}.") from error
