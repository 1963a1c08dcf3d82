"""HeadClassifier: a classifier on embeddings, trained by gradient descent."""

from __future__ import annotations

from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch.nn.modules.batchnorm import _BatchNorm

from .._training._parameters import CONSTRAINTS, check_validation, check_weight
from .._training._prediction import PredictsByLogits
from .._training._random import seeded
from .._training._samples import (
    EmbeddingDataset,
    Samples,
    class_factors,
    moments,
    relative_weight,
    split_groups,
)
from .._training._targets import ClassTargets, check_two_classes, clean_labels
from .._utils._devices import resolve_device
from .._utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    fit_context,
)
from .._utils._typing import ArrayLike, Seed
from ..images import holds_images
from ._building import (
    OPTIMIZERS,
    STRUCTURE,
    build_module,
    build_net,
    check_structure,
    kernels_for,
    resolve_lr,
    resolve_weight_decay,
)
from ._modules import ACTIVATIONS

#: Embeddings that take no more than this are moved to the device once, and not batch by batch.
RESIDENT_BYTES = 2 * 1024**3


class HeadClassifier(PredictsByLogits, ClassifierMixin, BaseEstimator):
    """Linear or multilayer classifier on embeddings, trained by gradient descent.

    A plain scikit-learn classifier around a :class:`skorch.NeuralNetClassifier`. With default
    parameters it is a multinomial logistic regression whose settings suit the embeddings of a
    frozen backbone. Targets are two classes, more classes, or several labels per sample (an
    indicator matrix).

    Parameters
    ----------
    hidden_units : int or tuple of int, default=()
        Width of each dense layer before the last one. Empty for a linear head.
    dropout : float in [0, 1), default=0.0
        Fraction of units that training drops after each dense layer, or of features if there is
        no dense layer.
    batch_norm : bool, default=False
        Whether batch normalization comes first.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Activation after each dense layer.
    scaling : {"global", "feature"} or None, default="global"
        How features are scaled. "global" centers each feature and divides all of them by one
        number, so that their variance is one on average: features that hardly vary stay small.
        "feature" divides each feature by its standard deviation, which suits columns in different
        units. None uses features as they are.
    module : callable, default=None
        A custom network: a :class:`torch.nn.Module` class, or a function that returns a module,
        called with ``n_features``, ``n_outputs`` and ``module_params``. It takes scaled features
        and returns logits of shape (n_samples, n_outputs). ``hidden_units``, ``dropout``,
        ``batch_norm`` and ``activation`` must then keep their defaults.
    module_params : dict, default=None
        Further arguments of ``module``.
    optimizer : {"adamw", "adam", "sgd", "rmsprop", "adagrad"} or class, default="adam"
        Optimizer, by name or as a :class:`torch.optim.Optimizer` class. "sgd" has a momentum of
        0.9 unless ``optimizer_params`` sets another.
    optimizer_params : dict, default=None
        Further arguments of the optimizer.
    lr : float or "auto", default="auto"
        Learning rate. "auto" is 0.2 divided by the square root of the number of features for a
        linear head; for any other head 0.004, or 0.001 with ``early_stopping``.
    weight_decay : float or "auto", default="auto"
        Weight decay of the optimizer: the factor of an L2 penalty on the weights or, with
        "adamw", the fraction (times ``lr``) by which each step shrinks them. Biases and the
        parameters of batch normalization are not decayed. For a linear head, "auto" chooses the
        penalty under which ridge regression on up to 1,000 samples has the best leave-one-out
        accuracy, multiplied by the curvature of the loss at equal probabilities,
        (1 - 1 / n_classes) / n_classes. For any other head "auto" is 0.0001, and with "adamw"
        0.01.
    lr_schedule : {"cosine", "warmup_cosine", "one_cycle", "step", "exponential", "plateau"}, \
            class or None, default="cosine"
        How the learning rate changes during ``fit``; a class is one of
        :mod:`torch.optim.lr_scheduler`. ``partial_fit`` keeps the learning rate constant.
    lr_schedule_params : dict, default=None
        Further arguments of the schedule, or ``{"step_every": "batch"}``.
    label_smoothing : float in [0, 1), default=0.0
        Fraction of each target that is spread evenly over all classes in training [1]_.
    class_weight : dict or "balanced", default=None
        Weight of each class; "balanced" weights them inversely to their frequency. Not available
        for several labels per sample.
    max_epochs : int, default=50
        Passes over the training samples, at most 1,000,000.
    batch_size : int, default=128
        Samples per training batch.
    early_stopping : bool, default=False
        Whether to stop when ``scoring`` on validation samples no longer improves, and to restore
        the weights of the best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the samples (or of the groups, if ``fit`` is given groups), stratified by
        class, that early stopping sets aside if no other validation samples are given.
    validation_splitter : cross-validation splitter or iterable, default=None
        Its first split chooses the validation samples, with and without early stopping. Ignored
        if ``fit`` is given ``X_val`` and ``y_val``.
    scoring : str, default="loss"
        What early stopping watches: "loss", or the name of a scikit-learn scorer such as
        "accuracy", "balanced_accuracy" or "f1_macro". The history records it as
        ``valid_<scoring>``.
    n_iter_no_change : int, default=10
        Early stopping waits this many epochs for an improvement.
    tol : float, default=0.0001
        Smallest change of ``scoring`` that counts as an improvement.
    callbacks : list, default=None
        Callbacks of skorch: instances of :class:`skorch.callbacks.Callback` or pairs (name,
        callback).
    device : str or torch.device, default="auto"
        Where to train and predict: "cpu", "cuda", "cuda:1", "mps"; "auto" chooses a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of samples, dropout and the validation samples. An
        int gives bit-equal weights each time on a CPU with the same number of threads.
    verbose : int, default=0
        0 is silent, 1 shows a progress bar, 2 prints a line per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, or the numbers of the columns of an indicator matrix.
    net_ : skorch.NeuralNetClassifier
        The trained net; ``net_.module_`` is the network, including the scaling.
    history_ : list of dict
        One dictionary per epoch: "epoch" (from 1), "lr" (at the start of the epoch),
        "train_loss" and "seconds". With validation samples also "valid_loss", "train_accuracy"
        (during the epoch), "valid_accuracy" and "valid_<scoring>".
    n_epochs_ : int
        Number of trained epochs.
    best_epoch_ : int
        Epoch whose weights the head has: the best one with early stopping, otherwise the last.
    lr_, weight_decay_ : float
        The learning rate and the weight decay that "auto" stands for.
    target_type_ : {"binary", "multiclass", "multilabel-indicator"}
        Kind of the targets.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all columns of ``X`` have string names.

    See Also
    --------
    sktransfer.make_transfer_pipeline : Puts an embedder in front of a head.
    sktransfer.FineTuneClassifier : Trains a head together with the top of a backbone.

    Notes
    -----
    Only the ratios of weights matter. The validation loss is weighted like the training loss, by
    ``class_weight`` too; scorers count samples.

    A pickle holds the weights, the history and the parameters. A head that was trained on a GPU
    loads and predicts on a machine without one. Ctrl-C ends training and keeps what has been
    learned.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR,
       2016, https://arxiv.org/abs/1512.00567

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer.heads import HeadClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> head = HeadClassifier(hidden_units=64, random_state=0).fit(X[:1000], y[:1000])
    >>> bool(head.score(X[1000:], y[1000:]) > 0.9)
    True
    """

    # As group splitters do: MultiViewClassifier passes groups, also through a pipeline.
    __metadata_request__fit: ClassVar[dict] = {"groups": True}

    _parameter_constraints: ClassVar[dict] = {
        **CONSTRAINTS,
        "hidden_units": [Integral, tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "scaling": [StrOptions({"global", "feature"}), None],
        "module": [callable, None],
        "module_params": [dict, None],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "optimizer_params": [dict, None],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "lr_schedule": [
            StrOptions({"cosine", "warmup_cosine", "one_cycle", "step", "exponential", "plateau"}),
            callable,
            None,
        ],
        "lr_schedule_params": [dict, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "validation_splitter": [HasMethods("split"), "array-like", HasMethods("__iter__"), None],
    }

    def __init__(
        self,
        hidden_units: int | tuple[int, ...] = (),
        *,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: str = "relu",
        scaling: str | None = "global",
        module: Any = None,
        module_params: dict | None = None,
        optimizer: Any = "adam",
        optimizer_params: dict | None = None,
        lr: float | str = "auto",
        weight_decay: float | str = "auto",
        lr_schedule: Any = "cosine",
        lr_schedule_params: dict | None = None,
        label_smoothing: float = 0.0,
        class_weight: dict | str | None = None,
        max_epochs: int = 50,
        batch_size: int = 128,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        validation_splitter: Any = None,
        scoring: str = "loss",
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        callbacks: list | None = None,
        device: str | torch.device = "auto",
        random_state: Seed = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.activation = activation
        self.scaling = scaling
        self.module = module
        self.module_params = module_params
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.lr_schedule_params = lr_schedule_params
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.validation_splitter = validation_splitter
        self.scoring = scoring
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train for up to ``max_epochs`` epochs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels of any type, or an indicator matrix of zeros and ones.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. Samples of weight zero are left out.
        groups : array-like of shape (n_samples,), default=None
            Group of each sample, such as the image that samples are views of. A group stays on
            one side of the validation split, and counts as one sample, its first one, when
            ``weight_decay="auto"`` leaves samples out.
        X_val : array-like of shape (n_val, n_features), default=None
            Embeddings to validate on after each epoch.
        y_val : array-like of shape (n_val,) or (n_val, n_labels), default=None
            Their targets.

        Returns
        -------
        HeadClassifier
            The fitted head itself.

        Raises
        ------
        ValueError
            If ``X`` has NaN or infinity, there is only one class, or there are too few samples
            for a validation fraction.
        TrainingDivergedError
            If the loss is no longer a finite number.
        """
        X, y, weight = self._check_data(X, y, sample_weight, reset=True)
        targets = ClassTargets.learn(y, weight)
        vars(self).pop("net_", None)  # it would not fit the new classes if this fit failed
        self.target_type_, self.classes_ = targets.kind, targets.classes
        self._seed = check_random_state(self.random_state).randint(2**31 - 1)
        group = np.arange(len(X))
        if groups is not None:
            check_consistent_length(X, groups)
            group = np.unique(clean_labels(groups, "groups"), return_inverse=True)[1]
        train, valid = Samples(X, targets.encode(y), weight, group), None
        check_validation(X_val, y_val)
        if X_val is not None:
            if holds_images(X_val):
                raise TypeError(
                    "X_val holds images, but a pipeline embeds only X for its last step. Set "
                    "early_stopping=True with validation_fraction or with validation_splitter, "
                    "which split X by index. Or pass embeddings: "
                    "head__X_val=pipeline[:-1].fit(X).transform(X_val)."
                )
            X_val, y_val, even = self._check_data(X_val, y_val, None, reset=False, y_name="y_val")
            codes = targets.encode(y_val, "y_val")
            valid = Samples(X_val, codes, even, np.arange(len(X_val)))
        elif self.validation_splitter is not None:
            first, second = self._first_split(X, y, groups)
            if np.intersect1d(group[first], group[second]).size:
                raise ValueError(
                    f"validation_splitter={self.validation_splitter!r} puts samples of one group, "
                    "such as views of one image, on both sides. Pass a splitter that keeps groups "
                    "together, such as GroupShuffleSplit, or use early_stopping=True with "
                    "validation_fraction."
                )
            train, valid = train.take(first), train.take(second)
        train, valid = self._weighted(train, valid, targets)
        if valid is None and self.early_stopping:
            strata = None if targets.multilabel else train.y
            parts = split_groups(train.group, strata, self.validation_fraction, self._seed)
            train, valid = map(train.take, parts)
        net = self._new_net(train, targets)
        self._train(
            net,
            train,
            valid,
            epochs=self.max_epochs,
            patience=self.n_iter_no_change if self.early_stopping else None,
            scoring=self.scoring,
            tol=self.tol,
            lr_schedule=self.lr_schedule,
            lr_schedule_params=self.lr_schedule_params,
        )
        net.optimizer_.state.clear()  # twice the size of the weights with Adam
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these samples, from the current weights.

        The first call sets the scaling and, with ``weight_decay="auto"``, the weight decay: use a
        typical batch of some size. The learning rate stays constant.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or an indicator matrix.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will see; required in the first call only.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, relative to one another within the call.

        Returns
        -------
        HeadClassifier
            The head itself.

        Raises
        ------
        ValueError
            If a parameter needs all samples at once, or ``y`` has an unknown class.
        """
        unfit = {
            "early_stopping": self.early_stopping,
            "validation_splitter": self.validation_splitter is not None,
            'class_weight="balanced"': self.class_weight == "balanced",
        }
        if any(unfit.values()):
            names = ", ".join(name for name, is_set in unfit.items() if is_set)
            raise ValueError(
                f"partial_fit sees only some of the samples at a time and cannot use {names}. "
                "Reset these parameters, or use fit."
            )
        first = not hasattr(self, "net_")
        X, y, weight = self._check_data(X, y, sample_weight, reset=first)
        targets = self._announced_targets(y, classes, first)
        samples = Samples(X, targets.encode(y), weight, np.arange(len(X)))
        samples, _ = self._weighted(samples, None, targets)
        if first:
            self.target_type_, self.classes_ = targets.kind, targets.classes
            self._seed = check_random_state(self.random_state).randint(2**31 - 1)
            net = self._new_net(samples, targets)
        else:
            check_structure(self, self._structure)
            net = self.net_
            net.lr = self.lr_ = resolve_lr(self, self.n_features_in_)
            net.batch_size = self.batch_size
            net.criterion_.label_smoothing = self.label_smoothing
            for group in net.optimizer_.param_groups:
                group["lr"] = self.lr_
                if self.weight_decay != "auto" and any(p.ndim > 1 for p in group["params"]):
                    group["weight_decay"] = self.weight_decay_ = self.weight_decay
        self._train(net, samples, None, epochs=1)
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")  # a fit that fails leaves no net

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self):
        state = {**super().__getstate__()}
        net = state.pop("net_", None)
        if net is not None:
            weights = net.module_.state_dict()
            state["_weights"] = {name: w.cpu().numpy() for name, w in weights.items()}
        return state

    def __setstate__(self, state):
        state = {**state}
        weights = state.pop("_weights", None)
        super().__setstate__(state)
        if weights is not None:
            self.net_ = self._restored_net(weights)

    def _targets(self):
        return ClassTargets(self.target_type_, self.classes_)

    def _logits(self, X):
        check_is_fitted(self, "net_")
        X = self._check_features(X, reset=False)
        X = np.require(X, requirements=["C", "W"])  # torch takes no read-only memory
        with kernels_for(len(X), self.net_.module_):
            return self.net_.forward(torch.from_numpy(X)).numpy()

    def _check_features(self, X, reset, **check):
        if holds_images(X):
            raise TypeError(
                "X holds images, and a head learns from embeddings, rows of numbers. Put an "
                "embedder in front: sktransfer.make_transfer_pipeline(head=HeadClassifier(...)) "
                "takes images; ImageEmbedder().transform(X) returns the embeddings alone."
            )
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().float().numpy()
        checked = validate_data(
            self, X, reset=reset, dtype=np.float32, ensure_all_finite=False, **check
        )
        rows = checked[0] if check else checked
        if np.isfinite(rows).all():
            return checked
        missing = np.flatnonzero(np.isnan(rows).any(axis=1))
        if not len(missing):
            raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
        raise ValueError(
            f"Input X contains NaN in {len(missing)} of {len(rows)} rows, first in row "
            f'{missing[0]}. If ImageEmbedder(on_error="nan") made X, these are images that could '
            "not be read, and its errors_ lists them. Repair the files, or drop such rows from X "
            "and y: good = ~np.isnan(X).any(axis=1)."
        )

    def _check_data(self, X, y, sample_weight, reset, y_name="y"):
        """Return features as float32, targets as an array, and weights."""
        y = clean_labels(y, y_name)
        X, y = self._check_features(X, reset, y=y, multi_output=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y, check_weight(sample_weight, len(X))

    def _first_split(self, X, y, groups):
        """Return the indices of training and validation samples, as a splitter chooses them."""
        splitter = self.validation_splitter
        try:
            first, second = next(iter(check_cv(splitter).split(X, y, groups)))
            return np.arange(len(X))[first], np.arange(len(X))[second]
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"validation_splitter={splitter!r} makes no split: {error}. Pass a splitter of "
                "scikit-learn, or a list of pairs of index arrays (train, validation)."
            ) from error
        except StopIteration:
            raise ValueError(
                f"validation_splitter={splitter!r} yields no split. A generator yields its splits "
                "only once: pass a splitter, or a list of (train, validation) pairs."
            ) from None

    def _announced_targets(self, y, classes, first):
        """Return the targets of a call of ``partial_fit``; the first one names all classes."""
        several = y.ndim == 2
        if classes is None:
            if first and not several:
                raise ValueError("classes must be passed on the first call of partial_fit.")
        elif not len(classes := np.unique(clean_labels(classes, "classes"))):
            raise ValueError("classes is empty. Pass every class that any call will see.")
        elif not first and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"classes={classes.tolist()} differ from those of the first call: "
                f"{self.classes_.tolist()}."
            )
        if not first:
            return self._targets()
        if several:
            return ClassTargets.learn(y, np.ones(len(y)))
        check_two_classes(classes, np.ones(len(classes)))
        return ClassTargets("binary" if len(classes) == 2 else "multiclass", classes)

    def _weighted(self, train, valid, targets):
        """Drop samples of weight zero, and multiply weights by those of the classes."""
        train = train.take(train.weight > 0)
        factors = class_factors(self.class_weight, targets.classes, train.y, train.weight)
        if valid is not None:
            valid = valid.take(valid.weight > 0)
            if not len(valid.X):
                raise ValueError("No validation sample has a positive weight.")
        if self.class_weight is None:
            return train, valid
        return tuple(
            part and part._replace(weight=part.weight * factors[part.y]) for part in (train, valid)
        )

    def _new_net(self, samples, targets):
        """Return a net with new weights."""
        self._structure = {name: getattr(self, name) for name in STRUCTURE}
        mean = scale = None
        if self.scaling is not None:
            mean, variance = moments(samples.X, samples.weight)
            scale = np.sqrt(variance.mean() if self.scaling == "global" else variance)
            scale = np.where(scale > 0, scale, 1.0)
        n_features, n_outputs = samples.X.shape[1], len(targets.classes)
        module = build_module(self, n_features, n_outputs, mean, scale)
        self.lr_ = resolve_lr(self, n_features)
        self.weight_decay_ = resolve_weight_decay(self, samples, mean, scale)
        return build_net(self, module, targets, resolve_device(self.device))

    def _restored_net(self, weights):
        """Return the net of a head that has been loaded, on a device that this machine has."""
        resolved = {"lr": "auto", "weight_decay": "auto"}  # lr_ and weight_decay_ hold the values
        built_with = SimpleNamespace(**{**vars(self), **self._structure, **resolved})
        scaled = "scaling.mean" in weights
        scaling = (weights["scaling.mean"], weights["scaling.factor"]) if scaled else (None, None)
        module = build_module(built_with, self.n_features_in_, len(self.classes_), *scaling)
        # Copied, since a memory map of joblib may be read-only and not aligned.
        module.load_state_dict({name: torch.tensor(np.array(w)) for name, w in weights.items()})
        try:
            device = resolve_device(self.device)
        except ValueError:  # trained on a GPU, loaded on a machine without one
            device = "cpu"
        net = build_net(built_with, module, self._targets(), device)
        net.history.extend({"batches": [], **row} for row in self.history_)
        return net

    def _train(self, net, train, valid, **params):
        """Train a net and keep it."""
        from .._training._net import train as train_net

        has_batch_norm = any(isinstance(m, _BatchNorm) for m in net.module_.modules())
        if has_batch_norm and min(self.batch_size, len(train.X)) == 1:
            raise ValueError(
                "Batch normalization needs two samples in every training batch; there are "
                f"{len(train.X)} samples and batch_size={self.batch_size}. Give more samples at a "
                "time, raise batch_size, or set batch_norm=False."
            )
        n_together = min(self.batch_size, len(train.X))
        with seeded(self._seed, net.device), kernels_for(n_together, net.module_):
            self.best_epoch_ = train_net(
                net,
                _dataset(train, net),
                None if valid is None else _dataset(valid, net),
                rates=f"the learning rate lr={self.lr_:g}",
                description=f"Head of {train.X.shape[1]} features, {len(train.X)} samples",
                callbacks=self.callbacks,
                verbose=self.verbose,
                **params,
            )
        if not hasattr(self, "net_"):
            self.history_ = []
        self.history_ += net.rows(len(self.history_))  # copying all would slow down partial_fit
        self.net_ = net
        self.n_epochs_ = len(self.history_)


def _dataset(samples, net):
    """Return samples as tensors, on the device if they fit there with ease.

    Scaling, which is the same in each epoch, is applied to them once.
    """
    X = net.module_.scale_(torch.tensor(samples.X))
    weight = relative_weight(samples.weight)
    tensors = [X, torch.from_numpy(samples.y), weight if weight is None else torch.tensor(weight)]
    if X.nbytes <= RESIDENT_BYTES:
        tensors = [t if t is None else t.to(net.device) for t in tensors]
    return EmbeddingDataset(*tensors, is_scaled=True)
