"""Digests of many images, without reading the files that have not changed since the last time.

A file counts as unchanged while its absolute path, size, modification time, change time and inode
are the same. Files changed within the last two seconds are not remembered: they may change again
within the same tick of the file system's clock.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tqdm.auto import tqdm

from .._utils._fork import fork_safe_lock
from .._utils._stamps import is_settled, stamp_of
from .._utils._threads import thread_share
from ..cache import KNOWN_FILES, Database, Trouble, is_intact, known_files, warn_once
from ..exceptions import UnreadableImageError
from ._containers import image_name
from ._diagnosis import working_directory
from ._digests import digest_image

#: Files of one cache that one process remembers in memory, some 300 bytes each.
_MAX_IN_MEMORY = 300_000
#: Images that are looked up, digested and remembered together.
_SLICE = 10_000
#: Images that a thread digests at a time: a handover takes as long as digesting a small file.
_HANDFUL = 16

_lock = fork_safe_lock()


def digest_images(images, root=None, *, verbose=False):
    """Return the digest of each image, or the UnreadableImageError that says why it has none.

    Digests of files are remembered below ``root``, the directory of the cache. With None, or the
    environment variable ``SKTRANSFER_TRUST_PATHS=0``, every file is read. ``verbose`` shows a bar
    if reading takes longer than two seconds.
    """
    digests = []
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(thread_share()))
        bar = tqdm(desc="reading", total=len(images), unit="image", delay=2.0, disable=not verbose)
        stack.enter_context(bar)
        if root is not None:
            known = known_files.setdefault(os.fspath(root), {})
            database = Database(root / KNOWN_FILES, {"key": "paths"}, sorted_by_key=True)
            stack.enter_context(database)
        for start in range(0, len(images), _SLICE):
            some = images[start : start + _SLICE]
            if root is None:
                digests += _digest_new(some, [None] * len(some), pool, bar)
                continue
            looked_at = time.time_ns()
            files = _files_of(some)
            recalled = _recall(files, known, database)
            found = _digest_new(some, recalled, pool, bar)
            _learn(files, recalled, found, looked_at, known, database)
            digests += found
    return digests


def _digest_new(images, recalled, pool, bar):
    """Return the recalled digests, and those of the other images in place of None."""
    digests = list(recalled)
    new = [index for index, digest in enumerate(digests) if digest is None]
    bar.total -= len(images) - len(new)

    def digest_handful(start):
        handful = new[start : start + _HANDFUL]
        for index in handful:
            try:
                digests[index] = digest_image(images[index])
            except UnreadableImageError as error:
                digests[index] = error
        return len(handful)

    for n_read in pool.map(digest_handful, range(0, len(new), _HANDFUL)):
        bar.update(n_read)
    return digests


def _files_of(images):
    """Return (absolute path, stamp) of each image, with None for what it does not have."""
    directory = working_directory()
    paths = [_absolute(directory, image) for image in images]
    try:
        stamps = list(map(stamp_of, map(os.stat, paths)))  # no Python code for each file
    except (OSError, ValueError, TypeError):  # one of them is not a file
        stamps = [_stamp(path) for path in paths]
    return list(zip(paths, stamps, strict=True))


def _absolute(directory, image):
    path = image if type(image) is str else image_name(image)
    if path is None or os.sep != "/":
        return path and os.path.join(directory, path)
    return path if path.startswith("/") else directory + path  # much faster than os.path


def _stamp(path):
    try:
        return path and stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


def _recall(files, known, database):
    """Return the digest of each (path, stamp), None for files that are new or have changed."""
    if os.environ.get("SKTRANSFER_TRUST_PATHS", "1").lower() in ("0", "false", "no"):
        return [None] * len(files)
    digests = [
        entry[1] if (entry := known.get(path)) and entry[0] == stamp else None
        for path, stamp in files
    ]
    new = {i: _key_of(path) for i, (path, stamp) in enumerate(files) if stamp and not digests[i]}
    rows = {}  # damaged ones are ignored
    try:
        for found in database.find(sorted(new.values())):
            rows |= {row[0]: row[1] for row in found if is_intact(*row)}
    except Trouble as trouble:
        warn_once(database.path, trouble)
    for index, key in new.items():
        stamp, _, digest = rows.get(key, b"").partition(b"|")
        if stamp == str(files[index][1]).encode():
            digests[index] = digest
    _remember([(*files[index], digests[index]) for index in new if digests[index]], known)
    return digests


def _learn(files, recalled, digests, looked_at, known, database):
    """Remember the digests of files that were read after they were looked at (time in ns)."""
    learned = [
        (path, stamp, digest)
        for (path, stamp), before, digest in zip(files, recalled, digests, strict=True)
        if before is None
        and stamp
        and isinstance(digest, bytes)
        and is_settled(stamp, looked_at)
        and _stamp(path) == stamp
    ]
    if learned:
        _remember(learned, known)
        rows = {_key_of(path): b"%s|%s" % (str(s).encode(), digest) for path, s, digest in learned}
        try:
            database.write(rows)
        except Trouble as trouble:
            warn_once(database.path, trouble)


def _remember(learned, known):
    with _lock:
        for path, stamp, digest in learned:
            known.pop(path, None)  # so that it becomes the newest
            known[path] = stamp, digest
        while len(known) > _MAX_IN_MEMORY:
            del known[next(iter(known))]


def _key_of(path):
    # File names can reveal a lot, so none is written to disk.
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()
