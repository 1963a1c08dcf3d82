"""The layers of a model."""

import copy
from collections import OrderedDict
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._utils._optional import import_optional
from .._utils._sklearn import checked
from .._utils._threads import usable_kernels
from ..backbones import backbone_stages, load_backbone
from ..embedder import ImageEmbedder, resolve_spec
from ..finetuning import FineTuneClassifier
from ..heads import HeadClassifier, HeadRegressor
from ._grid import COUNT


@checked(batch_size=COUNT, depth=COUNT)
@usable_kernels()
def summary(estimator: Any, *, batch_size: int = 1, depth: int = 3) -> Any:
    """List layers, output shapes, and trainable and frozen parameters of a model.

    Parameters
    ----------
    estimator : ImageEmbedder, HeadClassifier, HeadRegressor, FineTuneClassifier or Pipeline
        The fitted model; an :class:`~sktransfer.ImageEmbedder` may be unfitted. A pipeline
        consists of an embedder and a head of ours.
    batch_size : int, default=1
        Number of images that shapes and memory refer to.
    depth : int, default=3
        Number of levels of nested layers to list.

    Returns
    -------
    torchinfo.ModelStatistics
        Prints as a table, with the license of the backbone's weights. ``total_params``,
        ``trainable_params`` and ``total_mult_adds`` are numbers, ``summary_list`` has one entry
        for each layer.

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
    parts, shape, license = _parts_of(estimator)
    statistics = torchinfo.summary(
        nn.Sequential(OrderedDict(parts)).eval(),
        input_size=(batch_size, *shape),
        depth=depth,
        col_names=("output_size", "num_params", "trainable"),
        row_settings=("var_names",),
        device="cpu",
        verbose=0,
    )
    for layer in statistics.summary_list:
        if layer.depth == 1 and layer.var_name == "backbone":
            layer.var_name += f", license: {license or 'unknown'}"
    statistics.formatting.set_layer_name_width(statistics.summary_list)
    return statistics


def _parts_of(estimator):
    """Return copies of a model's networks, trainable or frozen, their input shape and a license."""
    if isinstance(estimator, ImageEmbedder):
        spec = resolve_spec(estimator)
        size = spec.preprocessing.image_size
        return [("backbone", load_backbone(spec))], (3, size, size), spec.license
    if isinstance(estimator, (HeadClassifier, HeadRegressor)):
        check_is_fitted(estimator)
        network = copy.deepcopy(estimator.net_.module_).cpu().requires_grad_(True)
        return [("head", network)], (estimator.n_features_in_,), None
    if isinstance(estimator, FineTuneClassifier):
        check_is_fitted(estimator)
        embedder, shape, license = _parts_of(estimator.embedder_)
        head, *_ = _parts_of(estimator.head_)
        tuned = estimator.backbone_
        if tuned is None:
            return [*embedder, *head], shape, license
        network = tuned.network().requires_grad_(False)
        for _, stage in backbone_stages(network)[-tuned.n_stages :]:
            stage.requires_grad_(True)
        return [("backbone", network), *head], shape, license
    if isinstance(estimator, Pipeline):
        # A MultiViewClassifier contains the head.
        steps = [
            getattr(step, "estimator_", getattr(step, "estimator", step))
            for _, step in estimator.steps
        ]
        kinds = [ImageEmbedder, (HeadClassifier, HeadRegressor)]
        if len(steps) != 2 or not all(map(isinstance, steps, kinds)):
            raise TypeError(
                "summary takes a pipeline of an ImageEmbedder and a head of ours; this one has "
                f"the steps {[type(step).__name__ for step in steps]}. Pass one of its steps, such "
                "as pipeline[0]."
            )
        (embedder, shape, license), (head, *_) = map(_parts_of, steps)
        return [*embedder, *head], shape, license
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
