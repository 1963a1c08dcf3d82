"""Classifiers that learn on embeddings, trained by gradient descent."""

from ._classifier import HeadClassifier

__all__ = ["HeadClassifier"]
