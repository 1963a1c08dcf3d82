"""Write files whole or not at all, and make their names printable."""

import os
import re
import threading
from contextlib import contextmanager


@contextmanager
def replacing(path):
    """Open a file that replaces ``path`` in one step: after a kill, the old or new one is whole."""
    part = path.with_name(f"{path.name}{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def printable(name):
    r"""Escape characters of a name that cannot be printed or encoded. None stays None."""
    escape = lambda match: ascii(match[0])[1:-1]  # noqa: E731
    return name and re.sub(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", escape, name)
