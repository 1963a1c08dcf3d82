"""Pipelines and stacks of backbones, made of scikit-learn's own classes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline

from . import augmentation as views
from ._utils._sklearn import HasMethods, checked
from .embedder import ImageEmbedder

if TYPE_CHECKING:
    import torch

__all__ = ["make_transfer_pipeline", "make_transfer_stack"]

_CONSTRAINTS = {
    **ImageEmbedder._parameter_constraints,
    "head": [HasMethods(["fit", "get_params"]), None],
    "backbones": [list, tuple],
}


@checked(**_CONSTRAINTS)
def make_transfer_pipeline(
    backbone: str | torch.nn.Module = "tiny_mobilenet",
    head: BaseEstimator | None = None,
    *,
    augmentation: str | torch.nn.Module | None = None,
    n_views: int = 1,
    n_test_views: int | None = None,
    verbose: int = 0,
    **embedder: Any,
) -> Pipeline:
    """Make a pipeline that embeds images and predicts from the embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        The frozen network, as for :class:`~sktransfer.ImageEmbedder`.
    head : classifier, regressor or None, default=None
        Any scikit-learn classifier or regressor, such as ``HeadRegressor()``; it is cloned. None
        is ``HeadClassifier()``.
    augmentation : str, torch.nn.Module or None, default=None
        What makes the views of an image, such as ``"crop"``.
    n_views : int, default=1
        Number of views of each image for training.
    n_test_views : int or None, default=None
        Number of views whose predictions are averaged; None for `n_views`.
    verbose : int, default=0
        1 shows progress bars, of the embedder and of each head that trains.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, such as ``weights``,
        ``image_size`` or ``cache``.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``"embedder"`` and ``"head"``, so that a grid names ``embedder__backbone``
        and ``head__hidden_units``. With several views, the second step is a
        :class:`~sktransfer.MultiViewClassifier` or :class:`~sktransfer.MultiViewRegressor` around
        the head (unless it contains one), and a grid names ``head__estimator__hidden_units``.

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
    _check_keywords(make_transfer_pipeline, embedder)
    if head is None:
        from .heads import HeadClassifier  # it imports torch, which other heads do not need

        head = HeadClassifier()
    head = clone(head)
    parts = [head, *head.get_params(deep=True).values()]
    for part in parts:
        if hasattr(part, "hidden_units") and not part.verbose:  # one of ours
            part.verbose = verbose
    if n_views != 1 or n_test_views not in (None, 1):
        kinds = views.MultiViewClassifier, views.MultiViewRegressor
        if not any(isinstance(part, kinds) for part in parts):
            head = kinds[is_regressor(head)](head)
    elif augmentation is not None:
        raise ValueError(
            f"augmentation={augmentation!r} has no effect on one view of each image. Pass the "
            "number of views too, for example n_views=4, or leave out the augmentation."
        )
    embedder |= {"augmentation": augmentation, "n_views": n_views, "n_test_views": n_test_views}
    embedder = ImageEmbedder(backbone, verbose=verbose, **embedder)
    return Pipeline([("embedder", embedder), ("head", head)])


