"""Fine-tuning: a head and the upper part of a backbone trained together."""

import os
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from ..augmentation import HoldsAugmentation
from ..heads._classifier import HeadClassifier, check_two_classes
from ..images import MAX_PIXELS, check_images
from ._fit import FineTuneFit, embedding_precision
from ._prediction import advised

__all__ = ["FineTuneClassifier"]


class FineTuneClassifier(HoldsAugmentation, TransformerMixin, ClassifierMixin, BaseEstimator):
    """Classify images with a head and the upper part of a backbone trained together.

    First a head learns on the embeddings of the frozen backbone, as in
    :func:`~sktransfer.make_transfer_pipeline`. Then the head and the last stages of the backbone
    are trained together, each part with a learning rate of its own. What the part below makes of
    an image does not change, so it is computed once and kept where memory allows.

    A fitted one is a transformer too: ``transform`` gives tuned embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        Name of the network, see :func:`sktransfer.list_backbones`, or a module of your own.
    weights : str, path-like or None, default="DEFAULT"
        As for :class:`~sktransfer.ImageEmbedder`.
    trainable_stages : int or "all", default=3
        How many of the backbone's last stages are trained, see
        :func:`sktransfer.backbones.backbone_stages`. 0 without an augmentation equals the frozen
        pipeline: nothing is trained together, and what says how (``max_epochs``,
        ``early_stopping``, ``callbacks``, ``checkpoint_dir`` ...) is not looked at. "all" trains
        the whole network.
    head : HeadClassifier or None, default=None
        The head; it is cloned, and takes over ``random_state``, ``class_weight`` and ``device``
        where it has none of its own. Its parameters hold for the training on frozen embeddings;
        its structure and label smoothing also for the training after it. None is
        ``HeadClassifier()``; with that as `head`, a grid search speaks of ``head__dropout``.
    image_size : int or None, default=None
        Side in pixels of the square that the network sees; None for that of the weights.
    augmentation : {"flip", "crop", "color", "auto"}, torch.nn.Module or None, default=None
        Changes to the images while head and backbone are trained together, as for
        :class:`~sktransfer.ImageEmbedder`: "flip" mirrors; "crop" also cuts out a random
        part of half the area or more; "color" is "crop" and random brightness, contrast,
        saturation and hue; "auto" is "crop" and what ``TrivialAugmentWide`` [1]_ does. Or a
        transform of :mod:`torchvision.transforms.v2`, which in the grid of a search goes into
        ``v2.Compose([...])``. None trains on the images as they are.
    n_views : int or None, default=4
        With an augmentation, how many views of each image there are, the image itself among them;
        each epoch sees one of them, drawn at random. The output of the frozen part is kept for all
        of them. None makes a new view in each epoch, of which nothing is kept.
    lr : float, default=0.001
        Highest learning rate of the head (AdamW, linear warm-up over a tenth of the steps, then
        cosine).
    backbone_lr_factor : float, default=1.0
        Learning rate of the backbone's last stage, as a share of ``lr``. Smaller values keep it
        closer to what it was.
    layer_decay : float in (0, 1], default=1.0
        Each stage below is trained with this share of the learning rate of the one above it [2]_.
    weight_decay : float, default=0.01
        Share, times the learning rate, by which each step shrinks the weights; biases and
        normalisations are spared.
    max_epochs : int, default=20
        Passes over the images while head and backbone are trained together.
    batch_size : int, default=32
        Images in a training batch.
    update_batch_norm : bool, default=False
        Whether the batch normalisations of the trained stages go on learning means and variances.
        Small batches spoil what they know.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, for both trainings.
    early_stopping : bool, default=False
        Whether to hold back a validation share, to stop when ``scoring`` on it no longer improves,
        and to go back to the best epoch. Epoch 0, the head on the frozen backbone, counts as one.
    validation_fraction : float in (0, 1), default=0.1
        Share of the images that is held back, stratified by class. Equal images stay together.
    scoring : {"loss", "accuracy"}, default="loss"
        What early stopping watches.
    n_iter_no_change : int, default=5
        Early stopping waits this many epochs for an improvement.
    tol : float, default=0.0001
        An improvement of ``scoring`` by less does not count.
    checkpoint_dir : str, path-like or None, default=None
        Directory for a checkpoint after each epoch. A fit that was killed goes on from it when it
        is started again with the same images and parameters, and ends with the same weights (on
        a CPU). Other images or parameters have a file of their own. A finished fit leaves the
        weights that were chosen, and is not resumed.
    callbacks : list of callable or None, default=None
        Each is called after each epoch with its row of the history, a dictionary.
    memory_limit : int or str, default="2GB"
        Bytes, or a text like "500MB", that may be used for keeping what the frozen part makes of
        the images, those of a validation share included. If that is not enough, resized images
        are kept and the frozen part runs in each epoch; if that is not enough either, images are
        read again in each epoch. Results do not depend on it.
    device : str or torch.device, default="auto"
        Where to train and predict: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "auto" trains in mixed precision on a GPU (bfloat16, or float16 where there is none) and in
        float32 on a CPU, and computes embeddings in float32; the others hold for everything.
        Weights and the optimiser are float32 in any case.
    engine : {"auto", "torch", "openvino"}, default="auto"
        What runs the frozen backbone for the first training, as for
        :class:`~sktransfer.ImageEmbedder`. The tuned one is run by torch unless this is
        "openvino".
    cache : bool, str, path-like or None, default=True
        Where embeddings of the frozen backbone are kept, as for
        :class:`~sktransfer.ImageEmbedder`. Those of the tuned one are not stored.
    max_pixels : int, default=100_000_000
        Images with more pixels (height x width) are refused before they are decoded.
    random_state : int, RandomState instance or None, default=None
        Initial weights of the head, order of images, views, dropout and the validation share. An
        int gives equal weights each time on a CPU with the same number of threads.
    verbose : int, default=0
        1 shows progress bars, 2 prints a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    head_ : HeadClassifier
        The trained head: what it says of ``transform(X)`` is what this classifier says of ``X``.
    embedder_ : ImageEmbedder
        Gives the embeddings of the backbone before it was tuned.
    backbone_ : TunedNetwork or None
        The tuned part of the backbone; None with ``trainable_stages=0``. ``backbone_.network()`` is the
        whole tuned network as a :class:`torch.nn.Module`.
    history_ : list of dict
        For each epoch of the training together: "epoch", "train_loss", with early stopping
        "valid_loss" and "valid_accuracy", and "seconds". Then there is also an epoch 0, before any
        training, with "epoch", "valid_loss" and "valid_accuracy".
    best_epoch_ : int
        Epoch whose weights are kept; 0 if the frozen backbone was best, or nothing was tuned.
    n_epochs_ : int
        Epochs that were trained.
    feature_cache_ : {"features", "pixels", "nothing"} or None
        What was kept in memory: outputs of the frozen part, images, or nothing. None if there
        was nothing to train.
    n_features_out_ : int
        Width of the embedding.

    See Also
    --------
    sktransfer.make_transfer_pipeline : The same with a frozen backbone.

    Notes
    -----
    The pickle holds the head and the tuned stages; the frozen part is loaded by name, and its
    weights are checked. A model trained on a GPU loads on a machine without one.

    References
    ----------
    .. [1] S. Müller and F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
       Augmentation", ICCV, 2021, https://arxiv.org/abs/2103.10158
    .. [2] J. Howard and S. Ruder, "Universal Language Model Fine-tuning for Text Classification",
       ACL, 2018, https://arxiv.org/abs/1801.06146

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
        "backbone": [str, HasMethods(["forward", "state_dict"])],
        "weights": [str, os.PathLike, None],
        "trainable_stages": [Interval(Integral, 0, None, closed="left"), StrOptions({"all"})],
        "head": [HeadClassifier, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "augmentation": [str, torch.nn.Module, None],
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "backbone_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "update_batch_norm": ["boolean"],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "scoring": [StrOptions({"loss", "accuracy"})],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "checkpoint_dir": [str, os.PathLike, None],
        "callbacks": [list, tuple, None],
        "memory_limit": [Interval(Integral, 0, None, closed="left"), str],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "engine": [StrOptions({"auto", "torch", "openvino"})],
        "cache": ["boolean", str, os.PathLike, None],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="tiny_mobilenet",
        *,
        weights="DEFAULT",
        trainable_stages=3,
        head=None,
        image_size=None,
        augmentation=None,
        n_views=4,
        lr=1e-3,
        backbone_lr_factor=1.0,
        layer_decay=1.0,
        weight_decay=0.01,
        max_epochs=20,
        batch_size=32,
        update_batch_norm=False,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        scoring="loss",
        n_iter_no_change=5,
        tol=1e-4,
        checkpoint_dir=None,
        callbacks=None,
        memory_limit="2GB",
        device="auto",
        precision="auto",
        engine="auto",
        cache=True,
        max_pixels=MAX_PIXELS,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.trainable_stages = trainable_stages
        self.head = head
        self.image_size = image_size
        self.augmentation = augmentation
        self.n_views = n_views
        self.lr = lr
        self.backbone_lr_factor = backbone_lr_factor
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.update_batch_norm = update_batch_norm
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.memory_limit = memory_limit
        self.device = device
        self.precision = precision
        self.engine = engine
        self.cache = cache
        self.max_pixels = max_pixels
        self.random_state = random_state
        self.verbose = verbose

    # --------------------------------------------------------------------------------- fitting

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train the head on frozen embeddings, then the head and the last stages together.

        Parameters
        ----------
        X : array-like of n images
            See :func:`sktransfer.images.check_images`.
        y : array-like of shape (n,)
            Class labels of any type.
        sample_weight : array-like of shape (n,), default=None
            Weights of the images, none of them negative.

        Returns
        -------
        FineTuneClassifier
            The fitted classifier itself.

        Raises
        ------
        ImageReadError
            If images cannot be read; it names all of them, before anything is trained.
        ValueError
            If there is only one class, the backbone has fewer stages than ``trainable_stages``, or there
            are too few images for a validation share.
        TrainingDivergedError
            If the loss is no longer a number.
        """
        images = check_images(X)
        y, weight = self._check_targets(images, y, sample_weight)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self._keep(FineTuneFit(self, images, y, weight, seed).run())
        return self

    def _keep(self, fitted):
        """Set the fitted attributes, all of them at once: they belong together."""
        self.embedder_, self.head_, self.backbone_ = fitted.embedder, fitted.head, fitted.tuned
        self.history_, self.best_epoch_ = fitted.history, fitted.best_epoch
        self.n_epochs_ = self.history_[-1]["epoch"] if self.history_ else 0
        self.feature_cache_ = fitted.kept
        self.classes_ = fitted.head.classes_
        self.n_features_out_ = fitted.embedder.n_features_out_

    def _check_targets(self, images, y, sample_weight):
        """Return labels and weights as arrays."""
        if y is None:
            raise ValueError("FineTuneClassifier requires y to be passed, but y is None.")
        if np.ndim(y) == 2 and np.shape(y)[1] > 1:
            raise ValueError(
                f"y has shape {np.shape(y)}; fine-tuning takes one class for each image. For "
                "several labels an image use make_transfer_pipeline, whose head takes them."
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(images, y)
        check_classification_targets(y)
        # A stand-in with as many rows: images are no numeric array.
        stand_in = np.empty((len(images), 1))
        weight = _check_sample_weight(
            sample_weight, stand_in, dtype=np.float64, ensure_non_negative=True
        )
        if not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        check_two_classes(y, weight)
        return y, weight

    # ------------------------------------------------------------------------------ predicting

    def transform(self, X):
        """Return tuned embeddings, the features that the head decides by.

        Parameters
        ----------
        X : array-like of n images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n, n_features), dtype float32
            One row for each image.

        Raises
        ------
        ImageReadError
            If images cannot be read; it names all of them.
        FingerprintMismatchError
            If the weights of the frozen part are no longer those of ``fit``.
        """
        check_is_fitted(self)
        if self.backbone_ is None:
            with advised():
                return self.embedder_.transform(X)
        return self.backbone_.embed(
            X,
            device=self.device,
            precision=embedding_precision(self.precision),
            engine=self.engine,
            batch_size=None,
            cache=self.cache,
            max_pixels=self.max_pixels,
            verbose=self.verbose,
        )

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the tuned embedding after the backbone.

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

    def decision_function(self, X):
        """Return logits.

        Parameters
        ----------
        X : array-like of n images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes), float32
            For two classes the difference of their logits, positive for ``classes_[1]``.
        """
        embeddings = self._embeddings(X)
        return self.head_.decision_function(embeddings)

    def predict_proba(self, X):
        """Return probabilities of classes.

        Parameters
        ----------
        X : array-like of n images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n, n_classes), float32
            Rows that sum to one, columns in the order of ``classes_``.
        """
        embeddings = self._embeddings(X)
        return self.head_.predict_proba(embeddings)

    def predict(self, X):
        """Return the most probable class of each image.

        Parameters
        ----------
        X : array-like of n images
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n,)
            Class labels.
        """
        embeddings = self._embeddings(X)
        return self.head_.predict(embeddings)

    def _embeddings(self, X):
        """Return embeddings as an array, whatever container ``set_output`` asks for."""
        return np.asarray(self.transform(X), dtype=np.float32)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags
