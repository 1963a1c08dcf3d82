"""Choosing a backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import column_or_1d

from .._training._targets import clean_labels
from .._utils._optional import import_optional
from .._utils._sklearn import checked
from .._utils._typing import ArrayLike, Images
from ..embedder import ImageEmbedder
from ._embedding import embed


@checked(backbones=[list, tuple], metric=[callable])
def rank_backbones(
    X: Images,
    y: ArrayLike,
    backbones: Sequence,
    *,
    metric: Callable = accuracy_score,
    **embedder: Any,
) -> Any:
    """Rank backbones by the leave-one-out score of a ridge regression on class indicators.

    The score has a closed form, so that nothing is trained in folds. It is too high for images that
    have duplicates. The embeddings stay in the cache for what follows.

    Parameters
    ----------
    X : array-like of images
        Images, see :func:`~sktransfer.images.check_images`.
    y : array-like of shape (n_samples,)
        Classes.
    backbones : list of str, torch.nn.Module, transformer or tuple
        Backbones as for :class:`~sktransfer.ImageEmbedder`, or transformers of images. A tuple
        ``(name, backbone)`` gives it a name.
    metric : callable, default=sklearn.metrics.accuracy_score
        Score to maximize, a function of true and predicted classes.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`.

    Returns
    -------
    pandas.DataFrame
        One row for each backbone, best first, with the columns ``backbone``, ``score``,
        ``n_features`` and ``penalty`` (the one with the best score).

    Examples
    --------
    >>> from sktransfer.datasets import make_shapes
    >>> from sktransfer.inspection import rank_backbones
    >>> shapes = make_shapes(n_samples=60, random_state=0)
    >>> list(rank_backbones(shapes.data, shapes.target, ["tiny_mobilenet", "tiny_resnet"]))
    ['backbone', 'score', 'n_features', 'penalty']
    """
    pandas = import_optional("pandas", "report", "rank_backbones")
    classes, codes = np.unique(column_or_1d(clean_labels(y)), return_inverse=True)
    # One column for each class: in scikit-learn 1.9, RidgeClassifierCV(scoring=...) takes the two
    # classes of a binary problem for one.
    targets = np.eye(len(classes))[codes]

    def score(_, predicted, true):
        return metric(classes[true.argmax(axis=1)], classes[predicted.argmax(axis=1)])

    records = []
    for backbone in backbones:
        name = backbone if isinstance(backbone, str) else type(backbone).__name__
        if isinstance(backbone, tuple):
            name, backbone = backbone
        if not hasattr(backbone, "transform"):
            backbone = ImageEmbedder(backbone, **embedder)
        rows = StandardScaler().fit_transform(embed(backbone, X))
        ridge = RidgeCV(np.logspace(0, 6, 13), scoring=score).fit(rows, targets)
        records.append((name, ridge.best_score_, rows.shape[1], ridge.alpha_))
    table = pandas.DataFrame(records, columns=["backbone", "score", "n_features", "penalty"])
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
