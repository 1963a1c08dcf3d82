"""Data and helpers for the tests of heads."""

import pytest
from sklearn.datasets import load_digits, make_classification


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def blobs():
    return make_classification(300, 20, n_informative=8, n_classes=3, class_sep=1.5, random_state=0)
