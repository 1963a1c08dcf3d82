"""examples/serve.py: a service around one ONNX file."""

import ast
import runpy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tuners import X, Y, tiny_net

from sktransfer import HeadClassifier, make_transfer_stack
from sktransfer.backbones import Preprocessing
from sktransfer.export import export_onnx

for package in ("fastapi", "httpx2", "onnxruntime", "onnxscript", "skl2onnx"):
    pytest.importorskip(package, reason="needs the extra test")

from fastapi.testclient import TestClient  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "examples" / "serve.py"
NEW = [Image.fromarray(np.asarray(image)) for image in X[:6]]


def encoded(image, format="PNG", **params):
    stream = BytesIO()
    image.save(stream, format, **params)
    return stream.getvalue()


@pytest.fixture(scope="module")
def model(one_thread):
    cropping = tiny_net()
    cropping.preprocessing = Preprocessing(48, 50, "bicubic")
    head = HeadClassifier(max_epochs=2, random_state=0)
    backbones = [("squash", tiny_net()), ("crop", cropping)]
    return make_transfer_stack(backbones, head, cv=2, cache=None).fit(X, Y)


@pytest.fixture(scope="module")
def client(model, quick_export, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", quick_export)
        export_onnx(model, path)
    make_app = runpy.run_path(str(SCRIPT))["make_app"]
    return TestClient(make_app(path, max_bytes=100_000, max_pixels=40_000, n_threads=1))


def test_uploads_get_the_classes_of_the_model(client, model):
    assert client.get("/").json()["classes"] == model.classes_.tolist()
    for image in NEW:
        got = client.post("/predict?k=2", content=encoded(image)).json()
        probabilities = model.predict_proba([image])[0]
        assert got["label"] == model.predict([image])[0] == got["top"][0]["label"]
        assert len(got["top"]) == 2
        assert got["top"][0]["probability"] == pytest.approx(probabilities.max(), abs=1e-3)


def test_other_modes_and_orientations(client, model):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = NEW[0].resize((150, 90))
    for data in (
        encoded(wide, "JPEG", exif=exif, quality=95),
        encoded(wide.convert("P")),
        encoded(wide.convert("RGBA"), "WEBP", lossless=True),
        encoded(wide.convert("L").convert("I;16")),
    ):
        got = client.post("/predict", content=data).json()
        expected = dict(zip(model.classes_, model.predict_proba([data])[0], strict=True))
        assert all(
            top["probability"] == pytest.approx(expected[top["label"]], abs=5e-3)
            for top in got["top"]
        )


REFUSED = {
    "not an image": (b"hello", 415, "This is no image"),
    "empty": (b"", 422, "is empty"),
    "broken": (encoded(NEW[0])[:200], 422, "is broken"),
    "too many bytes": (bytes(100_001), 413, "100,000 bytes"),
    "too many pixels": (encoded(Image.new("1", (201, 200))), 413, "40,000 pixels"),
    "elongated": (encoded(Image.new("1", (20_000, 2))), 422, "too elongated"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_other_uploads_are_refused_with_the_reason(why, client):
    data, status, reason = REFUSED[why]
    answer = client.post("/predict", content=data)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]
    assert client.post("/predict", content=encoded(NEW[0])).status_code == 200
    assert client.post("/predict?k=0", content=encoded(NEW[0])).status_code == 422


def test_the_service_needs_no_torch():
    imports = [
        name
        for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    ]
    assert not {"torch", "sklearn", "sktransfer"} & {str(name).split(".")[0] for name in imports}
