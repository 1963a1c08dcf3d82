"""Images in one folder for each class."""

import os
import re
from numbers import Integral
from pathlib import Path

from sklearn.utils import Bunch

from .._utils._sklearn import Interval, checked
from .._utils._typing import FilePath
from .._utils._warnings import warn_user
from ._bunch import IMAGE_EXTENSIONS, PATH, check_folder, list_some, make_bunch

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}


@checked(
    root=PATH,
    extensions=[str, tuple, list],
    max_per_class=[Interval(Integral, 1, None, closed="left"), None],
)
def load_image_folder(
    root: FilePath,
    *,
    extensions: str | tuple[str, ...] = IMAGE_EXTENSIONS,
    max_per_class: int | None = None,
) -> Bunch:
    """List the images of a folder that contains one folder for each class.

    Nothing is decoded. Classes and, within them, images are sorted; folders inside a class folder
    are searched as well. Files with other extensions are left out, and so are images beside the
    class folders, with a warning. Files and folders whose name begins with a dot are ignored.

    Parameters
    ----------
    root : str or os.PathLike
        Folder that contains the class folders.
    extensions : str or tuple of str, default=IMAGE_EXTENSIONS
        Extensions of the images, such as ``".png"``, in upper or lower case.
    max_per_class : int or None, default=None
        Keep at most this many images of each class, evenly spaced in the sorted list. None keeps
        all of them.

    Returns
    -------
    Bunch
        data : ndarray of shape (n_samples,) and dtype object
            Paths as `str`, relative if `root` is relative.
        target : ndarray of shape (n_samples,) and dtype str
            Class names. A test folder that lacks a class cannot shift names, as it would numbers.
        target_names : ndarray of shape (n_classes,) and dtype str
            The class names, sorted.
        DESCR : str
            The number of images of each class, and of the files with other extensions.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If there are no class folders, a class has no images, or `root` contains ``train`` and
        ``test`` folders or a single folder of folders: load these one by one.

    See Also
    --------
    load_image_csv : Load images and labels from a table.
    load_image_dataset : Load images and labels from a PyTorch dataset.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sktransfer.datasets import load_image_folder, make_shapes
    >>> with TemporaryDirectory() as folder:
    ...     _ = make_shapes(n_samples=8, folder=folder, random_state=0)
    ...     shapes = load_image_folder(folder)
    >>> shapes.data.shape, shapes.target_names.tolist()
    ((8,), ['circle', 'cross', 'square', 'triangle'])
    """
    root = check_folder(root, "root")
    given = (extensions,) if isinstance(extensions, str) else extensions
    if not all(isinstance(end, str) and end.startswith(".") for end in given or [None]):
        raise ValueError(
            f'extensions={extensions!r}: each must begin with a dot, such as (".jpg", ".png").'
        )
    extensions = tuple(extension.lower() for extension in given)
    classes = _class_folders(root, extensions)
    files = {folder.name: images_below(folder, ("",)) for folder in classes}  # also no images
    images = {k: [p for p in v if p.lower().endswith(extensions)] for k, v in files.items()}
    n_others = sum(len(files[name]) - len(images[name]) for name in files)
    if empty := [name for name, found in images.items() if not found]:
        others = {Path(path).suffix for name in empty for path in files[name]}
        because = f" (only files that end with {list_some(sorted(others))})" if others else ""
        raise ValueError(
            f"{root} has classes without images: {list_some(empty)}{because}. Remove these "
            f"folders, or add images with one of the extensions {', '.join(extensions)}."
        )
    if max_per_class is not None:
        for name, found in images.items():
            n = min(max_per_class, len(found))
            images[name] = [found[len(found) * i // n] for i in range(n)]
    paths = [path for found in images.values() for path in found]
    labels = [name for name, found in images.items() for _ in found]
    loose = [path.name for path in _visible(root) if _is_image(path.name, extensions)]
    if loose := sorted(name for name in loose if name not in images):
        warn_user(
            f"{root} has {len(loose)} image(s) beside its class folders. They have no class and "
            f"are left out: {list_some(loose)}. Move them into a class folder or out of {root}.",
            UserWarning,
        )
    bunch = make_bunch(f"Images of the folder {root}", paths, labels)
    if n_others:
        bunch.DESCR += f"\n{n_others} files with other extensions are left out.\n"
    return bunch


def _class_folders(root, extensions):
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    if not folders:
        n_images = sum(_is_image(entry.name, extensions) for entry in _visible(root))
        if not n_images:
            raise ValueError(f"{root} is empty: expected one folder of images for each class.")
        raise ValueError(
            f"{root} has {n_images} images but no folders: expected one folder for each class. "
            "Hint: load_image_csv reads labels from a table; to predict, pass a list of paths."
        )
    splits = [
        folder
        for folder in folders
        if not _SPLIT_NAMES.isdisjoint(re.split("[^a-z]+", folder.name.lower()))  # also seg_train
        and _contains_only_folders(folder, extensions)
    ]
    if len(splits) > 1 or splits == folders:
        raise ValueError(
            f"{root} contains {list_some([folder.name for folder in splits])}: parts of a "
            f"data set, not classes. Load them one by one: {_calls(splits, extensions)}."
        )
    if len(folders) == 1 and _contains_only_folders(folders[0], extensions):
        raise ValueError(
            f"{root} contains one folder, {folders[0].name}, with further folders inside: a single "
            f"class. If those are the classes, call {_calls(folders, extensions)}."
        )
    return folders


def _calls(folders, extensions):
    """Return the calls that load folders of classes, unwrapped from folders around them."""
    calls = []
    for folder in folders:
        inside = _visible(folder)
        while len(inside) == 1 and _contains_only_folders(inside[0], extensions):
            folder, inside = inside[0], _visible(inside[0])
        calls.append(f"load_image_folder({str(folder)!r})")
    return ", ".join(calls)


def _visible(folder):
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _is_image(name, extensions):
    return name.lower().endswith(extensions) and not name.startswith(".")


def _contains_only_folders(path, extensions):
    """Whether a path is a folder that contains folders and no images."""
    if not path.is_dir():
        return False
    entries = _visible(path)
    has_images = any(_is_image(entry.name, extensions) for entry in entries)
    return not has_images and any(entry.is_dir() for entry in entries)


def images_below(folder, extensions):
    def fail(error):
        raise error

    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        # os.walk descends into the folders that are left in this very list.
        real = os.path.realpath(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        if real not in seen:  # links may lead back
            seen.add(real)
            found += [os.path.join(parent, name) for name in files if _is_image(name, extensions)]
    return sorted(found)
