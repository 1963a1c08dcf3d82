"""Pipelines and stacks of backbones, as scikit-learn's own classes."""

from sklearn.base import clone
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from torch import nn

from .embedder import ImageEmbedder
from .heads import HeadClassifier

__all__ = ["make_transfer_pipeline", "make_transfer_stack"]


def make_transfer_pipeline(backbone="tiny_mobilenet", head=None, **embedder):
    """Make a pipeline that embeds images and classifies the embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        The frozen network, as for :class:`~sktransfer.ImageEmbedder`.
    head : classifier or None, default=None
        Any scikit-learn classifier; it is cloned. None is ``HeadClassifier()``.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, such as ``weights``,
        ``image_size`` or ``cache``.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``"embedder"`` and ``"head"``, so that a grid search speaks of
        ``embedder__backbone`` and ``head__hidden_units``.

    Examples
    --------
    >>> from sktransfer import make_transfer_pipeline
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=60, random_state=0)
    >>> model = make_transfer_pipeline("tiny_mobilenet", cache=None)
    >>> model.fit(shapes.data, shapes.target).predict(shapes.data).shape
    (60,)
    """
    head = HeadClassifier() if head is None else clone(head)
    return Pipeline([("embedder", ImageEmbedder(backbone, **embedder)), ("head", head)])


def make_transfer_stack(
    backbones,
    head=None,
    final_estimator=None,
    cv=5,
    *,
    stack_method="auto",
    n_jobs=None,
    verbose=0,
    **embedder,
):
    """Make a stack of several backbones: a pipeline each, and a classifier over their outputs.

    Parameters
    ----------
    backbones : list of str or torch.nn.Module
        Frozen networks, one for each branch, as for :class:`~sktransfer.ImageEmbedder`. A tuple
        ``(name, backbone)`` gives a branch a name of its own.
    head : classifier or None, default=None
        Head of each branch; it is cloned. None is ``HeadClassifier()``.
    final_estimator : classifier or None, default=None
        Learns from the heads' outputs on images that they were not trained on. None is a
        logistic regression.
    cv : int, cross-validation generator or iterable, default=5
        How these outputs are made, see :class:`~sklearn.ensemble.StackingClassifier`. Each image
        is embedded once for each backbone however many folds there are.
    stack_method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Which output of the heads is stacked; ``"decision_function"`` stacks logits.
    n_jobs : int or None, default=None
        How many branches and folds are fitted at a time.
    verbose : int, default=0
        Passed to the embedders: 1 shows a progress bar for each.
    **embedder
        Further parameters of :class:`~sktransfer.ImageEmbedder`, the same for all branches.

    Returns
    -------
    sklearn.ensemble.StackingClassifier
        Its branches are named after their backbones, so that a grid search speaks of
        ``resnet50__head__hidden_units``.

    Raises
    ------
    ValueError
        If there are no backbones, or two branches have one name.

    Examples
    --------
    >>> from sktransfer import make_transfer_stack
    >>> stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"])
    >>> [name for name, _ in stack.estimators]
    ['tiny_resnet', 'tiny_mobilenet']
    """
    branches = _named(backbones)
    if final_estimator is None:
        final_estimator = LogisticRegression(max_iter=1000)
    return StackingClassifier(
        [
            (name, make_transfer_pipeline(backbone, head, verbose=verbose, **embedder))
            for name, backbone in branches
        ],
        final_estimator=final_estimator,
        cv=cv,
        stack_method=stack_method,
        n_jobs=n_jobs,
    )


def _named(backbones):
    """(name, backbone) of each branch."""
    several = not isinstance(backbones, (str, nn.Module)) and list(backbones)
    if not several:
        raise ValueError(
            f'backbones is a list such as ["resnet50", "mobilenet_v2"], got {backbones!r}.'
        )
    branches = [
        branch if isinstance(branch, tuple) else (_branch_name(branch), branch)
        for branch in several
    ]
    names = [name for name, _ in branches]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two branches have one name: {names}. Hint: pass (name, backbone) tuples to tell "
            "them apart."
        )
    return branches


def _branch_name(backbone):
    """A name that scikit-learn takes: without the double underscore of nested parameters."""
    name = backbone if isinstance(backbone, str) else type(backbone).__name__
    return name.replace(":", "_").replace("__", "_")
