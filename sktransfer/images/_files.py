"""The bytes of a file that should be an image, or a reason why they cannot be had."""

import os
import stat

from .._utils._directories import working_directory
from ..exceptions import UnreadableImageError

__all__ = ["read_file"]

#: Larger files are refused unread: no image of a size that is decoded has as many bytes.
MAX_BYTES = 2 * 1024**3

# Without waiting for the other end of a pipe; Windows would translate the ends of lines.
_TO_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path):
    """Return the bytes of a file, or say why they cannot be had."""
    try:
        file = os.open(path, _TO_READ)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(_read_reason(error, os.fsdecode(path))) from error
    try:
        return _read_open_file(file)
    except OSError as error:
        raise UnreadableImageError(_read_reason(error, os.fsdecode(path))) from error
    finally:
        os.close(file)


def _read_open_file(file):
    # As few calls of the system as can be: with each of them the threads take turns.
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(_irregular_reason(status.st_mode))
    if status.st_size > MAX_BYTES:
        raise UnreadableImageError(
            f"the file has {status.st_size:,} bytes, more than an image has ({MAX_BYTES:,})"
        )
    data = os.read(file, status.st_size + 1)
    if len(data) == status.st_size:
        return data
    # It is still growing, or larger than what one call gives.
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", buffering=0, closefd=False) as whole:
        return whole.read()


def _irregular_reason(mode):
    if stat.S_ISDIR(mode):
        return (
            "this is a directory, not an image; "
            "sktransfer.datasets.load_image_folder lists the images of class folders"
        )
    return "this is a device, pipe or socket, not a file"


def _read_reason(error, path):
    if os.path.exists(path) and not os.path.isfile(path):  # some cannot even be opened
        return _irregular_reason(os.stat(path).st_mode)
    if isinstance(error, FileNotFoundError):
        return _missing_reason(path)
    if isinstance(error, PermissionError):
        return "no permission to read this file; change its mode or owner, or run as another user"
    if isinstance(error, NotADirectoryError):
        return "no such file: a part of the path is itself a file"
    return f"the file cannot be read ({getattr(error, 'strerror', None) or error})"


def _missing_reason(path):
    if "://" in path:
        return "no such file; addresses are not fetched, download the image and pass its path"
    if path.startswith("~"):
        return "no such file; '~' is not expanded, pass os.path.expanduser(path)"
    if not os.path.isabs(path):
        return f"no such file; the path is relative to {working_directory()}"
    return "no such file"
