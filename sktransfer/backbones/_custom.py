"""Source of backbones: custom modules, a user's own ``torch.nn.Module``."""

import copy
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from .._utils._changes import INTERNAL, classes_state, module_state
from .._utils._hashing import hash_value
from .._utils._lru import LRU
from .._utils._threads import own_generators, single_threaded_kernels, usable_kernels
from ._spec import RANDOM_SEED, BackboneSpec, Preprocessing

#: Digest of each module, valid while its state is the same: {module: (state, digest, name)}.
_digests = WeakKeyDictionary()

#: Names of objects without a digest, in this process: {text: (name, objects in the text)}.
_names = LRU(max_items=32)

#: Width and summary of the output by digest and image size: equal modules run once.
_probes = LRU(max_items=256)


def names():
    return []


def matches(backbone):
    return isinstance(backbone, nn.Module)


def resolve(module, weights, image_size, pooling):
    if not (isinstance(weights, str) and weights == "DEFAULT"):
        raise ValueError(
            f"weights={weights!r} cannot be combined with a custom module, which contains its "
            "weights.\nHint: leave `weights` out, and load the weights into the module first."
        )
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(224, 256)
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            "The attribute `preprocessing` of a custom module must be a "
            f"sktransfer.backbones.Preprocessing, got {type(preprocessing)}."
        )
    if image_size is not None:
        preprocessing = preprocessing.for_size(image_size)
    fingerprint, n_features = _identify(module, preprocessing.image_size)
    name = type(module).__qualname__
    return BackboneSpec(name, "custom", fingerprint, n_features, preprocessing, module)


def fingerprint(spec):
    return _identify(spec.module, spec.preprocessing.image_size)[0]


def load(spec):
    return _frozen_copy(spec.module)


def _frozen_copy(module):
    """Copy a module to the CPU in float32, frozen; the user's module is never changed."""
    with torch.inference_mode(False):
        return copy.deepcopy(module).cpu().float().eval().requires_grad_(False)


def _identify(module, image_size):
    """Return the fingerprint and the width of a module.

    A coarse summary of the output tells another `forward` under the same class name apart.
    """
    state = module_state(module)
    known_state, digest, name = _digests.get(module, (None, None, None))
    if known_state != state:
        digest, name = _digest(module, state)
        _digests[module] = state, digest, name
    key = digest, name, image_size, classes_state(module)
    n_features, summary = _probes.get(key, lambda: _probe(module, image_size))
    return f"custom:{type(module).__qualname__}:sha1={digest}:code={name}{summary}", n_features


@usable_kernels()
def _digest(module, state):
    """Return a digest of the module, and a name for what has none, such as a lambda."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    parts = []
    for path, part in module.named_modules(remove_duplicate=False):
        kind = type(part)
        if isinstance(part, fx.GraphModule):  # each copy has a class of its own
            parts.append((path, part.code))
            continue
        attributes = {name: held for name, held in vars(part).items() if name not in INTERNAL}
        hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
        parts.append((path, f"{kind.__module__}.{kind.__qualname__}", attributes, hooks))
    try:
        return hash_value([tensors, parts]), ""
    except ValueError:
        attributes = state[1] if isinstance(state, tuple) else object()
        # The objects stay referenced, so no other object gets one of the addresses in the text.
        name, _ = _names.get(repr(attributes), lambda: (uuid4().hex, parts))
        return hash_value(tensors), name


@single_threaded_kernels()
def _probe(module, image_size):
    """Run one fixed image; return the width and a summary of the output."""
    with torch.inference_mode(), own_generators():
        torch.default_generator.manual_seed(RANDOM_SEED)
        image = torch.linspace(0, 2000, 3 * image_size**2).sin()
        image = image.reshape(1, 3, image_size, image_size)
        try:
            output = _frozen_copy(module)(image)
        except Exception as error:  # such as an image of a size that it does not take
            output = error
    if not torch.is_tensor(output) or output.ndim != 2 or len(output) != 1 or not output.numel():
        got = f"shape {tuple(output.shape)}" if torch.is_tensor(output) else repr(output)[:200]
        raise ValueError(
            "A custom module must map images (n, 3, height, width) to embeddings (n, n_features). "
            f"For one image of {image_size} pixels, {type(module).__qualname__} gave {got}.\n"
            "Hint: end it with torch.nn.Flatten(), or with a pooling layer and torch.nn.Flatten()."
        )
    row = output[0].double()
    norm = row.norm() / len(row) ** 0.5
    projection = row @ torch.arange(1, len(row) + 1, dtype=row.dtype).cos() / len(row) ** 0.5
    # Relative to the norm and with few digits: machines round differently.
    numbers = [row.mean() / norm, row.abs().max() / norm, projection / norm]
    return len(row), ",".join([f"{norm:.3e}", *(f"{round(float(x), 3) + 0:.3f}" for x in numbers)])
