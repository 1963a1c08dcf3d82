"""Embeddings on disk and in memory; each is computed exactly once."""

from ._claims import embed_once
from ._database import Database as Database
from ._failures import Trouble as Trouble
from ._failures import warn_once as warn_once
from ._location import resolve_cache_root
from ._management import KNOWN_FILES as KNOWN_FILES
from ._management import OPENVINO, BackboneCacheInfo, CacheInfo, cache_info, clear_cache
from ._management import on_clear as on_clear
from ._rows import EmbeddingCache

__all__ = [
    "OPENVINO",
    "BackboneCacheInfo",
    "CacheInfo",
    "EmbeddingCache",
    "cache_info",
    "clear_cache",
    "embed_once",
    "resolve_cache_root",
]
