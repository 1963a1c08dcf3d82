"""Weights files: digests, reading, fitting them into a network, official downloads."""

import functools
import hashlib
import http.client
import os
import re
from collections import OrderedDict
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from safetensors.torch import load_file
from tqdm import tqdm

from ..exceptions import FingerprintMismatchError, WeightsError

SUFFIXES = (".pth", ".pt", ".safetensors")
#: Seconds without a single byte after which a download counts as failed.
TIMEOUT = 60
_CHUNK = 1 << 20
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DEEPEST_WRAPPER = 3
# "module." comes from DataParallel, "_orig_mod." from torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# DenseNet checkpoints from before torch 0.4 have a dot inside their layer names.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")


# ------------------------------------------------------------------------------------ digests


@functools.lru_cache(maxsize=256)
def _digest_of_version(path, size, mtime_ns, ctime_ns):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path):
    """SHA-256 of a file as hex text, remembered until the file changes."""
    try:
        stat = os.stat(path)
        return _digest_of_version(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise WeightsError(
            f"The weights file {str(path)!r} cannot be read: {error.strerror or error}.\n"
            "Hint: check the path; relative paths start at the current directory "
            f"({os.getcwd()})."
        ) from error


# ------------------------------------------------------------------------------------ reading


def read_state(path):
    """Read the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file by name."""
    try:
        if str(path).endswith(".safetensors"):
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"The weights file {str(path)!r} cannot be read: {error}.") from error
    except Exception as error:  # torch, pickle, zip and safetensors have their own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"The weights file {str(path)!r} is broken, or holds more than tensors (running code "
            f"out of a file is not safe): {reason}\nHint: save it again with "
            "`torch.save(network.state_dict(), path)`."
        ) from error
    return _rename(_unwrap(content, path))


def _unwrap(content, path):
    """Find the dictionary of tensors in what a checkpoint file holds."""
    for _ in range(_DEEPEST_WRAPPER):
        inside = [content.get(key) for key in _WRAPPERS] if isinstance(content, dict) else []
        content = next((value for value in inside if isinstance(value, dict)), content)
    if isinstance(content, dict) and content and all(map(_is_entry, content.items())):
        return content
    raise WeightsError(
        f"The weights file {str(path)!r} holds no dictionary of dense tensors by name: it is a "
        f"{type(content).__name__}"
        + (f" with the keys {sorted(map(str, content))[:8]}" if isinstance(content, dict) else "")
        + ".\nHint: save `network.state_dict()`."
    )


def _is_entry(item):
    name, value = item
    return isinstance(name, str) and torch.is_tensor(value) and value.layout is torch.strided


