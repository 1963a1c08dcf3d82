"""The layers of a model."""

import copy
from collections import OrderedDict
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._utils._optional import import_optional
from ..backbones import backbone_stages, load_backbone, resolve_backbone
from ..embedder import ImageEmbedder
from ..finetuning import FineTuneClassifier
from ..heads import HeadClassifier

__all__ = ["summary"]


def summary(estimator: Any, *, batch_size: int = 1, depth: int = 3) -> Any:
    """List layers, output shapes, and trainable and frozen parameters of a model.

    Parameters
    ----------
    estimator : ImageEmbedder, HeadClassifier, FineTuneClassifier or Pipeline
        The fitted model; an :class:`~sktransfer.ImageEmbedder` may be unfitted. A pipeline must
        consist of an embedder and a :class:`~sktransfer.HeadClassifier`, as
        :func:`~sktransfer.make_transfer_pipeline` returns it.
    batch_size : int, default=1
        Number of images that shapes and memory refer to.
    depth : int, default=3
        Number of levels of nested layers to list.

    Returns
    -------
    torchinfo.ModelStatistics
        Prints as a table. ``total_params``, ``trainable_params`` and ``total_mult_adds`` are
        numbers, ``summary_list`` has one entry for each layer.

    Raises
    ------
    MissingExtraError
        If torchinfo is not installed (extra ``report``).
    TypeError
        If the estimator has no network.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.inspection import summary
    >>> statistics = summary(ImageEmbedder("tiny_mobilenet"))
    >>> statistics.trainable_params
    0
    """
    torchinfo = import_optional("torchinfo", "report", "summary")
    parts, shape = _parts_of(estimator)
    return torchinfo.summary(
        nn.Sequential(OrderedDict(parts)).eval(),
        input_size=(batch_size, *shape),
        depth=depth,
        col_names=("output_size", "num_params", "trainable"),
        row_settings=("var_names",),
        device="cpu",
        verbose=0,
    )


def _parts_of(estimator):
    """Return copies of a model's networks, marked as trainable or frozen, and their input shape."""
    if isinstance(estimator, ImageEmbedder):
        spec = resolve_backbone(estimator.backbone, estimator.weights, estimator.image_size)
        size = spec.preprocessing.image_size
        return [("backbone", load_backbone(spec))], (3, size, size)
    if isinstance(estimator, HeadClassifier):
        check_is_fitted(estimator)
        network = copy.deepcopy(estimator.net_.module_).cpu().requires_grad_(True)
        return [("head", network)], (estimator.n_features_in_,)
    if isinstance(estimator, FineTuneClassifier):
        check_is_fitted(estimator)
        embedder, shape = _parts_of(estimator.embedder_)
        head, _ = _parts_of(estimator.head_)
        tuned = estimator.backbone_
        if tuned is None:
            return [*embedder, *head], shape
        network = tuned.network().requires_grad_(False)
        for _, stage in backbone_stages(network)[-tuned.n_stages :]:
            stage.requires_grad_(True)
        return [("backbone", network), *head], shape
    if isinstance(estimator, Pipeline):
        # A MultiViewClassifier contains the head.
        steps = [
            getattr(step, "estimator_", getattr(step, "estimator", step))
            for _, step in estimator.steps
        ]
        if [type(step) for step in steps] != [ImageEmbedder, HeadClassifier]:
            raise TypeError(
                "summary takes a pipeline of an ImageEmbedder and a HeadClassifier; this one has "
                f"the steps {[type(step).__name__ for step in steps]}. Pass one of its steps, such "
                "as pipeline[0]."
            )
        (embedder, shape), (head, _) = map(_parts_of, steps)
        return [*embedder, *head], shape
    hint = ""
    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "estimators"):
        hint = " Pass one of its branches, such as model.named_estimators_['resnet50']."
    else:
        for name in ("best_estimator_", "estimator_"):
            if hasattr(estimator, name):
                hint = f" Pass model.{name}."
    raise TypeError(
        "summary takes an ImageEmbedder, a HeadClassifier, a FineTuneClassifier, or a pipeline of "
        f"an embedder and a HeadClassifier; got {type(estimator).__name__}.{hint}"
    )
