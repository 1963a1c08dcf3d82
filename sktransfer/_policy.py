"""Transforms of a user's own: what tells one from another, and estimators that hold one."""

import copy
import sys
from collections import defaultdict
from enum import Enum
from functools import singledispatch
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["HoldsPolicy", "transform_key"]

#: What every module has and does not compute with: its hooks, above all.
_MACHINERY = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules", "training"}


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
    text = repr(_canonical(transform, "the policy"))
    return f"{_name(type(transform))} {blake2b(text.encode(), digest_size=20).hexdigest()}"


@singledispatch
def _canonical(value, where):
    """Return nested tuples of texts that are equal only for equal values at ``where``."""
    raise ValueError(
        f"No text tells what the policy does: {where} is {value!r}. Views are stored under "
        "all that a policy depends on, which may be numbers, texts, tensors, containers of these, "
        "transforms, and classes and functions that can be imported by name. Write a class of your "
        "own at the top level of a module, class MyTransform(v2.Transform), with such attributes."
    )


@_canonical.register(type(None))
@_canonical.register(bool)
@_canonical.register(int)
@_canonical.register(float)
@_canonical.register(complex)
@_canonical.register(str)
@_canonical.register(bytes)
@_canonical.register(torch.dtype)
@_canonical.register(torch.device)
@_canonical.register(PurePath)
def _(value, where):
    return repr(value)


@_canonical.register
def _(value: Enum, where):
    return _name(type(value)), str(value.name)


@_canonical.register(np.ndarray)
@_canonical.register(np.generic)
def _(value, where):
    if value.dtype.hasobject:
        return "array", str(value.shape), _canonical(value.tolist(), where)
    return "array", str(value.dtype), str(value.shape), _digest(value.tobytes())


@_canonical.register
def _(value: Tensor, where):
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return _name(type(value)), str(value.dtype), str(tuple(value.shape)), _digest(data.tobytes())


@_canonical.register
def _(value: dict, where):
    items = [(_canonical(key, where), _canonical(held, where)) for key, held in value.items()]
    return "dict", *items


@_canonical.register
def _(value: defaultdict, where):
    return "defaultdict", _canonical(value.default_factory, where), _canonical(dict(value), where)


@_canonical.register(list)
@_canonical.register(tuple)
def _(value, where):
    return _name(type(value)), *(_canonical(held, where) for held in value)


@_canonical.register(set)
@_canonical.register(frozenset)
def _(value, where):
    return _name(type(value)), *sorted((_canonical(held, where) for held in value), key=repr)


@_canonical.register
def _(value: nn.Module, where):
    name = _canonical(type(value), where)
    attributes = {n: held for n, held in vars(value).items() if n not in _MACHINERY}
    return name, *(
        (n, _canonical(attributes[n], f"`{n}` of {type(value).__name__}"))
        for n in sorted(attributes)
    )


@_canonical.register(type)
@_canonical.register(FunctionType)
@_canonical.register(BuiltinFunctionType)
def _(value, where):
    if not _is_importable(value):
        return _canonical.dispatch(object)(value, where)
    return _name(value)


def _is_importable(value):
    """Whether the name of a class or function leads to it, and to nothing else."""
    if "<" in value.__qualname__:  # <lambda>, or made by a function: variables may be in it
        return False
    if value.__module__ == "__main__" or isinstance(value, type):
        return True  # that of a worker process may lack it
    found = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _name(value):
    return f"{value.__module__}.{value.__qualname__}"


def _digest(data):
    return blake2b(data, digest_size=20).hexdigest()


class HoldsPolicy:
    """Mixin for an estimator whose parameter ``policy`` may be a transform.

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
        parameters = super(HoldsPolicy, self._without_policy()).get_params(deep=deep)
        return parameters | {"policy": self.policy}

    def __sklearn_clone__(self):
        cloned = super(HoldsPolicy, self._without_policy()).__sklearn_clone__()
        cloned.policy = copy.deepcopy(self.policy)
        return cloned

    def _without_policy(self):
        without = copy.copy(self)
        without.policy = None
        return without
