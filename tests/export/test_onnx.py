"""ONNX files: they predict what the model predicts, or say which part cannot be exported."""

import json
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tuners import X, Y, tiny_net, tuner

from sktransfer import (
    HeadClassifier,
    HeadRegressor,
    ImageEmbedder,
    make_transfer_pipeline,
    make_transfer_stack,
)
from sktransfer.backbones import Preprocessing
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import MissingExtraError
from sktransfer.export import export_onnx
from sktransfer.images import decode_image, fit_to_network

_, onnxruntime, *_ = (
    pytest.importorskip(package, reason="needs the extra onnx")
    for package in ("onnx", "onnxruntime", "onnxscript", "skl2onnx")
)

pytestmark = pytest.mark.usefixtures("one_thread")

NEW = make_shapes(n_samples=12, random_state=1).data
SEVERAL = np.random.default_rng(0).integers(0, 2, (len(X), 3))


def larger_net():
    net = tiny_net()
    net.preprocessing = Preprocessing(48, 50, "bicubic", std=(0.5, 0.5, 0.5))
    return net


def head(**params):
    return HeadClassifier(max_epochs=2, random_state=0, **params)


def pipeline(head, backbone=tiny_net, **params):
    return make_transfer_pipeline(backbone(), head, cache=None, **params)


def run(path, images):
    """Return the outputs of a file, by name, and its metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sktransfer"])
    feed = {}
    for name, how in about["inputs"].items():
        how = Preprocessing(**how)
        pixels = [fit_to_network(decode_image(image), how) for image in images]
        feed[name] = torch.stack(pixels).permute(0, 2, 3, 1).numpy()
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True)), about


def exported(model, path):
    export_onnx(model, path)
    return run(path, NEW)


def test_a_stack_of_a_tuned_and_a_frozen_backbone(quick_onnx, tmp_path):
    heads = make_pipeline(StandardScaler(), PCA(3), LogisticRegression())
    branches = [
        ("tuned", tuner(trainable_stages=1, max_epochs=1)),
        ("frozen", GridSearchCV(pipeline(heads, larger_net), {"head__pca__n_components": [3]})),
    ]
    final = LogisticRegression()
    model = StackingClassifier(branches, final, cv=2).fit(X, Y)
    got, about = exported(model, tmp_path / "model.onnx")
    assert got["label"].tolist() == model.predict(NEW).tolist()
    assert np.allclose(got["probabilities"], model.predict_proba(NEW), atol=1e-5)
    assert about["classes"] == model.classes_.tolist()
    assert [how["image_size"] for how in about["inputs"].values()] == [32, 48]
    assert list(about["inputs"]) == ["images", "images_2"]


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_a_stack_of_two_classes_with_a_head_at_its_end(method, quick_onnx, tmp_path):
    steps = [PCA(3), head()] if method == "predict_proba" else [head()]
    final = make_pipeline(StandardScaler(), head())
    model = make_transfer_stack(
        [tiny_net()], make_pipeline(*steps), final, cv=2, stack_method=method, cache=None
    ).fit(X, Y == "circle")
    got, about = exported(model, tmp_path / "model.onnx")
    assert got["label"].tolist() == model.predict(NEW).tolist()
    assert np.allclose(got["probabilities"], model.predict_proba(NEW), atol=1e-5)
    assert about["classes"] == [False, True]


def test_numbers(quick_onnx, tmp_path):
    model = pipeline(HeadRegressor(4, max_epochs=2)).fit(X, np.arange(2.0 * len(X)).reshape(-1, 2))
    got, about = exported(model, tmp_path / "model.onnx")
    assert np.allclose(got["prediction"], model.predict(NEW), rtol=1e-5)
    assert about["classes"] is None


def test_several_labels_per_image(tmp_path):
    model = tuner(trainable_stages=0, max_epochs=1).fit(X, SEVERAL)
    got, _ = exported(model, tmp_path / "model.onnx")
    assert np.array_equal(got["label"], model.predict(NEW))
    assert np.allclose(got["probabilities"], model.predict_proba(NEW), atol=1e-5)
    first, _ = run(tmp_path / "model.onnx", NEW[:1])
    assert np.allclose(first["probabilities"], got["probabilities"][:1], atol=1e-6)
    assert b"_onnx.py" not in (tmp_path / "model.onnx").read_bytes()  # no paths of this machine


@pytest.fixture
def no_networks(monkeypatch):
    """Refusals come before any network is converted."""

    def export(*args, **params):
        raise AssertionError("a network was converted")

    monkeypatch.setattr(torch.onnx, "export", export)


REFUSED = {
    "LogisticRegression (the model)": (LogisticRegression(), "expected an ImageEmbedder"),
    "HeadClassifier (the model)": (head(), "expected an ImageEmbedder"),
    "ImageEmbedder (the model)": (ImageEmbedder(tiny_net(), cache=None), "it predicts nothing"),
    "LinearDiscriminantAnalysis (the model)": (
        # skl2onnx gets its probabilities wrong for two classes.
        pipeline(LinearDiscriminantAnalysis()),
        "predicts otherwise",
    ),
    "VotingClassifier (the model)": (
        pipeline(VotingClassifier([("a", LogisticRegression())], voting="soft")),
        "flatten_transform",
    ),
    "RidgeClassifier (branch 'Sequential')": (
        make_transfer_stack([tiny_net()], RidgeClassifier(), cv=2, cache=None),
        "decision_function",
    ),
}


@pytest.mark.parametrize("part", REFUSED)
@pytest.mark.filterwarnings("ignore:Variables are collinear")
def test_what_cannot_be_exported_is_named_first(part, no_networks, tmp_path):
    model, reason = REFUSED[part]
    rows = np.random.default_rng(0).normal(size=(len(X), 4))
    images = not isinstance(model, (LogisticRegression, HeadClassifier))
    model.fit(X if images else rows, Y == "circle")
    with pytest.raises(ValueError) as error:
        export_onnx(model, tmp_path / "model.onnx")
    assert str(error.value).startswith(f"{part} cannot be exported to ONNX")
    assert reason in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "parameter"),
    [
        (pipeline(head(), augmentation="flip", n_views=2), "embedder__n_test_views"),
        (tuner(augmentation="flip", n_test_views=2, max_epochs=1), "n_test_views"),
    ],
)
def test_views_are_exported_as_one(model, parameter, no_networks, tmp_path):
    model.fit(X, Y)
    with pytest.raises(ValueError, match="n_test_views=1"):
        export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(AssertionError, match="a network was converted"):
        export_onnx(model.set_params(**{parameter: 1}), tmp_path / "model.onnx")


def test_a_network_that_torch_cannot_convert_is_named(monkeypatch, tmp_path):
    def export(*args, **params):
        raise torch.onnx.errors.OnnxExporterError("data-dependent")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(ValueError, match=r"ImageEmbedder \(the model\).*data-dependent"):
        export_onnx(pipeline(head()).fit(X, Y), tmp_path / "model.onnx")


def test_the_folder_is_needed_before_the_conversion(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder .*missing does not exist"):
        export_onnx(pipeline(head()), tmp_path / "missing" / "model.onnx")


def test_a_fitted_model_and_the_extra_are_needed(monkeypatch, tmp_path):
    with pytest.raises(NotFittedError):
        export_onnx(pipeline(head()), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[onnx\]"):
        export_onnx(pipeline(head()), tmp_path / "model.onnx")
