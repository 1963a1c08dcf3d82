"""Transfer learning on images for scikit-learn users.

A frozen backbone turns each image into an embedding exactly once, a head learns on embeddings in
seconds, and everything that scikit-learn can do with an estimator works unchanged.

The names below are imported on first use, so that ``import sktransfer`` costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

#: Where each public name lives.
_HOMES = {
    "AugmentedClassifier": "augmentation",
    "FineTuneClassifier": "finetuning",
    "HeadClassifier": "heads",
    "ImageEmbedder": "embedder",
    "PredictionGridDisplay": "inspection",
    "TrainingHistoryDisplay": "inspection",
    "cache_info": "cache",
    "clear_cache": "cache",
    "list_backbones": "backbones",
    "make_transfer_pipeline": "pipelines",
    "make_transfer_stack": "pipelines",
    "summary": "inspection",
}

#: Modules that ``sktransfer.<name>`` reaches without an import of their own.
_MODULES = frozenset(
    {
        "augmentation",
        "backbones",
        "datasets",
        "inspection",
        "embedder",
        "pipelines",
        "exceptions",
        "finetuning",
        "heads",
        "images",
    }
)

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_MODULES})
