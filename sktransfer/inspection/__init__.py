"""Inspection of models: layers, curves of a training, images with predictions."""

from ._history import TrainingHistoryDisplay
from ._predictions import PredictionGridDisplay
from ._summary import summary

__all__ = ["PredictionGridDisplay", "TrainingHistoryDisplay", "summary"]
