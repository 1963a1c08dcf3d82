from ._loading import load_backbone, shared_network, warn_if_random
from ._registry import list_backbones, recommended_backbones, resolve_backbone
from ._spec import MAX_IMAGE_SIZE, BackboneSpec, Preprocessing, same_weights
from ._stages import backbone_stages, split_backbone

__all__ = [
    "MAX_IMAGE_SIZE",
    "BackboneSpec",
    "Preprocessing",
    "backbone_stages",
    "list_backbones",
    "load_backbone",
    "recommended_backbones",
    "resolve_backbone",
    "same_weights",
    "shared_network",
    "split_backbone",
    "warn_if_random",
]
