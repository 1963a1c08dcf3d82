"""The sources of backbones, and which of them knows a backbone.

Each source is a module with the same functions: ``names()`` lists its names, ``license(name)``
returns the license of the default weights of one of them, ``matches(backbone)`` tells whether a
name or a module belongs to it, ``resolve(backbone, weights, image_size, pooling)`` returns the
specification without loading anything, ``fingerprint(spec)`` computes its fingerprint, and
``load(spec)`` returns the network with its weights. A source without tokens ignores ``pooling``.
"""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from importlib import import_module
from numbers import Integral
from typing import TYPE_CHECKING

from .._utils._fork import IMPORTING
from .._utils._sklearn import Interval, StrOptions, checked
from .._utils._typing import FilePath
from ._spec import MAX_IMAGE_SIZE, BackboneSpec, unknown_backbone

if TYPE_CHECKING:
    import torch

#: In the order of the listing. To add a source, add its module.
_SOURCES = ("_bundled", "_packaged", "_torchvision", "_timm", "_custom")


def sources():
    """Yield the sources. Some import torch, so each is imported when it is its turn."""
    for name in _SOURCES:
        with IMPORTING:
            source = import_module(f".{name}", __package__)
        yield source


def source_of(spec):
    """Return the source of a specification."""
    backbone = spec.name if spec.module is None else spec.module
    return next(source for source in sources() if source.matches(backbone))


#: Licenses that allow any use, commercial use included, if the authors are named.
_PERMISSIVE = {"apache-2.0", "bsd-3-clause", "cc-by-4.0", "mit"}


@checked(filter=[str, None], license=[StrOptions({"permissive"}), None])
def list_backbones(filter: str | None = None, *, license: str | None = None) -> list[str]:
    """List the names of all backbones that can be used here.

    Parameters
    ----------
    filter : str or None, default=None
        A part of the name, or a pattern with ``*`` and ``?``. None lists all.
    license : {"permissive"} or None, default=None
        ``"permissive"`` lists only backbones whose default weights have the license Apache 2.0,
        BSD, CC BY or MIT. What is known of a license is in ``resolve_backbone(name).license``.

    Returns
    -------
    list of str
        The bundled ones first, then those with installed weights (extra ``imagenet``), then those
        of torchvision, then those of timm (as ``"timm:NAME"``, if timm is installed).

    Examples
    --------
    >>> from sktransfer.backbones import list_backbones
    >>> list_backbones("tiny_*")
    ['tiny_mobilenet', 'tiny_resnet']
    >>> list_backbones("vgg1?")
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    >>> list_backbones("vit_h*", license="permissive")
    []
    """
    names = [
        name
        for source in sources()
        for name in source.names()
        if license is None or source.license(name) in _PERMISSIVE
    ]
    if filter is None:
        return names
    if any(sign in filter for sign in "*?["):
        return fnmatch.filter(names, filter)
    return [name for name in names if filter in name]


_CONVNEXT = "timm:convnext_tiny.in12k_ft_in1k"
_CONVNEXT_BASE = "timm:convnext_base.clip_laion2b_augreg_ft_in12k_in1k"
_CLIP = "timm:vit_base_patch16_clip_224.laion2b_ft_in12k_in1k"
_EVA = "timm:eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"
#: Backbones by device and speed, first with permissive licenses, then with any. The table in
#: docs/backbones.md has the figures and their sources.
_RECOMMENDED = {
    ("cpu", "fast"): (["efficientnet_lite0"], ["efficientnet_lite0"]),
    ("cpu", "balanced"): (
        ["efficientnet_lite0", "efficientnet_lite2"],
        ["efficientnet_lite2", "timm:vit_small_patch16_dinov3"],
    ),
    ("cpu", "best"): ([_CONVNEXT, _CLIP], [_CONVNEXT, "timm:vit_base_patch16_dinov3"]),
    ("cuda", "fast"): ([_CONVNEXT], ["timm:vit_small_patch16_dinov3"]),
    ("cuda", "balanced"): (
        [_CLIP, _CONVNEXT_BASE],
        ["timm:vit_base_patch16_dinov3", _CONVNEXT_BASE],
    ),
    ("cuda", "best"): (
        ["timm:vit_large_patch14_reg4_dinov2", _EVA],
        ["timm:vit_large_patch16_dinov3", _EVA],
    ),
}


