"""Using Pillow from several threads, without its warnings."""

import threading
from functools import partial

from .._utils._fork import after_fork_in_child
from .._utils._warnings import quiet

quiet_pillow = partial(quiet, r"PIL(\.|$)")

_EXIF_ORIENTATION = 0x0112

# A Pillow image reads its file at first use; two threads must not do that to the same image.
_load_lock = threading.Lock()


@after_fork_in_child
def _reset():
    global _load_lock
    _load_lock = threading.Lock()


def load_image(image):
    """Make a Pillow image read its file."""
    with _load_lock:
        image.load()


def orientation(image):
    """Return the EXIF orientation of a Pillow image, 1 (upright) if it has none."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return 1
