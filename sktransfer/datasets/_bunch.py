"""What the loaders share: bunches, checks and messages."""

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

#: File extensions of images, in lower case.
IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".tga"),
)


#: What a parameter for a path may be; `open` takes a number for an open file, and closes it.
PATH = [str, os.PathLike]


def list_some(things):
    """List the first things in a message and count the others."""
    more = f" and {len(things) - 10} more" if len(things) > 10 else ""
    return ", ".join(map(str, things[:10])) + more


def make_bunch(title, data, labels, label_names=None, **others):
    """Return a bunch of images and class names, or an indicator matrix of ``label_names``."""
    lines, names = [f"{title}\n"], None
    if labels is None:
        lines.append(f"{len(data)} images, without labels")
    else:
        if label_names is None:
            labels = np.array(labels, dtype=str)
            names, counts = np.unique(labels, return_counts=True)
        else:
            names, counts = np.array(label_names, dtype=str), labels.sum(axis=0)
        kind = "classes" if label_names is None else "labels"
        lines.append(f"{len(data)} images, {len(names)} {kind}:\n")
        lines += [f"- {name}: {count}" for name, count in zip(names, counts, strict=True)]
    if isinstance(data, list):
        paths, data = data, np.empty(len(data), dtype=object)
        data[:] = paths
    description = "\n".join(lines) + "\n"
    return Bunch(data=data, target=labels, target_names=names, DESCR=description, **others)


def from_where(path):
    """Return a path for a message, with the folder that it is relative to."""
    return path if os.path.isabs(path) else f"{path} (the path is relative to {Path.cwd()})"


def check_folder(folder, parameter):
    """Return the path of a folder that exists, or say what to pass."""
    folder = Path(folder)
    if not os.path.exists(folder):
        raise FileNotFoundError(f"{parameter}: there is no folder {from_where(folder)}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{parameter}: {folder} is a file; pass the folder of the images.")
    return folder
