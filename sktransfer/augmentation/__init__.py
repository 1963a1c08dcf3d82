"""Augmented views of images."""

from ._classifier import AugmentedClassifier

__all__ = [
    "AugmentedClassifier",
]
