"""Inspection of data and models: tables, figures, duplicates, wrong labels, rankings."""

from ._duplicates import find_duplicates
from ._grid import ImageGridDisplay
from ._history import TrainingHistoryDisplay
from ._label_issues import find_label_issues
from ._map import EmbeddingMapDisplay
from ._neighbors import NeighborsDisplay
from ._occlusion import OcclusionDisplay
from ._predictions import PredictionGridDisplay
from ._ranking import rank_backbones
from ._summary import summary
from ._tables import confused_pairs, error_table, prediction_table, submission_table

__all__ = [
    "EmbeddingMapDisplay",
    "ImageGridDisplay",
    "NeighborsDisplay",
    "OcclusionDisplay",
    "PredictionGridDisplay",
    "TrainingHistoryDisplay",
    "confused_pairs",
    "error_table",
    "find_duplicates",
    "find_label_issues",
    "prediction_table",
    "rank_backbones",
    "submission_table",
    "summary",
]
