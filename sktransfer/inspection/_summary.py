"""Looking into fitted models."""

import copy
from collections import OrderedDict

import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..backbones import backbone_stages, load_backbone, resolve_backbone
from ..embedder import ImageEmbedder
from ..exceptions import MissingExtraError
from ..finetuning import FineTuneClassifier
from ..heads import HeadClassifier

__all__ = ["summary"]


def summary(estimator, *, batch_size=1, depth=3):
    """Tell layers, output shapes, and trainable and frozen parameters of a model.

    Parameters
    ----------
    estimator : ImageEmbedder, HeadClassifier, FineTuneClassifier or Pipeline
        The model, fitted; of an :class:`~sktransfer.ImageEmbedder` it need not be. A pipeline is
        one of an embedder and a :class:`~sktransfer.HeadClassifier`, as
        :func:`~sktransfer.make_transfer_pipeline` returns it.
    batch_size : int, default=1
        Number of images for which shapes and memory are told.
    depth : int, default=3
        How many levels of nested layers are listed.

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
        If the estimator holds no network of ours.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> from sktransfer import ImageEmbedder
    >>> from sktransfer.inspection import summary
    >>> statistics = summary(ImageEmbedder("tiny_mobilenet"))
    >>> statistics.trainable_params
    0
    """
    torchinfo = _import_torchinfo()
    network, shape = _network_of(estimator)
    return torchinfo.summary(
        network,
        input_size=(batch_size, *shape),
        depth=depth,
        col_names=("output_size", "num_params", "trainable"),
        row_settings=("var_names",),
        device="cpu",
        verbose=0,
    )


def _import_torchinfo():
    try:
        import torchinfo
    except ImportError as error:
        raise MissingExtraError(
            "summary needs torchinfo, which is not installed: pip install 'sktransfer[report]'"
        ) from error
    return torchinfo


def _network_of(estimator):
    """Return a copy of the network, marked with what is trainable, and the shape of its input."""
    if isinstance(estimator, Pipeline):
        return _of_pipeline(estimator)
    for kind, parts_of in _PARTS.items():
        if isinstance(estimator, kind):
            parts, shape = parts_of(estimator)
            return nn.Sequential(OrderedDict(parts)).eval(), shape
    raise _no_network(estimator)


def _no_network(estimator):
    hint = ""
    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "estimators"):
        hint = " Pass one of its branches, such as model.named_estimators_['resnet50']."
    elif hasattr(estimator, "best_estimator_"):
        hint = " Pass model.best_estimator_."
    elif hasattr(estimator, "estimator_"):
        hint = " Pass model.estimator_."
    return TypeError(
        "summary takes an ImageEmbedder, a HeadClassifier, a FineTuneClassifier, or a pipeline of "
        f"an embedder and a HeadClassifier; got {type(estimator).__name__}.{hint}"
    )


def _of_pipeline(pipeline):
    """Join embedder and head, the only steps that have networks."""
    # A MultiViewClassifier holds the head.
    steps = [
        getattr(step, "estimator_", getattr(step, "estimator", step)) for _, step in pipeline.steps
    ]
    kinds = [type(step) for step in steps]
    if kinds != [ImageEmbedder, HeadClassifier]:
        raise TypeError(
            f"summary takes a pipeline of ImageEmbedder and HeadClassifier; this one has the steps "
            f"{[kind.__name__ for kind in kinds]}. Pass a step of it, such as pipeline[0]."
        )
    (embedder, shape), (head, _) = _of_embedder(steps[0]), _of_head(steps[1])
    return nn.Sequential(OrderedDict([*embedder, *head])).eval(), shape


def _of_embedder(embedder):
    spec = resolve_backbone(embedder.backbone, embedder.weights, embedder.image_size)
    return [("backbone", copy.deepcopy(load_backbone(spec)))], _image_shape(spec.preprocessing)


def _of_head(head):
    check_is_fitted(head)
    network = copy.deepcopy(head.net_.module_).cpu().requires_grad_(True)
    return [("head", network)], (head.n_features_in_,)


def _of_finetuned(classifier):
    check_is_fitted(classifier)
    embedder, shape = _of_embedder(classifier.embedder_)
    head, _ = _of_head(classifier.head_)
    if classifier.backbone_ is None:
        return [*embedder, *head], shape
    network = copy.deepcopy(classifier.backbone_.network()).requires_grad_(False)
    for _, stage in backbone_stages(network)[-classifier.backbone_.n_unfrozen :]:
        stage.requires_grad_(True)
    return [("backbone", network), *head], shape


def _image_shape(preprocessing):
    return torch.Size([3, preprocessing.image_size, preprocessing.image_size])


_PARTS = {
    ImageEmbedder: _of_embedder,
    HeadClassifier: _of_head,
    FineTuneClassifier: _of_finetuned,
}
