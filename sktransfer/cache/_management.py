"""What users see of the cache: `cache_info`, `clear_cache` and `merge_caches`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .._utils._sizes import size_text
from .._utils._sklearn import checked
from .._utils._typing import FilePath
from .._utils._warnings import warn_user
from ..exceptions import CacheWarning
from ._database import FOREIGN, Database
from ._failures import Trouble, forget_warnings, warn_once
from ._location import (
    EMBEDDINGS,
    KNOWN_FILES,
    LOCKS,
    NETWORKS,
    cache_limit,
    file_size,
    memory_limit,
    resolve_cache_root,
)
from ._memory import known_files, memory
from ._rows import copy_rows

#: Names that this package gives to files; the directories may hold files of others too.
_ROW_FILES = "*-" + 12 * "[0-9a-f]" + ".sqlite"
_NETWORK_FILES = "*-" + 16 * "[0-9a-f]" + ".*"


@dataclass(frozen=True)
class BackboneCacheInfo:
    """The embeddings of one backbone, as `cache_info` finds them.

    Parameters
    ----------
    backbone : str
        Name of the backbone.
    description : str
        The backbone and what else its embeddings depend on.
    path : pathlib.Path
        The file.
    n_rows : int or None
        Number of embeddings on disk; None if the file cannot be read.
    n_bytes : int
        Size of the file.
    hits, misses : int
        Number of embeddings that this process found in the cache, and that it computed. Worker
        processes count separately.
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
    """What is in the cache; prints as a table.

    Parameters
    ----------
    root : pathlib.Path
        Directory of the cache.
    backbones : tuple of BackboneCacheInfo
        One for each file of embeddings, sorted by description.
    n_paths : int or None
        Number of files whose digest is remembered on disk; None if that cannot be read.
    n_bytes : int
        Bytes of all embeddings and remembered digests on disk.
    network_bytes : int
        Bytes of the networks that OpenVINO has converted, on disk.
    limit : int
        Bytes that the embeddings may take on disk (``SKTRANSFER_CACHE_LIMIT``).
    free : int
        Bytes free on that disk.
    memory_bytes, memory_limit : int
        Bytes of embeddings that this process keeps in memory, for all cache directories
        together, and how many it may keep (``SKTRANSFER_MEMORY_LIMIT``).
    """

    root: Path
    backbones: tuple
    n_paths: int | None
    n_bytes: int
    network_bytes: int
    limit: int
    free: int
    memory_bytes: int
    memory_limit: int

    @property
    def hits(self):
        """Number of embeddings that this process found in the cache."""
        return sum(backbone.hits for backbone in self.backbones)

    @property
    def misses(self):
        """Number of embeddings that this process computed."""
        return sum(backbone.misses for backbone in self.backbones)

    def __str__(self):
        paths = "unreadable" if self.n_paths is None else f"{self.n_paths:,}"
        lines = [
            f"Embeddings in {self.root}",
            f"  on disk     {size_text(self.n_bytes)} of {size_text(self.limit)} allowed, "
            f"{size_text(self.free)} free on the disk",
            f"  in memory   {size_text(self.memory_bytes)} of {size_text(self.memory_limit)} "
            "allowed",
            f"  paths       {paths} remembered",
            f"  networks    {size_text(self.network_bytes)} converted for OpenVINO",
        ]
        if not self.backbones:
            return "\n".join([*lines, "  (no embeddings)"])
        lines.append(f"  {'rows':>10} {'size':>9} {'hits':>9} {'misses':>9}  backbone")
        for info in self.backbones:
            rows = "unreadable" if info.n_rows is None else f"{info.n_rows:,}"
            lines.append(
                f"  {rows:>10} {size_text(info.n_bytes):>9} {info.hits:>9,} {info.misses:>9,}  "
                f"{info.description}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def cache_info(cache: bool | FilePath = True) -> CacheInfo:
    """Report what is in the cache and how large it is.

    Parameters
    ----------
    cache : bool, str or os.PathLike, default=True
        Which cache, as in `ImageEmbedder`: True for that of the user, or a directory.

    Returns
    -------
    CacheInfo
        Prints as a table.

    Raises
    ------
    ValueError
        If ``cache`` is None or False, or no directory can have that path.

    Warns
    -----
    CacheWarning
        If a file cannot be read.

    Examples
    --------
    >>> import sktransfer
    >>> info = sktransfer.cache_info("/tmp/no-embeddings-here")
    >>> info.backbones
    ()
    """
    root = _root_of(cache)
    backbones = sorted(map(_backbone_info, _row_files(root)), key=lambda info: info.description)
    existing = next(place for place in (root, *root.parents) if os.path.exists(place))
    return CacheInfo(
        root=root,
        backbones=tuple(backbones),
        n_paths=_count(Database(root / KNOWN_FILES)),
        n_bytes=sum(info.n_bytes for info in backbones) + file_size(root / KNOWN_FILES),
        network_bytes=sum(map(file_size, _network_files(root, "*"))),
        limit=cache_limit(),
        free=shutil.disk_usage(existing).free,
        memory_bytes=memory.n_bytes,
        memory_limit=memory_limit(),
    )


@checked(backbone=[str, None], paths_only=["boolean"])
def clear_cache(
    backbone: str | None = None, *, cache: bool | FilePath = True, paths_only: bool = False
) -> int:
    """Delete embeddings from disk and from the memory of this process.

    A process that is embedding at the same time continues without the cache and warns.

    Parameters
    ----------
    backbone : str or None, default=None
        Name of a backbone, or a pattern such as ``"timm:*"``: deletes only its embeddings and
        the networks that OpenVINO has converted for it. None deletes those of all backbones, and
        the remembered digests of files.
    cache : bool, str or os.PathLike, default=True
        Which cache, see `cache_info`. Other files in the directory stay.
    paths_only : bool, default=False
        Delete only the remembered digests, so that every file is read again.

    Returns
    -------
    int
        Number of bytes freed on disk.

    Raises
    ------
    ValueError
        If ``cache`` names no directory, or both ``backbone`` and ``paths_only`` are given.
    OSError
        If a file cannot be deleted.

    Warns
    -----
    CacheWarning
        If another program has written a file with one of our names; the file stays. Also if the
        cache holds embeddings of other backbones only.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.clear_cache("resnet50", cache="/tmp/no-embeddings-here")
    0
    """
    root = _root_of(cache)
    if backbone is not None and paths_only:
        raise ValueError(
            f"backbone={backbone!r} and paths_only=True exclude each other: all backbones share "
            "the remembered digests of files. Call clear_cache twice to delete both."
        )
    freed = 0
    for path in () if paths_only else _row_files(root):
        if backbone is None or fnmatchcase(_backbone_info(path).backbone, backbone):
            memory.forget(path)
            freed += _delete(Database(path))
            shutil.rmtree(root / LOCKS / path.stem, ignore_errors=True)
    for path in () if paths_only else _network_files(root, backbone or "*"):
        freed += file_size(path)
        path.unlink(missing_ok=True)
    if not (freed or backbone is None or paths_only) and (files := _row_files(root)):
        held = ", ".join(sorted({repr(_backbone_info(path).backbone) for path in files}))
        warn_user(
            f"{root} holds nothing of {backbone!r}, so nothing was deleted. It holds {held}. Pass "
            "one of these names, or a pattern that matches them.",
            CacheWarning,
        )
    if backbone is None:
        known_files.pop(os.fspath(root), None)
        freed += _delete(Database(root / KNOWN_FILES))
    return freed


def merge_caches(*paths: FilePath, cache: bool | FilePath = True) -> int:
    """Copy the embeddings of other caches, such as those of other machines, into one.

    Embeddings that are already there stay. Damaged ones are left out. After an error, call again:
    what has been copied is kept.

    Parameters
    ----------
    *paths : str or os.PathLike
        Directories of the other caches, which stay as they are. Use only caches from people you
        trust: a false embedding cannot be told from a correct one.
    cache : bool, str or os.PathLike, default=True
        The cache to copy to, see `cache_info`.

    Returns
    -------
    int
        Number of embeddings added.

    Raises
    ------
    ValueError
        If ``cache`` or a path names no directory.
    FileNotFoundError
        If a path holds no embeddings.
    OSError
        If a file cannot be read or written, or the limit of the cache or the disk is reached.

    Examples
    --------
    >>> import sktransfer
    >>> from sktransfer.datasets import make_shapes
    >>> images = make_shapes(5, random_state=0).data
    >>> _ = sktransfer.ImageEmbedder(cache="machine-1").fit_transform(images)
    >>> sktransfer.merge_caches("machine-1", cache="all")
    5
    """
    root, n_added = _root_of(cache), 0
    for source in map(_root_of, paths):
        if not (files := _row_files(source)):
            raise FileNotFoundError(
                f"{source} holds no embeddings. Pass directories of caches, such as "
                "sktransfer.cache_info().root."
            )
        for file in files:
            try:
                n_added += copy_rows(file, root)
            except Trouble as trouble:
                raise OSError(f"{file} cannot be copied to {root}: {trouble.detail}") from trouble
    return n_added


def _root_of(cache):
    root = resolve_cache_root(cache)
    if root is None:
        raise ValueError(f"cache={cache!r} names no cache. Pass True or the path of a directory.")
    return root


def _row_files(root):
    return sorted((root / EMBEDDINGS).glob(_ROW_FILES))


def _network_files(root, backbone):
    """Yield the files of converted networks of the backbones with this name or pattern."""
    for path in sorted((root / NETWORKS).glob(_NETWORK_FILES)):
        if fnmatchcase(path.name.rpartition("-")[0], backbone.replace(":", "_")):
            yield path


def _backbone_info(path):
    with Database(path) as database:
        try:
            found = database.read("SELECT value FROM meta WHERE name = 'description'")
        except Trouble:
            found = []
        description = found[0][0] if found else path.stem
        return BackboneCacheInfo(
            backbone=(description.split() or [path.stem])[0],
            description=description,
            path=path,
            n_rows=_count(database),
            n_bytes=file_size(path),
            hits=memory.hits[str(path)],
            misses=memory.misses[str(path)],
        )


def _count(database):
    with database:
        try:
            found = database.read("SELECT count(*) FROM rows")
        except Trouble as trouble:
            warn_once(database.path, trouble)
            return None
    return found[0][0] if found else 0


def _delete(database):
    """Delete a file and its SQLite journal; return the number of bytes freed."""
    freed = file_size(database.path)
    with database:
        try:
            database.remove()
        except Trouble as trouble:
            if trouble.cause == "locked":
                raise OSError(f"{database.path} is in use: {trouble.detail}") from trouble
            if trouble.detail == FOREIGN:
                warn_once(database.path, trouble)
                return 0
    # If it is still there, it is empty, damaged or of another version: nobody is writing to it.
    database.path.unlink(missing_ok=True)
    database.path.with_name(database.path.name + "-journal").unlink(missing_ok=True)
    forget_warnings(database.path)
    return freed
