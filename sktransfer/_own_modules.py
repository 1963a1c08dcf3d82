"""A user's own module as a backbone: its fingerprint, its width, a frozen copy."""

import copy
import hashlib

import torch

from ._backbone_spec import BackboneSpec, Preprocessing

_LIBRARIES = ("torch", "torchvision", "timm")


def resolve_module(module, weights, image_size):
    """Return the specification of an own module; see ``resolve_backbone``."""
    if weights != "DEFAULT":
        raise ValueError(
            "weights belongs to backbones given by name; an own module brings its weights along. "
            f"Got weights={weights!r}.\nHint: leave it out, and load them into the module first."
        )
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(224, 256)
    if not isinstance(preprocessing, Preprocessing):
        raise TypeError(
            "The attribute `preprocessing` of an own module is a "
            f"sktransfer.backbones.Preprocessing; got {type(preprocessing)}."
        )
    if image_size is not None:
        preprocessing = preprocessing.for_size(image_size)
    return BackboneSpec(
        type(module).__qualname__,
        "own",
        module_fingerprint(module),
        _probe_width(module, preprocessing.image_size),
        preprocessing,
        module,
    )


def module_fingerprint(module):
    """Digest of the structure, the settings, the code and the tensors of an own module."""
    digest = hashlib.sha256(repr(module).encode())
    for path, part in module.named_modules():
        digest.update(f"\n{path} {type(part).__module__}.{type(part).__qualname__}".encode())
        digest.update(_settings(part).encode())
    for name, tensor in module.state_dict().items():
        if torch.is_tensor(tensor):
            digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return f"own:{type(module).__qualname__}:sha256={digest.hexdigest()}:code={_code(module)}"


def _code(module):
    """Digest of the compiled `forward` of every class that is not a library's."""
    digest = hashlib.sha256()
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        code = getattr(kind.forward, "__code__", None)
        if code is not None and kind.__module__.partition(".")[0] not in _LIBRARIES:
            digest.update(code.co_code + repr((code.co_names, code.co_varnames)).encode())
            constants = [value for value in code.co_consts if not hasattr(value, "co_code")]
            digest.update(repr(constants).encode())
    return digest.hexdigest()[:16]


def _settings(part):
    """Plain attributes of one module (``self.scale = 2``), which its repr need not show."""
    plain = {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_")
        and name != "training"
        and isinstance(value, (bool, int, float, str, tuple))
    }
    return repr(sorted(plain.items()))


def frozen_copy(module):
    """Copy a module to float32 on the CPU, frozen; the user's own stays as it is."""
    return copy.deepcopy(module).cpu().float().eval().requires_grad_(False)


def _probe_width(module, image_size):
    """Run one black picture to learn the width of the embedding."""
    with torch.inference_mode():
        output = frozen_copy(module)(torch.zeros(1, 3, image_size, image_size))
    if not torch.is_tensor(output) or output.ndim != 2 or len(output) != 1:
        got = tuple(output.shape) if torch.is_tensor(output) else type(output)
        raise ValueError(
            "An own module maps pictures (n, 3, height, width) to embeddings (n, n_features); for "
            f"one picture of {image_size} pixels {type(module).__qualname__} gave {got}.\n"
            "Hint: end it with torch.nn.Flatten(), or with a pooling layer and torch.nn.Flatten()."
        )
    return output.shape[1]
