"""Texts that tell values apart, the same in each process: for names under which things are kept."""

import sys
from collections import defaultdict
from enum import Enum
from functools import partial, singledispatch
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["NoTextError", "canonical", "full_name"]

#: What every module has and does not compute with: its hooks, above all.
_MACHINERY = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules", "training"}


class NoTextError(ValueError):
    """No text tells what a value does; the message says where it is and what it is."""


@singledispatch
def canonical(value, where):
    """Return nested tuples of texts that are equal only for equal values.

    Parameters
    ----------
    value : object
        None, a number, text, array, tensor, container of these, a module, or a class or function
        that can be imported by name.
    where : str
        What it is, for the error.

    Returns
    -------
    str or tuple
        The same in each process.

    Raises
    ------
    NoTextError
        If no text tells what it or something in it does, such as a lambda.
    """
    raise NoTextError(f"{where} is {value!r}")


@canonical.register(type(None))
@canonical.register(bool)
@canonical.register(int)
@canonical.register(float)
@canonical.register(complex)
@canonical.register(str)
@canonical.register(bytes)
@canonical.register(torch.dtype)
@canonical.register(torch.device)
@canonical.register(PurePath)
def _(value, where):
    return repr(value)


@canonical.register
def _(value: Enum, where):
    return full_name(type(value)), str(value.name)


@canonical.register(np.ndarray)
@canonical.register(np.generic)
def _(value, where):
    if value.dtype.hasobject:
        return "array", str(value.shape), canonical(value.tolist(), where)
    return "array", str(value.dtype), str(value.shape), _digest(value.tobytes())


@canonical.register
def _(value: Tensor, where):
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    shape = str(tuple(value.shape))
    return full_name(type(value)), str(value.dtype), shape, _digest(data.tobytes())


@canonical.register
def _(value: dict, where):
    items = [(canonical(key, where), canonical(held, where)) for key, held in value.items()]
    return "dict", *items


@canonical.register
def _(value: defaultdict, where):
    return "defaultdict", canonical(value.default_factory, where), canonical(dict(value), where)


@canonical.register(list)
@canonical.register(tuple)
def _(value, where):
    return full_name(type(value)), *(canonical(held, where) for held in value)


@canonical.register(set)
@canonical.register(frozenset)
def _(value, where):
    return full_name(type(value)), *sorted((canonical(held, where) for held in value), key=repr)


@canonical.register
def _(value: partial, where):
    return "partial", *(canonical(v, where) for v in (value.func, value.args, value.keywords))


@canonical.register
def _(value: nn.Module, where):
    name = canonical(type(value), where)
    attributes = {n: held for n, held in vars(value).items() if n not in _MACHINERY}
    return name, *(
        (n, canonical(attributes[n], f"`{n}` of {type(value).__name__}"))
        for n in sorted(attributes)
    )


@canonical.register(type)
@canonical.register(FunctionType)
@canonical.register(BuiltinFunctionType)
def _(value, where):
    if not _is_importable(value):
        return canonical.dispatch(object)(value, where)
    return full_name(value)


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


def full_name(value):
    return f"{value.__module__}.{value.__qualname__}"


def _digest(data):
    return blake2b(data, digest_size=20).hexdigest()
