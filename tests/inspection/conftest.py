"""Models and images for the displays."""

import sys

import pytest

from sktransfer import HeadClassifier, make_transfer_pipeline
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import SmallValidationWarning

SMALL = {"image_size": 32, "cache": None}


@pytest.fixture(scope="module", autouse=True)
def torch_runs_the_networks():
    """OpenVINO would convert a network in almost every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sktransfer._engine._runtime.has_openvino", lambda: False)
        yield


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt = sys.modules.get("matplotlib.pyplot")
    if plt is not None:
        plt.close("all")


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=40, random_state=0)


@pytest.fixture(scope="module")
def stopped(shapes):
    """A pipeline whose head has validation rows."""
    head = HeadClassifier(
        8, early_stopping=True, validation_fraction=0.2, max_epochs=12, random_state=0
    )
    with pytest.warns(SmallValidationWarning):
        return make_transfer_pipeline(head=head, **SMALL).fit(shapes.data, shapes.target)
