"""Backbones: pretrained networks without their classifying layer.

For the rest of the package, and not public: `same_weights`, `shared_network`, `warn_if_random`.
"""

from ._loading import load_backbone
from ._loading import shared_network as shared_network
from ._loading import warn_if_random as warn_if_random
from ._registry import list_backbones, recommended_backbones, resolve_backbone
from ._spec import BackboneSpec, Preprocessing
from ._spec import same_weights as same_weights
from ._stages import backbone_stages, split_backbone

__all__ = [
    "BackboneSpec",
    "Preprocessing",
    "backbone_stages",
    "list_backbones",
    "load_backbone",
    "recommended_backbones",
    "resolve_backbone",
    "split_backbone",
]
