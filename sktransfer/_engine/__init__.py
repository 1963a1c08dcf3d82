"""Run networks over images: runtimes, networks, and the one function that embeds."""

from ._embedding import embed_images
from ._networks import Network, PixelNetwork, frozen_network
from ._progress import progress_bar
from ._runtime import TORCH_DTYPES, Runtime, has_bfloat16, has_openvino, resolve_runtime
from ._torch import NormalizedNetwork

__all__ = [
    "TORCH_DTYPES",
    "Network",
    "NormalizedNetwork",
    "PixelNetwork",
    "Runtime",
    "embed_images",
    "frozen_network",
    "has_bfloat16",
    "has_openvino",
    "progress_bar",
    "resolve_runtime",
]
