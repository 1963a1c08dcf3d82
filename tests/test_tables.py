"""Images beside the columns of a table, and targets that are planted in drawn images."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from sklearn.compose import ColumnTransformer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import HeadClassifier, HeadRegressor, ImageEmbedder, make_transfer_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"image_size": 64, "engine": "torch"}


def draw(size, gray=40, mark=False):
    """A white disk of the given diameter, and maybe a black bar below."""
    image = Image.new("L", (64, 64), gray)
    ImageDraw.Draw(image).ellipse([32 - size / 2] * 2 + [32 + size / 2] * 2, fill=230)
    if mark:
        ImageDraw.Draw(image).rectangle([4, 54, 60, 60], fill=0)
    return image


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A table of 48 disks: their images, their sizes, and a number that no image shows."""
    rng = np.random.default_rng(0)
    size, age = rng.uniform(8, 56, 48), rng.uniform(0, 9, 48)
    folder = tmp_path_factory.mktemp("parts")
    paths = [str(folder / f"{i}.png") for i in range(48)]
    for path, diameter in zip(paths, size, strict=True):
        draw(diameter).save(path)
    return pd.DataFrame({"path": paths, "back": paths[::-1], "age": age, "size": size})


def columns(*images):
    embedders = [(name, ImageEmbedder(**SMALL), [name]) for name in images]
    return ColumnTransformer([*embedders, ("rest", StandardScaler(), ["age"])])


def test_images_beside_numbers(parts):
    y = parts["size"] + 5 * parts["age"]
    model = make_pipeline(columns("path"), Ridge(1.0)).fit(parts[:32], y[:32])
    assert model.score(parts[32:], y[32:]) > 0.8
    found = permutation_importance(
        model, parts[32:], y[32:], n_repeats=2, random_state=0
    ).importances_mean
    assert dict(zip(parts.columns, found > 0.05, strict=True)) == {
        **{"path": True, "back": False, "age": True, "size": False}
    }


def test_two_columns_of_images_in_a_data_frame(parts):
    both = columns("path", "back").set_output(transform="pandas")
    frame = both.fit_transform(parts)
    assert frame.columns[[0, -2, -1]].tolist() == [
        *("path__tiny_mobilenet_0", "back__tiny_mobilenet_575", "rest__age")
    ]
    np.testing.assert_array_equal(frame.iloc[:, :576], frame.iloc[::-1, 576:-1])


def test_views_are_averaged_beside_numbers(parts):
    views = make_pipeline(
        ImageEmbedder(augmentation="flip", n_views=2, **SMALL),
        FunctionTransformer(np.mean, kw_args={"axis": 1}),
    )
    beside = ColumnTransformer([("image", views, ["path"]), ("rest", "passthrough", ["age"])])
    assert beside.fit_transform(parts).shape == (48, 577)


@pytest.mark.parametrize(
    "head", [HeadRegressor(random_state=0), Ridge(10.0)], ids=["head", "ridge"]
)
def test_a_planted_size_and_the_brightness_are_predicted(parts, head):
    brightness = [np.asarray(Image.open(path)).mean() for path in parts["path"]]
    for y in (parts["size"].to_numpy(), np.array(brightness)):
        model = make_transfer_pipeline("tiny_mobilenet", head, **SMALL)
        assert model.fit(parts["path"][:32], y[:32]).score(parts["path"][32:], y[32:]) > 0.7


def test_several_labels_of_a_drawn_image():
    rng = np.random.default_rng(0)
    kinds = [(rng.uniform(8, 20) + 30 * large, mark) for large, mark in rng.integers(0, 2, (48, 2))]
    images = [draw(size, mark=mark) for size, mark in kinds]
    y = np.array([(size > 30, mark) for size, mark in kinds]).astype(int)
    model = make_transfer_pipeline("tiny_mobilenet", HeadClassifier(random_state=0), **SMALL)
    predicted = cross_val_predict(model, images, y, cv=3, method="predict_proba")
    assert ((predicted > 0.5) == y).mean() > 0.9
    assert label_ranking_average_precision_score(y, predicted) > 0.9
