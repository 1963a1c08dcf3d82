from ._augmentations import resolve_augmentation
from ._multiview import MultiViewClassifier, MultiViewRegressor
from ._views import Views, check_augmentation

__all__ = [
    "MultiViewClassifier",
    "MultiViewRegressor",
    "Views",
    "check_augmentation",
    "resolve_augmentation",
]
