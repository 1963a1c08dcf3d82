"""Weights files: which one is meant, its digest, reading it, fitting it into a network."""

import functools
import hashlib
import os
import re
import stat
import time
from collections import OrderedDict
from enum import Enum
from pathlib import Path

from .._utils._fork import IMPORTING
from .._utils._sizes import size_text
from .._utils._stamps import is_settled, stamp_of
from ..exceptions import WeightsError

SUFFIXES = (".pth", ".pt", ".safetensors")

#: Largest weights file that is read, in bytes.
MAX_BYTES = 64 * 10**9

#: Weights as large as this overflow sooner or later; a flipped bit makes such numbers.
_LARGEST = 1e20

_WRAPPERS = ("state_dict", "model_state_dict", "model")
# "module." comes from DataParallel, "_orig_mod." from torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# DenseNet checkpoints from before torch 0.4 have a dot inside their layer names.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


def read_choice(weights):
    """Return None, the name of official weights, or the absolute path of a file as a Path."""
    if weights is None:
        return None
    if isinstance(weights, Enum):  # the members of torchvision's weights
        return weights.name
    if isinstance(weights, os.PathLike) or (
        isinstance(weights, str) and (weights.endswith(SUFFIXES) or os.sep in weights)
    ):
        path = Path(os.path.abspath(os.path.expanduser(weights)))
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"A weights file must end in {', '.join(SUFFIXES)}; got {str(weights)!r}."
            )
        return path
    if isinstance(weights, str):
        return weights
    raise TypeError(
        'weights must be "DEFAULT", the name of official weights, the path of a weights file or '
        f"None; got {type(weights)}."
    )


def file_digest(path):
    """Return the SHA-256 of a file as hexadecimal text, remembered while the file is unchanged."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise WeightsError(f"The weights file {str(path)!r} is not a regular file.")
        if found.st_size > MAX_BYTES:
            raise WeightsError(
                f"The weights file {str(path)!r} has {size_text(found.st_size)}; at most "
                f"{size_text(MAX_BYTES)} are read."
            )
        stamp = stamp_of(found)
        remembered = is_settled(stamp, time.time_ns())
        digest = _digest_of_version if remembered else _digest_of_version.__wrapped__
        return digest(str(path), stamp)
    except OSError as error:
        raise WeightsError(
            f"The weights file {str(path)!r} cannot be read: {error.strerror or error}.\n"
            "Hint: check the path; relative paths start at the current directory "
            f"({os.getcwd()})."
        ) from error


@functools.lru_cache(maxsize=256)
def _digest_of_version(path, stamp):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_state(path):
    """Return the tensors of a weights file by name."""
    with IMPORTING:
        import torch
        from safetensors.torch import load_file

    file_digest(path)  # refuses what is not a regular file
    try:
        if str(path).endswith(".safetensors"):
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"The weights file {str(path)!r} cannot be read: {error}.") from error
    except Exception as error:  # torch, pickle, zip and safetensors raise their own kinds
        raise WeightsError(
            f"The weights file {str(path)!r} is damaged, or contains more than tensors (a file "
            f"that can run code is not safe): {first_line(error)}\n"
            "Hint: save it again with `torch.save(network.state_dict(), path)`."
        ) from error
    return _rename(_unwrap(content, path))


def _unwrap(content, path):
    """Find the dictionary of tensors inside a checkpoint."""
    import torch

    for _ in range(3):  # one inside the other
        inside = [content.get(key) for key in _WRAPPERS] if isinstance(content, dict) else []
        content = next((value for value in inside if isinstance(value, dict)), content)
    if (
        isinstance(content, dict)
        and content
        and all(
            isinstance(name, str) and torch.is_tensor(value) and value.layout is torch.strided
            for name, value in content.items()
        )
    ):
        return content
    keys = f" with the keys {sorted(map(str, content))[:8]}" if isinstance(content, dict) else ""
    raise WeightsError(
        f"The weights file {str(path)!r} must contain a dictionary of dense tensors by name; it "
        f"contains a {type(content).__name__}{keys}.\nHint: save `network.state_dict()`."
    )


def _rename(state):
    """Remove the prefixes of training wrappers and convert the oldest DenseNet names."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items())
    renamed = OrderedDict((_OLD_DENSENET.sub(r"\1\2", key), v) for key, v in state.items())
    # Modules read the version of their own layout from this attribute.
    if hasattr(state, "_metadata"):
        renamed._metadata = state._metadata
    return renamed


