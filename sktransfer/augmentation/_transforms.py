"""Transforms of a user's own: what tells one from another, and estimators that hold one."""

import copy
from hashlib import blake2b

from .._utils._canonical import NoTextError, canonical, full_name

__all__ = ["HoldsAugmentation", "transform_key"]


def transform_key(transform):
    """Return a text that is equal only for transforms that do the same.

    Parameters
    ----------
    transform : torch.nn.Module
        Transform of a user's own.

    Returns
    -------
    str
        Name of its class, and a digest of all attributes of it and of the transforms inside.

    Raises
    ------
    ValueError
        If an attribute is something of which no text says what it does.
    """
    try:
        text = repr(canonical(transform, "the augmentation"))
    except NoTextError as error:
        raise ValueError(
            f"No text tells what the augmentation does: {error}. Views are stored under all that a "
            "augmentation depends on, which may be numbers, texts, tensors, containers of these, "
            "transforms, and classes and functions that can be imported by name. Write a class of "
            "your own at the top level of a module, class MyTransform(v2.Transform), with such "
            "attributes."
        ) from None
    return f"{full_name(type(transform))} {blake2b(text.encode(), digest_size=20).hexdigest()}"


class HoldsAugmentation:
    """Mixin for an estimator whose parameter ``augmentation`` may be a transform.

    Some transforms of torchvision have a method ``get_params`` of another meaning, which
    scikit-learn takes for its own wherever it goes through the parameters of an estimator.
    """

    def get_params(self, deep=True):
        """Return the parameters of this classifier and, with `deep`, of estimators inside.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return those of estimators inside as well, as ``NAME__PARAMETER``.

        Returns
        -------
        dict
            Values by name.
        """
        parameters = super(HoldsAugmentation, self._without_augmentation()).get_params(deep=deep)
        return parameters | {"augmentation": self.augmentation}

    def __sklearn_clone__(self):
        cloned = super(HoldsAugmentation, self._without_augmentation()).__sklearn_clone__()
        cloned.augmentation = copy.deepcopy(self.augmentation)
        return cloned

    def _without_augmentation(self):
        without = copy.copy(self)
        without.augmentation = None
        return without
