"""Pillow over files that may be broken or hostile: quiet, with a reason for what it raises."""

import threading
import warnings
from contextlib import contextmanager

from PIL import Image

from ..exceptions import UnreadableImageError

__all__ = ["AGAIN", "load_pillow", "pillow_guard"]

#: What helps against most damaged files.
AGAIN = "copy, download or save it again"


class _QuietPillow:
    """Keeps Pillow's warnings from users, in however many threads it works.

    `warnings.catch_warnings` changes the filters of the whole process, so the first thread in sets
    it up and the last one out takes it down; overlapping ones would leave filters behind.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._n_inside = 0
        self._caught = None

    def __enter__(self):
        with self._lock:
            if self._n_inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._n_inside += 1

    def __exit__(self, *exception):
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._caught.__exit__(None, None, None)


_QUIET_PILLOW = _QuietPillow()
# A Pillow image reads its file at first use; two threads must not start that on the same one.
_PILLOW_LOAD_LOCK = threading.Lock()


@contextmanager
def pillow_guard(data, max_pixels):
    """Turn whatever Pillow raises over a hostile file into a reason, and keep it quiet."""
    with _QUIET_PILLOW:
        try:
            yield
        except UnreadableImageError:
            raise
        except Exception as error:
            raise UnreadableImageError(_reason(error, data, max_pixels)) from error


def _reason(error, data, max_pixels):
    if isinstance(error, Image.DecompressionBombError):
        return _bomb_reason(max_pixels)
    if isinstance(error, Image.UnidentifiedImageError):
        return _unidentified_reason(data)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; shrink it or lower max_pixels"
    message = str(error) or type(error).__name__
    if "truncated" in message or "broken data stream" in message or isinstance(error, EOFError):
        return f"the file is cut off or damaged ({message}); {AGAIN}"
    return f"it cannot be decoded ({message}); {AGAIN}, as JPEG or PNG"


def _bomb_reason(max_pixels):
    pillow_limit = 2 * Image.MAX_IMAGE_PIXELS
    if max_pixels <= pillow_limit:
        return (
            f"it has more than max_pixels={max_pixels:,} pixels; "
            "shrink it, or raise max_pixels if you trust it"
        )
    return (
        f"it has more than {pillow_limit:,} pixels, which Pillow refuses; shrink it, or set "
        "PIL.Image.MAX_IMAGE_PIXELS = None if you trust it"
    )


def _unidentified_reason(data):
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image; run `git lfs pull`"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return (
            "Pillow cannot read HEIC by itself; install pillow-heif and call "
            "pillow_heif.register_heif_opener(), or save it as JPEG"
        )
    beginning = data[:40]
    if beginning.isascii() and b"\0" not in beginning:
        return (
            f"this is text, not an image (it begins {beginning.decode()!r}); "
            "a download may have saved an error page"
        )
    return f"this is no image in a format that Pillow knows; {AGAIN}, as JPEG or PNG"


def load_pillow(image):
    with _PILLOW_LOAD_LOCK:
        image.load()
