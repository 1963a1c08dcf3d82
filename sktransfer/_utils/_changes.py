"""Cheap detection of changes to a module, instead of a digest of all its weights."""

from types import FunctionType

import torch
from torch import nn

from ._hashing import hash_value

#: Number of values of a tensor that are compared, for changes such as ``parameter.data -= ...``,
#: which PyTorch does not count.
_N_SAMPLED = 16

#: Attributes of every module. The mode, ``training``, does not count either: a network is copied
#: and set to evaluation mode before use.
INTERNAL = vars(nn.Module()).keys()

_PLAIN = {type(None), bool, int, float, str}


def tensors_state(module):
    """Return a value that changes with the parameters and buffers of a module."""
    state = []  # flat: thousands of small tuples would keep the garbage collector busy
    for part in module.modules():
        for group in (part._parameters, part._buffers):
            for name, tensor in group.items():
                if tensor is not None:
                    state += name, *_tensor_state(tensor)
    return state


def module_state(module):
    """Return a value that changes with the tensors and attributes of a module."""
    try:
        return tensors_state(module), _attributes_state(module, set())
    except Exception:  # from the methods of any class
        return object()  # equals no other value


def classes_state(module):
    """Return a hashable value that changes with the classes of a module and their methods."""
    kinds = dict.fromkeys(type(part) for part in module.modules())
    return tuple(
        (base, name, value if isinstance(value, FunctionType) else repr(value))
        for kind in kinds
        for base in kind.__mro__[: kind.__mro__.index(nn.Module)]
        for name, value in vars(base).items()
        if callable(value) or isinstance(value, (property, classmethod, staticmethod))
    )


def _tensor_state(tensor):
    if tensor.is_inference():  # PyTorch does not count its changes
        return (object(),)
    is_dense = tensor.layout is torch.strided
    place = tensor.data_ptr() if is_dense else id(tensor)
    try:
        values = tensor.detach().numpy().ravel("K")
    except (TypeError, RuntimeError):  # not on the CPU, or of a type that NumPy lacks
        return place, tensor._version
    return place, tensor._version, values[:: max(1, values.size // _N_SAMPLED)].tobytes()


def _attributes_state(module, seen):
    states = []
    for part in module.modules():
        if part in seen:
            continue
        seen.add(part)
        states.append(type(part))
        if part._forward_pre_hooks or part._forward_hooks:
            states.append(repr((part._forward_pre_hooks, part._forward_hooks)))
        for name, value in vars(part).items():
            if name not in INTERNAL:
                states += name, _value_state(value, seen)
    return states


def _value_state(value, seen):
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return [_value_state(held, seen) for held in value]
    if isinstance(value, dict):
        return [(repr(key), _value_state(held, seen)) for key, held in value.items()]
    if isinstance(value, nn.Module):
        return tensors_state(value), _attributes_state(value, seen)
    if isinstance(value, torch.Tensor):
        return _tensor_state(value)
    if callable(value):
        return repr(value)
    try:
        return hash_value(value)
    except ValueError:
        return repr(value)
