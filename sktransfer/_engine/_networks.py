"""Networks that embed: frozen backbones, networks built by the caller, and plain pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from .._utils._fork import IMPORTING, after_fork_in_child
from .._utils._lru import LRU
from .._utils._threads import single_threaded_kernels, thread_share
from ..backbones import Preprocessing, shared_network
from ..cache import NETWORKS
from ._runtime import Runtime

#: Number of runners to keep ready for the next call; each has its own copy of a network.
_MAX_RUNNERS = 4

_runners, _inherited = LRU(_MAX_RUNNERS), []


@after_fork_in_child
def _forget_runners():
    """Forget all runners in a forked child, which lacks their threads."""
    global _runners
    _inherited.append(_runners)  # a destructor of OpenVINO would wait for these threads
    _runners = LRU(_MAX_RUNNERS)


@dataclass(frozen=True)
class Network:
    """A network that embeds; it is loaded when it first runs."""

    #: Name for messages.
    name: str
    #: Architecture and weights: networks with equal fingerprints give equal rows.
    fingerprint: str
    #: Length of a row.
    n_features: int
    #: How an image is fitted to the network.
    preprocessing: Preprocessing
    runtime: Runtime
    #: Returns the `torch.nn.Module` from normalized images (n, 3, S, S) to rows (n, n_features).
    load: Callable
    #: Whether the network is a user's module. It then runs unchanged, and no conversion is kept.
    custom_module: bool = False
    #: What `cache_info` shows after the name.
    details: str = ""
    #: Where OpenVINO's conversions are kept for other processes.
    model_dir: Path | None = None

    dtype = np.float32

    @property
    def key(self):
        return f"{self.fingerprint}|{self.preprocessing.key()}|{self.runtime.key()}"

    @property
    def description(self):
        return f"{self.name} {self.details}"

    def runner(self):
        """Return what makes rows, on the device, from uint8 (runtime.rows, 3, S, S)."""
        n_threads = thread_share() if self.runtime.engine == "openvino" else 1
        key = self.key, self.runtime.device, n_threads
        # In a forked child, kernels with more than one thread would crash.
        with single_threaded_kernels():
            return _runners.get(key, lambda: self._build(n_threads))

    def _build(self, n_threads):
        if self.runtime.engine != "openvino":
            with IMPORTING:
                from ._torch import TorchRunner
            return TorchRunner(
                self.load(), self.preprocessing, self.runtime, custom_module=self.custom_module
            )
        file = None
        if self.model_dir is not None and not self.custom_module:
            # Conversions for other layouts of pixels have other names.
            digest = blake2b(f"{self.key}|NHWC".encode(), digest_size=8).hexdigest()
            file = self.model_dir / f"{self.name.replace(':', '_')}-{digest}.xml"
        with IMPORTING:
            from ._openvino import OpenVinoRunner
        return OpenVinoRunner(
            self.load, self.preprocessing, self.runtime, n_threads=n_threads, file=file
        )


class PixelNetwork:
    """Returns the pixels that a network would get, as uint8 rows of length 3 x S x S."""

    dtype = np.uint8
    name = description = "pixels"
    runtime = Runtime("cpu", "float32", "torch", rows=1)

    def __init__(self, preprocessing):
        self.preprocessing = preprocessing
        self.n_features = 3 * preprocessing.image_size**2
        self.key = f"pixels|{preprocessing.key()}"

    def runner(self):
        return lambda pixels: pixels.flatten(1)


def frozen_network(spec, runtime, cache=None):
    """Return the network of a `BackboneSpec`; a cache directory keeps OpenVINO's conversions."""
    return Network(
        spec.name,
        spec.fingerprint,
        spec.n_features,
        spec.preprocessing,
        runtime,
        partial(shared_network, spec),
        custom_module=spec.module is not None,
        details=f"{spec.weights} {spec.preprocessing.image_size} px, {runtime.engine} "
        f"{runtime.precision}",
        model_dir=None if cache is None else cache / NETWORKS,
    )
