"""Bunches of images and class names: from class folders, from a table, or drawn."""

import csv as csv_module
import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

__all__ = ["IMAGE_EXTENSIONS", "load_image_csv", "load_image_folder", "make_shapes"]

#: Files that end so (in any case) are images to `load_image_folder`; it ignores all others.
IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".tga"),
)

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
_LISTED = 10


def _shown(things):
    """List the first few things in a message and count the rest."""
    shown = ", ".join(str(thing) for thing in things[:_LISTED])
    return shown + (f" and {len(things) - _LISTED} more" if len(things) > _LISTED else "")


def _make_bunch(paths, labels, description, **others):
    target = np.array(labels, dtype=str)
    return Bunch(
        data=np.array(paths, dtype=object),
        target=target,
        target_names=np.unique(target),
        DESCR=description,
        **others,
    )


# ---------------------------------------------------------------------------------------------
# A folder for each class
# ---------------------------------------------------------------------------------------------


def load_image_folder(root, *, extensions=IMAGE_EXTENSIONS):
    """List the images of a folder that holds one folder for each class.

    Nothing is decoded. Classes and, within them, images come in sorted order; folders inside a
    class folder are searched as well. Files and folders whose name begins with a dot are
    ignored, and so are files with another extension.

    Parameters
    ----------
    root : str or os.PathLike
        The folder whose folders are the classes.
    extensions : str or tuple of str, default=IMAGE_EXTENSIONS
        What the name of an image ends with, such as ``".png"``; upper and lower case are the same.

    Returns
    -------
    Bunch
        data : ndarray of shape (n_samples,) and dtype object
            Paths, as str, beginning with `root` as it was given.
        target : ndarray of shape (n_samples,) and dtype str
            Names of the classes. Names, not numbers: a test folder that lacks a class cannot shift
            them.
        target_names : ndarray of shape (n_classes,) and dtype str
            The class names, sorted.
        DESCR : str
            How many images there are of each class.

    Raises
    ------
    FileNotFoundError
        If there is no folder `root`.
    ValueError
        If it has no class folders, if a class has no images, if it holds ``train`` and ``test``
        folders, which are loaded one by one, or nothing but one folder of folders.

    See Also
    --------
    load_image_csv : The same for a table of labels.

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
    root, extensions = Path(root), _check_extensions(extensions)
    classes = _class_folders(root, extensions)
    images = {folder.name: _images_below(folder, extensions) for folder in classes}
    _check_no_class_is_empty(root, images, extensions)
    paths = [path for found in images.values() for path in found]
    labels = [name for name, found in images.items() for _ in found]
    return _make_bunch(paths, labels, _describe(f"Images of the folder {root}", labels))


def _check_extensions(extensions):
    extensions = (extensions,) if isinstance(extensions, str) else tuple(extensions)
    if extensions and all(isinstance(e, str) and e.startswith(".") for e in extensions):
        return tuple(extension.lower() for extension in extensions)
    raise ValueError(
        f'extensions must be texts that begin with a dot, such as (".jpg", ".png"); got '
        f"{extensions!r}."
    )


def _describe(title, labels):
    lines = [f"{title}\n", f"{len(labels)} images, {len(set(labels))} classes:\n"]
    lines += [f"- {name}: {count}" for name, count in sorted(Counter(labels).items())]
    return "\n".join(lines) + "\n"


def _class_folders(root, extensions):
    _check_is_folder(root, "root")
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    if not folders:
        raise ValueError(_no_classes_message(root, extensions))
    splits = [folder for folder in folders if _is_split(folder, extensions)]
    if len(splits) > 1 or splits == folders:
        raise ValueError(
            f"{root} holds {_shown([folder.name for folder in splits])}, which look like parts of "
            f"a data set and not like classes. Load them one by one: {_calls(splits, extensions)}."
        )
    if len(folders) == 1 and _holds_only_folders(folders[0], extensions):
        raise ValueError(
            f"{root} holds one folder, {folders[0].name}, with further folders inside: a single "
            f"class. If those are the classes, type {_calls(folders, extensions)}."
        )
    return folders


def _calls(folders, extensions):
    """What to type to load folders of classes, however many folders are wrapped around these."""
    calls = []
    for folder in folders:
        inside = _visible(folder)
        while len(inside) == 1 and _holds_only_folders(inside[0], extensions):
            folder, inside = inside[0], _visible(inside[0])
        calls.append(f"load_image_folder({str(folder)!r})")
    return ", ".join(calls)


def _check_is_folder(folder, parameter):
    if not folder.exists():
        where = "" if folder.is_absolute() else f" (looked for in {Path.cwd()})"
        raise FileNotFoundError(f"{parameter}: there is no folder {folder}{where}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{parameter}: {folder} is a file; pass the folder of images.")


def _visible(folder):
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _is_image(name, extensions):
    return name.lower().endswith(extensions) and not name.startswith(".")


def _no_classes_message(root, extensions):
    n_samples = sum(_is_image(entry.name, extensions) for entry in _visible(root))
    if not n_samples:
        return f"{root} is empty: expected one folder for each class, with its images inside."
    return (
        f"{root} has {n_samples} images but no folders: expected one folder for each class. "
        "Hint: load_image_csv reads the labels from a table; to predict, a list of paths is enough."
    )


def _is_split(folder, extensions):
    """Whether a folder is a part of a data set by its name, such as ``seg_train``, and content."""
    words = re.split("[^a-z]+", folder.name.lower())
    return not _SPLIT_NAMES.isdisjoint(words) and _holds_only_folders(folder, extensions)


def _holds_only_folders(path, extensions):
    """Whether a path is a folder with folders and no images in it."""
    if not path.is_dir():
        return False
    entries = _visible(path)
    has_images = any(_is_image(entry.name, extensions) for entry in entries)
    return not has_images and any(entry.is_dir() for entry in entries)


def _images_below(folder, extensions):
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        # os.walk descends into what is left in this very list.
        if (real := os.path.realpath(parent)) in seen:  # links may lead back to where they are
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(parent, name) for name in files if _is_image(name, extensions)]
    return sorted(found)


def _raise(error):
    raise error


def _check_no_class_is_empty(root, images, extensions):
    empty = [name for name, found in images.items() if not found]
    if not empty:
        return
    ignored = sorted(
        {path.suffix for name in empty for path in (root / name).rglob("*") if path.is_file()}
    )
    because = f" (only files that end with {_shown(ignored)})" if ignored else ""
    raise ValueError(
        f"{root} has classes without images: {_shown(empty)}{because}. Remove these folders, or "
        f"put in images; their names end with one of {', '.join(extensions)}."
    )


# ---------------------------------------------------------------------------------------------
# A table of labels
# ---------------------------------------------------------------------------------------------


def load_image_csv(
    csv,
    image_dir,
    *,
    image_column,
    label_column,
    suffix="",
    where=None,
    delimiter=",",
    encoding="utf-8-sig",
):
    """Read a table of labels and say which images it speaks of.

    Nothing is decoded, and every cell is text: an id such as ``00017`` keeps its zeros. The rows
    keep their order.

    Parameters
    ----------
    csv : str or os.PathLike
        The table, with a line of column names.
    image_dir : str or os.PathLike
        The folder that file names in the table are relative to.
    image_column : str
        The column of file names or ids.
    label_column : str or None
        The column of class names. None for a table without labels, such as that of a contest's
        test images.
    suffix : str, default=""
        What the file names have and the ids lack, for example ``".jpg"``.
    where : dict of str to str, or None, default=None
        Only rows whose cells in these columns are equal to these values, for example
        ``{"split": "train"}``.
    delimiter : str, default=","
        What separates two cells.
    encoding : str, default="utf-8-sig"
        The text encoding of the table; the default is UTF-8 with or without a byte order mark.

    Returns
    -------
    Bunch
        data : ndarray of shape (n_samples,) and dtype object
            Paths, as str, beginning with `image_dir` as it was given.
        target : ndarray of shape (n_samples,) and dtype str, or None
            Names of the classes; None without `label_column`.
        target_names : ndarray of shape (n_classes,) and dtype str, or None
            The class names, sorted; None without `label_column`.
        ids : ndarray of shape (n_samples,) and dtype object
            The cells of `image_column`.
        DESCR : str
            How many images there are of each class.

    Raises
    ------
    FileNotFoundError
        If the table, the folder or an image is missing.
    ValueError
        If a column is missing, an id appears twice, a cell is empty, or no row is left.

    See Also
    --------
    load_image_folder : The same for class folders.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sktransfer.datasets import load_image_csv
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("007.jpg", "008.jpg"):
    ...         Path(folder, name).touch()
    ...     table = Path(folder, "labels.csv")
    ...     _ = table.write_text("id,breed\\n008,pug\\n007,beagle\\n")
    ...     dogs = load_image_csv(
    ...         table, folder, image_column="id", label_column="breed", suffix=".jpg"
    ...     )
    >>> dogs.ids.tolist(), dogs.target.tolist()
    (['008', '007'], ['pug', 'beagle'])
    """
    _check_is_folder(Path(image_dir), "image_dir")
    where = where or {}
    if not isinstance(where, Mapping):
        raise TypeError(
            f"where={where!r} is a {type(where).__name__}; pass a dict of columns and values, such "
            'as {"split": "train"}.'
        )
    wanted = [image_column, *([] if label_column is None else [label_column])]
    rows = _read_table(csv, [*wanted, *where], delimiter, encoding)
    rows = _select(csv, rows, where)
    _check_cells(csv, rows, wanted)
    _check_unique(csv, rows, image_column)
    ids = [row[image_column] for row in rows]
    paths = [os.path.join(image_dir, name + suffix) for name in ids]
    _check_files_exist(csv, paths, image_column, suffix)
    title = f"Images of the table {csv}"
    ids = np.array(ids, dtype=object)
    if label_column is None:
        return _make_unlabelled_bunch(paths, ids, title)
    labels = [row[label_column] for row in rows]
    return _make_bunch(paths, labels, _describe(title, labels), ids=ids)


def _make_unlabelled_bunch(paths, ids, title):
    return Bunch(
        data=np.array(paths, dtype=object),
        target=None,
        target_names=None,
        DESCR=f"{title}\n\n{len(paths)} images, without labels\n",
        ids=ids,
    )


def _read_table(path, columns, delimiter, encoding):
    """Return a dict for each row, which also knows its line number under the key None."""
    try:
        with open(path, newline="", encoding=encoding) as file:
            reader = csv_module.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            _check_columns(path, header, columns)
            return [_as_row(path, header, cells, reader.line_num) for cells in reader if cells]
    except FileNotFoundError:
        raise FileNotFoundError(f"csv: there is no table {path}.") from None
    except LookupError:
        raise ValueError(
            f'encoding={encoding!r} is none that Python knows; try "utf-8-sig" or "latin-1".'
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {encoding} text ({error.reason}); pass its encoding, for example "
            'encoding="latin-1".'
        ) from error
    except csv_module.Error as error:
        raise ValueError(f"{path} is not a table that can be read: {error}.") from error


def _as_row(path, header, cells, line):
    if len(cells) != len(header):
        raise ValueError(
            f"{path} has {len(cells)} cells in line {line} and {len(header)} column names. Hint: a "
            "cell that contains the delimiter must stand in double quotes."
        )
    return dict(zip(header, cells, strict=True)) | {None: line}


def _select(path, rows, where):
    """Return the rows that `where` asks for, at least one."""
    for column, value in where.items():
        kept = [row for row in rows if row[column] == value]
        if rows and not kept:
            values = sorted({row[column] for row in rows})
            raise ValueError(
                f"{path} has no row with {value!r} in the column {column!r}, which holds "
                f"{_shown([repr(each) for each in values])}."
            )
        rows = kept
    if not rows:
        raise ValueError(f"{path} has no rows below its column names.")
    return rows


def _check_columns(path, found, wanted):
    for column in wanted:
        if column not in found:
            raise ValueError(
                f"{path} has no column {column!r}; its columns are {found}."
                f"{_column_hint(column, found)}"
            )
        if found.count(column) > 1:
            raise ValueError(f"{path} has {found.count(column)} columns named {column!r}.")


def _column_hint(column, found):
    if len(found) == 1:
        for delimiter in (",", ";", "\t", "|"):
            if delimiter in found[0]:
                return f" Hint: its cells seem to be separated otherwise: delimiter={delimiter!r}."
    same = [name for name in found if name.strip().lower() == column.strip().lower()]
    close = same or difflib.get_close_matches(column, found, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_cells(path, rows, columns):
    for column in columns:
        lines = [row[None] for row in rows if not row[column]]
        if lines:
            hint = "" if column == columns[0] else " For a table without labels: label_column=None."
            raise ValueError(
                f"{path} has empty cells in the column {column!r}, in line {_shown(lines)}.{hint}"
            )


def _check_unique(path, rows, column):
    lines = {}
    for row in rows:
        lines.setdefault(row[column], []).append(row[None])
    repeated = [f"{name!r} (lines {_shown(at)})" for name, at in lines.items() if len(at) > 1]
    if repeated:
        raise ValueError(
            f"{path} names {len(repeated)} image(s) more than once in the column {column!r}: "
            f"{_shown(repeated)}. Leave one row for each."
        )


def _check_files_exist(csv, paths, column, suffix):
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that {csv} names in the column "
            f"{column!r} do not exist: {_shown(missing)}."
            f"{_suffix_hint(missing[0], suffix) or _folder_hint(missing, paths)}"
        )


def _suffix_hint(path, suffix):
    if suffix and os.path.isfile(path.removesuffix(suffix)):
        return ' Hint: the names are complete already: suffix="".'
    for extension in IMAGE_EXTENSIONS:
        if os.path.isfile(path.removesuffix(suffix) + extension):
            return f" Hint: the names lack their extension: suffix={extension!r}."
    return ""


def _folder_hint(missing, paths):
    if len(missing) < len(paths):
        return ""
    return " Hint: not one of them exists, so image_dir may be the folder of other images."


# ---------------------------------------------------------------------------------------------
# Drawn images
# ---------------------------------------------------------------------------------------------

# How many corners each has, and how far from the centre they are, in turn.
_POLYGONS = {"square": (4, (1.0,)), "triangle": (3, (1.0,)), "star": (10, (1.0, 0.45))}
_SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
_OVERSAMPLING = 4


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_classes": [Interval(Integral, 2, len(_SHAPES), closed="both")],
        "image_size": [Interval(Integral, 16, None, closed="left")],
        "noise": [Interval(Real, 0, 1, closed="both")],
        "folder": [str, os.PathLike, None],
        "format": [StrOptions({"png", "jpg"})],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_shapes(
    n_samples=200,
    *,
    n_classes=4,
    image_size=64,
    noise=0.1,
    folder=None,
    format="png",
    random_state=None,
):
    """Draw a small labelled set of images: a shape in any colour, size, place and rotation.

    The background's colour changes across the image, and every pixel is noisy, so that raw pixels
    say little about the class while a network sees it at once.

    Parameters
    ----------
    n_samples : int, default=200
        How many images; the classes are as equally frequent as can be.
    n_classes : int, default=4
        How many of circle, square, triangle, cross, star and ring, in this order; 2 to 6.
    image_size : int, default=64
        Height and width in pixels; at least 16.
    noise : float, default=0.1
        Standard deviation of the noise, as a share of the range from black to white.
    folder : str, os.PathLike or None, default=None
        Where to write the images, in a folder for each class; it is made when it does not
        exist. `data` are then their paths.
    format : {"png", "jpg"}, default="png"
        How to write them. Only looked at with `folder`.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same images in every call.

    Returns
    -------
    Bunch
        data : ndarray of shape (n_samples, image_size, image_size, 3) and dtype uint8
            The images; with `folder`, their paths instead: ndarray of shape (n_samples,) and
            dtype object.
        target : ndarray of shape (n_samples,) and dtype str
            Names of the classes.
        target_names : ndarray of shape (n_classes,) and dtype str
            The class names, sorted.
        DESCR : str
            How many images there are of each class.

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=12, random_state=0)
    >>> shapes.data.shape, shapes.target[:3].tolist()
    ((12, 64, 64, 3), ['triangle', 'cross', 'circle'])
    """
    rng = check_random_state(random_state)
    labels = [_SHAPES[code] for code in rng.permutation(np.arange(n_samples) % n_classes)]
    images = np.stack([_draw(label, image_size, noise, rng) for label in labels])
    bunch = _make_bunch([], labels, _describe("Drawn shapes", labels))
    bunch.data = images if folder is None else _write(images, labels, Path(folder), format)
    return bunch


def _draw(shape, size, noise, rng):
    """Return one image (size, size, 3) of uint8."""
    mask = _mask(shape, size, rng)[:, :, None]
    ink, paper, far_paper = _colours(rng)
    ramp = _ramp(size, rng)[:, :, None]
    clean = mask * ink + (1 - mask) * ((1 - ramp) * paper + ramp * far_paper)
    noisy = clean + noise * rng.standard_normal((size, size, 3))
    return np.rint(noisy.clip(0, 1) * 255).astype(np.uint8)


def _mask(shape, size, rng):
    """Return the coverage of each pixel by the shape, from 0 to 1."""
    radius = rng.uniform(0.22, 0.38)
    centre = rng.uniform(radius, 1 - radius, 2)
    turn = rng.uniform(0, 2 * np.pi)
    large = Image.new("L", (size * _OVERSAMPLING,) * 2)
    _fill(ImageDraw.Draw(large), shape, centre * large.width, radius * large.width, turn)
    return np.asarray(large.reduce(_OVERSAMPLING), dtype=float) / 255


def _fill(canvas, shape, centre, radius, turn):
    if shape in ("circle", "ring"):
        canvas.ellipse([*(centre - radius), *(centre + radius)], fill=255)
        if shape == "ring":
            canvas.ellipse([*(centre - 0.6 * radius), *(centre + 0.6 * radius)], fill=0)
    elif shape == "cross":
        # Two bars: at a right angle, a third as broad as they are long.
        for angle in (turn, turn + np.pi / 2):
            along = radius * np.array([np.cos(angle), np.sin(angle)])
            across = along[::-1] * (-1 / 3, 1 / 3)
            bar = [along + across, along - across, -along - across, across - along]
            canvas.polygon([tuple(centre + corner) for corner in bar], fill=255)
    else:
        n_corners, distances = _POLYGONS[shape]
        angles = turn + 2 * np.pi * np.arange(n_corners) / n_corners
        reach = radius * np.resize(distances, n_corners)
        corners = centre + reach[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        canvas.polygon([tuple(corner) for corner in corners], fill=255)


def _colours(rng):
    """Return the colours of the shape and of the background's two ends, far apart in lightness."""
    dark, light = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
    ink, paper = (dark, light) if rng.uniform() < 0.5 else (light, dark)
    return ink, paper, (paper + rng.uniform(-0.2, 0.2, 3)).clip(0, 1)


def _ramp(size, rng):
    """Return a plane (size, size) that rises from 0 to at most 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-0.5, 0.5, size)
    return 0.5 + (np.cos(angle) * steps[:, None] + np.sin(angle) * steps) / np.sqrt(2)


def _write(images, labels, folder, format):
    digits = len(str(len(labels) - 1))
    paths = [
        folder / label / f"{position:0{digits}}.{format}" for position, label in enumerate(labels)
    ]
    for path, pixels in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return np.array([str(path) for path in paths], dtype=object)
