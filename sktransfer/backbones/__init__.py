"""Backbones: which networks there are, and how they are loaded."""

from ._registry import (
    BackboneSpec,
    Preprocessing,
    backbone_stages,
    list_backbones,
    load_backbone,
    resolve_backbone,
    split_backbone,
    warn_if_random,
)

__all__ = [
    "BackboneSpec",
    "Preprocessing",
    "backbone_stages",
    "list_backbones",
    "load_backbone",
    "resolve_backbone",
    "split_backbone",
    "warn_if_random",
]
