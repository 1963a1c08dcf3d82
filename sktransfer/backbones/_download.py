"""Downloading official weights into PyTorch's own folder."""

import http.client
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from tqdm.auto import tqdm

from ..exceptions import FingerprintMismatchError, WeightsError
from ._weights import file_digest

#: Seconds without a byte from the server after which a download fails.
_TIMEOUT = 60.0


def official_digest(url):
    """Return the start of the SHA-256, which official files carry in their name, or ``""``."""
    found = re.search(r"-([a-f0-9]{8,})\.", _file_name(url))
    return found.group(1) if found else ""


def _file_name(url):
    return unquote(os.path.basename(urlparse(url).path))


def official_file(url, what):
    """Return the path of the official weights file of ``what``; download it if it is missing."""
    folder = Path(torch.hub.get_dir(), "checkpoints")
    file = folder / _file_name(url)
    digest = official_digest(url)
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # The other processes that wait for the lock find the file when they get it.
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    _download(url, file, digest)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise WeightsError(
            f"The weights of {what} cannot be downloaded from {url}: {error}\n"
            f"Hint: fetch that file in another way and save it as {file.name!r} in the folder "
            f"{str(folder)!r}, or pass its path as `weights`. "
            'The backbones "tiny_mobilenet" and "tiny_resnet" need no download.'
        ) from error
    if not file_digest(file).startswith(digest):
        raise FingerprintMismatchError(
            f"The file {str(file)!r} is not the official one of {what}: its SHA-256 should start "
            f"with {digest} but is {file_digest(file)}.\n"
            "Hint: delete the file; it is then downloaded again."
        )
    return file


def _download(url, file, digest):
    """Download a file that does not exist yet; `torch.hub` would wait forever for a dead server."""
    part = file.with_name(f"{file.name}.partial")
    print(f"Downloading {url} to {file.parent}", file=sys.stderr)
    try:
        request = Request(url, headers={"User-Agent": "torch.hub"})
        with urlopen(request, timeout=_TIMEOUT) as response, open(part, "wb") as out:
            total, unit = response.headers.get("Content-Length"), {"unit": "B", "unit_scale": True}
            with tqdm.wrapattr(response, "read", total=total and int(total), **unit) as stream:
                shutil.copyfileobj(stream, out)
        if not (found := file_digest(part)).startswith(digest):
            raise RuntimeError(f'invalid hash value (expected "{digest}", got "{found}")')
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
