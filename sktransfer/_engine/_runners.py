"""Ways to run a frozen network: torch on the CPU, OpenVINO on the CPU, torch on an accelerator.

A runner takes a uint8 batch ``(rows, 3, S, S)`` of a fixed number of rows and gives float32
embeddings ``(rows, n_features)``. The number of rows never varies, because kernels round
differently for batches of different sizes: a row's bits then depend on its image alone.
"""

import copy
import os
import queue
import shutil
import tempfile
import threading
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..exceptions import MissingExtraError

# Images in one forward pass on a CPU. Small, since each pass has one thread and activations
# should stay in the cache; benchmarks/embedding.py shows what other numbers cost.
ROWS_ON_CPU = {
    ("openvino", "float32"): 1,
    ("openvino", "bfloat16"): 2,
    ("torch", "float32"): 4,
    ("torch", "bfloat16"): 8,
}
ROWS_ON_ACCELERATOR = 64
TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs; all of it is settled, nothing is "auto" any more.

    Parameters
    ----------
    device : str
        "cpu", "cuda", "cuda:1", "mps".
    precision : {"float32", "bfloat16", "float16"}
        Precision of the forward pass; embeddings are float32 in any case.
    engine : {"torch", "openvino"}
        What runs the network.
    rows : int
        Images in one forward pass.
    """

    device: str
    precision: str
    engine: str
    rows: int

    @property
    def on_cpu(self):
        return self.device == "cpu"

    def key(self):
        """Stable text of all that can change a result's bits."""
        return f"{self.engine}|{self.device.split(':')[0]}|{self.precision}|rows={self.rows}"


def resolve_runtime(device, precision, engine, *, batch_size=None, custom_module=False):
    """Settle "auto" for this machine, and refuse what it cannot do.

    Raises
    ------
    MissingExtraError
        If OpenVINO is asked for and not installed.
    ValueError
        If the device is not there, or device, precision and engine do not go together.
    """
    device = _resolve_device(device)
    on_cpu = device == "cpu"
    if engine == "auto":
        # A user's custom module may do anything in its forward; only torch is sure to run it as is.
        engine = "openvino" if on_cpu and not custom_module and has_openvino() else "torch"
    if engine == "openvino" and not on_cpu:
        raise ValueError(
            f'engine="openvino" runs on the CPU, and device is {device!r}. '
            'Pass device="cpu", or engine="torch".'
        )
    if engine == "openvino" and not has_openvino():
        raise MissingExtraError(
            'engine="openvino" needs OpenVINO, which is not installed: '
            'pip install "sktransfer[fast]", or pass engine="torch".'
        )
    _check_precision(precision, on_cpu)
    rows = ROWS_ON_CPU[engine, precision] if on_cpu else batch_size or ROWS_ON_ACCELERATOR
    return Runtime(device, precision, engine, rows)


