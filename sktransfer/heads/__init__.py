"""Classifiers that learn on embeddings."""

from ._classifier import HeadClassifier, LearningRateCurve, lr_range_test

__all__ = [
    "HeadClassifier",
    "LearningRateCurve",
    "lr_range_test",
]
