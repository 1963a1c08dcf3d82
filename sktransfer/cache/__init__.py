"""Embeddings on disk and in memory; each is computed exactly once."""

from ._database import Database as Database
from ._database import is_intact as is_intact
from ._failures import Trouble as Trouble
from ._failures import warn_once as warn_once
from ._location import KNOWN_FILES as KNOWN_FILES
from ._location import NETWORKS as NETWORKS
from ._location import make_private as make_private
from ._location import resolve_cache_root as resolve_cache_root
from ._management import BackboneCacheInfo, CacheInfo, cache_info, clear_cache, merge_caches
from ._memory import known_files as known_files
from ._rows import EmbeddingCache as EmbeddingCache

# The other names are for the package only.
__all__ = ["BackboneCacheInfo", "CacheInfo", "cache_info", "clear_cache", "merge_caches"]
