"""Functions that run networks end in a forked child, which lacks the threads of its parent."""

import os
import signal

import pytest
import torch
from tuners import X, Y, tiny_net

from sktransfer import HeadClassifier, make_transfer_pipeline
from sktransfer.export import export_onnx
from sktransfer.inspection import summary

for package in ("torchinfo", "skl2onnx"):
    pytest.importorskip(package)


@pytest.fixture
def two_threads():
    """Start the threads of torch's kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.nn.Conv2d(3, 32, 7)(torch.zeros(1, 3, 224, 224))
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("function", [summary, export_onnx])
def test_a_model_is_shown_and_exported_in_a_forked_child(
    function, quick_onnx, two_threads, tmp_path
):
    model = make_transfer_pipeline(tiny_net(), HeadClassifier(max_epochs=1), cache=None).fit(X, Y)
    others = [tmp_path / "model.onnx"] if function is export_onnx else []
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            function(model, *others)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
