"""Deterministic cache keys for Python objects."""

import pickle
from types import FunctionType

import torch
from joblib.hashing import NumpyHasher
from torch import nn

#: Attributes of every module that do not describe what it computes: hooks and the like.
_INTERNAL = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}


def hash_value(value):
    """Return 40 hexadecimal digits that are the same for equal values, in every process.

    Classes and functions count by name. What has no stable identity, such as a lambda or an open
    file, is a ValueError.
    """
    try:
        return _Hasher(hash_name="sha1").hash(value)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        reason = str(error.args[0] if error.args else error).strip()
        raise ValueError(f"no stable key describes it ({reason})") from error


class _Hasher(NumpyHasher):
    """joblib's hasher, extended to tensors and modules; only values count, not object identity."""

    def __init__(self, hash_name):
        super().__init__(hash_name=hash_name)
        self._open = []  # modules being hashed, to detect cycles

    def save(self, obj):
        if isinstance(obj, torch.Tensor):
            data = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            super().save((type(obj).__qualname__, str(obj.dtype), tuple(obj.shape), data))
        elif isinstance(obj, nn.Module) and id(obj) in self._open:
            super().save(("cycle", len(self._open) - self._open.index(id(obj))))
        elif isinstance(obj, nn.Module):
            self._open.append(id(obj))
            settings = {name: held for name, held in vars(obj).items() if name not in _INTERNAL}
            super().save((type(obj), settings))
            self._open.pop()
        elif isinstance(obj, FunctionType) and "<" in obj.__qualname__:
            # It may use variables of an outer function.
            raise pickle.PicklingError(f"{obj.__qualname__} cannot be imported by name")
        else:
            super().save(obj)

    def memoize(self, obj):
        # Equal tuples have the same hash, whether or not they are the same object.
        if not isinstance(obj, tuple):
            super().memoize(obj)
