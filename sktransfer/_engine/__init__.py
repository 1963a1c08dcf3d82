"""Run networks over images: runtimes, networks, and the one function that embeds.

Only what runs a network imports torch: a process that finds all rows in the cache does not need it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_embedding": ["embed_images", "progress_bar"],
        "_networks": ["Network", "PixelNetwork", "frozen_network"],
        "_runtime": ["Runtime", "has_bfloat16", "has_openvino", "resolve_runtime"],
        "_torch": ["NormalizedNetwork"],
    },
)
