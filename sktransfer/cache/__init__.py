"""Embeddings on disk and in memory; each is computed exactly once."""

from ._claims import embed_once
from ._location import resolve_cache_root
from ._management import OPENVINO, BackboneCacheInfo, CacheInfo, cache_info, clear_cache
from ._paths import digest_all
from ._rows import EmbeddingCache

__all__ = [
    "OPENVINO",
    "BackboneCacheInfo",
    "CacheInfo",
    "EmbeddingCache",
    "cache_info",
    "clear_cache",
    "digest_all",
    "embed_once",
    "resolve_cache_root",
]
