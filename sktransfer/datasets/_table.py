"""Images listed in a table with their labels."""

import codecs
import csv as csv_module
import difflib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import Bunch

from .._utils._sklearn import checked
from .._utils._typing import FilePath
from ._bunch import IMAGE_EXTENSIONS, PATH, check_folder, from_where, list_some, make_bunch

_INDICATORS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


@checked(
    csv=PATH,
    image_dir=PATH,
    label_column=[str, None],
    label_columns=[list, tuple, None],
    label_separator=[str, None],
    where=[Mapping, None],
    **{name: [str] for name in ("image_column", "suffix", "delimiter", "encoding")},
)
def load_image_csv(
    csv: FilePath,
    image_dir: FilePath,
    *,
    image_column: str,
    label_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    label_separator: str | None = None,
    suffix: str = "",
    where: Mapping[str, str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8-sig",
) -> Bunch:
    """Read a table of labels and list its images.

    Nothing is decoded, and every cell is text: an id such as ``00017`` keeps its zeros. Blanks
    around a cell or a column name are removed. The order of the rows is kept.

    Parameters
    ----------
    csv : str or os.PathLike
        The table; its first line contains the column names.
    image_dir : str or os.PathLike
        Folder that the file names in the table are relative to.
    image_column : str
        Column of file names or ids.
    label_column : str or None, default=None
        Column of class names. None for a table without labels, such as the test images of a
        competition.
    label_columns : list of str or None, default=None
        For several labels per image: one column for each label, of 0 and 1 or true and false.
    label_separator : str or None, default=None
        For several labels per image: what separates the labels in a cell of `label_column`, such
        as ``" "``. An empty cell means no label.
    suffix : str, default=""
        What to append to each cell of `image_column`, such as ``".jpg"``.
    where : dict of str to str, or None, default=None
        Keep only the rows that have these values in these columns, such as ``{"split": "train"}``.
    delimiter : str, default=","
        Character between two cells.
    encoding : str, default="utf-8-sig"
        Text encoding of the table. The default is UTF-8 with or without a byte order mark.

    Returns
    -------
    Bunch
        As from :func:`load_image_folder`; `target` and `target_names` are None without labels. For
        several labels per image, `target` is an indicator matrix of shape (n_samples, n_labels) and
        dtype int, with the columns `target_names`: `label_columns`, or the sorted labels of the
        whole table, whatever rows `where` keeps. In addition:

        ids : ndarray of shape (n_samples,) and dtype object
            The cells of `image_column`.

    Raises
    ------
    FileNotFoundError
        If the table, the folder or an image is missing.
    ValueError
        If a column is missing, an id appears twice, a cell is empty or not what is expected, or no
        row is left.

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
    check_folder(image_dir, "image_dir")
    if label_columns and (label_column or label_separator):
        raise ValueError(
            "label_columns replaces label_column and label_separator: pass one column for each "
            "label, or one column of all labels with its separator."
        )
    if label_separator is not None and label_column is None:
        raise ValueError(f"label_separator={label_separator!r} needs label_column.")
    where = where or {}
    if not all(map(np.isscalar, where.values())):
        raise TypeError(
            f'where={where!r}: expected one string for each column, such as {{"split": "train"}}.'
        )
    where = {str(column): str(value).strip() for column, value in where.items()}
    label_names = label_columns or None
    columns = [image_column] if label_column is None else [image_column, label_column]
    rows = _read_table(csv, [*columns, *(label_columns or ()), *where], delimiter, encoding)
    if label_separator is not None:
        columns.pop()  # an empty cell means no label
        binarizer = MultiLabelBinarizer()
        label_names = binarizer.fit(_split_labels(rows, label_column, label_separator)).classes_
    for column, value in where.items():
        found = sorted({row[column] for row in rows})
        rows = [row for row in rows if row[column] == value]
        if found and not rows:
            raise ValueError(
                f"{csv} has no row with {value!r} in the column {column!r}, which contains "
                f"{list_some(list(map(repr, found)))}."
            )
    if not rows:
        raise ValueError(f"{csv} has no rows below its column names.")
    _check_cells(csv, rows, columns)
    ids = [row[image_column] for row in rows]
    paths = [os.path.join(image_dir, name + suffix) for name in ids]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images in the column {image_column!r} of {csv} "
            f"do not exist: {list_some(missing)}.{_hint_on_missing(missing, paths, suffix)}"
        )
    if label_separator is not None:
        labels = binarizer.transform(_split_labels(rows, label_column, label_separator))
    elif label_columns:
        labels = np.array([[_indicator(csv, row, name) for name in label_columns] for row in rows])
    else:
        labels = None if label_column is None else [row[label_column] for row in rows]
    ids = np.array(ids, dtype=object)
    return make_bunch(f"Images of the table {csv}", paths, labels, label_names, ids=ids)


def _split_labels(rows, column, separator):
    return [{label.strip() for label in row[column].split(separator)} - {""} for row in rows]


def _indicator(path, row, column):
    value = _INDICATORS.get(row[column].lower())
    if value is None:
        raise ValueError(
            f"{path} has {row[column]!r} in the column {column!r}, line {row[None]}; label_columns "
            "contain 0 and 1, or true and false."
        )
    return value


def _read_table(path, columns, delimiter, encoding):
    """Return a dict for each row, with its line number under the key None."""
    rows = []
    if not os.path.isfile(path):
        raise FileNotFoundError(f"csv: there is no table {from_where(path)}.")
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError) as error:
        hint = 'Python knows "utf-8-sig" and "latin-1", for example'
        raise ValueError(
            f"csv={path!r} with encoding={encoding!r} cannot be opened: {error}. {hint}."
        ) from error
    try:
        with open(path, newline="", encoding=encoding) as file:
            reader = csv_module.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise ValueError(
                    f"{path} is empty or begins with an empty line; expected column names."
                )
            _check_columns(path, header, columns)
            for cells in filter(None, reader):
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path} has {len(cells)} cells in line {reader.line_num} and "
                        f"{len(header)} column names. Hint: put a cell that contains the delimiter "
                        "in double quotes."
                    )
                cells = zip(header, map(str.strip, cells), strict=True)
                rows.append({None: reader.line_num, **dict(cells)})
    except UnicodeDecodeError as error:
        is_utf16 = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise ValueError(
            f"{path} is not {encoding.upper().removesuffix('-SIG')} text ({error.reason}); pass "
            f'its encoding, for example encoding="{"utf-16" if is_utf16 else "latin-1"}".'
        ) from error
    except (csv_module.Error, TypeError) as error:  # a delimiter of several characters
        raise ValueError(f"{path} cannot be read as a table: {error}.") from error
    return rows


def _check_columns(path, found, wanted):
    for column in wanted:
        if found.count(column) > 1:
            raise ValueError(f"{path} has {found.count(column)} columns named {column!r}.")
        if column in found:
            continue
        hint = ""
        names = {name.lower(): name for name in found}
        delimiters = [mark for mark in ",;\t|" if len(found) == 1 and mark in found[0]]
        if delimiters:
            hint = f" Hint: the table seems to need delimiter={delimiters[0]!r}."
        elif close := difflib.get_close_matches(str(column).strip().lower(), names, n=1):
            hint = f" Did you mean {names[close[0]]!r}?"
        raise ValueError(f"{path} has no column {column!r}; its columns are {found}.{hint}")


def _check_cells(path, rows, columns):
    for column in columns:
        lines = [row[None] for row in rows if not row[column]]
        if lines:
            hint = "" if column == columns[0] else "; without labels, leave out label_column"
            raise ValueError(
                f"{path} has empty cells in the column {column!r}, line {list_some(lines)}. Fill "
                f"in these cells or delete the lines{hint}."
            )
    lines = defaultdict(list)
    for row in rows:
        lines[row[columns[0]]].append(row[None])
    repeated = [f"{name!r} (lines {list_some(at)})" for name, at in lines.items() if len(at) > 1]
    if repeated:
        raise ValueError(
            f"{path} lists {len(repeated)} image(s) more than once in the column {columns[0]!r}: "
            f"{list_some(repeated)}. Keep one row for each."
        )


def _hint_on_missing(missing, paths, suffix):
    if suffix and os.path.isfile(missing[0].removesuffix(suffix)):
        return ' Hint: the file names are complete: suffix="".'
    for extension in IMAGE_EXTENSIONS:
        if os.path.isfile(missing[0].removesuffix(suffix) + extension):
            return f" Hint: the file names lack their extension: suffix={extension!r}."
    if len(missing) == len(paths):
        return " Hint: none of the images exists; check image_dir."
    return " Hint: delete the rows of these images, or add the files."
