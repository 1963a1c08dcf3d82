"""What fitted estimators keep: parameters, arrays, values that JSON has, and names."""

import pickle
from io import BytesIO

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from torch import nn
from trained import MODELS, outputs, trained
from tuners import X, Y, tiny_net

from sktransfer import FineTuneClassifier, HeadClassifier, MultiViewClassifier
from sktransfer.backbones import Preprocessing
from sktransfer.finetuning._tuned_backbone import TunedBackbone

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = (type(None), bool, int, float, str, np.generic, np.random.RandomState)
#: Classes of ours that are kept whole; their state is looked at in turn.
OURS = (Preprocessing, TunedBackbone)


def walk(value, path=""):
    """Yield (path, value) of everything in a state that is not plain."""
    if isinstance(value, PLAIN):
        return
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            yield from walk(value.tolist(), path)
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, held in items:
            yield from walk(held, f"{path}[{name!r}]")
    elif isinstance(value, (BaseEstimator, *OURS)):
        state = value.__getstate__()
        assert type(state) is dict
        yield from walk(state, f"{path} {type(value).__name__}")
    elif not isinstance(value, type):  # a class is a name
        yield path, value


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning")
def test_the_state_of_a_fitted_estimator_is_plain(name):
    model = trained(name)
    expected = outputs(model)
    assert list(walk(model)) == []
    buffer = BytesIO()
    joblib.dump(model, buffer)
    for loaded in (pickle.loads(pickle.dumps(model)), joblib.load(buffer)):
        assert list(walk(loaded)) == []
        assert np.array_equal(outputs(loaded), expected)
        assert list(walk(loaded)) == []


def test_only_parameters_hold_modules():
    params = {"trainable_stages": 1, "tuned_fraction": 1, "max_epochs": 1, "cache": None}
    model = FineTuneClassifier(tiny_net(), **params)
    found = list(walk(pickle.loads(pickle.dumps(model.fit(X, Y)))))
    assert all(
        isinstance(value, nn.Module) and path.endswith("['backbone']") for path, value in found
    )


def test_views_of_rows_too():
    rows = np.random.default_rng(0).normal(size=(20, 2, 4))
    model = MultiViewClassifier(HeadClassifier(max_epochs=2)).fit(rows, np.arange(20) % 2)
    assert list(walk(model)) == []
    loaded = pickle.loads(pickle.dumps(model))
    assert np.array_equal(loaded.predict_proba(rows), model.predict_proba(rows))
