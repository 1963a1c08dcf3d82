"""Source of backbones: the two networks whose weights come with the package."""

import re
from functools import lru_cache
from pathlib import Path

import torch
import torchvision.models
from safetensors import SafetensorError, safe_open
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from ..exceptions import WeightsError
from ._building import Headless, behead, building, fill
from ._spec import BackboneSpec, Preprocessing, check_smallest, random_fingerprint
from ._weights import file_digest, read_choice

_FOLDER = Path(__file__).parent / "weights"
_SMALLEST = 32


class _WithInput(nn.Sequential):
    """A stage that also returns its input, pooled to the size of its output."""

    def forward(self, features):
        output = super().forward(features)
        return torch.cat([nn.functional.adaptive_avg_pool2d(features, output.shape[2:]), output], 1)


def _tiny_mobilenet():
    # The pooled output of the convolutions (576 features) transfers better than the hidden layer
    # behind it; see pretraining/README.md.
    network = torchvision.models.mobilenet_v3_small(num_classes=1)
    network.classifier = nn.Identity()
    return Headless(network, ("classifier.",))


def _tiny_resnet():
    # The pooled outputs of the last two stages (256 + 512 features) transfer better than the last
    # one alone.
    headless = behead(ResNet(BasicBlock, [1, 2, 2, 1], num_classes=1))
    headless.network.layer4 = _WithInput(*headless.network.layer4)
    return headless


#: How each network is built, and the width of its embedding.
_NETWORKS = {"tiny_mobilenet": (_tiny_mobilenet, 576), "tiny_resnet": (_tiny_resnet, 768)}


def names():
    return list(_NETWORKS)


def matches(backbone):
    return backbone in _NETWORKS


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
    return BackboneSpec(
        name,
        label,
        _fingerprint(name, weights),
        _NETWORKS[name][1],
        preprocessing,
        license=license(name) if label == "bundled" else None,
    )


def fingerprint(spec):
    return _fingerprint(spec.name, spec.weights)


def _fingerprint(name, weights):
    family = f"sktransfer:{_NETWORKS[name][1]}"
    if weights is None:
        return random_fingerprint(family, name)
    return f"{family}:{name}:sha256={file_digest(_file(name, weights))}"


def load(spec):
    # Building on "meta" skips most of the work where a file overwrites the weights anyway.
    device = torch.device("cpu" if spec.weights is None else "meta")
    with building(random=spec.weights is None), device:
        headless = _NETWORKS[spec.name][0]()
    if spec.weights is None:
        return headless.network
    headless.network.to_empty(device="cpu")
    return fill(headless, _file(spec.name, spec.weights), spec.name)


def _file(name, weights):
    if weights in (None, "DEFAULT", "bundled"):
        return _FOLDER / f"{name}.safetensors"
    return Path(weights)


def _preprocessing(name, file):
    """Read the preprocessing from the header of the weights file.

    A file without a header, such as a ``.pth``, uses that of the bundled file.
    """
    for source in (file, _file(name, None)):
        preprocessing = _read_preprocessing(source, file_digest(source))
        if preprocessing is not None:
            return preprocessing
    raise WeightsError(f"The header of {str(source)!r} is missing.\nHint: reinstall sktransfer.")


@lru_cache(maxsize=256)
def _read_preprocessing(file, digest):
    """Read the header, once for each content of the file."""
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"The weights file {str(file)!r} is damaged: {error}.") from error
    if "image_size" not in header:
        return None
    try:
        channels = {
            key: tuple(float(number) for number in re.findall(r"[-+.\deE]+", header[key]))
            for key in ("mean", "std")
            if key in header
        }
        return Preprocessing(
            int(header["image_size"]),
            int(header["resize_size"]) if header.get("resize_size") else None,
            header.get("interpolation", "bilinear"),
            **channels,
        )
    except ValueError as error:
        raise WeightsError(
            f"The header of {str(file)!r} describes no valid preprocessing: {error} The header is "
            f"{header}."
        ) from error
