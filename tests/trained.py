"""Fitted models of every kind, each trained once in a process."""

from functools import cache

from tuners import X, Y

from sktransfer import (
    FineTuneClassifier,
    HeadClassifier,
    HeadRegressor,
    ImageEmbedder,
    make_transfer_pipeline,
    make_transfer_stack,
)


def tuned(**params):
    params = {"max_epochs": 1, "tuned_fraction": 0.5, "cache": None, "random_state": 0, **params}
    return FineTuneClassifier("tiny_mobilenet", image_size=32, engine="torch", **params)


SMALL = {"image_size": 32, "engine": "torch", "cache": None}
VIEWS = {**SMALL, "augmentation": "flip", "n_views": 2}
MODELS = {
    "embedder": lambda: ImageEmbedder(**SMALL),
    "pipeline": lambda: make_transfer_pipeline(**SMALL),
    "hidden layers": lambda: make_transfer_pipeline(
        head=HeadClassifier((8, 4), batch_norm=True, optimizer="sgd", max_epochs=2), **SMALL
    ),
    "views": lambda: make_transfer_pipeline(**VIEWS),
    "stack": lambda: make_transfer_stack(
        ["tiny_resnet", "tiny_mobilenet"], HeadClassifier(max_epochs=2), cv=2, **SMALL
    ),
    "regression": lambda: make_transfer_pipeline(head=HeadRegressor(4, max_epochs=2), **VIEWS),
    "tuned": lambda: tuned(trainable_stages=1, early_stopping=True, validation_fraction=0.3),
    "tuned as a whole": lambda: tuned(trainable_stages="all", augmentation="flip"),
    "not tuned": lambda: tuned(trainable_stages=0),
}


@cache
def trained(name):
    """Return a fitted model; do not change it."""
    return MODELS[name]().fit(X, Y == "circle" if name == "regression" else Y)


def outputs(model):
    """Return what a model computes for the images it was trained on."""
    methods = ("predict_proba", "predict", "transform")
    return next(getattr(model, method) for method in methods if hasattr(model, method))(X)
