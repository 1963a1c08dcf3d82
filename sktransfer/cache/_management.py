"""What users see of the stores: `cache_info` and `clear_cache`."""

import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .._utils._sizes import size_text
from ._database import Database
from ._failures import Trouble, forget_warnings, warn_once
from ._location import (
    cache_limit,
    file_size,
    memory_limit,
    resolve_cache_root,
)
from ._memory import memory, statistics
from ._rows import EMBEDDINGS, LOCKS

__all__ = [
    "KNOWN_FILES",
    "OPENVINO",
    "BackboneCacheInfo",
    "CacheInfo",
    "cache_info",
    "clear_cache",
    "on_clear",
]

#: Names that this package gives to files: a directory may hold those of others too.
_STORES = "*-" + 12 * "[0-9a-f]" + ".sqlite"
_NETWORKS = "*-" + 16 * "[0-9a-f]" + ".*"

#: Directory of the networks that OpenVINO has converted, see `sktransfer._engine._runners`.
OPENVINO = "openvino"

#: Database of the digests of files, in a table named "paths"; written by what registers `on_clear`.
KNOWN_FILES = "paths.sqlite"

_forgetters = []


def on_clear(forget):
    """Call ``forget(root)`` when the digests of files are cleared; usable as a decorator."""
    _forgetters.append(forget)
    return forget


@dataclass(frozen=True)
class BackboneCacheInfo:
    """The embeddings of one backbone, as `cache_info` found them.

    Parameters
    ----------
    backbone : str
        Name of the backbone.
    description : str
        The backbone and what else its embeddings depend on.
    path : pathlib.Path
        The file.
    n_rows : int or None
        Embeddings on disk, None when the file cannot be read.
    n_bytes : int
        Size of the file.
    hits, misses : int
        Embeddings that this process was given without running the network, and those that it
        computed. Worker processes count for themselves.
    """

    backbone: str
    description: str
    path: Path
    n_rows: int | None
    n_bytes: int
    hits: int
    misses: int


@dataclass(frozen=True)
class CacheInfo:
    """What is stored, and where; prints as a table.

    Parameters
    ----------
    root : pathlib.Path
        Directory of the stores.
    stores : tuple of BackboneCacheInfo
        One for each file of embeddings, by description.
    n_paths : int or None
        Files whose digest is remembered on disk, None when that cannot be read.
    n_bytes : int
        Bytes of all embeddings and of the path memory on disk.
    network_bytes : int
        Bytes of the networks that OpenVINO has converted, on disk.
    limit : int
        Bytes that the embeddings may take on disk (``SKTRANSFER_CACHE_LIMIT``).
    free : int
        Bytes free on that disk.
    memory_bytes, memory_limit : int
        Bytes of embeddings that this process keeps in memory, of all roots together, and how many
        it may (``SKTRANSFER_MEMORY_LIMIT``).
    """

    root: Path
    stores: tuple
    n_paths: int | None
    n_bytes: int
    network_bytes: int
    limit: int
    free: int
    memory_bytes: int
    memory_limit: int

    @property
    def hits(self):
        """Embeddings that this process was given without running a network."""
        return sum(store.hits for store in self.stores)

    @property
    def misses(self):
        """Embeddings that this process computed."""
        return sum(store.misses for store in self.stores)

    def __str__(self):
        return "\n".join([*self._summary(), *self._table()])

    __repr__ = __str__

    def _summary(self):
        paths = "unreadable" if self.n_paths is None else f"{self.n_paths:,}"
        return [
            f"Embeddings in {self.root}",
            f"  on disk     {size_text(self.n_bytes)} of {size_text(self.limit)} allowed, "
            f"{size_text(self.free)} free on the disk",
            f"  in memory   {size_text(self.memory_bytes)} of {size_text(self.memory_limit)} "
            "allowed",
            f"  paths       {paths} remembered",
            f"  networks    {size_text(self.network_bytes)} converted for OpenVINO",
        ]

    def _table(self):
        if not self.stores:
            return ["  (nothing is stored)"]
        lines = [f"  {'rows':>10} {'size':>9} {'hits':>9} {'misses':>9}  backbone"]
        for store in self.stores:
            rows = "unreadable" if store.n_rows is None else f"{store.n_rows:,}"
            lines.append(
                f"  {rows:>10} {size_text(store.n_bytes):>9} {store.hits:>9,} {store.misses:>9,}  "
                f"{store.description}"
            )
        return lines


def cache_info(cache=True):
    """Tell what is stored, and where.

    Parameters
    ----------
    cache : bool, str or os.PathLike, default=True
        Which store, as in `ImageEmbedder`: True for the user's cache directory (or
        ``SKTRANSFER_HOME``), a path for another.

    Returns
    -------
    CacheInfo
        Prints as a table.

    Raises
    ------
    ValueError
        If ``cache`` is None or False, which name no store.

    Warns
    -----
    CacheWarning
        If a file cannot be read.

    Examples
    --------
    >>> import sktransfer
    >>> info = sktransfer.cache_info("/tmp/no-embeddings-here")
    >>> info.stores
    ()
    """
    root = _root_of(cache)
    stores = sorted(map(_store_info, _files_of(root)), key=lambda store: store.description)
    sizes = [store.n_bytes for store in stores] + [file_size(root / KNOWN_FILES)]
    return CacheInfo(
        root=root,
        stores=tuple(stores),
        n_paths=_count(Database(root / KNOWN_FILES, None, {}), "paths"),
        n_bytes=sum(sizes),
        network_bytes=sum(map(file_size, _networks_of(root, "*"))),
        limit=cache_limit(),
        free=shutil.disk_usage(_existing(root)).free,
        memory_bytes=memory.n_bytes,
        memory_limit=memory_limit(),
    )


