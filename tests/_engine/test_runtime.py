"""What a machine cannot do is refused, with advice."""

import pytest
import torch

from sktransfer._engine import resolve_runtime
from sktransfer.exceptions import MissingExtraError


def test_openvino_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr("sktransfer._engine._runtime.has_openvino", lambda: False)
    with pytest.raises(MissingExtraError, match=r"sktransfer\[fast\]"):
        resolve_runtime("cpu", "float32", "openvino")
    assert resolve_runtime("cpu", "float32", "auto").engine == "torch"


def test_openvino_and_a_gpu_do_not_go_together(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match='engine="openvino" runs on the CPU'):
        resolve_runtime("cuda", "float32", "openvino")
