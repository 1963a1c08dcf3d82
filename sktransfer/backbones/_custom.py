"""A user's custom module as a backbone: its fingerprint, its width, a frozen copy."""

import copy
import functools
import hashlib
import sys
import threading
import types
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx, nn

from .._utils._threads import usable_kernels
from ._spec import BackboneSpec, Preprocessing

#: Packages whose functions and classes are known by their names.
_LIBRARIES = {"torch", "torchvision", "timm", "numpy", "sktransfer", *sys.stdlib_module_names}

#: What every module has; what counts of it is digested by itself.
_MACHINERY = {*vars(nn.Module()), "_compiled_call_impl"}

#: Types whose repr tells all.
_PLAIN = {type(None), type(...), bool, int, float, complex, str, bytes, range}

#: Values, and values inside of values, that are digested at most.
_MOST_VALUES, _DEEPEST = 200_000, 100

_lock = threading.Lock()
_instances = WeakKeyDictionary()  # names of modules that cannot be digested


def resolve_module(module, weights, image_size):
    """Return the specification of a custom module; see ``resolve_backbone``."""
    if weights != "DEFAULT":
        raise ValueError(
            "weights belongs to backbones given by name; a custom module brings its weights along. "
            f"Got weights={weights!r}.\nHint: leave it out, and load them into the module first."
        )
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(224, 256)
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            "The attribute `preprocessing` of a custom module is a "
            f"sktransfer.backbones.Preprocessing; got {type(preprocessing)}."
        )
    if image_size is not None:
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        type(module).__qualname__,
        "custom",
        module_fingerprint(module),
        _probe_width(module, preprocessing.image_size),
        preprocessing,
        module,
    )


def module_fingerprint(module):
    """Digest of the structure, the settings, the code and the tensors of a custom module.

    It is the same in every process, unless something in the module cannot be digested (a lock, an
    open file): then it is the instance's own, so that nothing is shared with what may differ.
    """
    digest = _Digest()
    digest.add(module, digest.data)
    code = digest.code.hexdigest()[:32] if digest.complete else _name_of_instance(module)
    return f"custom:{type(module).__qualname__}:sha256={digest.data.hexdigest()}:code={code}"


def _name_of_instance(module):
    with _lock:
        return _instances.setdefault(module, uuid4().hex)


class _Digest:
    """Digests of values of any kind.

    Attributes
    ----------
    data : hash
        Of tensors and settings.
    code : hash
        Of functions and classes, which another Python compiles to other code.
    complete : bool
        False where something was met that cannot be digested.
    """

    def __init__(self):
        self.data, self.code = hashlib.sha256(), hashlib.sha256()
        self.complete = True
        self._path = {}  # id -> depth of what is being digested, against cycles
        self._known = {}  # id -> (number, function or class), which are digested once
        self._left = _MOST_VALUES

    def add(self, value, sink):
        """Take in one value: into ``sink``, or where it is a function or a class, into ``code``."""
        if type(value) in _PLAIN:
            _write(sink, repr(value))
        elif id(value) in self._path:
            _write(sink, f"cycle {self._path[id(value)]}")
        elif self._left and len(self._path) < _DEEPEST:
            self._left -= 1
            self._path[id(value)] = len(self._path)
            self._add_new(value, sink)
            del self._path[id(value)]
        else:
            self.complete = False

    def _add_new(self, value, sink):
        if not isinstance(value, nn.Module):
            _write(sink, _full_name(type(value)))
        kinds = (add for kind, add in _KINDS.items() if isinstance(value, kind))
        add = _EXACT_TYPES.get(type(value)) or next(kinds, _add_reduced)
        try:
            add(self, value, sink)
        except Exception:  # whatever a class may raise that does not let itself be pickled
            self.complete = False

    def add_all(self, values, sink):
        """Take in values whose order counts."""
        _write(sink, str(len(values)))
        for value in values:
            self.add(value, sink)

    def first_time(self, value):
        """Take in the name of a function or class; whether there is more of it to take in."""
        _write(self.code, _full_name(value))
        n_known = len(self._known)
        number, _ = self._known.setdefault(id(value), (n_known, value))
        _write(self.code, str(number))
        return number == n_known and not _is_library(value)


def _write(sink, text):
    sink.update(f"{text}\n".encode(errors="backslashreplace"))


def _full_name(value):
    return f"{value.__module__}.{value.__qualname__}"


def _is_library(value):
    package = (value.__module__ or "").partition(".")[0]
    # What was made inside a function of a library is not known by its name.
    return package in _LIBRARIES and "<" not in value.__qualname__


