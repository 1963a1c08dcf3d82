"""`embed_images`, the one function that embeds.

On a CPU one thread of the shared pool reads, decodes, resizes and embeds a handful of images, so
decoding and inference overlap. On an accelerator the pool only decodes, one batch ahead. Workers of
joblib do the same with chunks of the images; only the calling process uses the cache.
"""

import os
import pickle
from collections import defaultdict
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from queue import SimpleQueue

import joblib
import numpy as np
from joblib.externals.loky.cloudpickle_wrapper import dumps
from tqdm.auto import tqdm

from .._utils._lru import LRU
from .._utils._threads import inside_worker, shared_pool, single_threaded_kernels, thread_share
from ..cache import EmbeddingCache
from ..exceptions import UnreadableImageError
from ..images import MAX_PIXELS, decode_image, digest_images, fit_to_network, image_name, read_file

#: Maximum number of views that a thread takes at a time. With a small network, passing them to a
#: thread one by one takes longer than the network.
_HANDFUL = 8

#: Times that workers may die before a call gives up.
_MAX_DEATHS = 3

#: Bytes of a network that are not sent with each chunk.
_LARGE = 10**5

#: What workers have received: {digest: (network, views, max_pixels)}.
_received = LRU(max_items=4)


def embed_images(
    images,
    network,
    *,
    digests=None,
    views=None,
    numbers=None,
    cache=None,
    max_pixels=MAX_PIXELS,
    batch_size=None,
    progress=None,
    spread=False,
):
    """Embed images: digest, look up, claim, run, write, report.

    Returns rows of shape (len(images), n_features), NaN (0 for integers) where an image could not
    be read, and the `UnreadableImageError` of such images by index. With ``views``, rows have a
    second axis for the views of each image, or for those in its row of ``numbers``. At most
    ``batch_size`` views are in progress, and half of them go into a commit. ``progress``, see
    `progress_bar`, is called with the number of rows that need no network, with 0 when the network
    is ready, and then with numbers of finished rows. ``spread`` lets workers of joblib embed.
    """
    verbose, progress, run = progress is not None, progress or (lambda n: None), None
    batch_size = batch_size or max(64, 32 * thread_share())
    digests = digests or digest_images(images, cache, verbose=verbose)
    failures = {i: d for i, d in enumerate(digests) if isinstance(d, UnreadableImageError)}
    keys = [None if i in failures else d for i, d in enumerate(digests)] if failures else digests
    if views is not None:
        numbers = np.asarray(numbers if numbers is not None else [range(len(views))] * len(images))
        keys = [
            key and views.digest(key, number)
            for key, row in zip(keys, numbers.tolist(), strict=True)
            for number in row
        ]
    n_views = 1 if views is None else numbers.shape[1]
    rows = np.empty((len(keys), network.n_features), dtype=network.dtype)
    blank = np.nan if rows.dtype.kind == "f" else 0

    with EmbeddingCache(cache, network.key, network.n_features, network.description) as kept:
        missing = defaultdict(list)  # {key: indices of its rows}
        for index in kept.recall(keys, rows):
            if keys[index] is None:
                rows[index] = blank
            else:
                missing[keys[index]].append(index)
        for found in kept.read(missing):
            _fill(rows, missing, *found)
        progress(len(keys) - sum(map(len, missing.values())))

        groups = {key: digests[indices[0] // n_views] for key, indices in missing.items()}
        # Other joblib workers probably need the same rows, so claim one batch at a time.
        for found, claimed in kept.claim(groups, batch_size if inside_worker() else None):
            progress(_fill(rows, missing, *found))
            if not claimed:
                continue
            if run is None:
                if n_workers := spread and _n_workers():
                    run = partial(_run_on_workers, n_workers)
                else:
                    run = _run_here(network)
                progress(0)
            work = defaultdict(list)  # {index of an image: [(key, number) of each missing view]}
            first = {}
            for key in claimed:
                index = missing[key][0]
                image = first.setdefault(groups[key], index // n_views)
                number = 0 if views is None else int(numbers.flat[index])
                work[image].append((key, number))
            job = network, views, max_pixels
            settled = {}
            try:
                results = run(job, images, digests, list(work.items()), batch_size)
                with single_threaded_kernels(), closing(results):
                    for key, row in results:
                        indices = missing.pop(key)
                        if isinstance(row, UnreadableImageError):
                            failures |= dict.fromkeys([i // n_views for i in indices], row)
                            rows[indices], settled[key] = blank, None
                        else:
                            rows[indices] = settled[key] = row
                        progress(len(indices))
                        if len(settled) >= max(1, batch_size // 2):
                            kept.write(settled)
                            settled = {}
            finally:
                kept.write(settled)
    if missing:  # never return memory that nothing was written to
        raise RuntimeError(f"{len(missing)} embeddings were not computed. Please report this.")
    if views is not None:
        rows = rows.reshape(len(images), n_views, network.n_features)
    return rows, dict(sorted(failures.items()))


@contextmanager
def progress_bar(name, n_images, n_views=1, *, verbose=True):
    """Provide the ``progress`` argument of `embed_images`; None unless ``verbose``.

    There is no bar if all rows are cached. Its rate excludes cached rows and loading the network.
    """
    bar, total = None, n_images * n_views
    unit = "image" if n_views == 1 else "view"

    def progress(n):
        nonlocal bar
        if bar is None:
            if n < total:
                bar = tqdm(total=total, initial=n, desc=name, unit=unit)
        elif n == 0:
            bar.unpause()  # the network is ready: time counts from now
        else:
            bar.update(n)

    try:
        yield progress if verbose else None
    finally:
        if bar is not None:
            bar.close()


def _fill(rows, missing, keys, found):
    """Fill in rows that were found, and return how many."""
    indices = [missing.pop(key) for key in keys]
    counts = list(map(len, indices))
    if counts:
        rows[list(chain.from_iterable(indices))] = np.repeat(found, counts, axis=0)
    return sum(counts)


def _n_workers():
    """Return the number of joblib's workers in other processes; 0 if this one should embed."""
    backend, n_jobs = joblib.parallel.get_active_backend()
    if (
        inside_worker()
        or getattr(backend, "supports_sharedmem", False)  # threads, which the pool has already
        or not backend.supports_return_generator
    ):
        return 0
    n_workers = backend.effective_n_jobs(n_jobs)
    return n_workers if n_workers > 1 else 0  # joblib itself would run one job here


def _run_here(network):
    """Return what runs a network in this process."""
    run = _run_on_cpu if network.runtime.on_cpu else _run_on_accelerator
    return partial(run, network.runner())


def _run_on_workers(n_workers, job, images, digests, work, batch_size):
    """Yield (key, row or UnreadableImageError) from joblib's workers, which embed chunks of images.

    Paths that a worker does not see are sent as bytes.
    """
    packed = dumps(job)
    name, as_bytes, n_deaths = blake2b(packed).digest(), False, 0
    if len(packed) > _LARGE:  # backends send an array to each worker once
        packed = np.frombuffer(packed, np.uint8)
    n_rows = sum(len(wanted) for _, wanted in work)
    most = min(4 * batch_size, n_rows // (4 * n_workers)) * len(work) // n_rows
    most = most // job[0].runtime.rows * job[0].runtime.rows or max(1, most)  # full batches
    chunks = {start: work[start : start + most] for start in range(0, len(work), most)}

    def tasks():
        for start, chunk in list(chunks.items()):
            some = {index: _portable(images[index], as_bytes) for index, _ in chunk}
            known = {index: digests[index] for index in some}
            yield joblib.delayed(_run_chunk)(
                start, name, packed, some, known, chunk, batch_size, not as_bytes
            )

    while chunks:
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        try:
            with closing(parallel(tasks())) as results:
                for start, settled in results:
                    if settled is None:
                        as_bytes = True
                    else:
                        del chunks[start]
                        yield from settled
        except (BrokenProcessPool, CancelledError):  # a worker died, in Dask with its array
            n_deaths += 1
            if n_deaths == _MAX_DEATHS:
                raise


def _portable(image, as_bytes):
    """Return an image for another process, which may have another working directory."""
    if (path := image_name(image)) is None:
        return image
    try:
        return read_file(path) if as_bytes else os.path.abspath(path)
    except UnreadableImageError:
        return path


def _run_chunk(start, name, packed, images, digests, work, batch_size, needs_paths):
    """Return (start, rows and errors by key), or (start, None) if this machine lacks a file."""
    paths = filter(None, map(image_name, images.values()))
    if needs_paths and not all(map(os.path.exists, paths)):
        return start, None
    job = _received.get(name, lambda: pickle.loads(packed))
    with single_threaded_kernels():
        return start, list(_run_here(job[0])(job, images, digests, work, batch_size))


def _decode(job, images, digests, item):
    """Return (key, pixels or UnreadableImageError) of the missing views of one image."""
    (network, views, max_pixels), (index, wanted), frames = job, item, []
    preprocessing = network.preprocessing
    try:
        min_side = preprocessing.min_decoded_side
        pixels = decode_image(images[index], max_pixels, digests[index], min_side)
    except UnreadableImageError as error:
        return [(key, error) for key, _ in wanted]
    for key, number in wanted:
        try:
            frame = views.apply(pixels.clone(), digests[index], number) if number else pixels
            frames.append((key, fit_to_network(frame, preprocessing)))
        except UnreadableImageError as error:
            frames.append((key, error))
    return frames


def _run_on_cpu(runner, job, images, digests, work, batch_size):
    """Yield (key, row or UnreadableImageError) in order of completion."""
    network, decode = job[0], partial(_decode, job, images, digests)
    rows, n_tasks = network.runtime.rows, 2 * thread_share()  # so threads never wait for the caller
    n_views = min(_HANDFUL, batch_size // 2 // n_tasks)
    limit = max(1, min(n_tasks, batch_size // 2 // rows))
    handfuls = _handfuls(work, rows, n_views, n_tasks)
    pool, running, done = shared_pool(), set(), SimpleQueue()
    try:
        while True:
            for handful in islice(handfuls, limit - len(running)):
                future = pool.submit(_embed_handful, decode, network, runner, handful)
                running.add(future)
                # `concurrent.futures.wait` would lock all futures each time one is done.
                future.add_done_callback(done.put)
            if not running:
                return
            future = done.get()
            running.remove(future)
            yield from future.result()
    finally:
        _end(running)


def _handfuls(work, rows, most, n_tasks):
    """Yield what a thread takes: whole passes, fewer towards the end, so that all end together."""
    left = sum(len(wanted) for _, wanted in work)
    handful, size = [], 0
    for item in work:
        handful.append(item)
        size += len(item[1])
        enough = max(rows, min(most, left // n_tasks) // rows * rows)
        if size >= 2 * enough or (size >= enough and size % rows == 0):
            yield handful
            handful, left, size = [], left - size, 0
    if handful:
        yield handful


def _embed_handful(decode, network, runner, handful):
    """Decode and embed; the work of one thread of the pool on a CPU."""
    frames = [frame for item in handful for frame in decode(item)]
    results, good = _split(frames)
    for start in range(0, len(good), network.runtime.rows):
        keys, pixels = zip(*good[start : start + network.runtime.rows], strict=True)
        rows = runner(_stack(pixels, network.runtime.rows))
        results += zip(keys, _checked(rows, network), strict=False)
    return results


def _split(frames):
    """Split (key, pixels or UnreadableImageError) into the unreadable ones and the others."""
    bad = [frame for frame in frames if isinstance(frame[1], UnreadableImageError)]
    return bad, [frame for frame in frames if not isinstance(frame[1], UnreadableImageError)]


def _stack(frames, rows, *, pinned=False):
    """Return a uint8 batch of full size, with the channels last in memory as in images."""
    if rows == 1 and not pinned:
        return frames[0][None]
    import torch

    _, height, width = frames[0].shape
    batch = torch.zeros(rows, height, width, 3, dtype=torch.uint8, pin_memory=pinned)
    batch = batch.permute(0, 3, 1, 2)
    for row, frame in enumerate(frames):
        batch[row] = frame
    return batch


def _checked(rows, network):
    """Check rows and return them as an array: a custom module may return anything."""
    expected = network.runtime.rows, network.n_features
    if tuple(rows.shape) != expected:
        raise ValueError(
            f"The backbone {network.name!r} gave an output of shape {tuple(rows.shape)} for "
            f"{network.runtime.rows} images; expected {expected}."
        )
    rows = np.asarray(rows)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"The backbone {network.name!r} gave numbers that are not finite, in "
            f"{network.runtime.precision}. Check its weights; in half precision, try "
            'precision="float32".'
        )
    return rows


def _run_on_accelerator(runner, job, images, digests, work, batch_size):
    """Yield (key, row or UnreadableImageError) as they are done."""
    network, decode = job[0], partial(_decode, job, images, digests)
    device, rows = network.runtime.device, network.runtime.rows
    pinned, running = device.startswith("cuda"), None
    with closing(_decoded_ahead(decode, work, rows)) as stream:
        while (frames := list(islice(stream, rows))) or running:
            bad, good = _split(frames)
            yield from bad
            previous, running = running, None
            if good:
                keys, pixels = zip(*good, strict=True)
                pixels = _stack(pixels, rows, pinned=pinned)
                # The device works on this batch while the caller gets the one before.
                running = keys, pixels, runner(pixels.to(device, non_blocking=pinned))
            if previous:
                keys, _, result = previous
                yield from zip(keys, _checked(result.cpu(), network), strict=False)


def _decoded_ahead(decode, work, rows):
    """Yield (key, pixels or UnreadableImageError); the pool decodes a batch ahead."""
    pool, n_threads, now, ahead = shared_pool(), thread_share(), [], []
    try:
        for group in [*_handfuls(work, rows, rows, 1), []]:
            # Slices instead of single images, so that no more tasks wait than there are threads.
            parts = [group[start::n_threads] for start in range(min(n_threads, len(group)))]
            now, ahead = ahead, [pool.submit(lambda p: list(map(decode, p)), p) for p in parts]
            for task in now:
                for frames in task.result():
                    yield from frames
    finally:
        _end(now + ahead)


def _end(tasks):
    """Cancel tasks, and wait for those that have begun."""
    for task in tasks:
        task.cancel()
    wait(tasks)
