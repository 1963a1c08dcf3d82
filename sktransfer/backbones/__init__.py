"""Backbones: pretrained networks without their classifying layer.

Not public, but used by the rest of the package: `MAX_IMAGE_SIZE`, `same_weights`,
`shared_network`, `warn_if_random`.
"""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

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
