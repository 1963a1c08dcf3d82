"""Pipelines and stacks of backbones, made of scikit-learn's own classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from torch import nn

from .augmentation import MultiViewClassifier
from .embedder import ImageEmbedder
from .heads import HeadClassifier

__all__ = ["make_transfer_pipeline", "make_transfer_stack"]


def make_transfer_pipeline(
    backbone: str | nn.Module = "tiny_mobilenet",
    head: BaseEstimator | None = None,
    *,
    augmentation: str | nn.Module | None = None,
    n_views: int = 1,
    n_test_views: int | None = None,
    verbose: int = 0,
    **embedder: Any,
) -> Pipeline:
    """Make a pipeline that embeds images and classifies the embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        The frozen network, as for :class:`~sktransfer.ImageEmbedder`.
    head : classifier or None, default=None
        Any scikit-learn classifier; it is cloned. None is ``HeadClassifier()``.
    augmentation : str, torch.nn.Module or None, default=None
        What makes the views of an image, such as ``"crop"``.
    n_views : int, default=1
        Number of views of each image for training.
    n_test_views : int or None, default=None
        Number of views whose predictions are averaged; None for `n_views`.
    verbose : int, default=0
        1 shows progress bars, of the embedder and of each `HeadClassifier` that trains.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, such as ``weights``,
        ``image_size`` or ``cache``.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``"embedder"`` and ``"head"``, so that a grid names ``embedder__backbone``
        and ``head__hidden_units``. With several views, the second step is a
        :class:`~sktransfer.MultiViewClassifier` around the head, and a grid names
        ``head__estimator__hidden_units``. A head that contains a `MultiViewClassifier`, such as a
        search around one, stays as it is.

    Raises
    ------
    ValueError
        If there is an augmentation, and both numbers of views are 1.

    Examples
    --------
    >>> from sktransfer import make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=60, random_state=0)
    >>> model = make_transfer_pipeline("tiny_mobilenet", cache=None)
    >>> model.fit(shapes.data, shapes.target).predict(shapes.data).shape
    (60,)
    >>> model = make_transfer_pipeline("tiny_mobilenet", augmentation="crop", n_views=4)
    >>> model["head"]
    MultiViewClassifier(estimator=HeadClassifier())
    """
    head = HeadClassifier() if head is None else clone(head)
    parts = [head, *head.get_params(deep=True).values()]
    for part in parts:
        if isinstance(part, HeadClassifier) and not part.verbose:
            part.verbose = verbose
    if n_views != 1 or n_test_views not in (None, 1):
        if not any(isinstance(part, MultiViewClassifier) for part in parts):
            head = MultiViewClassifier(head)
    elif augmentation is not None:
        raise ValueError(
            f"augmentation={augmentation!r} has no effect on one view of each image. Pass the "
            "number of views too, for example n_views=4, or leave out the augmentation."
        )
    embedder |= {"augmentation": augmentation, "n_views": n_views, "n_test_views": n_test_views}
    embedder = ImageEmbedder(backbone, verbose=verbose, **embedder)
    return Pipeline([("embedder", embedder), ("head", head)])


def make_transfer_stack(
    backbones: Sequence,
    head: BaseEstimator | None = None,
    final_estimator: BaseEstimator | None = None,
    cv: Any = 5,
    *,
    augmentation: str | nn.Module | None = None,
    n_views: int = 1,
    n_test_views: int | None = None,
    stack_method: str = "auto",
    n_jobs: int | None = None,
    verbose: int = 0,
    **embedder: Any,
) -> StackingClassifier:
    """Make a stack of several backbones: a pipeline for each, and a classifier of their outputs.

    Parameters
    ----------
    backbones : list of str or torch.nn.Module
        Frozen networks, one for each branch, as for :class:`~sktransfer.ImageEmbedder`. A tuple
        ``(name, backbone)`` names the branch.
    head : classifier or None, default=None
        Head of each branch; it is cloned. None is ``HeadClassifier()``.
    final_estimator : classifier or None, default=None
        Trains on the heads' outputs for images that they were not trained on. None is a logistic
        regression.
    cv : int, cross-validation generator or iterable, default=5
        How these outputs are made, see :class:`~sklearn.ensemble.StackingClassifier`. Each backbone
        embeds each image once, whatever the number of folds.
    augmentation : str, torch.nn.Module or None, default=None
        What makes the views of an image, such as ``"crop"``.
    n_views : int, default=1
        Number of views of each image that the heads train on.
    n_test_views : int or None, default=None
        Number of views over which the outputs of a head are averaged; None for `n_views`.
    stack_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Which output of the heads is stacked; ``"decision_function"`` stacks logits.
    n_jobs : int or None, default=None
        Number of branches and folds that are fitted at a time.
    verbose : int, default=0
        1 shows progress bars, of each embedder and of each `HeadClassifier` that trains.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, the same for all branches.

    Returns
    -------
    sklearn.ensemble.StackingClassifier
        Its branches are named after their backbones, so that a grid names
        ``resnet50__head__hidden_units``, and with several views
        ``resnet50__head__estimator__hidden_units``.

    Raises
    ------
    ValueError
        If there are no backbones, if two branches have one name, or if there is an augmentation
        and both numbers of views are 1.

    Examples
    --------
    >>> from sktransfer import make_transfer_stack
    >>> stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"])
    >>> [name for name, _ in stack.estimators]
    ['tiny_resnet', 'tiny_mobilenet']
    """
    if isinstance(backbones, (str, nn.Module)) or not (backbones := list(backbones)):
        raise ValueError(
            f'backbones is {backbones!r}; expected a list such as ["resnet50", "mobilenet_v2"].'
        )
    branches = []
    for backbone in backbones:
        if not isinstance(backbone, tuple):
            name = backbone if isinstance(backbone, str) else type(backbone).__name__
            # A name has no double underscore, which nested parameters use.
            backbone = name.replace(":", "_").replace("__", "_"), backbone
        branches.append(backbone)
    names = [name for name, _ in branches]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two branches have the same name: {names}. Pass (name, backbone) tuples to tell them "
            "apart."
        )
    if final_estimator is None:
        final_estimator = LogisticRegression(max_iter=1000)
    embedder |= {"augmentation": augmentation, "n_views": n_views, "n_test_views": n_test_views}
    embedder |= {"verbose": verbose}
    return StackingClassifier(
        [(name, make_transfer_pipeline(b, head, **embedder)) for name, b in branches],
        final_estimator=final_estimator,
        cv=cv,
        stack_method=stack_method,
        n_jobs=n_jobs,
    )
