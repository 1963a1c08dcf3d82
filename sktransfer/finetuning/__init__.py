"""Training a head together with the last stages of a backbone."""

from ._classifier import FineTuneClassifier

__all__ = ["FineTuneClassifier"]
