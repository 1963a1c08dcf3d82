"""Backbones as sequences of stages, to train the upper ones."""

from __future__ import annotations

import copy
from numbers import Integral

from torch import nn
from torchvision import models

from .._utils._sklearn import Interval, checked

_POOLING = (nn.MaxPool2d, nn.AvgPool2d)
#: What networks call the container of their blocks.
_CONTAINERS = ("features", "blocks", "layers", "stages", "encoder")


@checked(network=[nn.Module])
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


@checked(network=[nn.Module], trainable_stages=[Interval(Integral, 0, None, closed="left")])
def split_backbone(network: nn.Module, trainable_stages: int) -> tuple[nn.Module, nn.Module]:
    """Split a backbone into a frozen lower and a trainable upper part.

    Parameters
    ----------
    network : torch.nn.Module
        As :func:`sktransfer.backbones.load_backbone` returns it. It is not changed.
    trainable_stages : int
        Number of stages to train, from 0 to all; the last ones of :func:`backbone_stages`.

    Returns
    -------
    lower : torch.nn.Module or None
        The first stages, shared with ``network`` and as frozen as it is: ``upper(lower(x))``
        equals ``network(x)``. None if the network is not a sequence of stages.
    upper : torch.nn.Module
        A copy of the last stages that requires gradients. If ``lower`` is None, a copy of the
        whole network that requires gradients in its last stages.

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
    if trainable_stages > len(stages):
        raise ValueError(
            f"trainable_stages={trainable_stages}, but the backbone has only {len(stages)} stages: "
            f"{[name for name, _ in stages]}. Pass a number from 0 to {len(stages)}."
        )
    if trainable_stages == 0:
        return network, nn.Identity()
    if trainable_stages == len(stages):
        return nn.Identity(), copy.deepcopy(network).requires_grad_(True)
    if _sequence(network) is None:
        upper = copy.deepcopy(network).requires_grad_(False)
        for _, stage in backbone_stages(upper)[-trainable_stages:]:
            stage.requires_grad_(True)
        return None, upper
    modules = [module for _, module in stages]
    lower = nn.Sequential(*modules[:-trainable_stages])
    lower.training = network.training  # of the new container only: its modules are shared
    upper = copy.deepcopy(nn.Sequential(*modules[-trainable_stages:])).requires_grad_(True)
    return lower, upper.train(network.training)


#: Modules for what a network computes between its submodules.
_STEPS = {"|flatten": nn.Flatten, "|pool": lambda: nn.AdaptiveAvgPool2d(1), "|relu": nn.ReLU}

#: Steps of networks that are a sequence. ``a`` is a submodule and ``a+b`` several in one step;
#: ``a.*`` are the submodules of a container, and ``a/*`` the same, joined up to each pooling.
#: Networks of timm, whose classifier is an identity, are named so that timm is not imported.
_FAMILIES = {
    models.AlexNet: "features/* avgpool |flatten classifier",
    models.ConvNeXt: "features.* avgpool classifier |flatten",
    models.DenseNet: "features/* |relu |pool |flatten classifier",
    models.EfficientNet: "features.* avgpool |flatten classifier",
    models.MNASNet: "layers.* |pool |flatten classifier",
    models.MaxVit: "stem blocks.* classifier",
    models.MobileNetV2: "features.* |pool |flatten classifier",
    models.MobileNetV3: "features.* avgpool |flatten classifier",
    models.RegNet: "stem trunk_output.* avgpool |flatten fc",
    models.ResNet: "conv1+bn1+relu+maxpool layer1 layer2 layer3 layer4 avgpool |flatten fc",
    models.ShuffleNetV2: "conv1+maxpool stage2 stage3 stage4 conv5 |pool |flatten fc",
    models.SqueezeNet: "features.* classifier |flatten",
    models.SwinTransformer: "features.* norm permute avgpool flatten head",
    models.VGG: "features/* avgpool |flatten classifier",
    "timm.models.efficientnet.EfficientNet": "conv_stem+bn1 blocks.* conv_head+bn2 global_pool",
    "timm.models.resnet.ResNet": "conv1+bn1+act1+maxpool layer1 layer2 layer3 layer4 global_pool",
}


def _sequence(network):
    """Return (name, module) of the steps that make up ``network``; None if it is not a sequence."""
    if type(network) is nn.Sequential:
        return list(network._modules.items())  # a module that occurs twice, both times
    kind = type(network)
    family = _FAMILIES.get(kind) or _FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
    if family is None:
        return None
    steps = []
    for step in family.split():
        name = step.rstrip("/.*")
        if step in _STEPS:
            steps.append((step, _STEPS[step]()))
        elif name != step:
            inside = getattr(network, name)._modules.items()
            blocks = [(f"{name}.{key}", module) for key, module in inside]
            steps += _joined(blocks) if "/" in step else blocks
        elif "+" in step:
            parts = step.split("+")
            steps.append((parts[0], nn.Sequential(*(getattr(network, part) for part in parts))))
        else:
            steps.append((step, getattr(network, step)))
    return steps


def _joined(blocks):
    """Join blocks up to each one that pools."""
    stages, is_open = [], False
    for name, module in blocks:
        if not is_open:
            stages.append((name, []))
        stages[-1][1].append(module)
        is_open = not any(isinstance(part, _POOLING) for part in (module, *module.children()))
    return [(name, nn.Sequential(*modules)) for name, modules in stages]


def _merge(steps, container):
    """Join each step without parameters to the stage before it, or to the first stage."""
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
    """Return the submodules of any network in order, those inside containers of blocks too."""
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
