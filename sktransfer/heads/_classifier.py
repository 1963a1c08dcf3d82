"""HeadClassifier: a classifier on embeddings, trained by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import column_or_1d

from .._training._prediction import PredictsByLogits
from .._training._targets import ClassificationLoss, ClassTargets, clean_labels
from .._utils._sklearn import Interval, StrOptions, fit_context
from .._utils._typing import ArrayLike
from ._base import BaseHead


@dataclass(kw_only=True, repr=False, eq=False)
class HeadClassifier(PredictsByLogits, ClassifierMixin, BaseHead):
    """Linear or multilayer classifier on embeddings, trained by gradient descent.

    A scikit-learn classifier around a :class:`skorch.NeuralNetClassifier`. With default parameters
    it is a multinomial logistic regression whose settings suit embeddings. Targets are two or more
    classes, or several labels per sample (an indicator matrix).

    Parameters
    ----------
    hidden_units : int, tuple of int or None, default=()
        Width of each dense layer before the last one, at most 100,000. Empty, 0 or None for a
        linear head.
    dropout : float in [0, 1), default=0.0
        Fraction of units that training drops after each dense layer, or of features if there is
        no dense layer.
    batch_norm : bool, default=False
        Whether batch normalization comes first.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Activation after each dense layer.
    scaling : {"global", "feature"} or None, default="global"
        "global" centers each feature and divides all of them by one number: features that hardly
        vary stay small. "feature" divides each feature by its standard deviation, which suits
        columns in different units. None uses features as they are.
    module : callable, default=None
        A custom network: a :class:`torch.nn.Module` class, or a function that returns a module,
        called with ``n_features``, ``n_outputs`` and ``module_params``. It takes scaled features
        and returns outputs (logits of classes) of shape (n_samples, n_outputs). ``hidden_units``,
        ``dropout``, ``batch_norm`` and ``activation`` must then keep their defaults.
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
        "adamw", the fraction (times ``lr``) by which each step shrinks them. Biases and batch
        normalizations are not decayed. For a linear head, "auto" is the penalty under which ridge
        regression on up to 1,000 samples has the best leave-one-out accuracy, times the curvature
        of the loss at equal probabilities, (1 - 1 / n_classes) / n_classes. For any other head
        "auto" is 0.0001, and with "adamw" 0.01.
    lr_schedule : {"cosine", "warmup_cosine", "one_cycle", "step", "exponential", "plateau"}, \
            class or None, default="cosine"
        How the learning rate changes during ``fit``; a class is one of
        :mod:`torch.optim.lr_scheduler`. ``partial_fit`` keeps the learning rate constant.
    lr_schedule_params : dict, default=None
        Further arguments of the schedule, or ``{"step_every": "batch"}``.
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
        "accuracy" or "f1_macro". The history records it as ``valid_<scoring>``.
    n_iter_no_change : int, default=10
        Early stopping waits this many epochs for an improvement.
    tol : float, default=0.0001
        Smallest change of ``scoring`` that counts as an improvement.
    callbacks : list, default=None
        Callbacks of skorch: instances of :class:`skorch.callbacks.Callback` or pairs (name,
        callback). They are not saved with a trained head.
    device : str or torch.device, default="auto"
        Where to train and predict: "cpu", "cuda", "cuda:1", "mps"; "auto" chooses a GPU if there
        is one.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of samples, dropout and the validation samples. An
        int gives bit-equal weights each time on a CPU with the same number of threads.
    verbose : int, default=0
        0 is silent, 1 shows a progress bar, 2 prints a line per epoch.
    label_smoothing : float in [0, 1), default=0.0
        Fraction of each target that is spread evenly over all classes in training [1]_.
    class_weight : dict or "balanced", default=None
        Weight of each class; "balanced" weights them inversely to their frequency. Not available
        for several labels per sample.

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
    ``class_weight`` too; scorers count samples. A head that was trained on a GPU predicts on a
    machine without one.

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

    _parameter_constraints: ClassVar[dict] = {
        **BaseHead._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    label_smoothing: float = 0.0
    class_weight: dict | str | None = None

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
        typical batch of some size. The learning rate stays constant. A saved head has its weights,
        but not the state of its optimizer, which begins anew after loading.

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
        known = None if classes is None else np.unique(clean_labels(classes, "classes"))
        if known is not None:
            if not len(known):
                raise ValueError("classes is empty. Pass every class that any call will see.")
            if self.__sklearn_is_fitted__() and not np.array_equal(known, self.classes_):
                raise ValueError(
                    f"classes={known.tolist()} differ from those of the first call: "
                    f"{self.classes_.tolist()}."
                )

        def learn(y, weight):
            if y.ndim == 2:
                return self._learn(y, weight)
            if known is None:
                raise ValueError("classes must be passed on the first call of partial_fit.")
            return self._learn(known, np.ones(len(known)))

        return self._partial_fit(X, y, sample_weight, learn)

    def _clean(self, y, name):
        y = clean_labels(y, name)
        return y if y is None or y.shape[1:] != (1,) else column_or_1d(y, warn=True)

    def _learn(self, y, weight):
        targets = ClassTargets.learn(y, weight)
        self.target_type_, self.classes_ = targets.kind, targets.classes
        return targets

    def _targets(self):
        return ClassTargets(self.target_type_, self.classes_)

    def _loss(self):
        return ClassificationLoss(self._targets().multilabel, self.label_smoothing)
