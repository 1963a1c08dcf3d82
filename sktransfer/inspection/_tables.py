"""Tables of predictions and of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import column_or_1d

from .._utils._files import printable
from .._utils._optional import import_optional
from .._utils._sklearn import checked
from .._utils._typing import ArrayLike, Images
from ..images import check_images, image_name
from ._grid import COUNT, MODEL


@checked(model=MODEL, top_k=COUNT)
def prediction_table(model: Any, X: Images, *, top_k: int = 3) -> Any:
    """Tabulate the most probable classes of each image.

    Parameters
    ----------
    model : classifier
        A fitted classifier of images with ``predict_proba``.
    X : array-like of images
        Images, see :func:`~sktransfer.images.check_images`.
    top_k : int, default=3
        Number of classes for each image; at most that of all classes.

    Returns
    -------
    pandas.DataFrame
        One row for each image, in order, with the columns ``path`` (None for an image in memory),
        ``predicted``, ``probability``, ``predicted_2``, ``probability_2``, and so on.
    """
    pandas, paths, found = _probabilities(model, X, "prediction_table")
    values, columns = found.to_numpy(), {"path": paths}
    order = np.argsort(-values, axis=1, kind="stable")[:, :top_k]
    for rank, codes in enumerate(order.T, start=1):
        suffix = f"_{rank}" if rank > 1 else ""
        columns[f"predicted{suffix}"] = found.columns[codes]
        columns[f"probability{suffix}"] = values[np.arange(len(codes)), codes]
    return pandas.DataFrame(columns).rename_axis("index")


@checked(model=MODEL, errors_only=["boolean"])
def error_table(model: Any, X: Images, y: ArrayLike, *, errors_only: bool = True) -> Any:
    """Tabulate the images that a model classifies wrongly, worst first.

    Parameters
    ----------
    model : fitted classifier
        See :func:`prediction_table`.
    X : array-like of images
        See :func:`prediction_table`.
    y : array-like of shape (n_samples,)
        True classes.
    errors_only : bool, default=True
        Whether to leave out the images that are classified correctly.

    Returns
    -------
    pandas.DataFrame
        The columns ``path``, ``true``, ``predicted``, ``probability`` (of the predicted class) and
        ``loss`` (minus the logarithm of the probability of the true class), sorted by loss. The
        index is the row of the image in `X`.
    """
    pandas, paths, found = _probabilities(model, X, "error_table")
    y = column_or_1d(y)
    check_consistent_length(paths, y)
    codes, values = found.columns.get_indexer(y), found.to_numpy()
    # A class that the model does not know has probability 0.
    of_true = np.where(codes >= 0, values[np.arange(len(y)), codes], 0)
    table = pandas.DataFrame({"path": paths, "true": y, "predicted": found.idxmax(axis=1)})
    table["probability"] = found.max(axis=1)
    table["loss"] = -np.log(np.maximum(of_true, np.finfo(values.dtype).eps))
    table = table.rename_axis("index")
    if errors_only:
        table = table[table["true"] != table["predicted"]]
    return table.sort_values("loss", ascending=False, kind="stable")


@checked(model=MODEL, id_column=[str])
def submission_table(
    model: Any, X: Images, *, id_column: str = "id", ids: ArrayLike | None = None
) -> Any:
    """Tabulate the probability of every class, as contests ask for it.

    Parameters
    ----------
    model : fitted classifier
        See :func:`prediction_table`.
    X : array-like of images
        See :func:`prediction_table`.
    id_column : str, default="id"
        Name of the first column.
    ids : array-like of shape (n_samples,) or None, default=None
        Values of the first column; None uses the file names without their extension.

    Returns
    -------
    pandas.DataFrame
        One row for each image, in order: its id and one column for each class. Write it with
        ``table.to_csv("submission.csv", index=False)``.

    Raises
    ------
    ValueError
        If `ids` is None and an image has no file name, or two images have the same id.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sktransfer.inspection import submission_table
    >>> model = DummyClassifier().fit(["a.jpg", "b.jpg"], ["cat", "dog"])
    >>> submission_table(model, ["test/1.jpg", "test/2.jpg"])
      id  cat  dog
    0  1  0.5  0.5
    1  2  0.5  0.5
    """
    _, paths, table = _probabilities(model, X, "submission_table")
    if ids is None and None in paths:
        raise ValueError(
            f"X[{paths.index(None)}] is an image in memory, which has no file name for the column "
            f"{id_column!r}: pass ids=, one for each image."
        )
    ids = [Path(path).stem for path in paths] if ids is None else np.asarray(ids)
    check_consistent_length(paths, ids)
    table.insert(0, id_column, ids)
    if (repeated := table[id_column].duplicated()).any():
        raise ValueError(
            f"The id {table[id_column][repeated.idxmax()]} occurs more than once in the column "
            f"{id_column!r}. Pass ids= with a different id for each image."
        )
    return table


def _probabilities(model, X, needed_by):
    """Return pandas, the paths of images and a data frame with one column for each class."""
    pandas = import_optional("pandas", "report", needed_by)
    paths = [printable(image_name(image)) for image in check_images(X)]
    if any(np.ndim(classes) for classes in model.classes_):
        raise ValueError(
            f"{needed_by} needs a single array of probabilities, but {type(model).__name__} does "
            "not return one for several labels per image. To combine backbones, use one head: "
            "make_pipeline(make_union(ImageEmbedder(...), ImageEmbedder(...)), HeadClassifier())."
        )
    return pandas, paths, pandas.DataFrame(model.predict_proba(X), columns=model.classes_)


def confused_pairs(y_true: ArrayLike, y_pred: ArrayLike) -> Any:
    """Tabulate which classes are predicted for which others, most frequent first.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted classes.

    Returns
    -------
    pandas.DataFrame
        The columns ``true``, ``predicted``, ``count`` (number of images) and ``fraction`` (of the
        images of the true class), without correct predictions and pairs that do not occur.

    Examples
    --------
    >>> from sktransfer.inspection import confused_pairs
    >>> confused_pairs(["cat", "cat", "dog"], ["dog", "cat", "dog"])
      true predicted  count  fraction
    0  cat       dog      1       0.5
    """
    pandas = import_optional("pandas", "report", "confused_pairs")
    check_consistent_length(y_true, y_pred)
    pairs = pandas.DataFrame({"true": column_or_1d(y_true), "predicted": column_or_1d(y_pred)})
    if pandas.isna([*y_true, *y_pred]).any():  # a column of text would call NaN "nan"
        raise ValueError("Classes must not be missing (None or NaN). Leave such samples out.")
    table = pairs.value_counts(sort=False).reset_index(name="count")
    table["fraction"] = table["count"] / table.groupby("true")["count"].transform("sum")
    order = ["count", "fraction"]
    table = table[table["true"] != table["predicted"]]
    return table.sort_values(order, ascending=False, kind="stable", ignore_index=True)
