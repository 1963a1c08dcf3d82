"""Checks for estimators of images, which scikit-learn's common checks cannot feed."""

import os
import pickle
import tempfile
import warnings
from copy import deepcopy
from importlib.util import find_spec
from io import BytesIO
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from sklearn.base import clone, is_regressor

from .cache import cache_info
from .datasets import make_shapes
from .exceptions import ImageReadError, ImageReadWarning

__all__ = ["check_image_estimator"]


def check_image_estimator(estimator: Any) -> None:
    """Check that an estimator treats images as those of this package do.

    A row belongs to its image, whatever the other images, their order and their container are.
    Unreadable images are named or become NaN. The input stays as it is. Copies and second fits
    agree. No image is embedded twice in the default cache. Names of features belong to columns.

    Parameters
    ----------
    estimator : estimator
        A transformer, classifier or regressor whose samples are images. It is cloned, and each
        ``random_state`` is set.

    Raises
    ------
    AssertionError
        If a check fails. Errors of the estimator are not caught.

    See Also
    --------
    sklearn.utils.estimator_checks.check_estimator : Checks for estimators of rows of numbers.

    Notes
    -----
    Random views differ between a file and an array of its pixels, which fails a check. Test such an
    estimator with ``augmentation="flip"``.

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.estimator_checks import check_image_estimator
    >>> check_image_estimator(ImageEmbedder(image_size=32))
    """
    estimator = clone(estimator)
    seeds = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
    estimator.set_params(**dict.fromkeys(seeds, 0))
    fitted = _fit(estimator)
    for check in (_rows, _containers, _input, _copies, _unreadable, _once, _names):
        check(fitted)


def _rows(fitted):
    X = _images(5)
    expected = _outputs(fitted, X)
    for indices in ([4, 2, 0, 1, 3], [3], [1, 1, 0]):
        _assert_same(_outputs(fitted, X[indices]), expected, indices)


def _containers(fitted):
    X = _images(5)
    pillow = [Image.fromarray(pixels) for pixels in X]
    column = np.empty((5, 1), dtype=object)
    column[:, 0] = pillow
    data = [BytesIO() for _ in X]
    for image, file in zip(pillow, data, strict=True):
        image.save(file, "PNG")
    data = [file.getvalue() for file in data]
    kinds = [list(X), pillow, column, data, [{"bytes": each, "path": None} for each in data]]
    if find_spec("pandas"):
        import pandas

        kinds.append(pandas.DataFrame({"image": data}, index=range(7, 12)))
    expected = _outputs(fitted, X)
    for kind in kinds:
        _assert_same(_outputs(fitted, kind), expected)


def _input(estimator):
    X, images, y = _images(), [*_images()], _targets(estimator)
    given = images.copy()
    _outputs(_fit(estimator, images, y), images)
    same = all(image is each for image, each in zip(images, given, strict=True))
    assert same and (np.array(images) == X).all(), "the input was changed"
    X.flags.writeable = False
    _outputs(_fit(estimator, X, y), X)


def _copies(fitted):
    X = _images()
    expected = _outputs(fitted, X)
    for copy in (fitted, pickle.loads(pickle.dumps(fitted)), _fit(fitted)):
        _assert_same(_outputs(copy, X), expected)


def _unreadable(fitted):
    images = [*_images(5)]
    expected = _outputs(fitted, images)
    images[1], images[3] = b"no image", "missing.jpg"
    for method, rows in expected.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageReadWarning)
                found = np.asarray(getattr(fitted, method)(images))
        except ImageReadError as error:
            assert [problem.index for problem in error.errors] == [1, 3], error
        except ValueError as error:  # of a head that takes no NaN
            assert "NaN" in str(error), error
        else:
            assert len(found) == len(rows), f"{method} dropped rows"
            _assert_same({method: found[[0, 2, 4]]}, expected, [0, 2, 4])
            if method == "transform":
                assert np.isnan(found[[1, 3]]).all(), "rows of unreadable images are not NaN"


def _once(estimator):
    X, y = _images(), _targets(estimator)
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, SKTRANSFER_HOME=home):
        _outputs(_fit(estimator, X, y), X)
        once = cache_info().misses
        _outputs(_fit(estimator, np.concatenate([X, X[::-1]]), [*y, *y[::-1]]), X[::-1])
        assert cache_info().misses == once, "images were embedded again"


def _names(fitted):
    X, fitted = _images(5), deepcopy(fitted)  # set_output changes it
    needed = ("transform", "get_feature_names_out")
    if find_spec("pandas") and all(hasattr(fitted, name) for name in needed):
        rows, names = fitted.transform(X), [*fitted.get_feature_names_out()]
        assert len(set(names)) == rows.shape[1], "names of features do not fit the columns"
        frame = fitted.set_output(transform="pandas").transform(X)
        assert [*frame.columns] == names, "a frame has other names of features"
        np.testing.assert_array_equal(frame, rows)


def _images(n_samples=24):
    return make_shapes(24, image_size=32, random_state=0).data[:n_samples]


def _targets(estimator):
    y = make_shapes(24, image_size=32, random_state=0).target
    return (y == "circle").astype(float) if is_regressor(estimator) else y


def _fit(estimator, X=None, y=None):
    X, y = (_images() if X is None else X), (_targets(estimator) if y is None else y)
    return clone(estimator).fit(X, y)


def _outputs(fitted, X):
    """Return what each method gives, as arrays."""
    methods = ("transform", "predict", "predict_proba", "decision_function")
    methods = [name for name in methods if hasattr(fitted, name)]
    return {name: np.asarray(getattr(fitted, name)(X)) for name in methods}


def _assert_same(found, expected, indices=slice(None)):
    """Compare outputs with rows of others; sums over other numbers of rows round otherwise."""
    for method, rows in found.items():
        if rows.dtype.kind == "f":
            np.testing.assert_allclose(rows, expected[method][indices], 1e-4, 1e-5, err_msg=method)
        else:
            np.testing.assert_array_equal(rows, expected[method][indices], err_msg=method)
