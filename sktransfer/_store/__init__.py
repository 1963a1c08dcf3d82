"""Rows of float32 on disk and in memory, keyed by content; each is computed exactly once.

Nothing here knows what a picture or a network is: a row is known by a digest of 20 bytes.

=================  =============================================================================
``_places``        where a store lies, how large it may become
``_trouble``       what can go wrong with a disk, and the one warning that says so
``_database``      one SQLite file, one connection, one call
``_memory``        the rows most recently used, in memory
``_rows``          the rows of one backbone on disk
``_single_flight`` ``embed_once``: who computes what, and who waits
``_paths``         ``digest_all``: the digests of files that have not changed
``_management``    ``cache_info`` and ``clear_cache``
=================  =============================================================================
"""

from sktransfer._store._management import (
    OPENVINO,
    CacheInfo,
    StoreInfo,
    cache_info,
    clear_cache,
)
from sktransfer._store._paths import digest_all
from sktransfer._store._places import resolve_cache_root
from sktransfer._store._rows import EmbeddingStore
from sktransfer._store._single_flight import embed_once

__all__ = [
    "OPENVINO",
    "CacheInfo",
    "EmbeddingStore",
    "StoreInfo",
    "cache_info",
    "clear_cache",
    "digest_all",
    "embed_once",
    "resolve_cache_root",
]
