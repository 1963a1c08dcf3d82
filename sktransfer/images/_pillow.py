"""Using Pillow from several threads, without its warnings."""

import threading
from functools import partial
from weakref import WeakValueDictionary

from .._utils._fork import after_fork_in_child
from .._utils._warnings import quiet

quiet_pillow = partial(quiet, r"PIL(\.|$)")

_EXIF_ORIENTATION = 0x0112

# A Pillow image reads its file at first use; two threads must not do that to the same image.
_load_lock = threading.Lock()

#: Images that could not be read, by their id. Pillow's images have no hash.
_failed = WeakValueDictionary()


@after_fork_in_child
def _reset():
    """Replace the lock, which another thread may hold: a fork does not wait for a slow file."""
    global _load_lock
    _load_lock = threading.Lock()


def load_image(image):
    """Make a Pillow image read its file."""
    with _load_lock:
        if _failed.get(id(image)) is image:  # Pillow would return what it decoded until then
            raise OSError("broken data stream when reading the image earlier")
        try:
            image.load()
        except Exception:
            _failed[id(image)] = image
            raise


def orientation(image):
    """Return the EXIF orientation of a Pillow image, 1 (upright) if it has none."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return 1
