"""Nothing waits for ever in a forked child, which lacks the threads of its parent."""

import os
import signal
import subprocess
import sys
from io import BytesIO

import pytest
import torch
from PIL import Image
from tuners import X, Y, tiny_net

from sktransfer import HeadClassifier, make_transfer_pipeline
from sktransfer.export import export_onnx
from sktransfer.images._pillow import load_image
from sktransfer.inspection import summary

for package in ("torchinfo", "skl2onnx"):
    pytest.importorskip(package)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def two_threads():
    """Start the threads of torch's kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.nn.Conv2d(3, 32, 7)(torch.zeros(1, 3, 224, 224))
    yield
    torch.set_num_threads(before)


def fork(function, *args):
    """Call a function in a forked child, and return the child's exit code: 0 if it succeeded."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            function(*args)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("function", [summary, export_onnx])
def test_a_model_is_shown_and_exported_in_a_forked_child(
    function, quick_onnx, two_threads, tmp_path
):
    model = make_transfer_pipeline(tiny_net(), HeadClassifier(max_epochs=1), cache=None).fit(X, Y)
    others = [tmp_path / "model.onnx"] if function is export_onnx else []
    assert fork(function, model, *others) == 0


FORKS_DURING_IMPORT = """
import os, sys, threading, time

import numpy as np
from sktransfer import ImageEmbedder

images = np.zeros((4, 40, 40, 3), dtype=np.uint8)
embedder = ImageEmbedder(image_size=32, engine="torch", cache=None).fit(images)
assert "torch" not in sys.modules
threads = [threading.Thread(target=embedder.transform, args=[images]) for _ in range(2)]
for thread in threads:
    thread.start()
while "torch" not in sys.modules:
    time.sleep(0.001)
child = os.fork()
if not child:
    embedder.transform(images)
    os._exit(0)
for thread in threads:
    thread.join()
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_fork_waits_while_torch_is_imported():
    program = [sys.executable, "-c", FORKS_DURING_IMPORT]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_a_thread_forks_while_it_loads_an_image(tmp_path):
    class Forking(BytesIO):
        def read(self, *args):
            assert fork(int) == 0
            return super().read(*args)

    stream = BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    signal.alarm(60)
    assert load_image(Image.open(Forking(stream.getvalue()))) is None
    signal.alarm(0)
