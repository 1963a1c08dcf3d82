"""FineTuneClassifier as a scikit-learn estimator: predictions, searches, pickles, errors."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from new_process import run
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback, EarlyStopping
from torchvision.transforms import v2
from tuners import X, Y, tiny_net, tuner

from sktransfer import FineTuneClassifier, HeadClassifier, ImageEmbedder, make_transfer_pipeline
from sktransfer.exceptions import (
    FingerprintMismatchError,
    ImageReadError,
    TrainingDivergedError,
)
from sktransfer.finetuning import _fit

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::sktransfer.exceptions.SmallValidationWarning"),
]


def test_predictions_are_consistent():
    model = tuner().fit(X, Y)
    proba, logits = model.predict_proba(X), model.decision_function(X)
    assert np.array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(torch.softmax(torch.tensor(logits), 1), proba, atol=1e-6)
    np.testing.assert_allclose(model.head_.predict_proba(model.transform(X)), proba, atol=1e-6)
    assert set(model.classes_) == set(Y)


def test_predictions_are_those_of_the_network():
    model = tuner(trainable_stages=2).fit(X, Y)
    embedder = ImageEmbedder(tiny_net(), cache=None).fit(X)
    whole = model.backbone_.network()
    whole.preprocessing = embedder.preprocessing_
    expected = ImageEmbedder(whole, cache=None).fit(X).transform(X)
    np.testing.assert_allclose(model.transform(X), expected, atol=1e-5)


def test_two_classes():
    y = Y == "circle"
    model = tuner().fit(X, y)
    assert model.decision_function(X).shape == (40,)
    assert np.array_equal(model.predict(X), model.decision_function(X) > 0)


def test_transformer():
    model = tuner().fit(X, Y)
    names = model.get_feature_names_out()
    assert model.transform(X).shape == (40, 10) and model.transform(X).dtype == np.float32
    assert names[0] == "Sequential_tuned_0" and len(names) == 10
    frame = model.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == list(names)
    assert np.array_equal(model.predict(X), tuner().fit(X, Y).predict(X))


def test_clone_and_parameters():
    model = tuner(head=HeadClassifier(dropout=0.1))
    copy = clone(model).set_params(head__dropout=0.3, trainable_stages="all")
    assert (copy.head.dropout, model.head.dropout) == (0.3, 0.1)
    seen = []

    class Spy(Callback):
        def on_train_begin(self, net, **kwargs):
            seen.append(net)

    model.set_params(callbacks=[Spy()], max_epochs=1).fit(X, Y)
    assert not hasattr(model.head, "net_")
    assert model.get_params()["callbacks"] == model.callbacks  # though a pickle leaves them out
    clone(model).fit(X, Y)
    assert len(seen) == 2


TRANSFORMS = [v2.RandomRotation(10), v2.ColorJitter(0.2), v2.RandomResizedCrop(32)]


@pytest.mark.parametrize(
    "augmentation", TRANSFORMS, ids=lambda augmentation: type(augmentation).__name__
)
def test_transforms_with_a_get_params_of_their_own(augmentation):
    model = tuner(
        augmentation=augmentation, n_views=2, head=HeadClassifier(max_epochs=5), max_epochs=1
    )
    copy = clone(model)
    assert repr(augmentation) in repr(copy)
    assert copy._repr_html_()
    assert copy.augmentation is not augmentation
    assert copy.get_params()["head__max_epochs"] == 5
    assert copy.set_params(head__max_epochs=6, augmentation=None).augmentation is None
    assert model.augmentation is augmentation
    assert np.isfinite(cross_val_score(model, X, Y, cv=2)).all()


def test_grid_search():
    grid = {"trainable_stages": [0, 1], "augmentation": [None, "flip"], "lr": [0.01]}
    search = GridSearchCV(tuner(max_epochs=1), grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_estimator_.predict(X[:2]).shape == (2,)


@pytest.mark.usefixtures("quick_workers")
def test_workers_find_what_one_process_finds():
    params = {"image_size": 32, "engine": "torch", "random_state": 0}
    estimator = FineTuneClassifier(trainable_stages=1, tuned_fraction=1, max_epochs=1, **params)
    one, two = (cross_val_score(estimator, X, Y, cv=2, n_jobs=n) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=0.051)  # other numbers of threads round otherwise


def test_stacked_beside_a_frozen_branch():
    params = {"image_size": 32, "engine": "torch"}
    tuned = {"trainable_stages": 1, "tuned_fraction": 1, "max_epochs": 1, "random_state": 0}
    branches = [
        ("frozen", make_transfer_pipeline("tiny_resnet", **params)),
        ("tuned", FineTuneClassifier(**tuned, **params)),
    ]
    scores = cross_val_score(StackingClassifier(branches, cv=2), X, Y, cv=2, error_score="raise")
    assert scores.mean() > 0.5


# Views of images in prediction


@pytest.mark.parametrize("tuned_fraction", [0, 1])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_predictions_are_means_over_test_views(tuned_fraction, n_classes):
    some = np.isin(Y, np.unique(Y)[:n_classes])
    images, mirrored = X[some], X[some][:, :, ::-1]
    model = tuner(augmentation="flip", max_epochs=1, tuned_fraction=tuned_fraction)
    model.fit(images, Y[some])
    alone = [model.decision_function(views) for views in (images, mirrored)]
    embeddings = model.transform(images)
    model.set_params(n_test_views=2)
    np.testing.assert_allclose(model.decision_function(images), np.mean(alone, axis=0), atol=1e-6)
    assert model.predict_proba(images).shape == (len(images), n_classes)
    np.testing.assert_array_equal(model.transform(images), embeddings)
    with pytest.raises(ValueError, match=r"n_test_views' parameter .* Got 0 instead"):
        model.set_params(n_test_views=0).predict(images)
    with pytest.raises(ValueError, match=r"precision' parameter .* Got 'float23' instead"):
        model.set_params(n_test_views=1, precision="float23").transform(images)


def test_test_views_are_the_same_each_time():
    def fitted(random_state):
        params = {"augmentation": "crop", "n_test_views": 5, "max_epochs": 1}
        return tuner(**params, random_state=random_state).fit(X, Y)

    model = fitted(0)
    expected = model.predict_proba(X)
    for other in (model, fitted(0), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    assert not np.array_equal(fitted(1).predict_proba(X), expected)


# Pickles


def bundled(**params):
    defaults = {"image_size": 32, "max_epochs": 1, "engine": "torch", "random_state": 0}
    return FineTuneClassifier("tiny_resnet", **{"tuned_fraction": 1, **defaults, **params})


def test_pickle_holds_the_tuned_part_only():
    model = bundled(trainable_stages=1).fit(X, Y)
    data = pickle.dumps(model)
    tuned = sum(p.numel() * 4 for p in model.backbone_.upper.parameters())
    assert tuned < len(data) < tuned + 200_000
    model.predict(X)  # makes a network ready to run, which must not travel
    assert len(pickle.dumps(model)) < len(data) + 1_000
    assert np.array_equal(pickle.loads(data).predict_proba(X), model.predict_proba(X))


def test_pickle_predicts_the_same_in_a_new_process(tmp_path):
    model = bundled().fit(X, Y)
    with open(tmp_path / "model.pkl", "wb") as file:
        pickle.dump(model, file)
    np.save(tmp_path / "X.npy", X)
    program = """
