"""What scikit-learn does with an estimator works on images, given as paths or as an array."""

import joblib
import numpy as np
import pytest
from new_process import run
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, classification_report
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    LearningCurveDisplay,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_html_repr

from sktransfer import HeadClassifier, ImageEmbedder, make_transfer_pipeline, make_transfer_stack
from sktransfer.datasets import make_shapes

pytestmark = pytest.mark.usefixtures("quick_workers")

SMALL = {"image_size": 32, "batch_size": 16}


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(n_samples=60, random_state=0)


@pytest.fixture(scope="module", params=["paths"])
def images(request, shapes, tmp_path_factory):
    """The same 60 shapes, as paths of PNG files or as one array."""
    if request.param == "array":
        return shapes.data
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{position}.png" for position in range(len(shapes.data))]
    for path, pixels in zip(paths, shapes.data, strict=True):
        Image.fromarray(pixels).save(path)
    return np.array(list(map(str, paths)))


both_kinds = pytest.mark.parametrize("images", ["array", "paths"], indirect=True)


@pytest.fixture(scope="module")
def names(shapes):
    return shapes.target


def logistic(backbone="tiny_mobilenet", **parameters):
    """A pipeline with a head that learns in milliseconds."""
    head = LogisticRegression(max_iter=2000)
    return make_transfer_pipeline(backbone, head, **SMALL | parameters)


def trained(max_epochs=10):
    """A pipeline with a trained head."""
    head = HeadClassifier(max_epochs=max_epochs, random_state=0)
    return make_transfer_pipeline("tiny_mobilenet", head, **SMALL)


def chance(names):
    return np.unique(names, return_counts=True)[1].max() / len(names)


def test_factory_returns_scikit_learns_own_classes():
    assert type(logistic()) is Pipeline
    assert type(make_transfer_stack(["tiny_resnet", "tiny_mobilenet"])) is StackingClassifier


@both_kinds
def test_cross_validate(images, names):
    scores = cross_validate(
        logistic(), images, names, cv=3, scoring=["accuracy", "f1_macro"], error_score="raise"
    )
    assert scores["test_accuracy"].mean() > chance(names)
    assert len(scores["test_f1_macro"]) == 3


@both_kinds
@pytest.mark.parametrize(
    ("pipeline", "grid"),
    [("logistic", {"head__C": [0.01, 1.0]}), ("trained", {"head__hidden_units": [(), (8,)]})],
)
def test_grid_search_over_head_parameters(images, names, pipeline, grid):
    estimator = {"logistic": logistic, "trained": trained}[pipeline]()
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(images, names)
    assert search.best_score_ > chance(names)
    assert search.predict(images).dtype == names.dtype


def test_grid_search_over_backbones_in_two_processes(images, names):
    grid = {"embedder__backbone": ["tiny_resnet", "tiny_mobilenet"], "head__C": [0.01, 1.0]}
    search = GridSearchCV(logistic(), grid, cv=2, n_jobs=2, error_score="raise")
    alone = clone(search).set_params(n_jobs=None).fit(images, names)
    search.fit(images, names)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def test_halving_grid_search(images, names):
    search = HalvingGridSearchCV(
        logistic(), {"head__C": [0.001, 0.1, 1.0]}, cv=2, min_resources=20, random_state=0
    ).fit(images, names)
    assert search.best_params_["head__C"] in (0.001, 0.1, 1.0)


@both_kinds
def test_stacking(images, names):
    stack = make_transfer_stack(
        ["tiny_resnet", "tiny_mobilenet"], LogisticRegression(max_iter=2000), cv=2, **SMALL
    ).fit(images, names)
    assert list(stack.named_estimators_) == ["tiny_resnet", "tiny_mobilenet"]
    assert stack.score(images, names) > chance(names)
    n_classes = len(np.unique(names))
    assert stack.transform(images).shape == (len(names), 2 * n_classes)


def test_stacking_a_branch_with_views_beside_plain_ones(images, names):
    views = make_transfer_pipeline(
        head=LogisticRegression(max_iter=2000), augmentation="flip", n_views=2, **SMALL
    )
    branches = [("views", views), ("plain", logistic()), ("resnet", logistic("tiny_resnet"))]
    stack = StackingClassifier(branches, LogisticRegression(max_iter=2000), cv=2)
    assert stack.fit(images, names).score(images, names) > chance(names)
    assert stack.transform(images).shape == (len(names), 3 * len(np.unique(names)))


