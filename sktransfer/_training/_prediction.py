"""Predictions from logits, for all classifiers that a net trains."""

from typing import Any

import numpy as np
import torch

from .._utils._threads import usable_kernels


class PredictsByLogits:
    """Mixin for classifiers with ``_logits(X)`` and ``_targets()``."""

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

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class, or every label that is more probable than not.

        Parameters
        ----------
        X : array-like
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or an indicator matrix.
        """
        logits = self._logits(X)
        return self._targets().decide(logits)
