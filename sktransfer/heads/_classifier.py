"""Heads: classifiers that learn on embeddings, trained by gradient descent."""

from contextlib import contextmanager
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
)
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .._training._samples import (
    check_blocks,
    class_factors,
    merge_rows,
    sort_rows,
    split_rows,
)
from .._utils._threads import usable_kernels
from ..images import holds_images
from ._building import (
    begin_training,
    check_batches,
    check_device,
    check_structure,
    checkpoint_path,
    continue_training,
    resolve_device,
    seeded,
    structure,
    train_net,
)
from ._lr_range import LearningRateCurve, losses_while_growing, lr_range_test
from ._modules import ACTIVATIONS, OPTIMIZERS

__all__ = ["HeadClassifier", "LearningRateCurve", "lr_range_test"]


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """Linear or multilayer classifier on embeddings, trained by gradient descent.

    A plain scikit-learn classifier around a :class:`skorch.NeuralNetClassifier`, which ``fit``
    builds, trains and keeps as ``net_``. With no argument it is a multinomial logistic regression
    whose settings suit the embeddings of a frozen network. Targets may be two classes, more
    classes, or several labels a row (an indicator matrix).

    Parameters
    ----------
    hidden_units : int or tuple of int, default=()
        Width of each dense layer in front of the last one. Empty for a linear head.

    dropout : float in [0, 1), default=0.0
        Share of units that are dropped in training after each dense layer, or of the features
        where there is none.

    batch_norm : bool, default=False
        Whether batch normalisation comes first.

    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        What follows each dense layer.

    scaling : {"global", "feature"} or None, default="global"
        How features are scaled before the network sees them. "global" centres each of them and
        divides all of them by one number, so that their variances are one on average: features
        that hardly vary stay small. "feature" divides each one by its own standard deviation,
        which is what columns with units of their own need. None takes features as they are.

    module : callable, default=None
        Your own network: an :class:`torch.nn.Module` class, or a function that returns a module,
        called with ``n_features``, ``n_outputs`` and ``module_params``. It takes scaled rows and
        returns logits of shape (n_rows, n_outputs). ``hidden_units``, ``dropout``,
        ``batch_norm`` and ``activation`` must then keep their defaults.

    module_params : dict, default=None
        Further arguments of ``module``.

    optimizer : {"adamw", "adam", "sgd", "rmsprop", "adagrad"} or class, default="adam"
        Optimiser, by name or as a :class:`torch.optim.Optimizer` class. "sgd" has a momentum of
        0.9 unless ``optimizer_params`` says otherwise.

    optimizer_params : dict, default=None
        Further arguments of the optimiser.

    lr : float or "auto", default="auto"
        Learning rate; :func:`lr_range_test` suggests one. "auto" is for a linear head 0.2 divided
        by the square root of the number of features; for any other head 0.004, or 0.001 with
        ``early_stopping``.

    weight_decay : float or "auto", default="auto"
        Weight decay of the optimiser: the factor of an L2 penalty on the weights, or with
        "adamw" the share, times ``lr``, by which each step shrinks them. Biases and the parameters
        of batch normalisation (all with fewer than two dimensions) stay free of it, as the
        intercept of a logistic regression does. "auto" chooses it for
        a linear head from the rows: the penalty under which ridge regression has the best
        leave-one-out accuracy, on up to 1,000 of them and in closed form [2]_, times the
        curvature of the loss at equal probabilities, which is (1 - 1 / n) / n for n classes. For
        any other head it is 0.0001; with "adamw" 0.01.

    lr_schedule : {"cosine", "one_cycle", "step", "exponential", "plateau"}, class or None, \
            default="cosine"
        How the learning rate changes over the epochs of one fit; a class is one of
        :mod:`torch.optim.lr_scheduler`. ``partial_fit`` keeps it constant.

    lr_schedule_params : dict, default=None
        Further arguments of the schedule, or ``{"step_every": "batch"}``.

    label_smoothing : float in [0, 1), default=0.0
        Share of each target that is spread evenly over all classes in training [1]_.

    class_weight : dict or "balanced", default=None
        Weight of each class; "balanced" weighs them inversely to their frequency. Not for
        several labels a row.

    max_epochs : int, default=50
        Passes over the training rows.

    batch_size : int, default=128
        Rows in a training batch.

    early_stopping : bool, default=False
        Whether to stop when ``scoring`` on validation rows no longer improves, and to go back to
        the weights of the best epoch.

    validation_fraction : float in (0, 1), default=0.1
        Share of the rows, stratified by class, that early stopping validates on when it is given
        nothing else.

    validation_splitter : cross-validation splitter or iterable, default=None
        Its first split says which rows are for validation, whether or not there is early
        stopping; ``fit(X, y, X_val=..., y_val=...)`` goes before it.

    scoring : str, default="loss"
        What early stopping watches: "loss", or a scorer of scikit-learn's such as "accuracy",
        "balanced_accuracy" or "f1_macro". The history records it as ``valid_<scoring>``.

    n_iter_no_change : int, default=10
        Early stopping waits this many epochs for an improvement.

    tol : float, default=0.0001
        An improvement of ``scoring`` by less does not count.

    checkpoint_dir : str or path-like, default=None
        Directory for a checkpoint of the best epoch. A fit that was killed, or ended by Ctrl-C,
        goes on from it when it is started again with the same data and parameters, and ends with
        the same weights bit by bit (on a CPU). Other data or parameters have a file of their own
        there, so that cross-validation may share a directory. A checkpoint of a finished fit is
        not resumed.

    callbacks : list, default=None
        Callbacks for the net, as skorch takes them.

    device : str or torch.device, default="auto"
        Where to train and predict: "cpu", "cuda", "cuda:1", "mps"; "auto" takes a GPU when there
        is one.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the fit before, for ``max_epochs`` more.

    rows_per_image : int, default=1
        How many rows, one after the other, are views of one image. They stay together in the
        validation share of early stopping, and where ``weight_decay="auto"`` leaves rows out.

    random_state : int, RandomState instance or None, default=None
        Initial weights, the order of rows, dropout and the validation share. An int gives equal
        weights each time, bit by bit, on a CPU.

    verbose : int, default=0
        0 is silent, 1 shows a progress bar, 2 prints a table with a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; the numbers of the columns where there are several labels a row.

    net_ : skorch.NeuralNetClassifier
        The trained net; ``net_.history`` tells each epoch's losses and scores, and
        ``net_.module_`` is the network, scaling included.

    n_epochs_ : int
        Epochs trained so far.

    best_epoch_ : int
        Epoch whose weights the net has, counted from 1: with early stopping the best one,
        otherwise the last.

    target_type_ : str
        "binary", "multiclass" or "multilabel-indicator".

    n_features_in_ : int
        Number of features seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where ``X`` had string names for all of them.

    See Also
    --------
    lr_range_test : Suggests a learning rate.

    Notes
    -----
    Equal rows with equal targets are merged and their weights summed before training, and the
    order in which rows are given does not matter. Weights only count relative to one another. The
    loss on validation rows is weighted as that on training rows is, by ``class_weight`` too;
    scorers count rows.

    A model that was trained on a GPU loads and predicts on a machine without one. Ctrl-C ends
    training and keeps what was learned so far, as in skorch.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR,
       2016, https://arxiv.org/abs/1512.00567
    .. [2] R. Rifkin and R. Lippert, "Notes on Regularized Least Squares", MIT-CSAIL-TR-2007-025,
       2007

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer.heads import HeadClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> head = HeadClassifier(hidden_units=64, random_state=0).fit(X[:1000], y[:1000])
    >>> bool(head.score(X[1000:], y[1000:]) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "hidden_units": [Interval(Integral, 1, None, closed="left"), tuple, list],
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
            StrOptions({"cosine", "one_cycle", "step", "exponential", "plateau"}),
            callable,
            None,
        ],
        "lr_schedule_params": [dict, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "validation_splitter": [HasMethods("split"), "array-like", HasMethods("__iter__"), None],
        "scoring": [StrOptions({"loss", *get_scorer_names()})],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "checkpoint_dir": [str, HasMethods("__fspath__"), None],
        "callbacks": [list, tuple, None],
        "device": [str, torch.device],
        "warm_start": ["boolean"],
        "rows_per_image": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_units=(),
        *,
        dropout=0.0,
        batch_norm=False,
        activation="relu",
        scaling="global",
        module=None,
        module_params=None,
        optimizer="adam",
        optimizer_params=None,
        lr="auto",
        weight_decay="auto",
        lr_schedule="cosine",
        lr_schedule_params=None,
        label_smoothing=0.0,
        class_weight=None,
        max_epochs=50,
        batch_size=128,
        early_stopping=False,
        validation_fraction=0.1,
        validation_splitter=None,
        scoring="loss",
        n_iter_no_change=10,
        tol=1e-4,
        checkpoint_dir=None,
        callbacks=None,
        device="auto",
        warm_start=False,
        rows_per_image=1,
        random_state=None,
        verbose=0,
    ):
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
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.device = device
        self.warm_start = warm_start
        self.rows_per_image = rows_per_image
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Train on all rows, for up to ``max_epochs`` epochs.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_rows,) or (n_rows, n_labels)
            Class labels of any type, or an indicator matrix of zeros and ones.
        sample_weight : array-like of shape (n_rows,), default=None
            Weights of rows, none of them negative. A row of weight zero is left out, and a weight
            of two is the same as giving the row twice.
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
            If rows hold NaN or infinity, there is only one class, or there are too few rows for a
            validation split.
        TrainingDivergedError
            If the loss becomes NaN or infinite.
        """
        going_on = self.warm_start and hasattr(self, "net_")
        with unchanged_by_errors(self):
            X, y, weight = self._check_rows(X, y, sample_weight, reset=not going_on)
            self._learn_classes(y, weight, keep=going_on)
            train, valid = self._divide(X, y, weight, X_val, y_val)
            vars(self).pop("_rng", None)  # partial_fit begins anew after a fit
            return self._train(train, valid, check_random_state(self.random_state), going_on)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on these rows, from the weights that there are.

        The first call decides on scaling and, with ``weight_decay="auto"``, on the weight decay:
        let it be a typical batch of some size. The learning rate stays constant.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_rows,) or (n_rows, n_labels)
            Class labels, or an indicator matrix.
        classes : array-like of shape (n_classes,), default=None
            Every class that will ever come; needed in the first call only.
        sample_weight : array-like of shape (n_rows,), default=None
            Weights of rows; they count within one call.

        Returns
        -------
        HeadClassifier
            The head itself.

        Raises
        ------
        ValueError
            If a parameter is set that needs all rows at once, or a class comes that was not
            announced.
        """
        self._check_incremental()
        first = not hasattr(self, "net_")
        with unchanged_by_errors(self):
            X, y, weight = self._check_rows(X, y, sample_weight, reset=first)
            self._announce_classes(y, classes, first)
            if not hasattr(self, "_rng"):  # an int must not give every call the same order of rows
                self._rng = check_random_state(self.random_state)
            rows, _ = self._weighted(self._merged(X, self._encode(y), weight))
            return self._train(rows, None, self._rng, not first, incremental=True)

    def decision_function(self, X):
        """Return logits.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Embeddings.

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_classes), float32
            For two classes the difference of their logits, positive for ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if self.target_type_ == "binary" else logits

    def predict_proba(self, X):
        """Return probabilities of classes.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Embeddings.

        Returns
        -------
        ndarray of shape (n_rows, n_classes), float32
            Rows that sum to one; with several labels a row the probability of each label.
        """
        logits = torch.from_numpy(self._logits(X))
        return self.net_.predict_nonlinearity(logits).numpy()

    def predict(self, X):
        """Return the most probable class, or every label that is more probable than not.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Embeddings.

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_labels)
            Class labels, or an indicator matrix.
        """
        logits = self._logits(X)
        if self.target_type_ == "multilabel-indicator":
            return (logits > 0).astype(int)
        return self.classes_[logits.argmax(axis=1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _logits(self, X):
        check_is_fitted(self)
        check_no_images(X)
        X = validate_data(self, X, reset=False, dtype=np.float32, ensure_all_finite=False)
        check_finite(X)
        X = np.require(X, requirements=["C", "W"])  # torch takes no read-only memory
        with usable_kernels():
            return self.net_.forward(torch.from_numpy(X)).numpy()

    def _check_rows(self, X, y, sample_weight, reset):
        """Return features as float32, targets as an array, and weights."""
        check_no_images(X)
        X, y = validate_data(
            self, X, y, reset=reset, dtype=np.float32, multi_output=True, ensure_all_finite=False
        )
        check_finite(X)
        y = y.toarray() if hasattr(y, "toarray") else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return X, y, weight

    def _learn_classes(self, y, weight, keep):
        """Set classes, or check that they are the ones that the net knows."""
        check_classification_targets(y)
        kind = type_of_target(y)
        check_kind(kind)
        if kind != "multilabel-indicator":
            check_two_classes(y, weight)
        if keep:
            self._encode(y)
            return
        several = kind == "multilabel-indicator"
        self.target_type_ = kind
        self.classes_ = np.arange(y.shape[1]) if several else np.unique(y)

    def _announce_classes(self, y, classes, first):
        """Set classes in the first call of ``partial_fit``, check them in later ones."""
        check_classification_targets(y)
        if y.ndim == 2:
            check_kind(type_of_target(y))
            classes = np.arange(y.shape[1]) if classes is None else classes
        _check_partial_fit_first_call(self, classes)
        if first:
            if y.ndim == 1:
                check_two_classes(self.classes_, np.ones(len(self.classes_)))
            several = "multilabel-indicator" if y.ndim == 2 else None
            self.target_type_ = several or ("binary" if len(self.classes_) == 2 else "multiclass")

    def _encode(self, y):
        """Return what the loss needs: codes of classes, or indicators as floats."""
        several = self.target_type_ == "multilabel-indicator"
        if (y.ndim == 2) != several or (several and y.shape[1] != len(self.classes_)):
            raise ValueError(
                f"y has shape {y.shape}, and the head knows {len(self.classes_)} "
                f"{'labels a row' if several else 'classes with one a row'}."
            )
        if several:
            return y.astype(np.float32)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has classes that the head does not know: {unknown[:10].tolist()}. It knows "
                f"{self.classes_[:10].tolist()}{'...' if len(self.classes_) > 10 else ''}. Fit "
                f"anew with all of them; in partial_fit name them all in the first call."
            )
        return np.searchsorted(self.classes_, y)

    def _merged(self, X, codes, weight):
        """Return rows to train on, as yet without the weights of classes."""
        if self.rows_per_image > 1:
            check_blocks(len(X), codes, self.rows_per_image)
        return merge_rows(X, codes, weight, self.rows_per_image)

    def _weighted(self, train, valid=None):
        """Multiply the weights of rows by those of their classes."""
        if self.class_weight is None:
            return train, valid
        if train.y.ndim == 2:
            raise ValueError(
                "class_weight has no meaning for several labels a row. Set class_weight=None and "
                "pass sample_weight to fit."
            )
        factors = class_factors(self.class_weight, self.classes_, train.y, train.weight)
        return tuple(
            None if rows is None else rows._replace(weight=rows.weight * factors[rows.y])
            for rows in (train, valid)
        )

    def _divide(self, X, y, weight, X_val, y_val):
        """Return rows to train on, and rows to validate on where somebody says which."""
        codes = self._encode(y)
        if (X_val is None) != (y_val is None):
            raise ValueError("Pass X_val and y_val together, or neither of them.")
        if X_val is not None:
            X_val, y_val, even = self._check_rows(X_val, y_val, None, reset=False)
            valid = sort_rows(X_val, self._encode(y_val), even)
            return self._weighted(self._merged(X, codes, weight), valid)
        if self.validation_splitter is None:
            return self._weighted(self._merged(X, codes, weight))
        train, valid = first_split(self.validation_splitter, X, y)
        return self._weighted(
            self._merged(X[train], codes[train], weight[train]),
            sort_rows(X[valid], codes[valid], weight[valid]),
        )

    def _train(self, train, valid, rng, going_on, incremental=False):
        """Build a net or take the one that there is, and train it."""
        device = self.net_.device if going_on else resolve_device(self.device)
        share = self.early_stopping and valid is None
        seed = rng.randint(2**31 - 1) if share else 0
        checkpoint = None if incremental else self._checkpoint(train, valid, going_on, seed)
        if share:
            seed = seed if checkpoint is None else checkpoint.seed
            train, valid = split_rows(train, self.validation_fraction, seed)
        with seeded(rng.randint(2**31 - 1), device):
            if going_on:
                check_structure(self, self._built_with)
                check_device(self, self.net_)
                net = continue_training(self, self.net_)
            else:
                net = begin_training(self, train, len(self.classes_), device)
            check_batches(self, net, len(train.X))
            self.best_epoch_ = train_net(self, net, train, valid, checkpoint, incremental)
        self.net_, self.n_epochs_, self._built_with = net, len(net.history), structure(self)
        return self

    def _checkpoint(self, train, valid, going_on, seed):
        """Return the checkpoint of a fit, None where none is asked for."""
        if self.checkpoint_dir is None:
            return None
        if going_on:
            raise ValueError(
                "checkpoint_dir and warm_start=True do not go together: a checkpoint only tells of "
                "the fit that wrote it. Set one of them back."
            )
        from .._training._net import Checkpoint

        return Checkpoint(checkpoint_path(self, train, valid), seed)

    def _check_incremental(self):
        """Check that nothing is set that ``partial_fit`` would have to ignore."""
        unfit = {
            "early_stopping": self.early_stopping,
            "checkpoint_dir": self.checkpoint_dir,
            "validation_splitter": self.validation_splitter,
        }
        if self.class_weight == "balanced":
            unfit["class_weight='balanced'"] = True
        given = [name for name, value in unfit.items() if value]
        if given:
            raise ValueError(
                f"partial_fit sees some of the rows at a time and cannot use {', '.join(given)}. "
                f"Set back what is named there, or use fit."
            )

    def _loss_by_rate(self, X, y, sample_weight, rates):
        """Return the loss of each training step at a growing learning rate."""
        from .._training._net import TensorBatches, TensorRows

        X, y, weight = self._check_rows(X, y, sample_weight, reset=True)
        self._learn_classes(y, weight, keep=False)
        rows, _ = self._weighted(self._merged(X, self._encode(y), weight))
        device = resolve_device(self.device)
        with seeded(check_random_state(self.random_state).randint(2**31 - 1), device):
            net = begin_training(self, rows, len(self.classes_), device)
            check_batches(self, net, len(rows.X))
            batches = TensorBatches(
                TensorRows.from_arrays(rows, net.module_, device), self.batch_size, True
            )
            return list(losses_while_growing(net, batches, rates))


@contextmanager
def unchanged_by_errors(estimator):
    """Leave an estimator as it was when what is done to it fails: its attributes go together."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def first_split(splitter, X, y):
    """Return the rows of both sides of the first split, as positions."""
    for sides in check_cv(splitter).split(X, y):
        return sides
    raise ValueError(
        f"validation_splitter={splitter!r} yields no split. A generator yields its splits once: "
        "pass a splitter, or a list of (train, validation) pairs."
    )


def check_no_images(X):
    """Refuse images, and say what turns them into the embeddings that a head learns from."""
    if not holds_images(X):
        return
    raise TypeError(
        "X holds images, and a head learns from embeddings, rows of numbers. Put an embedder in "
        "front: sktransfer.make_transfer_pipeline(head=HeadClassifier(...)) takes images; "
        "ImageEmbedder().transform(X) gives the embeddings alone."
    )


def check_finite(X):
    """Refuse rows with NaN or infinity, and say whence such rows come."""
    finite = np.isfinite(X).all(axis=1)
    if finite.all():
        return
    missing = np.flatnonzero(np.isnan(X).any(axis=1))
    if not len(missing):
        raise ValueError("Input X contains infinity or a value too large for dtype('float32').")
    raise ValueError(
        f"Input X contains NaN in {len(missing)} of {len(X)} rows, first in row {missing[0]}. If "
        'ImageEmbedder(on_error="nan") made X, these are images that could not be read, and its '
        "errors_ lists them. Mend the files, or leave such rows out, of y too: "
        "good = ~np.isnan(X).any(axis=1)."
    )


def check_kind(kind):
    if kind not in ("binary", "multiclass", "multilabel-indicator"):
        raise ValueError(
            f"Unknown label type: y is {kind!r}. Give one class a row, or an indicator matrix of "
            "zeros and ones with a column for each label."
        )


def check_two_classes(y, weight):
    """Refuse targets of one class, counting only rows that have a weight."""
    classes = np.unique(y[weight > 0])
    if len(classes) < 2:
        where = "" if (weight > 0).all() else " where weights are positive"
        raise ValueError(
            f"A head needs rows of at least two classes, and y has only one class{where}: "
            f"{classes.tolist()[0]!r}. Check the labels and how the rows were split, or add rows "
            "of another class."
        )
