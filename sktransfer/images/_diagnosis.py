"""Why an image cannot be read: the reasons that users see in error messages."""

import os
import stat
from importlib.util import find_spec

from PIL import Image

from ..exceptions import ImageProblem
from ._containers import image_name

#: How a HEIC file begins, after its first four bytes.
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1")

_AGAIN = "copy, download or save it again"


def image_problems(images, failures):
    """Return an ImageProblem for each item of {index: UnreadableImageError}, by index."""
    return [
        ImageProblem(index, image_name(images[index]), str(failures[index]))
        for index in sorted(failures)
    ]


def diagnose_opening(path, error=None):
    """Say why a path cannot be opened as a regular file."""
    path = os.fsdecode(path)
    if os.path.exists(path) and not os.path.isfile(path):  # some raise no error, some cannot open
        if stat.S_ISDIR(os.stat(path).st_mode):
            return (
                "this is a directory, not an image; "
                "sktransfer.datasets.load_image_folder lists the images of class folders"
            )
        return "this is a device, pipe or socket, not a file"
    if isinstance(error, PermissionError):
        return "no permission to read this file; change its mode or owner, or run as another user"
    if isinstance(error, NotADirectoryError):
        return "no such file: a part of the path is itself a file"
    if not isinstance(error, FileNotFoundError):
        return f"the file cannot be read ({getattr(error, 'strerror', None) or error})"
    if "://" in path:
        return "no such file; URLs are not downloaded, download the image and pass its path"
    if path.startswith("~"):
        return "no such file; '~' is not expanded, pass os.path.expanduser(path)"
    if not os.path.isabs(path):
        return f"no such file; the path is relative to {working_directory()}"
    return "no such file"


def diagnose_decoding(error, data=b"", max_pixels=None):
    """Say why an image, encoded or not, cannot be read or decoded under the limit of a caller."""
    if isinstance(error, MemoryError):
        return "not enough memory to read it; shrink it or lower max_pixels"
    if isinstance(error, Image.DecompressionBombError):
        pillow_limit = 2 * Image.MAX_IMAGE_PIXELS
        if max_pixels is not None and max_pixels <= pillow_limit:
            return too_many_pixels("its size", max_pixels)
        return (
            f"it has more than {pillow_limit:,} pixels, which Pillow refuses; shrink it, or set "
            "PIL.Image.MAX_IMAGE_PIXELS = None if you trust it"
        )
    if isinstance(error, Image.UnidentifiedImageError):
        return _diagnose_format(data)
    message = str(error) or type(error).__name__
    if "truncated" in message or "broken data stream" in message or isinstance(error, EOFError):
        return f"the file is cut off or damaged ({message}); {_AGAIN}"
    if data:
        return f"it cannot be decoded ({message}); {_AGAIN}, as JPEG or PNG"
    return f"it cannot be read ({type(error).__name__}: {message})"


def _diagnose_format(data):
    if not data:
        return f"the file is empty (0 bytes); {_AGAIN}"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image; run `git lfs pull`"
    if data[4:12] in HEIC and not find_spec("pillow_heif"):
        return "HEIC needs pillow-heif: pip install 'sktransfer[heic]', or save it as JPEG"
    beginning = data[:40]
    if beginning.isascii() and b"\0" not in beginning:
        return (
            f"this is text, not an image (it begins with {beginning.decode()!r}); "
            "a download may have saved an error page"
        )
    return f"Pillow does not recognize the format of this file; {_AGAIN}, as JPEG or PNG"


def too_many_pixels(what, max_pixels):
    """Say that an image exceeds the limit, and what to do."""
    return (
        f"{what} exceeds max_pixels={max_pixels:,}; shrink it, or raise max_pixels if you trust it"
    )


def working_directory():
    """Return the working directory, with a trailing separator."""
    try:
        return os.path.join(os.getcwd(), "")
    except FileNotFoundError:  # it has been deleted
        return os.path.join(os.curdir, "")
