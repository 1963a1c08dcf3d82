"""Using Pillow from several threads, without its warnings."""

import threading
import warnings

from .._utils._fork import after_fork_in_child

__all__ = ["load_image", "orientation", "quiet_pillow"]

_EXIF_ORIENTATION = 0x0112


class _QuietPillow:
    """Context manager that hides Pillow's warnings in any number of threads.

    `warnings.catch_warnings` changes the whole process, and overlapping ones would leave filters
    behind. So the first thread to enter sets the filter, and the last to leave removes it.
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

    def reset(self):
        """Start anew in a forked child, where the threads inside do not exist."""
        if self._n_inside:
            self._caught.__exit__(None, None, None)
        self._lock, self._n_inside = threading.Lock(), 0


quiet_pillow = _QuietPillow()
# A Pillow image reads its file at first use; two threads must not do that to the same image.
_load_lock = threading.Lock()


@after_fork_in_child
def _reset():
    global _load_lock
    _load_lock = threading.Lock()
    quiet_pillow.reset()


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
