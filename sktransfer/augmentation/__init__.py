"""Several views of each image: augmentations, and estimators that use all views."""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

__all__ = ["MultiViewClassifier", "MultiViewRegressor"]
