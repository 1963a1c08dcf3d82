"""Run a network with OpenVINO on the CPU, and keep the converted network for other processes."""

import hashlib
import queue
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from .._utils._files import replacing
from .._utils._fork import fork_safe_lock
from .._utils._optional import import_optional
from .._utils._warnings import quiet
from ..cache import make_private
from ._torch import NormalizedNetwork

#: Held while the telemetry of OpenVINO is hidden.
_hiding = fork_safe_lock()


class OpenVinoRunner:
    """A compiled network with ``n_threads`` single-threaded streams.

    Unless ``file`` is None, the converted network is kept there: ``file`` ends in ``.xml``, and
    files that end in ``.bin`` and ``.sha256`` lie beside it.
    """

    def __init__(self, load_network, preprocessing, runtime, *, n_threads, file):
        openvino = _import_openvino()
        core = openvino.Core()
        # Always read the network from a file: a freshly converted one rounds differently.
        with tempfile.TemporaryDirectory() as folder:
            if file is None or not _is_intact(file):
                converted = _convert(openvino, load_network(), preprocessing, runtime.rows)
                new = Path(folder) / "network.xml"
                openvino.save_model(converted, new, compress_to_fp16=False)
                model = core.read_model(new)
                if file is not None:
                    _keep(new, file)
            else:
                model = core.read_model(file)
            settings = {
                "NUM_STREAMS": n_threads,
                "INFERENCE_NUM_THREADS": n_threads,
                "INFERENCE_PRECISION_HINT": "bf16" if runtime.precision == "bfloat16" else "f32",
                "ENABLE_CPU_PINNING": False,
            }
            compiled = core.compile_model(model, "CPU", settings)
        self._tensor, self._requests = openvino.Tensor, queue.SimpleQueue()
        for _ in range(n_threads):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, pixels):
        """Return float32 rows for uint8 (rows, 3, S, S)."""
        pixels = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        request = self._requests.get()
        try:
            request.set_input_tensor(self._tensor(pixels, shared_memory=True))
            request.infer()
            rows = np.array(request.get_output_tensor().data, dtype=np.float32)
        finally:
            self._requests.put(request)
        return torch.from_numpy(rows)


def _import_openvino():
    """Import OpenVINO without its telemetry.

    That reports each import and conversion over the network, for which it starts processes, and
    writes into the home directory. OpenVINO does without it if it is not installed.
    """
    telemetry = "openvino_telemetry"
    with _hiding:  # or another thread would take what is hidden here for missing
        before = sys.modules.get(telemetry)
        sys.modules[telemetry] = None
        try:
            return import_optional("openvino", "fast", 'engine="openvino"')
        finally:
            del sys.modules[telemetry]
            if before is not None:
                sys.modules[telemetry] = before


def _convert(openvino, network, preprocessing, rows):
    mean, std = preprocessing.mean, preprocessing.std
    whole = NormalizedNetwork(network, mean, std, channels_last=True).eval()
    shape = (rows, preprocessing.image_size, preprocessing.image_size, 3)
    # OpenVINO needs torch.jit.trace, which torch deprecates. Checking the trace would run the
    # network again, which takes up to a minute and finds nothing here.
    with quiet(), torch.inference_mode():
        traced = torch.jit.trace(whole, torch.zeros(shape, dtype=torch.uint8), check_trace=False)
        return openvino.convert_model(traced, input=[(shape, openvino.Type.u8)])


def _digest(xml):
    digest = hashlib.sha256()
    for path in (xml, xml.with_suffix(".bin")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _is_intact(xml):
    """Whether the files of a converted network exist and are undamaged."""
    try:
        return _digest(xml) == xml.with_suffix(".sha256").read_text()
    except (OSError, ValueError):
        return False


def _keep(xml, file):
    """Write a converted network for other processes; a failure costs only time."""
    with suppress(OSError):
        xml.with_suffix(".sha256").write_text(_digest(xml))
        make_private(file.parent)
        for suffix in (".bin", ".xml", ".sha256"):
            with replacing(file.with_suffix(suffix)) as kept:
                kept.write(xml.with_suffix(suffix).read_bytes())