def test_grid_search_over_views(images, names):
    views = make_transfer_pipeline(
        head=LogisticRegression(max_iter=2000), augmentation="flip", n_views=2, **SMALL
    )
    grid = {"embedder__n_views": [1, 2], "embedder__augmentation": ["flip", "crop"]}
    search = GridSearchCV(views, grid, cv=2, n_jobs=2, error_score="raise").fit(images, names)
    assert search.best_score_ > chance(names)


def test_stacking_of_our_pipelines_beside_anothers(images, names):
    branches = [("ours", logistic()), ("head", trained())]
    stack = StackingClassifier(branches, cv=2, stack_method="decision_function")
    assert stack.fit(images, names).score(images, names) > chance(names)


@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_voting(images, names, voting):
    branches = [("resnet", logistic("tiny_resnet")), ("mobilenet", logistic())]
    votes = VotingClassifier(branches, voting=voting).fit(images, names)
    assert votes.score(images, names) > chance(names)


@both_kinds
def test_bagging_asks_for_a_column(images, names):
    if images.ndim > 1:
        images = np.fromiter(images, dtype=object, count=len(images))
    bags = BaggingClassifier(logistic(), n_estimators=2, random_state=0)
    column = images.astype(object).reshape(-1, 1)
    assert bags.fit(column, names).score(column, names) > chance(names)


@pytest.mark.parametrize("pipeline", [logistic, trained])
def test_calibration(images, names, pipeline):
    calibrated = CalibratedClassifierCV(pipeline(), cv=2).fit(images, names)
    probabilities = calibrated.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_learning_curve_display(images, names):
    pytest.importorskip("matplotlib")
    display = LearningCurveDisplay.from_estimator(
        logistic(), images, names, cv=2, train_sizes=[0.5, 1.0], shuffle=True, random_state=0
    )
    assert np.isfinite(display.test_scores).all()


def test_confusion_matrix_display(images, names):
    pytest.importorskip("matplotlib")
    fitted = logistic().fit(images, names)
    display = ConfusionMatrixDisplay.from_estimator(fitted, images, names)
    assert display.confusion_matrix.sum() == len(names)
    np.testing.assert_array_equal(display.display_labels, np.unique(names))


def test_classification_report(images, names):
    predicted = cross_val_predict(logistic(), images, names, cv=2)
    report = classification_report(names, predicted)
    assert all(name in report for name in np.unique(names))


def test_clone_and_set_params(images, names):
    fitted = logistic().fit(images, names)
    copy = clone(fitted)
    assert copy.get_params()["embedder__image_size"] == 32
    assert not hasattr(copy.named_steps["embedder"], "n_features_in_")
    copy.set_params(embedder__backbone="tiny_resnet", head__C=0.1).fit(images, names)
    widths = [m.named_steps["head"].coef_.shape[1] for m in (fitted, copy)]
    expected = [
        ImageEmbedder(b, **SMALL).fit_transform(images).shape[1]
        for b in ("tiny_mobilenet", "tiny_resnet")
    ]
    assert widths == expected


@both_kinds
def test_joblib_into_a_fresh_process(images, names, tmp_path):
    views = {"augmentation": "crop", "n_views": 2}
    models = [logistic(), trained(), logistic(**views)]
    fitted = [model.fit(images, names) for model in models]
    joblib.dump((fitted, images), tmp_path / "models")
    program = (
        "from joblib import dump, load\n"
        "models, images = load(folder / 'models')\n"
        "dump([model.predict_proba(images) for model in models], folder / 'out')"
    )
    run(program, folder=tmp_path)
    for model, probabilities in zip(fitted, joblib.load(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(probabilities, model.predict_proba(images))


def test_html_diagram(images, names):
    stack = make_transfer_stack(["tiny_resnet", "tiny_mobilenet"], cv=2, **SMALL)
    html = estimator_html_repr(stack)
    assert "ImageEmbedder" in html and "tiny_resnet" in html and "HeadClassifier" in html
    assert "ImageEmbedder" in estimator_html_repr(logistic().fit(images, names))
    assert "ImageEmbedder" in repr(logistic())
