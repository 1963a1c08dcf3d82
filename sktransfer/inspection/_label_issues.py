"""Labels that are probably wrong."""

from __future__ import annotations

from typing import Any

from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_consistent_length

from .._utils._files import printable
from .._utils._optional import import_optional
from .._utils._typing import ArrayLike, Images
from ..images import check_images, image_name
from ._embedding import embed

_FILTER = "low_self_confidence"  # the estimated number of wrong labels, lowest quality first


def find_label_issues(
    model: Any,
    X: Images,
    y: ArrayLike,
    *,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> Any:
    """Find labels that are probably wrong, by cleanlab's confident learning [1]_.

    The probabilities of each image come from a clone of the model, trained on other images.

    Parameters
    ----------
    model : classifier
        A classifier of images with ``predict_proba``; need not be fitted.
    X : array-like of images
        Images, see :func:`~sktransfer.images.check_images`.
    y : array-like of shape (n_samples,)
        Labels.
    cv : int, cross-validation generator or iterable, default=5
        See :func:`~sklearn.model_selection.cross_val_predict`.
    groups : array-like of shape (n_samples,) or None, default=None
        Groups that stay together in a split, such as ``find_duplicates(X).groups``. An int `cv`
        then stands for :class:`~sklearn.model_selection.StratifiedGroupKFold`.
    n_jobs : int or None, default=None
        Number of splits that are worked on at a time.

    Returns
    -------
    pandas.DataFrame
        One row for each image, lowest quality first; the index is the row in `X`. The columns are
        ``path`` (None for an image in memory), ``label``, ``suggested`` (most probable class),
        ``quality`` (of the label, in [0, 1]), ``issue`` (True for as many of the lowest quality as
        cleanlab estimates to be wrong) and ``outlier`` (in [0, 1]; near 1 for an image that
        resembles no other).

    Raises
    ------
    MissingExtraError
        If cleanlab is not installed (extra ``audit``).

    References
    ----------
    .. [1] C. Northcutt, L. Jiang and I. Chuang, "Confident Learning: Estimating Uncertainty in
       Dataset Labels", Journal of Artificial Intelligence Research 70, 2021.
    """
    pandas = import_optional("pandas", "audit", "find_label_issues")
    modules = ("cleanlab.filter", "cleanlab.outlier", "cleanlab.rank")
    issues, outlier, rank = (import_optional(m, "audit", "find_label_issues") for m in modules)
    images, encoder = check_images(X), LabelEncoder()
    labels = encoder.fit_transform(y)
    check_consistent_length(images, labels)
    if groups is not None and isinstance(cv, int):
        cv = StratifiedGroupKFold(cv)
    probabilities = cross_val_predict(
        model, X, y, cv=cv, groups=groups, n_jobs=n_jobs, method="predict_proba"
    )
    embedder = model[:-1] if isinstance(model, Pipeline) else None
    typical = outlier.OutOfDistribution().fit_score(features=embed(embedder, X), verbose=False)
    table = pandas.DataFrame(
        {
            "path": [printable(image_name(image)) for image in images],
            "label": encoder.classes_[labels],
            "suggested": encoder.classes_[probabilities.argmax(axis=1)],
            "quality": rank.get_label_quality_scores(labels, probabilities),
            "issue": issues.find_label_issues(labels, probabilities, filter_by=_FILTER, n_jobs=1),
            "outlier": 1 - typical,
        }
    ).rename_axis("index")
    return table.sort_values("quality", kind="stable")
