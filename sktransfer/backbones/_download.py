"""Downloading official weights into PyTorch's own folder."""

import http.client
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock

from ..exceptions import FingerprintMismatchError, WeightsError
from ._weights import file_digest


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
                    for partial in folder.glob(f"{file.name}.*.partial"):  # of a killed process
                        partial.unlink(missing_ok=True)
                    print(f"Downloading {url} to {folder}", file=sys.stderr)
                    torch.hub.download_url_to_file(url, str(file), hash_prefix=digest or None)
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
