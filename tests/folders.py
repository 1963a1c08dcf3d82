"""Folders of empty files for the tests of loaders."""

from pathlib import Path


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative(bunch, root):
    return [Path(path).relative_to(root).as_posix() for path in bunch.data]