@checked(
    device=[StrOptions({"cpu", "cuda"})],
    license=[StrOptions({"permissive"}), None],
    speed=[StrOptions({"fast", "balanced", "best"})],
)
def recommended_backbones(
    device: str = "cpu", *, license: str | None = "permissive", speed: str = "balanced"
) -> list[str]:
    """Recommend backbones for a stack.

    Parameters
    ----------
    device : {"cpu", "cuda"}, default="cpu"
        Where the backbones run.
    license : {"permissive"} or None, default="permissive"
        Which licenses the weights may have, as for :func:`list_backbones`. None allows any, such
        as that of DINOv3.
    speed : {"fast", "balanced", "best"}, default="balanced"
        Whether to prefer speed or accuracy.

    Returns
    -------
    list of str
        Names for :func:`~sktransfer.make_transfer_stack`. They need the extra ``imagenet`` or
        ``timm``. The user guide lists their accuracy, speed and sources.

    Examples
    --------
    >>> from sktransfer.backbones import recommended_backbones
    >>> recommended_backbones()
    ['efficientnet_lite0', 'efficientnet_lite2']
    """
    return list(_RECOMMENDED[device, speed][license is None])


@checked(
    image_size=[Interval(Integral, 1, MAX_IMAGE_SIZE, closed="both"), None],
    pooling=[StrOptions({"auto", "cls", "mean", "cls+mean"})],
    resize=[StrOptions({"auto", "crop", "squash"})],
)
def resolve_backbone(
    backbone: str | torch.nn.Module,
    weights: FilePath | None = "DEFAULT",
    image_size: int | None = None,
    *,
    pooling: str = "auto",
    resize: str = "auto",
) -> BackboneSpec:
    """Check a choice of backbone, weights and preprocessing without loading the network.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A name of :func:`~sktransfer.list_backbones`, or a custom module that maps float32 images
        (n, 3, height, width) to embeddings (n, n_features). A custom module may have an attribute
        ``preprocessing`` (:class:`Preprocessing`); otherwise its images are resized to 256 pixels,
        cropped to 224 and normalized with ImageNet's mean and standard deviation.
    weights : str, path-like or None, default="DEFAULT"
        ``"DEFAULT"`` for the best official weights, the name of other official weights
        (``"IMAGENET1K_V1"``; a tag for timm), the path of a ``.pth``, ``.pt`` or ``.safetensors``
        file, or None for random initialization.
    image_size : int or None, default=None
        Side of the images in pixels, from 1 to 4096. None takes the size of the weights.
    pooling : {"auto", "cls", "mean", "cls+mean"}, default="auto"
        Which tokens are the embedding, as for :class:`~sktransfer.ImageEmbedder`.
    resize : {"auto", "crop", "squash"}, default="auto"
        How an image becomes a square, as for :class:`~sktransfer.ImageEmbedder`.

    Returns
    -------
    BackboneSpec
        What the name and the weights stand for on this machine.

    Raises
    ------
    UnknownBackboneError
        No backbone has that name.
    MissingExtraError
        The package with the network or its weights is not installed.
    WeightsError
        There are no such weights, or the weights file cannot be read.
    ValueError
        The network cannot take images of ``image_size``, or lacks the tokens for ``pooling``.

    Examples
    --------
    >>> from sktransfer.backbones import resolve_backbone
    >>> spec = resolve_backbone("mobilenet_v2", weights="IMAGENET1K_V1")
    >>> spec.n_features
    1280
    >>> spec.fingerprint
    'torchvision:mobilenet_v2:IMAGENET1K_V1:b0353104'
    """
    is_module = hasattr(backbone, "state_dict") and not isinstance(backbone, type)
    if not (is_module or isinstance(backbone, str)):
        raise TypeError(
            "A backbone must be a name or a torch.nn.Module, got "
            f"{backbone if isinstance(backbone, type) else type(backbone)}."
        )
    for source in sources():
        if source.matches(backbone):
            spec = source.resolve(backbone, weights, image_size, pooling)
            if pooling not in ("auto", spec.pooling):
                raise ValueError(
                    f"{spec.name!r} has no tokens, so pooling={pooling!r} has no meaning.\nHint: "
                    'pass pooling="auto", or a vision transformer of torchvision or timm.'
                )
            size, resize_size = spec.preprocessing.image_size, spec.preprocessing.resize_size
            resize_size = {"auto": resize_size, "crop": resize_size or size}.get(resize)
            preprocessing = replace(spec.preprocessing, resize_size=resize_size)
            fingerprint = spec.fingerprint or source.fingerprint(spec)
            return replace(spec, preprocessing=preprocessing, fingerprint=fingerprint)
    raise unknown_backbone(backbone, list_backbones())
