"""Several views of each image: augmentations, and estimators that use all views."""

from ._augmentations import resolve_augmentation as resolve_augmentation
from ._multiview import MultiViewClassifier, MultiViewRegressor
from ._views import MAX_VIEWS as MAX_VIEWS
from ._views import Views as Views
from ._views import check_augmentation as check_augmentation

__all__ = ["MultiViewClassifier", "MultiViewRegressor"]