def _rename(state):
    """Take off the prefixes of training wrappers and mend the oldest DenseNet names."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items())
    renamed = OrderedDict((_OLD_DENSENET.sub(r"\1\2", key), v) for key, v in state.items())
    # Modules read the version of their own layout from this attribute.
    if hasattr(state, "_metadata"):
        renamed._metadata = state._metadata
    return renamed


# ------------------------------------------------------------------------------------ fitting


def fit_state(network, state, dropped, what):
    """Load ``state`` into ``network``; every tensor of the network must be there and fit.

    Parameters
    ----------
    network : torch.nn.Module
        Without its classifying layer.
    state : dict of str to Tensor
        Tensors by name, as :func:`read_state` gives them.
    dropped : tuple of str
        Prefixes of the tensors that belong to layers which were taken off.
    what : str
        What is being loaded into what, for error messages.
    """
    kept = OrderedDict((k, v) for k, v in state.items() if not k.startswith(dropped))
    own = network.state_dict()
    kept._metadata = getattr(state, "_metadata", {"": own._metadata.get("", {})})
    _check_dtypes(kept, own, what)
    try:
        missing, unexpected = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        sizes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise WeightsError(
            f"{what}: {len(sizes)} tensor(s) have another shape:\n"
            + _listed(sizes or [str(error)])
            + "\nLikely reason: weights of another member of the family, or for another image size."
        ) from error
    # Counts of batches matter to training only, and old checkpoints have none.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(_name_mismatch(what, missing, unexpected, len(own_names(network))))


def _check_dtypes(state, own, what):
    """Check that no numbers are cut to what the network computes with: quantised, complex ones."""
    other = [
        f"{name}: {value.dtype}"
        for name, value in state.items()
        if name in own and own[name].is_floating_point() and not value.is_floating_point()
    ]
    if other:
        raise WeightsError(
            f"{what}: {len(other)} tensor(s) hold no floating-point numbers:\n{_listed(other)}\n"
            "Likely reason: a quantised network. Hint: save the one that it was made from."
        )


def own_names(network):
    """Names of the tensors that a checkpoint of ``network`` must have."""
    return [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]


def _name_mismatch(what, missing, unexpected, total):
    lines = [f"{what}: the names of the tensors do not match."]
    if missing:
        lines += [f"{len(missing)} of {total} missing in the file:", _listed(missing)]
    if unexpected:
        lines += [f"{len(unexpected)} in the file and not in the network:", _listed(unexpected)]
    if len(missing) == total:
        reason = "weights of another architecture, or of another library's version of it"
    elif missing and unexpected:
        reason = "weights of another member of the family, or layers that were renamed"
    elif missing:
        reason = "the file holds only a part of the network"
    else:
        reason = "weights of a larger network, or layers that were added before training"
    return "\n".join([*lines, f"Likely reason: {reason}."])


def _listed(names, most=8):
    rest = [f"  ... and {len(names) - most} more"] if len(names) > most else []
    return "\n".join([*(f"  {name}" for name in names[:most]), *rest])


# ---------------------------------------------------------------------------------- downloads


def official_digest(url):
    """Return the start of the SHA-256 that official files carry in their name, or ``""``."""
    found = re.search(r"-([a-f0-9]{8,})\.", _file_name(url))
    return found.group(1) if found else ""


def _file_name(url):
    return unquote(os.path.basename(urlparse(url).path))


def official_file(url, what):
    """Return the path of an official weights file, downloaded when it is not there yet.

    Parameters
    ----------
    url : str
        Address of the file; its name carries the start of its SHA-256.
    what : str
        Whose weights these are, for error messages.
    """
    folder = Path(torch.hub.get_dir(), "checkpoints")
    file = folder / _file_name(url)
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Whoever waits for the lock finds the file there afterwards.
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    _download(url, file)
    except (OSError, http.client.HTTPException, WeightsError) as error:
        raise WeightsError(
            f"The weights of {what} cannot be downloaded from {url}: {error}\n"
            f"Hint: fetch that file by other means and put it as {file.name!r} into the folder "
            f"{str(folder)!r}, or pass its path as `weights`. "
            'The backbones "tiny_mobilenet" and "tiny_resnet" need no download.'
        ) from error
    if not file_digest(file).startswith(official_digest(url)):
        raise FingerprintMismatchError(
            f"The file {str(file)!r} is not the official one of {what}: its SHA-256 should start "
            f"with {official_digest(url)} and is {file_digest(file)}.\n"
            "Hint: delete it, and it is downloaded again."
        )
    return file


def _download(url, file):
    """Stream ``url`` beside ``file`` and move it into place only when it is whole and right."""
    part = file.with_name(file.name + ".part")
    try:
        digest = _stream(url, part)
        if not digest.startswith(official_digest(url)):
            raise WeightsError(
                "the file that arrived has the wrong hash (SHA-256 should start with "
                f"{official_digest(url)} and is {digest})."
            )
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _stream(url, part):
    """Write what ``url`` serves into ``part`` and return its SHA-256."""
    digest = hashlib.sha256()
    request = Request(url, headers={"User-Agent": "sktransfer"})
    with urlopen(request, timeout=TIMEOUT) as answer, open(part, "wb") as out:
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        with tqdm(
            total=total, desc=_file_name(url), unit="B", unit_scale=True, unit_divisor=1024
        ) as bar:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise WeightsError(
            f"the transfer was cut off after {part.stat().st_size} of {total} bytes."
        )
    return digest.hexdigest()
