"""Parameters of estimators that are modules."""

import copy

from sklearn.base import BaseEstimator

#: Largest number of views of an image.
MAX_VIEWS = 10_000


class HoldsModules:
    """Mixin for image estimators, whose ``backbone`` and ``augmentation`` may be modules.

    Some torchvision transforms have a static method ``get_params`` with another meaning, which
    scikit-learn mistakes for that of an estimator. A custom backbone is never changed here, so
    clones share it: a copy of its own in each fold would have to be digested again.
    """

    def get_params(self, deep=True):
        params = super(HoldsModules, self._without_modules()).get_params(deep=deep)
        return params | {"backbone": self.backbone, "augmentation": self.augmentation}

    get_params.__doc__ = BaseEstimator.get_params.__doc__

    def __sklearn_clone__(self):
        cloned = super(HoldsModules, self._without_modules()).__sklearn_clone__()
        cloned.backbone = self.backbone
        cloned.augmentation = copy.deepcopy(self.augmentation)
        return cloned

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags

    def _without_modules(self):
        # `copy.copy` would take what a pickle holds, which lacks callbacks.
        without = object.__new__(type(self))
        vars(without).update(vars(self), backbone=None, augmentation=None)
        return without
