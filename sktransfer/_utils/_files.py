"""Files that are written whole or not at all, and names of files as text."""

import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Open a new file that replaces ``path`` in one step: a kill leaves the old or the new one."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def printable(name):
    r"""Return a name or None with escapes such as ``\n`` for what cannot be printed or encoded."""
    escape = lambda match: ascii(match[0])[1:-1]  # noqa: E731
    return name and re.sub(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", escape, name)