@checked(**_CONSTRAINTS)
def make_transfer_stack(
    backbones: Sequence,
    head: BaseEstimator | None = None,
    final_estimator: BaseEstimator | None = None,
    cv: Any = 5,
    *,
    augmentation: str | torch.nn.Module | None = None,
    n_views: int = 1,
    n_test_views: int | None = None,
    stack_method: str = "auto",
    n_jobs: int | None = None,
    verbose: int = 0,
    **embedder: Any,
) -> StackingClassifier | StackingRegressor:
    """Make a stack of several backbones: a pipeline for each, and an estimator on their outputs.

    Parameters
    ----------
    backbones : list of str or torch.nn.Module
        Frozen networks, one for each branch, as for :class:`~sktransfer.ImageEmbedder`. A tuple
        ``(name, backbone)`` names the branch.
    head : classifier, regressor or None, default=None
        Head of each branch; it is cloned. None is ``HeadClassifier()``.
    final_estimator : classifier, regressor or None, default=None
        Trains on the heads' outputs for images that they were not trained on. None is a logistic
        regression (an `MLPClassifier` without hidden layers, which takes several labels per image
        too), or ridge regression for regressors.
    cv : int, cross-validation generator or iterable, default=5
        How these outputs are made, see :class:`~sklearn.ensemble.StackingClassifier`.
    augmentation : str, torch.nn.Module or None, default=None
        What makes the views of an image, such as ``"crop"``.
    n_views : int, default=1
        Number of views of each image that the heads train on.
    n_test_views : int or None, default=None
        Number of views over which the outputs of a head are averaged; None for `n_views`.
    stack_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Which output of the heads is stacked; regressors have only predictions.
    n_jobs : int or None, default=None
        Number of branches and folds that are fitted at a time.
    verbose : int, default=0
        1 shows progress bars, of each embedder and of each head that trains.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, the same for all branches.

    Returns
    -------
    sklearn.ensemble.StackingClassifier or sklearn.ensemble.StackingRegressor
        A regressor if the head is one. Its branches are named after their backbones, so that a
        grid names ``resnet50__head__hidden_units``, and with several views
        ``resnet50__head__estimator__hidden_units``.

    Raises
    ------
    ValueError
        If there are no backbones, if two branches have one name, or if there is an augmentation
        and both numbers of views are 1.

    Notes
    -----
    With several labels per image, `predict_proba` of scikit-learn's stack fails. With exactly two
    labels, the stack also trains without the probabilities of the first label, unless you set
    ``stack_method="decision_function"``. Train one head on all embeddings instead:
    ``make_pipeline(make_union(ImageEmbedder(...), ImageEmbedder(...)), HeadClassifier())``.

    Examples
    --------
    >>> from sktransfer import make_transfer_stack
    >>> stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"])
    >>> [name for name, _ in stack.estimators]
    ['tiny_resnet', 'tiny_mobilenet']
    """
    _check_keywords(make_transfer_stack, embedder)
    if not backbones:
        raise ValueError('backbones is empty; expected names such as ["resnet50", "mobilenet_v2"].')
    branches = []
    for backbone in backbones:
        if not (
            isinstance(backbone, tuple) and len(backbone) == 2 and isinstance(backbone[0], str)
        ):
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
    embedder |= {"augmentation": augmentation, "n_views": n_views, "n_test_views": n_test_views}
    embedder |= {"verbose": verbose}
    pipelines = [(name, make_transfer_pipeline(b, head, **embedder)) for name, b in branches]
    params = {"cv": cv, "n_jobs": n_jobs}
    if head is not None and is_regressor(head):
        if stack_method not in ("auto", "predict"):
            raise ValueError(f"stack_method={stack_method!r} is not for regressors. Leave it out.")
        stack = StackingRegressor(pipelines, final_estimator, **params)
    else:
        if final_estimator is None:  # LogisticRegression() takes one class per sample only
            final_estimator = MLPClassifier(
                (), solver="lbfgs", alpha=1.0, max_iter=1000, random_state=0
            )
        stack = StackingClassifier(pipelines, final_estimator, stack_method=stack_method, **params)
    # The final estimator trains on arrays, so it must not get frames in `predict`.
    return stack.set_output(transform="default")


def _check_keywords(function, given):
    """Refuse keyword arguments that neither a function nor the embedder accepts."""
    known = [*signature(function).parameters, *ImageEmbedder().get_params()]
    known = [name for name in known if name != "embedder"]
    if function is make_transfer_stack:
        known.remove("backbone")
    unknown = next((name for name in given if name not in known), None)
    if unknown is None:
        return
    from .heads import HeadClassifier

    if unknown in HeadClassifier().get_params():
        hint = f"Pass it to the head: head=HeadClassifier({unknown}={given[unknown]!r})."
    elif near := get_close_matches(unknown, known, n=1):
        hint = f"Did you mean {near[0]!r}?"
    else:
        hint = f"Expected one of {list(dict.fromkeys(known))}."
    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown!r}. {hint}")
