"""Keep the views of one image on one side of every split that a classifier makes by itself.

`bind_splits` goes through the parameters of an estimator, nested ones included, and puts a
`ImageSplitter` wherever one says how rows are split. The splitter splits images, not rows, with
whatever was there before, and then takes all views of an image along. A head is told how many
views there are, and keeps them together by itself.
"""

from numbers import Real

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import type_of_target

from .._training._samples import check_blocks
from ._views import View

__all__ = ["ImageSplitter", "bind_splits"]

#: From this many rows on, histogram gradient boosting stops early of its own accord.
_EARLY_STOPPING_ROWS = 10_000

_ONE_CLASS_A_ROW = ("binary", "multiclass")


class ImageSplitter:
    """Split images by another splitter, and take all views of an image along.

    Parameters
    ----------
    splitter : int, float, cross-validation splitter, iterable or None
        What splits the images, one row each: as ``cv`` in scikit-learn, and a share below 1 for
        one random split.
    n_views : int
        Views of each image.
    classifier : bool, default=True
        Whether folds that a number asks for are stratified by class.
    seed : int or None, default=None
        Seed of a random split into shares.
    """

    #: What scikit-learn's searches and stacks ask splitters for, or set.
    _FORWARDED = ("random_state", "shuffle", "get_metadata_routing")

    def __init__(self, splitter, n_views, classifier=True, seed=None):
        self.splitter = splitter
        self.n_views = n_views
        self.classifier = classifier
        self.seed = seed

    def __getattr__(self, name):
        if name in self._FORWARDED and "splitter" in vars(self):
            return getattr(self.splitter, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name, value):
        if name == "random_state":
            self.splitter.random_state = value
        else:
            super().__setattr__(name, value)

    def __repr__(self):
        return f"ImageSplitter({self.splitter!r}, {self.n_views})"  # names checkpoints as well

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return how many splits there are.

        Parameters
        ----------
        X, y, groups : array-like of shape (n_rows, ...) or None
            As for `split`.

        Returns
        -------
        int
            Number of splits.
        """
        if X is None and y is None:
            return self._resolve(None).get_n_splits()
        first, _ = self._images(X, y)
        images = _images_at(X, first), _take(y, first), _take(groups, first)
        return self._resolve(images[1]).get_n_splits(*images)

    def split(self, X, y=None, groups=None):
        """Yield the rows of both sides of each split.

        Parameters
        ----------
        X : array-like of shape (n_rows, ...)
            Views, or what was made of them, such as embeddings.
        y : array-like of shape (n_rows,) or (n_rows, n_labels), default=None
            Targets.
        groups : array-like of shape (n_rows,), default=None
            Groups of rows that the splitter keeps together.

        Yields
        ------
        (ndarray of int, ndarray of int)
            Rows to train on and rows to test on.
        """
        first, views = self._images(X, y)
        images = _images_at(X, first), _take(y, first), _take(groups, first)
        for sides in self._resolve(images[1]).split(*images):
            yield tuple(np.concatenate([views[image] for image in _rows(s)]) for s in sides)

    def _resolve(self, y):
        if not (isinstance(self.splitter, Real) and 0 < self.splitter < 1):
            return check_cv(self.splitter, y, classifier=self.classifier)
        by_class = self.classifier and y is not None and type_of_target(y) in _ONE_CLASS_A_ROW
        kind = StratifiedShuffleSplit if by_class else ShuffleSplit
        return kind(1, test_size=self.splitter, random_state=self.seed)

    def _images(self, X, y):
        """First row of each image, and all rows of each image."""
        image_of = _image_of_views(X)
        if image_of is None:
            check_blocks(_n_rows(X), y, self.n_views)
            image_of = np.arange(_n_rows(X)) // self.n_views
        _, first, counts = np.unique(image_of, return_index=True, return_counts=True)
        views = np.split(np.argsort(image_of, kind="stable"), np.cumsum(counts)[:-1])
        return first, views


def _n_rows(X):
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _take(data, rows):
    return None if data is None else _safe_indexing(data, rows)


def _rows(side):
    side = np.asarray(side)
    return np.flatnonzero(side) if side.dtype == bool else side


def _views_in(X):
    """X as a list of views, None where it holds something else."""
    if getattr(getattr(X, "dtype", None), "kind", "") != "O":
        return None
    values = X.ravel().tolist()
    return values if values and isinstance(values[0], View) else None


def _image_of_views(X):
    views = _views_in(X)
    return None if views is None else np.array([view.row for view in views])


def _images_at(X, rows):
    """What X holds of images: the images that views were made of, or rows of embeddings."""
    views = _views_in(X)
    if views is None:
        return _take(X, rows)
    images = np.empty(len(rows), dtype=object)
    images[:] = [views[row].image for row in rows]
    return images


# ---------------------------------------------------------------------------------------------
# Where estimators split
# ---------------------------------------------------------------------------------------------


def bind_splits(estimator, n_views, n_rows, seed):
    """Let every split that an estimator makes by itself keep views of one image together.

    Parameters
    ----------
    estimator : estimator
        Changed in place: pass a clone.
    n_views : int
        Views of each image.
    n_rows : int
        Number of rows that it will be fitted on.
    seed : int
        Seed of validation shares.

    Raises
    ------
    ValueError
        If a part of it splits rows in a way that cannot be changed from outside.
    """
    bound = {}
    for path, part in _parts(estimator):
        _refuse_own_splits(part, path, n_rows)
        parameters = part.get_params(deep=False)
        for name, splitter in _bound(parameters, n_views, seed).items():
            bound[path + name] = splitter
        for name in ("param_grid", "param_distributions"):
            _check_grid(parameters.get("estimator"), parameters.get(name), name, n_rows)
            _bind_candidates(parameters.get(name), n_views, n_rows, seed)
    estimator.set_params(**bound)


def _parts(estimator):
    """Yield (prefix of its parameters, estimator) for it and all estimators inside."""
    yield "", estimator
    parameters = estimator.get_params(deep=True)
    fitted = [f"{n}__" for n, value in parameters.items() if isinstance(value, FrozenEstimator)]
    for name, value in parameters.items():
        if _is_estimator(value) and not name.startswith(tuple(fitted)):
            yield f"{name}__", value


def _is_estimator(value):
    # Some transforms of torchvision have a get_params of another meaning, and no fit.
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)


def _bound(parameters, n_views, seed):
    """Return the parameters of one estimator that are to change."""
    bound = {}
    if "cv" in parameters and not isinstance(parameters["cv"], str):  # "prefit" splits nothing
        bound["cv"] = ImageSplitter(parameters["cv"], n_views, seed=seed)
    if parameters.get("validation_splitter") is not None:
        splitter = parameters["validation_splitter"]
        bound["validation_splitter"] = ImageSplitter(splitter, n_views, classifier=False)
    if "rows_per_image" in parameters:  # above 1 already where views are made of views
        bound["rows_per_image"] = parameters["rows_per_image"] * n_views
    return bound


def _refuse_own_splits(part, path, n_rows):
    found = _own_split(part.get_params(deep=False), n_rows)
    if found is None:
        return
    what, instead = found
    raise ValueError(
        f"{type(part).__name__} with {path}{what} splits rows by itself, and would have views of "
        f"one image on both sides. Use n_views=1, or {instead}."
    )


def _own_split(parameters, n_rows):
    """(setting that splits rows by itself and cannot be told how, what to do instead)."""
    stops = parameters.get("early_stopping")
    if "validation_splitter" not in parameters and "validation_fraction" in parameters:
        if stops is True or (stops == "auto" and n_rows > _EARLY_STOPPING_ROWS):
            return f"early_stopping={stops!r}", (
                "set early_stopping=False, or take HeadClassifier(early_stopping=True)"
            )
        if "early_stopping" not in parameters and parameters.get("n_iter_no_change") is not None:
            return "n_iter_no_change", "set n_iter_no_change=None"
    if parameters.get("oob_score"):
        return "oob_score", "set oob_score=False and cross-validate around AugmentedClassifier"
    if parameters.get("probability") is True:
        return "probability=True", "take CalibratedClassifierCV(SVC())"
    if type(parameters.get("train_split")).__name__ == "ValidSplit":
        return "train_split", "set train_split=None, or take HeadClassifier(early_stopping=True)"
    return None


def _candidates(grids):
    """Yield (name of a parameter, candidate) of a search's grids."""
    for grid in [grids] if isinstance(grids, dict) else grids or []:
        for key, values in grid.items():
            for value in values if isinstance(values, (list, tuple, np.ndarray)) else []:
                yield key, value


def _check_grid(estimator, grids, name, n_rows):
    """Refuse candidates of a search that say how rows are split, or split them by themselves."""
    for key, value in _candidates(grids):
        if key.rpartition("__")[2] in ("cv", "validation_splitter"):
            raise ValueError(
                f"{name} of a search inside AugmentedClassifier varies {key!r}, which says how "
                "rows are split. Put the search around instead: "
                f"GridSearchCV(AugmentedClassifier(...), {{'estimator__{key}': ...}})."
            )
        if not _is_estimator(value):
            for path, part in _parts(clone(estimator).set_params(**{key: value})):
                _refuse_own_splits(part, path, n_rows)


def _bind_candidates(grids, n_views, n_rows, seed):
    """Bind the estimators among the candidates of a search."""
    for _, value in _candidates(grids):
        if _is_estimator(value):
            bind_splits(value, n_views, n_rows, seed)