def clear_cache(backbone=None, *, cache=True, paths_only=False):
    """Delete stored embeddings, on disk and in the memory of this process.

    A process that is embedding at the same time goes on without the store and warns of it.

    Parameters
    ----------
    backbone : str, default=None
        Delete only the embeddings of the backbones with this name, which may be a pattern such as
        ``"timm:*"``, and the networks that OpenVINO has converted for them. None deletes those of
        all backbones, and the path memory.
    cache : bool, str or os.PathLike, default=True
        Which store, see `cache_info`. Nothing in the directory is deleted but the store's own
        files.
    paths_only : bool, default=False
        Delete only the path memory, so that every file is read and digested anew.

    Returns
    -------
    int
        Bytes freed on disk.

    Raises
    ------
    TypeError
        If ``backbone`` is neither text nor None.
    ValueError
        If ``cache`` names no store, or both ``backbone`` and ``paths_only`` are given.
    OSError
        If a file cannot be deleted.

    Warns
    -----
    CacheWarning
        If a file has the name of one of ours and another program has written it; it stays.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.clear_cache("resnet50", cache="/tmp/no-embeddings-here")
    0
    """
    root = _root_of(cache)
    if backbone is not None and not isinstance(backbone, str):
        raise TypeError(
            f"backbone={backbone!r} is a {type(backbone).__name__}; pass the name of a backbone, a "
            'pattern such as "timm:*", or None for all. To name the cache: clear_cache(cache=PATH).'
        )
    if backbone is not None and paths_only:
        raise ValueError(
            f"backbone={backbone!r} and paths_only=True exclude each other: the path memory is "
            "shared by all backbones. Call clear_cache twice to delete both."
        )
    freed = 0
    if not paths_only:
        freed += sum(_delete_store(root, path) for path in _matching(root, backbone))
        freed += sum(map(_delete_network, _networks_of(root, backbone or "*")))
    if backbone is None:
        for forget in _forgetters:
            forget(root)
        freed += _delete(Database(root / KNOWN_FILES, None, {}))
    return freed


def _root_of(cache):
    root = resolve_cache_root(cache)
    if root is None:
        raise ValueError(f"cache={cache!r} names no store; pass True or the path of a directory.")
    return root


def _existing(directory):
    """Return the directory or its nearest ancestor that exists."""
    return next(place for place in (directory, *directory.parents) if place.exists())


def _files_of(root):
    return sorted((root / EMBEDDINGS).glob(_STORES))


def _networks_of(root, backbone):
    """Files of OpenVINO's networks for the backbones with this name or pattern."""
    for path in sorted((root / OPENVINO).glob(_NETWORKS)):
        if fnmatchcase(path.name.rpartition("-")[0], backbone.replace(":", "_")):
            yield path


def _delete_network(path):
    freed = file_size(path)
    path.unlink(missing_ok=True)
    return freed


def _matching(root, backbone):
    for path in _files_of(root):
        if backbone is None or fnmatchcase(_store_info(path).backbone, backbone):
            yield path


def _store_info(path):
    with Database(path, None, {}) as database:
        description = _description(database) or path.stem
        hits, misses = statistics.of(path)
        return BackboneCacheInfo(
            backbone=(description.split() or [path.stem])[0],
            description=description,
            path=path,
            n_rows=_count(database, "rows"),
            n_bytes=file_size(path),
            hits=hits,
            misses=misses,
        )


def _description(database):
    try:
        rows = database.read("SELECT value FROM meta WHERE name = 'description'")
    except Trouble:
        return None
    return rows[0][0] if rows else None


def _count(database, table):
    with database:
        try:
            rows = database.read(f"SELECT count(*) FROM {table}")
        except Trouble as trouble:
            warn_once(database.path, trouble)
            return None
    return rows[0][0] if rows else 0


def _delete_store(root, path):
    memory.forget(path)
    freed = _delete(Database(path, None, {}))
    shutil.rmtree(root / LOCKS / path.stem, ignore_errors=True)
    return freed


def _delete(database):
    """Delete a file and what SQLite may have left beside it; return the bytes freed."""
    freed = file_size(database.path)
    with database:
        try:
            database.remove()
        except Trouble as trouble:
            if trouble.cause == "locked":
                raise OSError(f"{database.path} is in use: {trouble.detail}") from trouble
            if trouble.cause == "foreign":
                warn_once(database.path, trouble)
                return 0
    # What is still there is empty, damaged or of another version: nobody is writing to it.
    database.path.unlink(missing_ok=True)
    database.path.with_name(database.path.name + "-journal").unlink(missing_ok=True)
    forget_warnings(database.path)
    return freed
