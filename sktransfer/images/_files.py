"""Reading a file that should be an image."""

import os
import stat

from ..exceptions import UnreadableImageError
from ._diagnosis import diagnose_opening

#: Larger files are refused unread: no image within the pixel limits has that many bytes.
MAX_BYTES = 2 * 1024**3

# Do not block on a pipe without a writer. On Windows, do not translate line endings.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path):
    """Return the bytes of a file, or raise UnreadableImageError with the reason."""
    try:
        file = os.open(path, _FLAGS)
        try:
            # Few system calls: threads hand over the interpreter at each of them.
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError(diagnose_opening(path))
            if status.st_size > MAX_BYTES:
                raise UnreadableImageError(
                    f"the file has {status.st_size:,} bytes; images have at most {MAX_BYTES:,}"
                )
            data = os.read(file, status.st_size + 1)
            if len(data) != status.st_size:  # it is growing, or larger than one call returns
                os.lseek(file, 0, os.SEEK_SET)
                with open(file, "rb", buffering=0, closefd=False) as whole:
                    data = whole.read()
            return data
        finally:
            os.close(file)
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImageError(diagnose_opening(path, error)) from error