def _add_tensor(digest, tensor, sink):
    _write(sink, f"{tensor.dtype} {tuple(tensor.shape)}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    sink.update(flat.view(torch.uint8).numpy())


def _add_array(digest, array, sink):
    _write(sink, f"{array.dtype.str} {array.shape}")
    if array.dtype.hasobject:
        digest.add_all(array.ravel().tolist(), sink)
    else:
        sink.update(np.ascontiguousarray(array).tobytes())


def _add_module(digest, module, sink):
    if isinstance(module, fx.GraphModule):  # its class is made anew by every copy and pickle
        _write(sink, module.code)
    else:
        _add_kind_and_settings(digest, module, sink)
    for parts in (module._parameters, module._buffers, module._modules):
        digest.add(dict(parts), sink)
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        digest.add_all(hooks.values(), digest.code)


def _add_kind_and_settings(digest, module, sink):
    _write(sink, _full_name(type(module)))
    digest.add(type(module), digest.code)
    settings = {name: value for name, value in vars(module).items() if name not in _MACHINERY}
    digest.add(dict(sorted(settings.items())), sink)


def _add_class(digest, kind, sink):
    if not digest.first_time(kind):
        return
    digest.add_all(kind.__bases__, digest.code)
    for name, value in sorted(vars(kind).items(), key=lambda item: item[0]):
        special = name == "_abc_impl" or (name[:2] == name[-2:] == "__")
        if not special or isinstance(value, types.FunctionType):
            _write(digest.code, name)
            digest.add(value, digest.code)


def _add_function(digest, function, sink):
    if digest.first_time(function):
        code, cells = function.__code__, function.__closure__ or ()
        digest.add_all((code, function.__defaults__, function.__kwdefaults__, *cells), digest.code)


def _add_code(digest, code, sink):
    digest.add_all((code.co_code, code.co_names, code.co_varnames, code.co_consts), sink)


def _add_set(digest, values, sink):
    if not all(type(value) in _PLAIN for value in values):
        raise TypeError("a set has no order to digest it in")
    digest.add(sorted(map(repr, values)), sink)


def _add_list(digest, values, sink):
    if all(type(value) in _PLAIN for value in values):
        _write(sink, repr(values))
    else:
        digest.add_all(values, sink)


def _add_dict(digest, values, sink):
    digest.add_all([part for item in values.items() for part in item], sink)


def _add_reduced(digest, value, sink):
    """Take in what a pickle would hold of an object."""
    if hasattr(value, "__wrapped__"):  # as functools.lru_cache makes them
        return digest.add(value.__wrapped__, sink)
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return _write(sink, f"{getattr(value, '__module__', None)} {reduced}")
    make, args, state, *items = (*reduced, None)[:5]
    digest.add_all((make, args, state, *(list(part or ()) for part in items)), sink)


_EXACT_TYPES = {
    list: _add_list,
    tuple: _add_list,
    dict: _add_dict,
    set: _add_set,
    frozenset: _add_set,
    types.FunctionType: _add_function,
    types.CodeType: _add_code,
    types.CellType: lambda digest, cell, sink: digest.add(cell.cell_contents, sink),
    types.ModuleType: lambda digest, module, sink: _write(sink, module.__name__),
    property: lambda digest, it, sink: digest.add_all((it.fget, it.fset, it.fdel), sink),
    functools.cached_property: lambda digest, it, sink: digest.add(it.func, sink),
    staticmethod: lambda digest, method, sink: digest.add(method.__func__, sink),
    classmethod: lambda digest, method, sink: digest.add(method.__func__, sink),
}
_KINDS = {
    torch.Tensor: _add_tensor,
    np.ndarray: _add_array,
    nn.Module: _add_module,
    type: _add_class,
}


def frozen_copy(module):
    """Copy a module to float32 on the CPU, frozen; the user's own stays as it is."""
    return copy.deepcopy(module).cpu().float().eval().requires_grad_(False)


def _probe_width(module, image_size):
    """Run one black image to learn the width of the embedding."""
    with torch.inference_mode(), usable_kernels():
        output = frozen_copy(module)(torch.zeros(1, 3, image_size, image_size))
    if not torch.is_tensor(output) or output.ndim != 2 or len(output) != 1:
        got = tuple(output.shape) if torch.is_tensor(output) else type(output)
        raise ValueError(
            "A custom module maps images (n, 3, height, width) to embeddings (n, n_features); for "
            f"one image of {image_size} pixels {type(module).__qualname__} gave {got}.\n"
            "Hint: end it with torch.nn.Flatten(), or with a pooling layer and torch.nn.Flatten()."
        )
    return output.shape[1]