import pickle, warnings
import numpy as np
warnings.simplefilter("error")
with open(folder / "model.pkl", "rb") as file:
    model = pickle.load(file)
np.save(folder / "proba.npy", model.predict_proba(np.load(folder / "X.npy")))
"""
    run(program, folder=tmp_path)
    assert np.array_equal(np.load(tmp_path / "proba.npy"), model.predict_proba(X))


def test_a_tuned_backbone_prepares_images_as_in_training():
    model = bundled(resize="squash", trainable_stages=1).fit(X, Y)
    assert model.backbone_.spec.preprocessing == model.embedder_.preprocessing_
    assert model.backbone_.spec.preprocessing.resize_size is None


def test_other_weights_below_are_refused(monkeypatch):
    model = bundled().fit(X, Y)
    loaded = pickle.loads(pickle.dumps(model))
    loaded.backbone_.embedder.fingerprint_ = "other"
    expected = r"differ from those at `fit`.\n  expected: other"
    with pytest.raises(FingerprintMismatchError, match=expected):
        loaded.predict(X)


def test_a_custom_module_that_changed_after_fit_is_refused():
    model = tuner(max_epochs=1).fit(X, Y)
    model.predict(X)
    with torch.no_grad():
        model.backbone[0][0].weight *= 2
    with pytest.raises(FingerprintMismatchError, match="differ from those at `fit`"):
        model.predict(X)


# Errors


def test_a_parameter_of_no_head_is_refused():
    with pytest.raises(ValueError, match=r"or set head=HeadClassifier\(dropout=0.5\)"):
        GridSearchCV(tuner(), {"head__dropout": [0.5]}).fit(X, Y)
    both = tuner().set_params(head__dropout=0.5, head=HeadClassifier())
    assert both.head.dropout == 0.5


def test_loss_gone_to_nan_names_the_learning_rates():
    with pytest.raises(TrainingDivergedError, match=r"lr=1e\+20 for the head and 1e\+19"):
        tuner(lr=1e20, max_epochs=5).fit(X, Y)


def test_too_many_stages():
    with pytest.raises(ValueError, match=r"trainable_stages=9, but .* has only 3 stages: "):
        tuner(trainable_stages=9).fit(X, Y)


def test_unreadable_images_are_all_named_before_training():
    images = [*X]
    images[3], images[7] = b"no image", "missing.jpg"
    seen = []

    class Spy(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net.history[-1])

    with pytest.raises(ImageReadError) as caught:
        tuner(callbacks=[Spy()]).fit(images, Y)
    assert [error.index for error in caught.value.errors] == [3, 7]
    assert seen == []


def test_unreadable_validation_images_are_named_by_their_rows():
    images, more = ["missing.jpg", *X[1:]], [X[0], "no.jpg"]
    with pytest.raises(ImageReadError, match=r"\[1\] no\.jpg: in X_val: no such") as caught:
        tuner().fit(images, Y, X_val=more, y_val=Y[:2])
    assert [(index, path) for index, path, _ in caught.value.errors] == [
        (0, "missing.jpg"),
        (1, "no.jpg"),
    ]


@pytest.mark.parametrize("trainable_stages", [0, 1])
def test_unreadable_images_come_with_advice_that_can_be_followed(trainable_stages):
    images = ["missing.jpg", *X[1:]]
    model = tuner(trainable_stages=trainable_stages, max_epochs=1).fit(X, Y)
    for attempt in (model.predict, lambda images: clone(model).fit(images, Y)):
        with pytest.raises(ImageReadError, match=r"missing\.jpg") as caught:
            attempt(images)
        message = str(pickle.loads(pickle.dumps(caught.value)))
        assert "Hint: repair or remove them: FineTuneClassifier needs" in message
        assert "on_error" not in message
        assert "embedded" not in message


def test_single_class():
    with pytest.raises(ValueError, match="at least two classes"):
        tuner().fit(X, np.zeros(len(X)))


def test_too_few_images_to_validate():
    with pytest.raises(ValueError, match="too few to have"):
        tuner(early_stopping=True).fit(X[:8], Y[:8])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"augmentation": "flop"}, "did you mean 'flip'"),
        ({"trainable_stages": -1}, "trainable_stages"),
        ({"memory_limit": "much"}, "memory_limit='much' is not a size"),
        ({"lr": 0.0}, "lr"),
        ({"callbacks": [print], "tuned_fraction": "auto"}, "not a skorch callback"),
        ({"callbacks": [EarlyStopping()]}, r"no validation samples\. Pass X_val"),
        ({"scoring": "acc"}, "scoring"),
        ({"device": "cuda:7"}, "not available"),
        ({"max_epochs": 10**30}, "max_epochs"),
        ({"augmentation": "crop", "n_views": 10**30}, "n_views"),
        ({"n_test_views": 0}, "n_test_views"),
        ({"image_size": 5000}, "'image_size' parameter of FineTuneClassifier"),
        ({"n_test_views": 4}, r"n_test_views=4 .* augmentation=None makes only one"),
        ({"checkpoint_dir": "\0"}, "is no directory to write to"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        tuner(**params).fit(X, Y)


def test_several_labels_per_image():
    labels = np.column_stack([name == Y for name in ("circle", "square")]).astype(int)
    params = {"early_stopping": True, "validation_fraction": 0.25, "scoring": "f1_macro"}
    for tested in (tuner(**params), tuner(trainable_stages=0)):
        model = tested.fit(X, labels)
        assert model.predict(X).shape == model.predict_proba(X).shape == labels.shape
        assert np.array_equal(model.predict(X), model.predict_proba(X) > 0.5)
        assert (model.predict(X) == labels).mean() > 0.7
    with pytest.raises(ValueError, match=r"y_val marks the labels .* by 0 and 1"):
        tuner().fit(X, labels, X_val=X, y_val=7 * labels)
    with pytest.raises(ValueError, match="class_weight does not apply to several labels"):
        tuner(class_weight="balanced").fit(X, labels)
    assert tuner(max_epochs=1).fit(X, labels[:, 1]).classes_.tolist() == [0, 1]


def test_a_fraction_that_would_leave_a_class_out_is_refused():
    labels = np.array(["a"] * 3 + ["b"] * 19 + ["c"] * 18)
    model = tuner(early_stopping=True, validation_fraction=0.85)
    with pytest.raises(ValueError, match=r"3 classes on both sides.*another validation_fraction"):
        model.fit(X, labels)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "transform"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(FineTuneClassifier(), method)(X)


@pytest.mark.parametrize("trainable_stages", [0, 1])
def test_frames_that_scikit_learn_is_told_to_give(trainable_stages):
    with sklearn.config_context(transform_output="pandas"):
        model = tuner(trainable_stages=trainable_stages).fit(X, Y)
        framed = model.predict_proba(X)
        assert list(model.transform(X[:2]).columns) == list(model.get_feature_names_out())
    np.testing.assert_array_equal(
        framed, tuner(trainable_stages=trainable_stages).fit(X, Y).predict_proba(X)
    )


def test_without_classes():
    with pytest.raises(ValueError, match="requires y to be passed"):
        tuner().fit(X, None)


def test_a_memory_limit_is_read_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(_fit, "ImageEmbedder", None)
    with pytest.raises(ValueError, match="lots"):
        tuner(memory_limit="lots").fit(X, Y)


def test_progress(capsys):
    tuner(verbose=2).fit(X, Y)
    printed = capsys.readouterr().out
    assert printed.count("train_loss") == 53  # the head first
    assert printed.count("Sequential: fine-tuning\n") == 1
    tuner(verbose=1).fit(X, Y)
    shown = capsys.readouterr().err
    for name in ("Sequential", "Head of 10 features, 40 samples", "Sequential: fine-tuning"):
        assert f"{name}: 100%" in shown


def test_labels_as_an_array_of_pandas():
    for values in (pd.array(Y, dtype="string"), pd.Categorical(Y), Y.astype(object)):
        model = tuner(max_epochs=1).fit(X, values)
        assert model.predict(X).tolist() == tuner(max_epochs=1).fit(X, Y).predict(X).tolist()


@pytest.mark.parametrize(
    ("labels", "message"), [([None, *Y[1:]], "missing values"), ([1, *Y[1:]], "mixes labels")]
)
def test_labels_that_are_missing_or_mixed(labels, message):
    with pytest.raises(ValueError, match=message):
        tuner().fit(X, labels)


def test_validation_images():
    with pytest.raises(ValueError, match="Pass both X_val and y_val"):
        tuner().fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match=r"does not know: \['octagon'\]"):
        tuner().fit(X, Y, X_val=X[:1], y_val=["octagon"])
