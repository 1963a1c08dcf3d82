"""HeadRegressor: a regressor on embeddings, trained by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin

from .._training._prediction import Predicts
from .._training._targets import NumberTargets, RegressionLoss
from .._utils._docs import parameters_like
from .._utils._sklearn import StrOptions, fit_context
from .._utils._typing import ArrayLike
from ._base import BaseHead
from ._classifier import HeadClassifier


@parameters_like(HeadClassifier)
@dataclass(kw_only=True, repr=False, eq=False)
class HeadRegressor(Predicts, RegressorMixin, BaseHead):
    """Linear or multilayer regressor on embeddings, trained by gradient descent.

    A scikit-learn regressor around a :class:`skorch.NeuralNetRegressor`. It scales targets, one or
    several numbers per sample, to mean 0 and variance 1, and predicts them in their own units. With
    default parameters it is a ridge regression whose settings suit embeddings.

    Parameters
    ----------
    weight_decay : float or "auto", default="auto"
        Weight decay of the optimizer: the factor of an L2 penalty on the weights or, with
        "adamw", the fraction (times ``lr``) by which each step shrinks them. Biases and batch
        normalizations are not decayed. For a linear head, "auto" is the penalty under which ridge
        regression has the smallest leave-one-out squared error. For any other head "auto" is
        0.0001, and with "adamw" 0.01.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the samples (or of the groups, if ``fit`` is given groups) that early stopping
        sets aside if no other validation samples are given.
    scoring : str, default="loss"
        What early stopping watches: "loss", or the name of a scikit-learn scorer such as "r2" or
        "neg_mean_absolute_error". The history records it as ``valid_<scoring>``.
    loss : {"squared_error", "huber"}, default="squared_error"
        Loss of the training. "huber" grows linearly, not quadratically, where a prediction is off
        by more than one standard deviation of the targets, which limits the influence of outliers.

    Attributes
    ----------
    net_ : skorch.NeuralNetRegressor
        The trained net; ``net_.module_`` is the network, including the scaling of features.
    history_ : list of dict
        One dictionary per epoch: "epoch" (from 1), "lr" (at the start of the epoch),
        "train_loss" and "seconds". With validation samples also "valid_loss" and
        "valid_<scoring>". Losses are those of scaled targets.
    n_epochs_ : int
        Number of trained epochs.
    best_epoch_ : int
        Epoch whose weights the head has: the best one with early stopping, otherwise the last.
    lr_, weight_decay_ : float
        The learning rate and the weight decay that "auto" stands for.
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of the training targets.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all columns of ``X`` have string names.

    See Also
    --------
    HeadClassifier : The same for classes.
    sktransfer.make_transfer_pipeline : Puts an embedder in front of a head.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sktransfer.heads import HeadRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> head = HeadRegressor(scaling="feature", random_state=0).fit(X[:300], y[:300])
    >>> bool(head.score(X[300:], y[300:]) > 0.4)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseHead._parameter_constraints,
        "loss": [StrOptions({"squared_error", "huber"})],
    }
    _y_numeric = True

    loss: str = "squared_error"

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on these samples, from the current weights.

        The first call sets the scaling of features and targets and, with ``weight_decay="auto"``,
        the weight decay: use a typical batch of some size. The learning rate stays constant. A
        saved head has its weights, but not the state of its optimizer, which begins anew after
        loading.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings; used as float32.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, relative to one another within the call.

        Returns
        -------
        HeadRegressor
            The head itself.

        Raises
        ------
        ValueError
            If a parameter needs all samples at once, or the shape of ``y`` is not that of the first
            call.
        """
        return self._partial_fit(X, y, sample_weight, self._learn)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _clean(self, y, name):
        if y is None:
            return None  # scikit-learn has a message for that
        if isinstance(y, torch.Tensor):
            y = y.detach().cpu().numpy()
        try:
            y = np.asarray(y)
            if y.dtype.kind == "c":
                raise TypeError("Complex data not supported")
            return y.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{name} must consist of numbers ({error}). For labels use HeadClassifier."
            ) from error

    def _learn(self, y, weight):
        targets = NumberTargets.learn(y, weight)
        self.target_mean_, self.target_scale_ = targets.mean, targets.scale
        self._y_ndim = targets.ndim
        return targets

    def _targets(self):
        return NumberTargets(self.target_mean_, self.target_scale_, self._y_ndim)

    def _loss(self):
        return RegressionLoss(self.loss)
