"""Classifiers and regressors that learn on embeddings, trained by gradient descent."""

from ._classifier import HeadClassifier
from ._regressor import HeadRegressor

__all__ = ["HeadClassifier", "HeadRegressor"]
