"""Looking into fitted models."""

from ._displays import PredictionGridDisplay, TrainingHistoryDisplay
from ._summary import summary

__all__ = [
    "PredictionGridDisplay",
    "TrainingHistoryDisplay",
    "summary",
]