def fit_state(network, state, dropped, what):
    """Load ``state``, without tensors of ``dropped`` layers; each of the network must be there."""
    kept = OrderedDict((k, v) for k, v in state.items() if not k.startswith(dropped))
    own = network.state_dict()
    kept._metadata = getattr(state, "_metadata", {"": own._metadata.get("", {})})
    other = [
        f"{name}: {value.dtype}"
        for name, value in kept.items()
        if name in own and own[name].is_floating_point() and not value.is_floating_point()
    ]
    if other:  # quantized or complex numbers, which PyTorch would truncate silently
        raise WeightsError(
            f"{what}: {len(other)} tensor(s) are not floating-point:\n{_listed(other)}\n"
            "Likely reason: a quantized network.\nHint: save the network it was made from."
        )
    try:
        missing, unexpected = network.load_state_dict(kept, strict=False)
    except Exception as error:  # the contents of `_metadata` may be anything
        sizes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        reason = (
            f"{len(sizes)} tensor(s) have another shape:\n{_listed(sizes)}\n"
            "Likely reason: weights of another member of the family, or for another image size."
            if sizes
            else f"PyTorch cannot load it: {first_line(error)}\n"
            "Hint: save it again with `torch.save(network.state_dict(), path)`."
        )
        raise WeightsError(f"{what}: {reason}") from error
    # Only training reads the counts of batches, and old checkpoints have none.
    counts = "num_batches_tracked"
    missing = [key for key in missing if not key.endswith(counts)]
    if missing or unexpected:
        total = sum(not key.endswith(counts) for key in own)
        raise WeightsError(_name_mismatch(what, missing, unexpected, total))


def _name_mismatch(what, missing, unexpected, total):
    lines = [f"{what}: the names of the tensors do not match."]
    if missing:
        lines += [f"{len(missing)} of {total} missing in the file:", _listed(missing)]
    if unexpected:
        lines += [f"{len(unexpected)} in the file but not in the network:", _listed(unexpected)]
    if len(missing) == total:
        reason = "weights of another architecture, or of another library's version of it"
    elif missing and unexpected:
        reason = "weights of another member of the family, or renamed layers"
    elif missing:
        reason = "the file contains only a part of the network"
    else:
        reason = "weights of a larger network, or layers that were added before training"
    return "\n".join([*lines, f"Likely reason: {reason}."])


def _listed(names, most=8):
    rest = [f"  ... and {len(names) - most} more"] if len(names) > most else []
    return "\n".join([*(f"  {name}" for name in names[:most]), *rest])


def check_finite(network, name):
    """Refuse NaN, infinity and huge values, which not every engine would report."""
    import torch

    # Other buffers, such as attention masks, may contain infinity.
    statistics = ("running_mean", "running_var")
    buffers = [item for item in network.named_buffers() if item[0].endswith(statistics)]
    dense = [p for p in network.parameters() if p.ndim > 1 and p.layout is torch.strided]
    if dense and not any(matrix.any() for matrix in dense):
        raise WeightsError(f"The weights of {name!r} are all zero.\nHint: use another copy.")
    for tensor_name, tensor in [*network.named_parameters(), *buffers]:
        if not (tensor.is_floating_point() and tensor.numel() and tensor.layout is torch.strided):
            continue
        low, high = tensor.detach().aminmax()
        if not (low > -_LARGEST and high < _LARGEST):  # NaN compares as False
            raise WeightsError(
                f"The weights of {name!r} contain NaN, infinity or numbers beyond {_LARGEST:g}, "
                f"for example in {tensor_name!r}.\nHint: the file may be damaged, or the training "
                "may have diverged; use another copy or an earlier checkpoint."
            )
