"""Fine-tuning: a head and the upper part of a backbone trained together."""

import os
from numbers import Integral, Real
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, _fit_context, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)
from tqdm.auto import tqdm

from ._finetune_data import FrozenPart, ViewReader, Views
from ._finetune_prediction import TunedNetwork, advised, read_digests
from ._finetune_training import Tuned, TuningData, TuningSettings, tune
from ._head_data import digest_rows
from ._head_fitting import NOT_IN_DIGEST, stable
from ._head_modules import HeadLoss
from ._policy import HoldsPolicy
from ._runners import TORCH_DTYPES, resolve_runtime
from ._store._places import parse_size
from ._views import check_policy, resolve_policy
from .backbones import backbone_stages, load_backbone, resolve_backbone, split_backbone
from .embedder import ImageEmbedder
from .heads import HeadClassifier, check_two_classes
from .images import MAX_PIXELS, check_images

__all__ = ["FineTuneClassifier"]

#: Parameters that do not change what is learned, and therefore not the name of a checkpoint.
_NOT_IN_CHECKPOINT_NAME = {
    "backbone",
    "cache",
    "callbacks",
    "checkpoint_dir",
    "device",
    "head",
    "memory_limit",
    "policy",
    "random_state",
    "verbose",
    "weights",
}


class FineTuneClassifier(HoldsPolicy, TransformerMixin, ClassifierMixin, BaseEstimator):
    """Classify pictures with a head and the upper part of a backbone trained together.

    First a head learns on the embeddings of the frozen backbone, as in
    :func:`~sktransfer.make_transfer_pipeline`. Then the head and the last stages of the backbone
    are trained together, each part with a learning rate of its own. What the part below makes of
    a picture does not change, so it is computed once and kept where memory allows.

    A fitted one is a transformer too: ``transform`` gives tuned embeddings.

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="tiny_mobilenet"
        Name of the network, see :func:`sktransfer.list_backbones`, or a module of your own.
    weights : str, path-like or None, default="DEFAULT"
        As for :class:`~sktransfer.ImageEmbedder`.
    unfreeze : int or "all", default=3
        How many of the backbone's last stages are trained, see
        :func:`sktransfer.backbones.backbone_stages`. 0 without a policy is exactly the frozen
        pipeline; "all" trains the whole network.
    head : HeadClassifier or None, default=None
        The head; it is cloned, and takes over ``random_state``, ``class_weight`` and ``device``
        where it has none of its own. Its parameters hold for the training on frozen embeddings;
        its structure and label smoothing also for the training after it. None is
        ``HeadClassifier()``. A grid search speaks of ``head__dropout``.
    image_size : int or None, default=None
        Side in pixels of the square that the network sees; None for that of the weights.
    policy : {"flip", "crop", "color", "auto"}, torch.nn.Module or None, default=None
        Changes to the pictures while head and backbone are trained together, as for
        :class:`~sktransfer.AugmentedClassifier`: "flip" mirrors; "crop" also cuts out a random
        part of half the area or more; "color" is "crop" and random brightness, contrast,
        saturation and hue; "auto" is "crop" and what ``TrivialAugmentWide`` [1]_ does. Or a
        transform of :mod:`torchvision.transforms.v2`, which in the grid of a search goes into
        ``v2.Compose([...])``. None trains on the pictures as they are.
    n_views : int or None, default=4
        With a policy, how many views of each picture there are, the picture itself among them;
        each epoch sees one of them, drawn at random. The output of the frozen part is kept for all
        of them. None makes a new view in each epoch, of which nothing is kept.
    lr : float, default=0.001
        Highest learning rate of the head (AdamW, linear warm-up over a tenth of the steps, then
        cosine).
    backbone_lr_factor : float, default=1.0
        Learning rate of the backbone's last stage, as a share of ``lr``. Smaller values keep it
        closer to what it was.
    stage_lr_decay : float in (0, 1], default=1.0
        Each stage below is trained with this share of the learning rate of the one above it [2]_.
    weight_decay : float, default=0.01
        Share, times the learning rate, by which each step shrinks the weights; biases and
        normalisations are spared.
    max_epochs : int, default=20
        Passes over the pictures while head and backbone are trained together.
    batch_size : int, default=32
        Pictures in a training batch.
    update_batch_norm : bool, default=False
        Whether the batch normalisations of the trained stages go on learning means and variances.
        Small batches spoil what they know.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, for both trainings.
    early_stopping : bool, default=False
        Whether to hold back a validation share, to stop when ``scoring`` on it no longer improves,
        and to go back to the best epoch. Epoch 0, the head on the frozen backbone, counts as one.
    validation_fraction : float in (0, 1), default=0.1
        Share of the pictures that is held back, stratified by class. Equal pictures stay together.
    scoring : {"loss", "accuracy"}, default="loss"
        What early stopping watches.
    n_iter_no_change : int, default=5
        Early stopping waits this many epochs for an improvement.
    tol : float, default=0.0001
        An improvement of ``scoring`` by less does not count.
    checkpoint_dir : str, path-like or None, default=None
        Directory for a checkpoint after each epoch. A fit that was killed goes on from it when it
        is started again with the same pictures and parameters, and ends with the same weights (on
        a CPU). Other pictures or parameters have a file of their own. A finished fit leaves the
        weights that were chosen, and is not resumed.
    callbacks : list of callable or None, default=None
        Each is called after each epoch with its row of the history, a dictionary.
    memory_limit : int or str, default="2GB"
        Bytes, or a text like "500MB", that may be used for keeping what the frozen part makes of
        the pictures, those of a validation share included. If that is not enough, resized pictures
        are kept and the frozen part runs in each epoch; if that is not enough either, pictures are
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
        Pictures with more pixels (height x width) are refused before they are decoded.
    random_state : int, RandomState instance or None, default=None
        Initial weights of the head, order of pictures, views, dropout and the validation share. An
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
    tuned_ : TunedNetwork or None
        The tuned part of the backbone; None with ``unfreeze=0``. ``tuned_.network()`` is the
        whole tuned network as a :class:`torch.nn.Module`.
    history_ : list of dict
        For each epoch of the training together: "epoch", "train_loss", with early stopping
        "valid_loss" and "valid_accuracy", and "seconds". Then there is also an epoch 0.
    best_epoch_ : int
        Epoch whose weights are kept; 0 if the frozen backbone was best, or nothing was tuned.
    n_epochs_ : int
        Epochs that were trained.
    kept_ : {"features", "pixels", "nothing"} or None
        What was kept in memory: outputs of the frozen part, pictures, or nothing. None if there
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
    >>> model = FineTuneClassifier(unfreeze=1, max_epochs=2, cache=None, random_state=0)
    >>> model.fit(shapes.data, shapes.target).predict(shapes.data).shape
    (40,)
    >>> model.transform(shapes.data).shape == (40, model.n_features_out_)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "backbone": [str, HasMethods(["forward", "state_dict"])],
        "weights": [str, os.PathLike, None],
        "unfreeze": [Interval(Integral, 0, None, closed="left"), StrOptions({"all"})],
        "head": [HeadClassifier, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "policy": [str, torch.nn.Module, None],
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "backbone_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "stage_lr_decay": [Interval(Real, 0, 1, closed="right")],
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
        unfreeze=3,
        head=None,
        image_size=None,
        policy=None,
        n_views=4,
        lr=1e-3,
        backbone_lr_factor=1.0,
        stage_lr_decay=1.0,
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
        self.unfreeze = unfreeze
        self.head = head
        self.image_size = image_size
        self.policy = policy
        self.n_views = n_views
        self.lr = lr
        self.backbone_lr_factor = backbone_lr_factor
        self.stage_lr_decay = stage_lr_decay
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
        X : array-like of n pictures
            See :func:`sktransfer.images.check_images`.
        y : array-like of shape (n,)
            Class labels of any type.
        sample_weight : array-like of shape (n,), default=None
            Weights of the pictures, none of them negative.

        Returns
        -------
        FineTuneClassifier
            The fitted classifier itself.

        Raises
        ------
        ImageReadError
            If pictures cannot be read; it names all of them, before anything is trained.
        ValueError
            If there is only one class, the backbone has fewer stages than ``unfreeze``, or there
            are too few pictures for a validation share.
        TrainingDivergedError
            If the loss is no longer a number.
        """
        pictures = check_images(X)
        y, weight = self._check_targets(pictures, y, sample_weight)
        n_unfrozen = self._check_unfreeze()
        rng = check_random_state(self.random_state)
        self._make_embedder().fit(pictures)
        with advised():
            rows = self.embedder_.transform(pictures)
        self.n_features_out_ = self.embedder_.n_features_out_
        self.tuned_, self.history_, self.best_epoch_, self.kept_ = None, [], 0, None
        if n_unfrozen == 0 and self.policy is None:
            self._fit_head(rows, y, weight)
        else:
            self._fit_together(pictures, rows, y, weight, n_unfrozen, rng.randint(2**31 - 1))
        self.n_epochs_ = self.history_[-1]["epoch"] if self.history_ else 0
        return self

    def _check_targets(self, pictures, y, sample_weight):
        """Return labels and weights as arrays."""
        if np.ndim(y) == 2 and np.shape(y)[1] > 1:
            raise ValueError(
                f"y has shape {np.shape(y)}; fine-tuning takes one class for each picture. For "
                "several labels a picture use make_transfer_pipeline, whose head takes them."
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(pictures, y)
        check_classification_targets(y)
        # A stand-in with as many rows: pictures are no numeric array.
        stand_in = np.empty((len(pictures), 1))
        weight = _check_sample_weight(
            sample_weight, stand_in, dtype=np.float64, ensure_non_negative=True
        )
        if not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        check_two_classes(y, weight)
        return y, weight

    def _check_unfreeze(self):
        """Return how many stages are trained."""
        self._spec = resolve_backbone(self.backbone, self.weights, self.image_size)
        if self.unfreeze == 0:
            return 0
        stages = [name for name, _ in backbone_stages(load_backbone(self._spec))]
        if self.unfreeze == "all":
            return len(stages)
        if self.unfreeze > len(stages):
            raise ValueError(
                f"unfreeze={self.unfreeze} asks for more stages than {self._spec.name!r} has: "
                f'{len(stages)}, which are {stages}. Pass 0 to {len(stages)}, or "all".'
            )
        return int(self.unfreeze)

    def _make_embedder(self):
        self.embedder_ = ImageEmbedder(
            self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            device=self.device,
            precision=self._embedding_precision(),
            engine=self.engine,
            cache=self.cache,
            max_pixels=self.max_pixels,
            verbose=self.verbose,
        )
        return self.embedder_

    def _embedding_precision(self):
        return "float32" if self.precision == "auto" else self.precision

    def _fit_head(self, rows, y, weight, valid=None):
        """Train the head on embeddings, on all of them or with some to validate on."""
        head = HeadClassifier() if self.head is None else clone(self.head)
        ours = {"random_state": self.random_state, "class_weight": self.class_weight}
        own = {name: value for name, value in ours.items() if getattr(head, name) is None}
        head.set_params(**own)
        if head.device == "auto":
            head.set_params(device=str(self.device))
        validation = {}
        if valid is not None and head.early_stopping:
            validation = {"X_val": valid[0], "y_val": valid[1]}
        self.head_ = head.fit(rows, y, sample_weight=weight, **validation)
        self.classes_ = self.head_.classes_

    def _fit_together(self, pictures, rows, y, weight, n_unfrozen, seed):
        """Train the head alone, then with the upper part of the backbone."""
        from ._training import read_checkpoint

        digests = read_digests(pictures, self.cache)
        policy = self._policy_for(pictures, seed)
        path = self._checkpoint_path(digests, y, weight, policy)
        # A fit without a fixed seed goes on with the seed that it began with.
        seed = (read_checkpoint(path) or {"seed": seed})["seed"]
        train, valid = self._split(digests, y, weight, seed)
        held_back = None if valid is None else (rows[valid], y[valid])
        self._fit_head(rows[train], y[train], weight[train], held_back)
        runtime = self._training_runtime()
        upper, frozen = self._divide(n_unfrozen, runtime)
        model = Tuned(upper, self.head_.net_.module_).to(
            runtime.device, memory_format=torch.channels_last
        )
        room = self._memory_limit()
        data = self._views(pictures, digests, y, weight, train, frozen, seed, room, policy)
        checked = None
        if valid is not None:
            even = np.ones_like(weight)
            room -= data.views.n_bytes
            checked = self._views(pictures, digests, y, even, valid, frozen, seed, room)
        self.kept_ = data.views.kept
        with _Progress(self) as on_epoch:
            self.history_, self.best_epoch_ = tune(
                model,
                HeadLoss(multilabel=False, label_smoothing=self.head_.label_smoothing),
                data,
                checked,
                self._settings(seed, runtime),
                path,
                on_epoch,
            )
        model.eval()
        if n_unfrozen:
            upper = upper.cpu().requires_grad_(False)
            self.tuned_ = TunedNetwork(self._spec, n_unfrozen, upper, self._is_whole)

    def _split(self, digests, y, weight, seed):
        """Return positions to train on and, with early stopping, to validate on."""
        counted = np.flatnonzero(weight > 0)
        if not self.early_stopping:
            return counted, None
        keys = np.array([digests[p] for p in counted], dtype="S20")
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        labels = y[counted][first]
        self._check_share(labels)
        train, valid = train_test_split(
            np.arange(len(first)),
            test_size=self.validation_fraction,
            stratify=labels,
            random_state=seed,
        )
        return tuple(counted[np.isin(group, part)] for part in (train, valid))

    def _check_share(self, labels):
        """Check that every class can have a picture on both sides of the split."""
        classes, sizes = np.unique(labels, return_counts=True)
        n_valid = int(np.ceil(self.validation_fraction * len(labels)))
        if sizes.min() >= 2 and len(classes) <= min(n_valid, len(labels) - n_valid):
            return
        raise ValueError(
            f"validation_fraction={self.validation_fraction} of {len(labels)} different pictures "
            f"is {n_valid}: too few for a validation share with every one of the {len(classes)} "
            f"classes on both sides (the smallest class has {sizes.min()}). Give more pictures, "
            "raise validation_fraction, or set early_stopping=False and choose max_epochs yourself."
        )

    def _training_runtime(self):
        """Where and in what precision the frozen part runs during training."""
        precision = self.precision
        probe = resolve_runtime(self.device, "float32", "torch")
        if precision == "auto":
            precision = _mixed_precision(probe.device)
        return resolve_runtime(self.device, precision, "torch")

    def _divide(self, n_unfrozen, runtime):
        """Return the part to be trained, and what runs the part below."""
        spec = self._spec
        lower, upper = split_backbone(load_backbone(spec), n_unfrozen)
        self._is_whole = lower is None or not any(True for _ in lower.parameters())
        own = spec.module is not None
        return upper, FrozenPart(lower, spec.preprocessing, runtime, own_module=own)

    def _views(self, pictures, digests, y, weight, rows, frozen, seed, room, policy=None):
        """Return what a training or a validation on some of the pictures needs."""
        reader = ViewReader(
            [pictures[p] for p in rows],
            [digests[p] for p in rows],
            self._spec.preprocessing,
            policy,
            seed,
            self.max_pixels,
        )
        n_views = self._number_of_views(policy)
        with tqdm(
            total=len(rows) * (n_views or 0),
            desc="frozen part",
            unit="view",
            leave=False,
            disable=not self.verbose,
        ) as bar:
            views = Views(reader, len(rows), n_views, frozen, room, bar.update)
        device = frozen.runtime.device
        codes = torch.from_numpy(np.searchsorted(self.classes_, y[rows])).to(device)
        weight = weight[rows] * compute_sample_weight(self.head_.class_weight, y[rows])
        weight = torch.from_numpy((weight / weight.mean()).astype(np.float32)).to(device)
        return TuningData(views, codes, weight)

    def _policy_for(self, pictures, seed):
        """Return what is done to pictures, tried out where it is the user's own."""
        policy = resolve_policy(self.policy)
        if policy is not None:
            check_policy(policy, pictures, seed, self.max_pixels)
        return policy

    def _number_of_views(self, policy):
        """Return how many different views there are of each picture; None for ever new ones."""
        if policy is None:
            return 1
        # Of a policy that only mirrors there are two.
        most = self.n_views if policy.transform is not None else 2
        return most if self.n_views is None else min(self.n_views, most)

    def _memory_limit(self):
        limit = self.memory_limit
        return parse_size(limit) if isinstance(limit, str) else limit

    def _settings(self, seed, runtime):
        dtype = TORCH_DTYPES[runtime.precision]
        return TuningSettings(
            lr=self.lr,
            backbone_lr_factor=self.backbone_lr_factor,
            stage_lr_decay=self.stage_lr_decay,
            weight_decay=self.weight_decay,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            update_batch_norm=self.update_batch_norm,
            patience=self.n_iter_no_change if self.early_stopping else None,
            scoring=self.scoring,
            tol=self.tol,
            seed=seed,
            device=runtime.device,
            autocast=None if dtype is torch.float32 else dtype,
        )

    def _checkpoint_path(self, digests, y, weight, policy):
        """Return the file of a checkpoint: one for each set of pictures and parameters."""
        if self.checkpoint_dir is None:
            return None
        directory = Path(self.checkpoint_dir)
        directory.mkdir(parents=True, exist_ok=True)
        ours = _described(self, _NOT_IN_CHECKPOINT_NAME)
        head = None if self.head is None else _described(self.head, NOT_IN_DIGEST)
        text = repr([ours, head, policy and policy.key, self._spec.fingerprint])
        labels = np.array([str(label) for label in y])
        keys = np.frombuffer(b"".join(digests), dtype=np.uint8)
        return directory / f"finetune-{digest_rows([keys, labels, weight], text)}.pt"

    # ------------------------------------------------------------------------------ predicting

    def transform(self, X):
        """Return tuned embeddings, the features that the head decides by.

        Parameters
        ----------
        X : array-like of n pictures
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n, n_features), dtype float32
            One row for each picture.

        Raises
        ------
        ImageReadError
            If pictures cannot be read; it names all of them.
        FingerprintMismatchError
            If the weights of the frozen part are no longer those of ``fit``.
        """
        check_is_fitted(self)
        if self.tuned_ is None:
            with advised():
                return self.embedder_.transform(X)
        return self.tuned_.embed(
            X,
            device=self.device,
            precision=self._embedding_precision(),
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
            Ignored; a picture has no named features.

        Returns
        -------
        ndarray of str
            ``["resnet50_tuned_0", "resnet50_tuned_1", ...]``.
        """
        check_is_fitted(self)
        if self.tuned_ is None:
            return self.embedder_.get_feature_names_out()
        name = self._spec.name
        return np.array([f"{name}_tuned_{i}" for i in range(self.n_features_out_)], dtype=object)

    def decision_function(self, X):
        """Return logits.

        Parameters
        ----------
        X : array-like of n pictures
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes), float32
            For two classes the difference of their logits, positive for ``classes_[1]``.
        """
        return self.head_.decision_function(self._embeddings(X))

    def predict_proba(self, X):
        """Return probabilities of classes.

        Parameters
        ----------
        X : array-like of n pictures
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n, n_classes), float32
            Rows that sum to one, columns in the order of ``classes_``.
        """
        return self.head_.predict_proba(self._embeddings(X))

    def predict(self, X):
        """Return the most probable class of each picture.

        Parameters
        ----------
        X : array-like of n pictures
            See :func:`sktransfer.images.check_images`.

        Returns
        -------
        ndarray of shape (n,)
            Class labels.
        """
        return self.head_.predict(self._embeddings(X))

    def _embeddings(self, X):
        """Return embeddings as an array, whatever container ``set_output`` asks for."""
        return np.asarray(self.transform(X), dtype=np.float32)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


class _Progress:
    """What is shown, and who is called, after each epoch."""

    def __init__(self, estimator):
        self.callbacks = estimator.callbacks or []
        self.verbose = estimator.verbose
        self.bar = tqdm(
            total=estimator.max_epochs,
            desc="Fine-tuning",
            unit="epoch",
            disable=self.verbose != 1,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.bar.close()

    def __call__(self, row):
        shown = {name: f"{value:.4g}" for name, value in row.items() if name != "epoch"}
        if self.verbose >= 2:
            print(f"epoch {row['epoch']:3d}  " + "  ".join(f"{n} {v}" for n, v in shown.items()))
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(row["epoch"] > 0)
        for callback in self.callbacks:
            callback(row)


def _described(estimator, left_out):
    """Return what an estimator learns by, and its seed, with the same text in each process."""
    params = estimator.get_params(deep=False)
    seed = params["random_state"] if isinstance(params["random_state"], Integral) else None
    return seed, [(n, stable(params[n])) for n in sorted(params) if n not in left_out]


def _mixed_precision(device):
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
