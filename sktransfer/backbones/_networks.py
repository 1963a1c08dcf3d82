"""Building networks without their classifying layer: torchvision's, timm's and the bundled ones."""

import contextlib
import functools
import importlib.util
import math
import sys
import warnings
from typing import NamedTuple

import torch
import torchvision.models
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import BasicBlock, ResNet

from .._utils._threads import own_generators
from ..exceptions import MissingExtraError, WeightsError
from ._weights import fit_state, read_state
from ._widths import TORCHVISION_WIDTHS

#: Seed of networks with random weights.
RANDOM_SEED = 0
#: Torchvision networks whose image size is fixed when they are built, and the parameter for it.
FIXED_SIZE = {
    **dict.fromkeys(["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"], "image_size"),
    "maxvit_t": "input_size",
}


class Headless(NamedTuple):
    """A network without its classifying layer, and the prefixes of the tensors that went."""

    network: nn.Module
    dropped: tuple


# ------------------------------------------------------------------------------- random state


class _WithoutInitialisation(TorchFunctionMode):
    """Skip the initialisers that let themselves be skipped: a weights file overwrites it all."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextlib.contextmanager
def _building(random):
    """Build with seeded weights, or for weights to come; the random state stays the caller's."""
    with own_generators(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say about their own construction
        if random:
            torch.manual_seed(RANDOM_SEED)
            yield
        else:
            with _WithoutInitialisation():
                yield


# -------------------------------------------------------------------------------- torchvision


def torchvision_names():
    """Names of torchvision's classification networks, sorted."""
    offered = torchvision.models.list_models(module=torchvision.models)
    return sorted(TORCHVISION_WIDTHS.keys() & set(offered))


def build_torchvision(name, image_size, weights):
    """Build a torchvision network without its last layer and fill it from ``weights``.

    Parameters
    ----------
    name : str
        As torchvision registers it.
    image_size : int
        Side of the images, in pixels; some transformers are built for one size.
    weights : str, Path or None
        Weights file; None for random ones.
    """
    with _building(random=weights is None):
        options = _torchvision_options(name, image_size, pretrained=weights is not None)
        network = torchvision.models.get_model(name, weights=None, **options)
    aux = ("aux1.", "aux2.", "AuxLogits.") if "aux_logits" in options else ()
    return _fill(behead(network, aux), weights, name)


def _torchvision_options(name, image_size, pretrained):
    if name in ("googlenet", "inception_v3"):
        # Torchvision's weights of these two come from another library with another scaling.
        return {"aux_logits": False, "init_weights": False, "transform_input": pretrained}
    if name == "maxvit_t":
        return {"input_size": (image_size, image_size)}
    return {FIXED_SIZE[name]: image_size} if name in FIXED_SIZE else {}


def behead(network, also_dropped=()):
    """Put an identity in the place of the last Linear layer, in place."""
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if linear:
        path, replacement = linear[-1], nn.Identity()
    else:  # SqueezeNet classifies with a convolution: its embedding is the pooled feature
        path, replacement = "classifier", nn.AdaptiveAvgPool2d(1)
    network.set_submodule(path, replacement)
    return Headless(network, (f"{path}.", *also_dropped))


def _fill(headless, weights, name):
    """Load a weights file, or keep the random weights when there is none."""
    if weights is not None:
        what = f"{str(weights)!r} does not fit {name!r}"
        fit_state(headless.network, read_state(weights), headless.dropped, what)
    return headless.network


# ------------------------------------------------------------------------------------ bundled


class _WithInput(nn.Sequential):
    """A stage that hands on what came in, pooled to its output's size, beside its output."""

    def forward(self, features):
        output = super().forward(features)
        return torch.cat([nn.functional.adaptive_avg_pool2d(features, output.shape[2:]), output], 1)


def _tiny_mobilenet():
    # The pooled output of the convolutions (576 wide) transfers better than the hidden layer
    # behind it: pretraining/README.md has the figures.
    network = torchvision.models.mobilenet_v3_small(num_classes=1)
    network.classifier = nn.Identity()
    return Headless(network, ("classifier.",))


def _tiny_resnet():
    # The pooled outputs of the last two stages (256 + 512 wide) transfer better than the last
    # one's alone.
    headless = behead(ResNet(BasicBlock, [1, 2, 2, 1], num_classes=1))
    headless.network.layer4 = _WithInput(*headless.network.layer4)
    return headless


_BUNDLED = {"tiny_mobilenet": _tiny_mobilenet, "tiny_resnet": _tiny_resnet}
BUNDLED_WIDTHS = {"tiny_mobilenet": 576, "tiny_resnet": 768}


def build_bundled(name, weights):
    """Build a bundled network without its last layer and fill it from ``weights``."""
    # Without memory nothing is drawn, which is most of the time that building takes.
    device = torch.device("cpu" if weights is None else "meta")
    with _building(random=weights is None), device:
        headless = _BUNDLED[name]()
    if weights is not None:
        headless.network.to_empty(device="cpu")
    return _fill(headless, weights, name)


# --------------------------------------------------------------------------------------- timm


def has_timm():
    """Whether timm is installed (without importing it, which takes seconds)."""
    return importlib.util.find_spec("timm") is not None


def import_timm():
    """Import timm, or say which extra installs it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own deprecations
            import timm
    except ImportError as error:
        raise MissingExtraError(
            "Backbones whose names start with 'timm:' need timm.\n"
            "Hint: pip install 'sktransfer[timm]'"
        ) from error
    return timm


def timm_configuration(name):
    """Return what timm records about the weights of a network, as its ``PretrainedCfg``."""
    import_timm()
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name)


def timm_data(name):
    """Return timm's preprocessing of a network as the dictionary that ``timm.data`` makes."""
    import_timm()
    from timm.data import resolve_data_config

    configuration = timm_configuration(name)
    return resolve_data_config(pretrained_cfg=configuration.to_dict())


def timm_resize_size(image_size, crop_pct):
    """Shorter side before the crop, in pixels, as timm's own transforms compute it."""
    return math.floor(image_size / crop_pct)


@functools.lru_cache(maxsize=64)
def timm_width(name):
    """Width of the embedding of a timm network, read from the network without weights."""
    network = _create_timm(name, random=False)
    return getattr(network, "head_hidden_size", None) or network.num_features


def _create_timm(name, random):
    timm = import_timm()
    with _building(random):
        return timm.create_model(name, pretrained=False, num_classes=0)


def build_timm(name, weights):
    """Build a timm network without its classifier and fill it from a weights file."""
    network = _create_timm(name, random=weights is None)
    if weights is not None:
        classifiers = timm_configuration(name).classifier or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        dropped = tuple(f"{classifier}." for classifier in classifiers)
        state = _as_timm(network, read_state(weights))
        fit_state(network, state, dropped, f"{str(weights)!r} does not fit 'timm:{name}'")
    return network


def _as_timm(network, state):
    """Rename the tensors of an original checkpoint as timm does for this architecture."""
    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None or state.keys() >= network.state_dict().keys():
        return state
    return convert(state, network)


def build_pretrained_timm(name):
    """Build a timm network with weights from where timm keeps them (the Hugging Face hub)."""
    timm = import_timm()
    try:
        with _building(random=False):
            # With its classifier on, timm insists that every tensor is in the file.
            network = timm.create_model(name, pretrained=True)
            network.reset_classifier(0)
            return network
    except Exception as error:  # the hub's client raises many unrelated kinds
        raise WeightsError(_timm_hint(name, error)) from error


def _timm_hint(name, error):
    configuration = timm_configuration(name)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if configuration.hf_hub_id:
        file = configuration.hf_hub_filename or "model.safetensors"
        where = f"https://huggingface.co/{configuration.hf_hub_id}/resolve/main/{file}"
    else:
        where = configuration.url
    return (
        f"The weights of 'timm:{name}' cannot be had: {reason}\n"
        f"Hint: fetch {where} by other means, put it anywhere and pass its path as `weights`."
    )
