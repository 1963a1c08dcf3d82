"""Run a frozen network over images at the machine's speed.

On a CPU a task is a handful of images: one thread of the shared pool reads, decodes, resizes and
embeds them. As many tasks run as there are cores, so that decoding and inference fill each other's
gaps with nothing handed over between threads. On an accelerator the pool only decodes, one batch
ahead of the device.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from functools import partial
from itertools import islice

import numpy as np
import torch

from .._utils._threads import map_unordered, shared_pool, single_threaded_kernels, thread_share
from ..backbones import load_backbone
from ..exceptions import UnreadableImageError
from ..images import decode_image, fit_to_network
from ._runners import OpenVinoRunner, TorchRunner

#: Runners kept ready for the next call; each holds a network of its own.
_MOST_RUNNERS = 4

#: Images that a thread takes at a time, at most: handing them over one by one takes longer than a
#: small network.
_HANDFUL = 8


class _Runners:
    """Networks ready to run, shared by all threads; the least recently used goes first."""

    def __init__(self):
        self._lock = threading.RLock()
        self._runners = OrderedDict()

    def get(self, key, build):
        with self._lock:
            if key not in self._runners:
                self._runners[key] = build()
            self._runners.move_to_end(key)
            while len(self._runners) > _MOST_RUNNERS:
                self._runners.popitem(last=False)
            return self._runners[key]


_runners = _Runners()
_runners_of_parents = []


def _begin_anew():
    """In a forked child: build runners anew, since the threads of the parent's are not here.

    The parent's are kept, unused: OpenVINO would wait for those threads for ever when one of its
    networks is destroyed.
    """
    global _runners
    _runners_of_parents.append(_runners)
    _runners = _Runners()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def runner_for(spec, runtime, model_dir=None):
    """Return what runs the network of ``spec``, building and loading it at the first use.

    Parameters
    ----------
    spec : BackboneSpec
        Which network.
    runtime : Runtime
        Where and how.
    model_dir : path-like or None
        Where OpenVINO's conversions are kept for later processes; None keeps none.

    Returns
    -------
    callable
        uint8 (rows, 3, S, S) to float32 (rows, n_features), on ``runtime.device`` or the CPU.
    """
    n_threads = thread_share() if runtime.engine == "openvino" else 1
    name = _runner_name(spec, runtime)
    own = spec.module is not None
    preprocessing = spec.preprocessing
    load_network = partial(load_backbone, spec, warn=False)  # the embedder warns, also when cached

    def build():
        if runtime.engine == "openvino":
            return OpenVinoRunner(
                load_network,
                preprocessing,
                runtime,
                n_threads=n_threads,
                model_dir=None if own else model_dir,
                name=name,
            )
        return TorchRunner(load_network(), preprocessing, runtime, custom_module=own)

    # In a forked child, kernels with more threads than one would crash.
    with single_threaded_kernels():
        return _runners.get((name, n_threads), build)


def _runner_name(spec, runtime):
    """Name, also of a file, that is equal exactly for runners that do the same."""
    what = f"{spec.fingerprint}|{spec.preprocessing.key()}|{runtime.key()}|{runtime.device}|NHWC"
    return f"{spec.name.replace(':', '_')}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def embed(images, positions, runner, spec, runtime, *, digests, max_pixels, batch_size):
    """Embed some of the images.

    Parameters
    ----------
    images : list
        Images of any kind.
    positions : list of int
        Which of them.
    runner : callable
        From `runner_for`.
    spec : BackboneSpec
        Whose preprocessing is used.
    runtime : Runtime
        That of the runner.
    digests : list of bytes
        What was digested of each image; a file that changed since is refused.
    max_pixels : int
        Larger images are refused undecoded.
    batch_size : int
        At most half as many images are under way at a time (on a CPU, and at least one pass).

    Yields
    ------
    (int, ndarray of shape (n_features,) or UnreadableImageError)
        Position and embedding of each image, as they are done.
    """
    read = partial(_read, images, digests, spec.preprocessing, max_pixels)
    with single_threaded_kernels():
        if runtime.on_cpu:
            # More than there are threads, so that these go on while the caller stores what is done.
            n_tasks = 2 * thread_share()
            most = min(_HANDFUL, batch_size // 2 // n_tasks)
            limit = max(1, min(n_tasks, batch_size // 2 // runtime.rows))
            task = partial(_embed_handful, read, runner, spec, runtime)
            handfuls = _handfuls(positions, runtime.rows, most, n_tasks)
            for results in map_unordered(task, handfuls, limit):
                yield from results
        else:
            groups = _groups(positions, runtime.rows)
            yield from _embed_on_accelerator(read, runner, spec, runtime, groups)


def _groups(positions, rows):
    positions = iter(positions)
    while group := list(islice(positions, rows)):
        yield group


def _handfuls(positions, rows, most, n_tasks):
    """Yield what one thread takes at a time: whole passes, fewer of them towards the end.

    So no thread is left with much to do when the others are done.
    """
    start = 0
    while start < len(positions):
        n_samples = min(most, (len(positions) - start) // n_tasks)
        end = start + max(rows, n_samples // rows * rows)
        yield positions[start:end]
        start = end


def _read(images, digests, preprocessing, max_pixels, position):
    """Decode one image and fit it to the network, or return why that cannot be done."""
    try:
        frame = decode_image(images[position], max_pixels, digests[position])
        return fit_to_network(frame, preprocessing)
    except UnreadableImageError as error:
        return error


def _fill(frames, spec, runtime, *, pinned=False):
    """One uint8 batch of full size; rows without an image are black and their result unused.

    In memory the channels come last, as they do in images: then nothing has to be sorted.
    """
    if runtime.rows == 1 and not pinned:
        return frames[0][None]
    size = spec.preprocessing.image_size
    batch = torch.zeros(runtime.rows, size, size, 3, dtype=torch.uint8, pin_memory=pinned)
    batch = batch.permute(0, 3, 1, 2)
    for row, frame in enumerate(frames):
        batch[row] = frame
    return batch


def _sort_out(group, frames):
    """Split a group into (position, reason) of the unreadable and what the network shall see."""
    pairs = list(zip(group, frames, strict=True))
    bad = [(p, frame) for p, frame in pairs if isinstance(frame, UnreadableImageError)]
    good = [(p, frame) for p, frame in pairs if not isinstance(frame, UnreadableImageError)]
    return bad, [p for p, _ in good], [frame for _, frame in good]


def _embed_handful(read, runner, spec, runtime, group):
    """Work of one thread of the pool on a CPU."""
    results, positions, frames = _sort_out(group, [read(position) for position in group])
    for start in range(0, len(frames), runtime.rows):
        some = slice(start, start + runtime.rows)
        rows = _checked(runner(_fill(frames[some], spec, runtime)), spec, runtime)
        results += zip(positions[some], rows, strict=False)
    return results


def _checked(rows, spec, runtime):
    """Embeddings as an array, after a look at their shape: custom modules may return anything."""
    if tuple(rows.shape) != (runtime.rows, spec.n_features):
        raise ValueError(
            f"The backbone {spec.name!r} gave an output of shape {tuple(rows.shape)} for "
            f"{runtime.rows} images; expected ({runtime.rows}, {spec.n_features})."
        )
    rows = np.asarray(rows)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"The backbone {spec.name!r} gave numbers that are not finite, in {runtime.precision}. "
            'Check its weights; in half precision, try precision="float32".'
        )
    return rows


def _embed_on_accelerator(read, runner, spec, runtime, groups):
    """Decode in the pool, one batch ahead of the device, and copy while it computes."""
    pinned, n_threads = runtime.device.startswith("cuda"), thread_share()

    def decoded():
        """Yield (group, images), each group decoded while the one before is being embedded."""
        pool, ahead = shared_pool(), None
        for group in groups:
            # Slices, not single images: never more tasks at work than our share of threads.
            parts = [group[start::n_threads] for start in range(min(n_threads, len(group)))]
            tasks = [pool.submit(lambda part: [(p, read(p)) for p in part], p) for p in parts]
            if ahead is not None:
                yield ahead
            ahead = group, tasks
        if ahead is not None:
            yield ahead

    waiting = None
    for group, tasks in decoded():
        frames = dict(pair for task in tasks for pair in task.result())
        bad, positions, good = _sort_out(group, [frames[position] for position in group])
        yield from bad
        if good:
            pixels = _fill(good, spec, runtime, pinned=pinned)
            rows = runner(pixels.to(runtime.device, non_blocking=pinned))
            # The device works on this batch while the one before is handed over.
            waiting, previous = (positions, pixels, rows), waiting
            yield from _handed_over(previous, spec, runtime)
    yield from _handed_over(waiting, spec, runtime)


def _handed_over(batch, spec, runtime):
    if batch is not None:
        positions, _, rows = batch
        yield from zip(positions, _checked(rows.cpu(), spec, runtime), strict=False)
