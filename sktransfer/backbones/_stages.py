"""Backbones as a sequence of stages, for training their upper part."""

from __future__ import annotations

import copy

from torch import nn
from torchvision import models

_POOLING = (nn.MaxPool2d, nn.AvgPool2d)
#: Names that networks give to the container of their blocks.
_CONTAINERS = ("features", "blocks", "layers", "stages", "encoder")


class _GlobalMean(nn.Module):
    """Mean over height and width, as MNASNet and ShuffleNet write it."""

    def forward(self, features):
        return features.mean([2, 3])


def backbone_stages(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Cut a backbone into its stages, from the images to the embedding.

    Parameters
    ----------
    network : torch.nn.Module
        As :func:`sktransfer.backbones.load_backbone` returns it.

    Returns
    -------
    list of (str, torch.nn.Module)
        Name and module of each stage that has parameters. The modules share their parameters with
        ``network``. Parameters that belong to no submodule (the position embedding of a vision
        transformer) are in no stage.

    Examples
    --------
    >>> from sktransfer.backbones import backbone_stages, load_backbone, resolve_backbone
    >>> from torchvision.models import resnet18
    >>> [name for name, _ in backbone_stages(resnet18())]
    ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'fc']
    """
    steps = _sequence(network)
    if steps is not None:
        return _merge(steps, lambda modules: nn.Sequential(*modules))
    return _merge(_children(network), nn.ModuleList)


def split_backbone(network: nn.Module, trainable_stages: int | str) -> tuple[nn.Module, nn.Module]:
    """Split a backbone into a frozen lower and a trainable upper part.

    Parameters
    ----------
    network : torch.nn.Module
        As :func:`sktransfer.backbones.load_backbone` returns it; it is not changed.
    trainable_stages : int
        How many of the last stages of :func:`backbone_stages` are to be trained, from 0 to all.

    Returns
    -------
    lower : torch.nn.Module or None
        The stages before, shared with ``network`` and as frozen as it is. ``upper(lower(x))``
        equals ``network(x)``. None when the network cannot be cut there.
    upper : torch.nn.Module
        A copy of the last stages that requires gradients; of the whole network, with gradients in
        its last stages only, when ``lower`` is None.

    Raises
    ------
    ValueError
        The network has fewer than ``trainable_stages`` stages.

    Examples
    --------
    >>> from sktransfer.backbones import split_backbone
    >>> from torchvision.models import resnet18
    >>> lower, upper = split_backbone(resnet18(), 2)
    >>> len(lower), len(upper)
    (4, 2)
    """
    stages = backbone_stages(network)
    if not 0 <= trainable_stages <= len(stages):
        raise ValueError(
            f"trainable_stages must be from 0 to {len(stages)} for this backbone, got "
            f"{trainable_stages}. Its stages are {[name for name, _ in stages]}."
        )
    if trainable_stages == 0:
        return network, nn.Identity()
    if trainable_stages == len(stages):
        return nn.Identity(), copy.deepcopy(network).requires_grad_(True)
    if _sequence(network) is None:
        return None, _partly_trainable(network, trainable_stages)
    modules = [module for _, module in stages]
    lower = nn.Sequential(*modules[:-trainable_stages])
    lower.training = network.training  # of the new container only: its modules are shared
    upper = copy.deepcopy(nn.Sequential(*modules[-trainable_stages:])).requires_grad_(True)
    return lower, upper.train(network.training)


def _partly_trainable(network, trainable_stages):
    whole = copy.deepcopy(network).requires_grad_(False)
    for _, module in backbone_stages(whole)[-trainable_stages:]:
        module.requires_grad_(True)
    return whole


# ------------------------------------------------------------------------- sequential families


def _sequence(network):
    """Steps whose composition is ``network``, or None for networks that are more than that."""
    steps = _FAMILIES.get(type(network), lambda network: None)(network)
    if type(network) is nn.Sequential:
        steps = _members(network)
    return steps


def _members(container):
    """Names and modules of a container, one that is there twice both times."""
    return list(container._modules.items())


def _named(network, *names):
    return [(name, getattr(network, name)) for name in names]


def _inside(network, name):
    """Children of a container, under their full names."""
    return [(f"{name}.{key}", module) for key, module in _members(getattr(network, name))]


def _flatten():
    return [("flatten", nn.Flatten())]


def _pool():
    return [("avgpool", nn.AdaptiveAvgPool2d(1))]


def _resnet(network):
    stem = [("conv1", nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool))]
    layers = _named(network, "layer1", "layer2", "layer3", "layer4", "avgpool")
    return stem + layers + _flatten() + _named(network, "fc")


def _regnet(network):
    blocks = _inside(network, "trunk_output")
    return (
        _named(network, "stem")
        + blocks
        + _named(network, "avgpool")
        + _flatten()
        + _named(network, "fc")
    )


def _shufflenet(network):
    stem = [("conv1", nn.Sequential(network.conv1, network.maxpool))]
    stages = _named(network, "stage2", "stage3", "stage4", "conv5")
    return [*stem, *stages, ("mean", _GlobalMean()), *_named(network, "fc")]


def _mnasnet(network):
    blocks = _inside(network, "layers")
    return [*blocks, ("mean", _GlobalMean()), *_named(network, "classifier")]


def _vgg(network):
    """AlexNet and VGG: a stage reaches from one pooling to the next."""
    blocks = _until(_inside(network, "features"), lambda _, module: isinstance(module, _POOLING))
    return blocks + _named(network, "avgpool") + _flatten() + _named(network, "classifier")


def _densenet(network):
    blocks = _until(
        _inside(network, "features"),
        lambda name, _: name.endswith("pool0") or ".transition" in name,
    )
    tail = [("relu", nn.ReLU()), *_pool(), *_flatten()]
    return blocks + tail + _named(network, "classifier")


def _mobilenet_v2(network):
    return _inside(network, "features") + _pool() + _flatten() + _named(network, "classifier")


def _mobilenet_v3(network):
    """MobileNetV3 and EfficientNet."""
    blocks = _inside(network, "features")
    return blocks + _named(network, "avgpool") + _flatten() + _named(network, "classifier")


def _convnext(network):
    blocks = _inside(network, "features")
    return blocks + _named(network, "avgpool", "classifier") + _flatten()


def _squeezenet(network):
    return _inside(network, "features") + _named(network, "classifier") + _flatten()


def _swin(network):
    blocks = _inside(network, "features")
    return blocks + _named(network, "norm", "permute", "avgpool", "flatten", "head")


def _maxvit(network):
    return _named(network, "stem") + _inside(network, "blocks") + _named(network, "classifier")


_FAMILIES = {
    models.AlexNet: _vgg,
    models.ConvNeXt: _convnext,
    models.DenseNet: _densenet,
    models.EfficientNet: _mobilenet_v3,
    models.MNASNet: _mnasnet,
    models.MaxVit: _maxvit,
    models.MobileNetV2: _mobilenet_v2,
    models.MobileNetV3: _mobilenet_v3,
    models.RegNet: _regnet,
    models.ResNet: _resnet,
    models.ShuffleNetV2: _shufflenet,
    models.SqueezeNet: _squeezenet,
    models.SwinTransformer: _swin,
    models.VGG: _vgg,
}


# ------------------------------------------------------------------------------------ grouping


def _until(steps, ends):
    """Join steps into one stage up to and with each one for which ``ends(name, module)``."""
    stages, open_ = [], []
    for name, module in steps:
        open_.append((name, module))
        if ends(name, module):
            stages.append(open_)
            open_ = []
    stages += [open_] if open_ else []
    return [(stage[0][0], nn.Sequential(*(m for _, m in stage))) for stage in stages]


def _merge(steps, container):
    """Give steps without parameters to the stage before them, the first ones to the first stage."""
    stages, leading = [], []
    for name, module in steps:
        if _has_parameters(module):
            stages.append((name, [*leading, module]))
            leading = []
        elif stages:
            stages[-1][1].append(module)
        else:
            leading.append(module)
    return [
        (name, modules[0] if len(modules) == 1 else container(modules)) for name, modules in stages
    ]


def _children(module, prefix=""):
    """Submodules in order, with the containers of blocks opened; for any network."""
    found = []
    for name, child in module.named_children():
        if name in _CONTAINERS and _has_blocks(child):
            found += _children(child, f"{prefix}{name}.")
        else:
            found.append((prefix + name, child))
    if not prefix and len(found) == 1 and _has_blocks(found[0][1]):
        return _children(found[0][1], f"{found[0][0]}.")
    return found


def _has_blocks(module):
    return any(map(_has_parameters, module.children()))


def _has_parameters(module):
    return any(True for _ in module.parameters())
