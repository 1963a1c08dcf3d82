"""Where and how a network runs on this machine."""

from dataclasses import dataclass
from importlib.util import find_spec

from .._utils._devices import resolve_device
from .._utils._threads import import_torch
from ..exceptions import MissingExtraError

#: Images in one forward pass on a CPU. The numbers are small, because each pass has one thread and
#: its activations should stay in the processor's cache.
_ROWS_ON_CPU = {
    ("openvino", "float32"): 1,
    ("openvino", "bfloat16"): 2,
    ("torch", "float32"): 4,
    ("torch", "bfloat16"): 8,
}
_ROWS_ON_ACCELERATOR = 64


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs, with "auto" resolved.

    ``rows`` is the number of images in one forward pass. It is constant, because kernels round
    differently for batches of different sizes: the bits of a row depend on its image alone.
    """

    device: str
    precision: str
    engine: str
    rows: int

    @property
    def on_cpu(self):
        return self.device == "cpu"

    def key(self):
        """Return a string with everything that can change the bits of a result."""
        return f"{self.engine}|{self.device.split(':')[0]}|{self.precision}|rows={self.rows}"


def resolve_runtime(device, precision, engine, spec=None, batch_size=None):
    """Return the `Runtime` for parameters of `ImageEmbedder`, or say what the machine lacks."""
    device = resolve_device(device)
    on_cpu = device == "cpu"
    if engine == "auto":
        # A user's module may do anything in `forward`; only torch is certain to run it unchanged.
        custom = spec is not None and spec.module is not None
        engine = "openvino" if on_cpu and not custom and has_openvino() else "torch"
    if engine == "openvino" and not on_cpu:
        raise ValueError(
            f'engine="openvino" runs on the CPU, and device is {device!r}. '
            'Pass device="cpu", or engine="torch".'
        )
    if engine == "openvino" and not has_openvino():
        raise MissingExtraError(
            'engine="openvino" needs OpenVINO, which is not installed. '
            'Run: pip install "sktransfer[fast]", or pass engine="torch".'
        )
    if on_cpu and precision == "float16":
        raise ValueError('precision="float16" needs a GPU. On a CPU pass "float32" or "bfloat16".')
    if on_cpu and precision == "bfloat16" and not has_bfloat16():
        raise ValueError(
            'precision="bfloat16" needs a CPU with AVX-512 or Arm bf16 instructions, which this '
            'one lacks. Pass precision="float32".'
        )
    rows = _ROWS_ON_CPU[engine, precision] if on_cpu else batch_size or _ROWS_ON_ACCELERATOR
    return Runtime(device, precision, engine, rows)


def has_bfloat16():
    """Whether this CPU has instructions for bfloat16."""
    return bool(import_torch().ops.mkldnn._is_mkldnn_bf16_supported())


def has_openvino():
    """Whether OpenVINO is installed; does not import it."""
    return find_spec("openvino") is not None
