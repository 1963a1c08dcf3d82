"""Predictions from the outputs of a net, for all estimators that it trains."""

from typing import Any

import numpy as np
import torch

from .._utils._threads import usable_kernels


class Predicts:
    """Mixin for estimators with ``_logits(X)`` and ``_targets()``."""

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class, every label more probable than not, or numbers.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, an indicator matrix, or numbers (float64) in the units of the targets.
        """
        logits = self._logits(X)
        return self._targets().decide(logits)


class PredictsByLogits(Predicts):
    """The same for classifiers with one or several labels per sample; adds probabilities."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float32
            For two classes the difference of their logits, positive for ``classes_[1]``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if self._targets().kind == "binary" else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities of classes.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            Rows that sum to one; for several labels per sample, the probability of each label.
        """
        logits = torch.from_numpy(self._logits(X))
        with usable_kernels():
            return self._targets().probabilities(logits).numpy()