def _resolve_device(device):
    if str(device) == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device={device!r} is no device; use "auto", "cpu", "cuda".') from error
    present = {
        "cpu": lambda: True,
        "cuda": lambda: (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if device.type not in present:
        raise ValueError(f'device="{device}" is not supported; use "cpu", "cuda" or "mps".')
    if not present[device.type]():
        raise ValueError(f'device="{device}" is not there on this machine; use "auto" or "cpu".')
    return str(device)


def _check_precision(precision, on_cpu):
    if on_cpu and precision == "float16":
        raise ValueError('precision="float16" needs a GPU; on a CPU use "float32" or "bfloat16".')
    if on_cpu and precision == "bfloat16" and not has_bfloat16():
        raise ValueError(
            'precision="bfloat16" needs a CPU with AVX-512 or Arm bf16 instructions, which this '
            'one lacks; use precision="float32".'
        )


def has_bfloat16():
    """Whether this CPU computes in bfloat16 at speed."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_openvino():
    """Whether OpenVINO can be imported; does not import it."""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


class NormalisedNetwork(nn.Module):
    """A network behind the normalisation of uint8 pixels that it was trained with."""

    def __init__(self, network, mean, std):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std).view(1, 3, 1, 1) * 255))

    def forward(self, pixels):
        return self.network((pixels.to(self.mean.dtype) - self.mean) * self.scale)


def fold_batch_norm(network, image_size):
    """Return a copy with batch norms folded into the convolutions before them, where possible.

    What goes before what is seen in a forward pass. Tracing (``torch.fx``) would patch the modules
    of the whole process meanwhile, also those that other threads run.
    """
    folded = copy.deepcopy(network).eval()
    if not any(type(part) is nn.BatchNorm2d for part in folded.modules()):
        return folded
    some = next(folded.parameters())
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    noise = noise.to(some.device, some.dtype)
    with torch.inference_mode():
        pairs, expected = _convolutions_and_norms(folded, noise)
    with torch.no_grad():
        for convolution, norm in pairs:
            _fold(folded, convolution, norm)
    with torch.inference_mode():
        # Whatever else a forward did with the output of a convolution shows here.
        error = (folded(noise) - expected).abs().max()
    return folded if error <= 1e-3 * expected.abs().max() else copy.deepcopy(network).eval()


def _fold(network, convolution, norm):
    """Replace a convolution by one that does the work of the batch norm after it, too."""
    modules = network.get_submodule(convolution), network.get_submodule(norm)
    network.set_submodule(convolution, fuse_conv_bn_eval(*modules))
    network.set_submodule(norm, nn.Identity())


def _convolutions_and_norms(network, pixels):
    """Run a network; name each convolution that only one batch norm follows, and that norm.

    Returns
    -------
    (list of (str, str), Tensor)
        Names of both, which each ran once, and the output of the network.
    """
    runs, takers = Counter(), defaultdict(list)

    def note(name, module, inputs, output):
        runs[name] += 1
        for tensor in inputs:
            if (convolution := getattr(tensor, "convolution", None)) is not None:
                takers[convolution].append(name)
        if type(module) is nn.Conv2d:
            output.convolution = name

    leaves = {name: part for name, part in network.named_modules() if not any(part.children())}
    hooks = [part.register_forward_hook(partial(note, name)) for name, part in leaves.items()]
    output = network(pixels)
    for hook in hooks:
        hook.remove()
    pairs = [(name, norms[0]) for name, norms in takers.items() if len(norms) == 1]
    return [pair for pair in pairs if _foldable(leaves[pair[1]], runs, pair)], output


def _foldable(norm, runs, pair):
    # Subclasses may do more than their base, such as an activation.
    fixed = type(norm) is nn.BatchNorm2d and norm.running_mean is not None
    return fixed and all(runs[name] == 1 for name in pair)


class _ChannelsSecond(nn.Module):
    """Pixels as they lie in memory to pixels as networks want them."""

    def forward(self, pixels):
        return pixels.permute(0, 3, 1, 2)


class TorchRunner:
    """Eager torch: channels_last, and batch norms folded unless the module is the user's own."""

    def __init__(self, network, preprocessing, runtime, *, custom_module=False):
        self.runtime = runtime
        self.dtype = TORCH_DTYPES[runtime.precision]
        if custom_module:
            network = copy.deepcopy(network)
        else:
            network = fold_batch_norm(network, preprocessing.image_size)
        # The pixels are normalised in float32 and rounded once, also for half precision.
        network = network.to(runtime.device, self.dtype, memory_format=torch.channels_last)
        self.network = network.eval()
        self.normalise = NormalisedNetwork(nn.Identity(), preprocessing.mean, preprocessing.std).to(
            runtime.device
        )

    @torch.inference_mode()
    def __call__(self, pixels):
        normalised = self.normalise(pixels).to(self.dtype, memory_format=torch.channels_last)
        return self.network(normalised).float()


class OpenVinoRunner:
    """A model compiled by OpenVINO, with one stream of one thread for each core of our share."""

    def __init__(self, load_network, preprocessing, runtime, *, n_threads, model_dir, name):
        import openvino

        core = openvino.Core()
        # Always by way of a file: a model that was just converted rounds differently.
        with tempfile.TemporaryDirectory() as own_dir:
            model = model_dir and self._read(core, Path(model_dir) / f"{name}.xml")
            if not model:
                converted = self._convert(openvino, load_network(), preprocessing, runtime.rows)
                file = Path(own_dir) / f"{name}.xml"
                openvino.save_model(converted, file, compress_to_fp16=False)
                self._keep(file, model_dir)
                model = core.read_model(file)
        settings = {
            "NUM_STREAMS": n_threads,
            "INFERENCE_NUM_THREADS": n_threads,
            "INFERENCE_PRECISION_HINT": "bf16" if runtime.precision == "bfloat16" else "f32",
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._tensor = openvino.Tensor
        self.requests = queue.SimpleQueue()
        for _ in range(n_threads):
            self.requests.put(compiled.create_infer_request())

    @staticmethod
    def _convert(openvino, network, preprocessing, rows):
        whole = NormalisedNetwork(network, preprocessing.mean, preprocessing.std)
        whole = nn.Sequential(_ChannelsSecond(), whole).eval()
        size = preprocessing.image_size
        shape = (rows, size, size, 3)
        with warnings.catch_warnings(), torch.inference_mode():
            # OpenVINO reads what torch.jit.trace records, which torch calls deprecated. Checking
            # the trace by running it again takes most of a minute and finds nothing here.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(
                whole, torch.zeros(shape, dtype=torch.uint8), check_trace=False
            )
            return openvino.convert_model(traced, input=[(shape, openvino.Type.u8)])

    @staticmethod
    def _read(core, file):
        """Read an earlier conversion; None when there is none, or it is damaged."""
        try:
            return core.read_model(file) if file.exists() else None
        except RuntimeError:
            return None

    @staticmethod
    def _keep(file, model_dir):
        """Copy a conversion to where other processes find it; a full disk costs only time."""
        if model_dir is None:
            return
        part = Path(model_dir) / f"{file.stem}.{os.getpid()}.{threading.get_ident()}.part"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            # The weights first: a description is never there without them.
            for suffix in (".bin", ".xml"):
                shutil.copyfile(file.with_suffix(suffix), part)
                os.replace(part, part.with_name(file.stem + suffix))
        except OSError:
            part.unlink(missing_ok=True)

    def __call__(self, pixels):
        pixels = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        request = self.requests.get()
        try:
            request.set_input_tensor(self._tensor(pixels, shared_memory=True))
            request.infer()
            rows = np.array(request.get_output_tensor().data, dtype=np.float32)
        finally:
            self.requests.put(request)
        return torch.from_numpy(rows)
