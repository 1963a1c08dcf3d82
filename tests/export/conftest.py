"""A quick way to convert networks."""

import warnings
from io import BytesIO
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def quick_export():
    """Return torch's old exporter in the form of the new one; it takes 0.1 s instead of 3 s."""
    onnx, convert = pytest.importorskip("onnx"), torch.onnx.export

    def export(module, examples, *, opset_version, **params):
        stream, options = BytesIO(), {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert(module, examples, stream, opset_version=opset_version, dynamo=False, **options)
        return SimpleNamespace(model_proto=onnx.load_from_string(stream.getvalue()))

    return export


@pytest.fixture
def quick(quick_export, monkeypatch):
    """Convert networks quickly."""
    monkeypatch.setattr(torch.onnx, "export", quick_export)
