"""FineTuneClassifier: a head and the upper part of a backbone, trained together."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from .._engine import resolve_runtime
from .._training._parameters import CONSTRAINTS, LARGEST, check_validation, check_weight
from .._training._prediction import PredictsByLogits
from .._training._targets import ClassTargets, clean_labels
from .._utils._docs import parameters_like
from .._utils._parameters import MAX_VIEWS, HoldsModules
from .._utils._sklearn import Interval, StrOptions, fit_context
from .._utils._tasks import ReportsTasks
from .._utils._typing import ArrayLike, FilePath, Images, Seed
from ..embedder import ImageEmbedder
from ..heads import HeadClassifier
from ..images import MAX_PIXELS, check_images
from ._fit import SHARED, fit_classifier
from ._tuned_backbone import ADVICE


@parameters_like(ImageEmbedder, HeadClassifier)
@dataclass(kw_only=True, repr=False, eq=False)
class FineTuneClassifier(
    PredictsByLogits, HoldsModules, ReportsTasks, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Classify images with a head and the upper part of a backbone, trained together.

    First a head learns from the embeddings of the frozen backbone, as in
    :func:`~sktransfer.make_transfer_pipeline`. Then the head and the last stages of the backbone
    are trained together, each part with its own learning rate. The output of the part below does
    not change, so it is computed once and kept if memory allows.

    A fitted classifier is also a transformer: ``transform`` returns tuned embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        Name of the network, see :func:`sktransfer.list_backbones`, or a custom module.
    trainable_stages : int or "all", default=3
        Number of stages to train, counted from the end, see
        :func:`sktransfer.backbones.backbone_stages`. 0 equals the frozen pipeline: the parameters
        of the second training are ignored. "all" trains the whole network.
    head : HeadClassifier or None, default=None
        The head; it is cloned. If its ``random_state``, ``class_weight``, ``device`` or ``verbose``
        is not set, it is that of this classifier. The parameters of the head apply to the training
        on frozen embeddings. Its structure, class weights and label smoothing apply to the second
        training too. If it has ``early_stopping``, a trial stops it by the images held out. None
        is ``HeadClassifier()``. With a head, a grid search can set ``head__dropout``.
    augmentation : {"flip", "crop", "color", "auto"}, torch.nn.Module or None, default="crop"
        Random changes of the images while head and backbone are trained together, as for
        :class:`~sktransfer.ImageEmbedder`. None trains on the images as they are; choose it if
        mirroring changes the meaning of an image, as with letters.
    n_views : int or None, default=4
        With an augmentation, the number of views of each image, including the image itself, at
        most 10,000. Each epoch sees one of them, drawn at random. None makes a new view of each
        image in each epoch; then the outputs of the frozen part are not kept.
    n_test_views : int, default=1
        Number of views of each image in prediction, at most 10,000: the image itself, and others
        that ``augmentation`` makes. Decision values are averaged over them (test-time
        augmentation). You can change it after ``fit``.
    lr : float, default=0.001
        Highest learning rate of the head (AdamW, linear warm-up over a tenth of the steps, then
        cosine).
    backbone_lr_factor : float, default=1.0
        Learning rate of the backbone's last stage, as a multiple of ``lr``. Smaller values keep
        it closer to the pretrained weights.
    layer_decay : float in (0, 1], default=1.0
        Learning rate of each stage, as a fraction of that of the stage above it [1]_.
    tuned_fraction : float in [0, 1] or "auto", default="auto"
        The final weights of stages and head are an average of the weights before and after the
        second training; this is the fraction of those after it [2]_. A smaller fraction keeps more
        of what the backbone knew; 1 keeps the trained weights, and 0 equals the frozen pipeline.
        "auto" chooses 0, 0.25, 0.5, 0.75 or 1 by the accuracy (of each label, if there are several;
        weighted by ``sample_weight``) in up to three trials. Each trial trains on two thirds of the
        images and judges the fractions on the remaining third. The trials end once 500 images have
        been judged. If the best fraction gains no more than three standard errors over 0, the
        fraction is 0. Otherwise ``fit`` trains again, on all images. Trials do not judge classes
        with fewer than three images; if fewer than two classes are left, there are no trials, and
        the fraction is 0.5. With ``early_stopping`` or ``X_val``, there are no trials either:
        ``fit`` chooses the fraction that is best on the validation images, however small the gain.
    label_smoothing : float in [0, 1), default=0.1
        Fraction of each target that is spread evenly over all classes in both trainings, unless
        ``head`` has a ``label_smoothing``. It leaves the backbone something to learn where the head
        alone could memorize the images. A frozen pipeline does not use it.
    weight_decay : float, default=0.01
        Each step shrinks the weights by this fraction times the learning rate; biases and
        normalizations are not decayed.
    max_epochs : int, default=10
        Passes over the images while head and backbone are trained together, at most 1,000,000.
    batch_size : int, default=32
        Images per training batch.
    update_batch_norm : bool, default=False
        Whether batch normalizations of the trained stages update their means and variances.
        Small batches distort these.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class in both trainings, unless ``head`` has a ``class_weight``. Not
        available for several labels per image.
    early_stopping : bool, default=False
        Whether to stop when ``scoring`` on validation images no longer improves, and to restore
        the weights of the best epoch. Epoch 0, the head on the frozen backbone, counts too.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the images, stratified by class, that early stopping sets aside if ``fit`` is
        given no validation images. Equal images stay together.
    n_iter_no_change : int, default=5
        Early stopping waits this many epochs for an improvement.
    checkpoint_dir : str, path-like or None, default=None
        Directory of checkpoints, written after each epoch. A fit that was killed resumes when it
        is started again with the same images and parameters, and ends with the same weights (on
        a CPU). Other images or parameters have their own file. A finished fit is not resumed; it
        leaves its final weights there, unless it chose the frozen backbone.
    callbacks : list or None, default=None
        Callbacks of skorch for the second training: instances of
        :class:`skorch.callbacks.Callback` or pairs (name, callback). They are not saved with a
        fitted classifier.
    memory_limit : int or str, default="2GB"
        Bytes, or a string like "500MB", that outputs of the frozen part may take. If they need
        more, they are computed for each batch. The result is the same.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "auto" trains in mixed precision on a GPU (bfloat16, or float16 if the GPU lacks it) and
        in float32 on a CPU, and computes embeddings in float32. The other values apply to
        everything. Weights and the optimizer are always float32.
    engine : {"auto", "torch", "openvino"}, default="auto"
        Inference engine of the frozen backbone, as for :class:`~sktransfer.ImageEmbedder`. The
        tuned backbone runs on torch unless this is "openvino".
    cache : bool, str, path-like or None, default=True
        Where embeddings of the frozen backbone are kept, as for
        :class:`~sktransfer.ImageEmbedder`. Tuned embeddings are not cached.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights of the head, the order of images, views, dropout, and the choice
        of images for trials and validation. An int gives bit-equal weights each time on a CPU with
        the same number of threads.
    verbose : int, default=0
        0 is silent, 1 shows progress bars, 2 also prints a line per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, or the numbers of the columns of an indicator matrix.
    head_ : HeadClassifier
        The trained head: its predictions for ``transform(X)`` are those of this classifier for
        ``X`` with one test view. Its ``history_`` is that of the first training.
    embedder_ : ImageEmbedder
        Computes the embeddings of the frozen backbone.
    backbone_ : TunedBackbone or None
        The tuned part of the backbone; None with ``tuned_fraction_=0``. ``backbone_.network()``
        is the whole tuned network as a :class:`torch.nn.Module`.
    tuned_fraction_ : float
        The fraction of the tuned weights; 0 if the model is the frozen pipeline.
    fraction_scores_ : dict of float to float, or None
        Accuracy of each fraction that "auto" chose from; None if it did not choose.
    history_ : list of dict
        One dictionary per epoch of the second training: "epoch" (from 1), "lr" (of the head, at
        the start of the epoch), "train_loss" and "seconds". With validation images also
        "valid_loss", "train_accuracy" (during the epoch), "valid_accuracy" and
        "valid_<scoring>", and an epoch 0 with the validation results before the training. If
        trials chose the frozen backbone, this is the history of the last trial.
    best_epoch_ : int
        Epoch whose weights the model has: the best one with early stopping, otherwise the last.
        0 if the frozen backbone was best, or nothing was tuned.
    n_epochs_ : int
        Number of trained epochs.
    feature_cache_ : {"features", "pixels", "nothing"} or None
        What was kept in memory: outputs of the frozen part, or resized images if there is no
        frozen part, or nothing. None if there was no second training.
    n_features_out_ : int
        Length of an embedding.

    See Also
    --------
    sktransfer.make_transfer_pipeline : The same with a frozen backbone.

    Notes
    -----
    A saved classifier contains the weights of the head and of the tuned stages as arrays, and the
    parameters without ``callbacks``. The networks are built again when they are needed: the frozen
    part is loaded by name, and its weights are checked. A model trained on a GPU predicts on a
    machine without one.

    Ctrl-C in the second training ends it and keeps the weights so far, or the frozen pipeline if no
    epoch is complete. In the first training or in a trial, it ends ``fit``.

    References
    ----------
    .. [1] J. Howard and S. Ruder, "Universal Language Model Fine-tuning for Text Classification",
       ACL, 2018, https://arxiv.org/abs/1801.06146
    .. [2] M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR, 2022,
       https://arxiv.org/abs/2109.01903

    Examples
    --------
    >>> from sktransfer import FineTuneClassifier
    >>> from sktransfer.datasets import make_shapes
    >>> shapes = make_shapes(n_samples=40, random_state=0)
    >>> model = FineTuneClassifier(trainable_stages=1, max_epochs=2, cache=None, random_state=0)
    >>> model.fit(shapes.data, shapes.target).predict(shapes.data).shape
    (40,)
    >>> model.transform(shapes.data).shape == (40, model.n_features_out_)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **{name: ImageEmbedder._parameter_constraints[name] for name in SHARED},
        **CONSTRAINTS,
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "trainable_stages": [Interval(Integral, 0, None, closed="left"), StrOptions({"all"})],
        "head": [HeadClassifier, None],
        "n_views": [Interval(Integral, 1, MAX_VIEWS, closed="both"), None],
        "n_test_views": [Interval(Integral, 1, MAX_VIEWS, closed="both")],
        "lr": [Interval(Real, 0, LARGEST, closed="neither")],
        "backbone_lr_factor": [Interval(Real, 0, LARGEST, closed="neither")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "tuned_fraction": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, LARGEST, closed="left")],
        "update_batch_norm": ["boolean"],
        "checkpoint_dir": [str, os.PathLike, None],
        "memory_limit": [Interval(Integral, 0, None, closed="left"), str],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
    }

    backbone: str | torch.nn.Module = field(default="tiny_mobilenet", kw_only=False)
    weights: FilePath | None = "DEFAULT"
    trainable_stages: int | str = 3
    head: HeadClassifier | None = None
    image_size: int | None = None
    pooling: str = "auto"
    resize: str = "auto"
    augmentation: str | torch.nn.Module | None = "crop"
    n_views: int | None = 4
    n_test_views: int = 1
    lr: float = 1e-3
    backbone_lr_factor: float = 1.0
    layer_decay: float = 1.0
    tuned_fraction: float | str = "auto"
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    max_epochs: int = 10
    batch_size: int = 32
    update_batch_norm: bool = False
    class_weight: dict | str | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    scoring: str = "loss"
    n_iter_no_change: int = 5
    tol: float = 1e-4
    checkpoint_dir: FilePath | None = None
    callbacks: list | None = None
    memory_limit: int | str = "2GB"
    device: str | torch.device = "auto"
    precision: str = "auto"
    engine: str = "auto"
    cache: bool | FilePath | None = True
    max_pixels: int = MAX_PIXELS
    random_state: Seed = None
    verbose: int = 0

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of the head.

        Parameters
        ----------
        **params : dict
            Parameters of the classifier, and with the prefix ``head__`` those of its head.

        Returns
        -------
        object
            The classifier itself.

        Raises
        ------
        ValueError
            If a parameter of the head is given and ``head`` is None.
        """
        nested = next((name for name in params if name.startswith("head__")), None)
        if nested and params.get("head", self.head) is None:
            raise ValueError(
                f"{nested} cannot be set because head is None. Create the classifier with "
                "head=HeadClassifier(), or set head=HeadClassifier"
                f"({nested.removeprefix('head__')}={params[nested]!r})."
            )
        return super().set_params(**params)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Images,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Images | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train the head on frozen embeddings, then the head and the last stages together.

        Parameters
        ----------
        X : array-like of n_samples images
            See :func:`sktransfer.images.check_images`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels of any type, or an indicator matrix of zeros and ones.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the images. Nothing is learned from images of weight zero.
        X_val : array-like of n_val images, default=None
            Images to validate on after each epoch.
        y_val : array-like of shape (n_val,) or (n_val, n_labels), default=None
            Their labels.

        Returns
        -------
        FineTuneClassifier
            The fitted classifier itself.

        Raises
        ------
        ImageReadError
            If images cannot be read; it names all of them, before anything is trained.
        ValueError
            If there is only one class, the backbone has fewer stages than ``trainable_stages``,
            or there are too few images for a validation fraction.
        TrainingDivergedError
            If the loss is no longer a finite number.
        """
        images, y = _check_labels(X, y)
        n_train, weight = len(images), check_weight(sample_weight, len(images))
        targets = ClassTargets.learn(y, weight)
        check_validation(X_val, y_val)
        if X_val is not None:
            more, y_val = _check_labels(X_val, y_val, "y_val")
            targets.encode(y_val, "y_val")
            images, y = [*images, *more], np.concatenate([y, y_val])
            weight = np.concatenate([weight, np.ones(len(more))])
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        data = images[:n_train], y[:n_train]
        with self._fit_task(*data, self.max_epochs + 1) as context:  # also the state before them
            tasks = context and (self, context, *data)
            fitted = fit_classifier(self, images, y, weight, n_train, targets, seed, tasks)
            for name, value in fitted.items():
                setattr(self, f"{name}_", value)
            self.n_epochs_ = self.history_[-1]["epoch"] if self.history_ else 0
            self.classes_, self.n_features_out_ = targets.classes, self.embedder_.n_features_out_
        return self

    def transform(self, X: Images) -> np.ndarray:
        """Return tuned embeddings of the images themselves: the features that the head classifies.

        Parameters
        ----------
        X : array-like of n_samples images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), dtype float32
            One row for each image.

        Raises
        ------
        ImageReadError
            If images cannot be read; it names all of them.
        FingerprintMismatchError
            If the weights of the frozen part are not those of ``fit``.
        """
        check_is_fitted(self)
        return self._embedded(X, 1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns of the tuned embeddings after the backbone.

        Parameters
        ----------
        input_features : None
            Ignored; an image has no named features.

        Returns
        -------
        ndarray of str
            ``["resnet50_tuned_0", "resnet50_tuned_1", ...]``.
        """
        check_is_fitted(self)
        if self.backbone_ is None:
            return self.embedder_.get_feature_names_out()
        name = self.backbone_.spec.name
        return np.array([f"{name}_tuned_{i}" for i in range(self.n_features_out_)], dtype=object)

    def __getstate__(self):
        """Return the state, without the callbacks if the classifier is fitted."""
        state = {**super().__getstate__()}
        if "head_" in state:
            state |= {"callbacks": None, "device": str(self.device)}
        return state

    def _targets(self):
        return self.head_._targets()

    def _logits(self, X):
        check_is_fitted(self)
        views = self._embedded(X, self.n_test_views).reshape(-1, self.n_features_out_)
        logits = self.head_._logits(views.astype(np.float32, copy=False))
        return logits.reshape(-1, self.n_test_views, logits.shape[1]).mean(axis=1)

    def _embedded(self, X, n_views):
        self._validate_params()  # some may be changed after `fit`
        if self.backbone_ is None:
            return self.embedder_._embedded(X, n_views, ADVICE)
        precision, images = self.precision.replace("auto", "float32"), check_images(X)
        # Converting a network that serves a single estimator takes longer than it saves on a few
        # hundred images: OpenVINO runs it only if it is asked for by name.
        runtime = resolve_runtime(self.device, precision, self.engine.replace("auto", "torch"))
        return self.backbone_.embed(images, runtime, n_views, self.max_pixels, self.verbose)


def _check_labels(X, y, name="y"):
    """Return images as a list and labels as an array."""
    if y is None:
        raise ValueError("FineTuneClassifier requires y to be passed, but y is None.")
    images, y = check_images(X), clean_labels(y, name)
    if y.ndim != 2 or y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_consistent_length(images, y)
    return images, y
