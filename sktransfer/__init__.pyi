from . import (
    augmentation,
    backbones,
    cache,
    datasets,
    distributed,
    embedder,
    estimator_checks,
    exceptions,
    export,
    finetuning,
    heads,
    images,
    inspection,
    pipelines,
)
from .augmentation import MultiViewClassifier, MultiViewRegressor
from .backbones import list_backbones, recommended_backbones
from .cache import cache_info, clear_cache, merge_caches
from .embedder import ImageEmbedder
from .finetuning import FineTuneClassifier
from .heads import HeadClassifier, HeadRegressor
from .inspection import PredictionGridDisplay, TrainingHistoryDisplay, summary
from .pipelines import make_transfer_pipeline, make_transfer_stack

__version__: str

__all__ = [
    "FineTuneClassifier",
    "HeadClassifier",
    "HeadRegressor",
    "ImageEmbedder",
    "MultiViewClassifier",
    "MultiViewRegressor",
    "PredictionGridDisplay",
    "TrainingHistoryDisplay",
    "augmentation",
    "backbones",
    "cache",
    "cache_info",
    "clear_cache",
    "datasets",
    "distributed",
    "embedder",
    "estimator_checks",
    "exceptions",
    "export",
    "finetuning",
    "heads",
    "images",
    "inspection",
    "list_backbones",
    "make_transfer_pipeline",
    "make_transfer_stack",
    "merge_caches",
    "pipelines",
    "recommended_backbones",
    "summary",
]
