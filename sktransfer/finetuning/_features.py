"""What the trained part of a network sees: outputs of the frozen part, or pixels.

Each image has one or more views. What the frozen part makes of a view does not change while the
upper part is trained, so it is computed once and kept where memory allows; where it does not,
pixels are kept, and where these are too many as well, images are read again in each epoch. The
numbers are the same bit by bit in all three cases (on a CPU), because a view depends on nothing but
its image, the augmentation, a seed and its number.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import nn

from .._engine import TORCH_DTYPES, NormalizedNetwork
from .._engine._torch import TorchRunner
from .._utils._threads import map_unordered, shared_pool, single_threaded_kernels, thread_share
from ..augmentation import Views as AugmentedViews
from ..images import decode_image, fit_to_network

__all__ = ["FrozenPart", "ViewReader", "Views", "batches"]


class ViewReader:
    """Read single views of images.

    Parameters
    ----------
    images : list
        Images of any kind.
    digests : list of bytes
        Digest of each image's content.
    preprocessing : Preprocessing
        How an image is fitted to the network.
    augmentation : Augmentation or None
        Random change, as `resolve_augmentation` returns it; None for images as they are.
    seed : int
        Of all views.
    max_pixels : int
        Larger images are refused undecoded.
    """

    def __init__(self, images, digests, preprocessing, augmentation, seed, max_pixels):
        self.images, self.digests, self.preprocessing = images, digests, preprocessing
        self.augmentation, self.seed, self.max_pixels = augmentation, seed, max_pixels

    def __call__(self, position, number):
        """Return uint8 (3, S, S)."""
        image, digest = self.images[position], self.digests[position]
        pixels = decode_image(image, self.max_pixels, digest)
        if self.augmentation is not None:
            views = AugmentedViews(self.augmentation, None, self.seed)
            pixels = views.apply(pixels, digest, number)
        return fit_to_network(pixels, self.preprocessing)


class FrozenPart:
    """Read views and run the frozen lower part of a network over them.

    Parameters
    ----------
    lower : torch.nn.Module or None
        The frozen part; None, or one without layers, leaves the pixels as they are.
    preprocessing : Preprocessing
        Its mean and standard deviation are used.
    runtime : Runtime
        Where and how it runs.
    custom_module : bool
        Whether the module is the user's own, which is run just as it is.
    """

    def __init__(self, lower, preprocessing, runtime, custom_module=False):
        self.runtime, self.side = runtime, preprocessing.image_size
        self.runner = None
        if lower is not None and any(True for _ in lower.parameters()):
            self.runner = TorchRunner(lower, preprocessing, runtime, custom_module=custom_module)
        self.normalise = NormalizedNetwork(nn.Identity(), preprocessing.mean, preprocessing.std).to(
            runtime.device
        )

    def without_layers(self):
        """Return what gives pixels only."""
        part = object.__new__(FrozenPart)
        part.__dict__.update(self.__dict__, runner=None)
        return part

    def template(self):
        """Return the result for one black image, for its shape and type."""
        pixels = torch.zeros(self.runtime.rows, 3, self.side, self.side, dtype=torch.uint8)
        return self.run(list(pixels))[:1]

    def run(self, images):
        """Return what the part makes of at most ``runtime.rows`` images."""
        pixels = torch.zeros(self.runtime.rows, 3, self.side, self.side, dtype=torch.uint8)
        for row, image in enumerate(images):
            pixels[row] = image
        if self.runner is None:
            return pixels[: len(images)]
        results = self.runner(pixels.to(self.runtime.device))[: len(images)]
        return results.to(TORCH_DTYPES[self.runtime.precision])

    def run_whole(self, pixels):
        """Return what the part makes of a batch of any size."""
        return self.runner(pixels.to(self.runtime.device, non_blocking=True))

    def fill(self, reader, items, out, progress=None):
        """Write the results for views ``(position, number)`` into the rows of ``out``."""
        groups = _groups(items, self.runtime.rows)
        if self.runtime.on_cpu:
            with single_threaded_kernels():
                task = partial(self._read_and_run, reader)
                for start, results in map_unordered(task, groups, thread_share() + 1):
                    _store(out, start, results, progress)
        else:
            for start, group in groups:
                images = _read_in_pool(reader, group)
                _store(out, start, self.run(images), progress)

    def _read_and_run(self, reader, group):
        start, items = group
        return start, self.run([reader(*item) for item in items])

    def prepared(self, batch):
        """Bring a batch to the device, normalised where it holds pixels."""
        batch = batch.to(self.runtime.device, non_blocking=True)
        return self.normalise(batch) if batch.dtype == torch.uint8 else batch


def _groups(items, rows):
    for start in range(0, len(items), rows):
        yield start, items[start : start + rows]


def _read_in_pool(reader, group):
    n_parts = min(thread_share(), len(group))
    parts = [group[start::n_parts] for start in range(n_parts)]
    tasks = [shared_pool().submit(lambda p: [reader(*item) for item in p], p) for p in parts]
    images = [None] * len(group)
    for start, task in enumerate(tasks):
        images[start::n_parts] = task.result()
    return images


def _store(out, start, results, progress):
    out[start : start + len(results)] = _rows(results)
    if progress is not None:
        progress(len(results))


def _rows(results):
    """Put channels last in fact, so that indexing keeps them so."""
    return results.permute(0, 2, 3, 1) if results.ndim == 4 else results


def _unrows(rows):
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows


class Views:
    """Views of images as the trained part of a network takes them.

    Parameters
    ----------
    reader : ViewReader
        Gives single views.
    n_samples : int
        How many images there are.
    n_views : int or None
        Views of each image that are drawn once and for all; None draws new ones in each epoch.
    frozen : FrozenPart
        What they pass through.
    memory_limit : int
        Bytes that may be kept.
    progress : callable or None, default=None
        Called with the numbers of views that were made ready to be kept.

    Attributes
    ----------
    kept : {"features", "pixels", "nothing"}
        What is kept: outputs of the frozen part, pixels, or nothing.
    n_bytes : int
        How much that is.
    """

    def __init__(self, reader, n_samples, n_views, frozen, memory_limit, progress=None):
        self.reader, self.n_views, self.frozen = reader, n_views, frozen
        self.rows, self.kept, self.n_bytes = None, "nothing", 0
        self.template = _rows(frozen.template())
        if n_views is not None:
            self._keep(n_samples, memory_limit, progress)

    def _keep(self, n_samples, memory_limit, progress):
        """Keep the outputs of the frozen part if there is room, or else pixels, or nothing."""
        n_rows = n_samples * self.n_views
        for source, kept in self._sources():
            template = _rows(source.template())
            n_bytes = n_rows * template.numel() * template.element_size()
            if n_bytes > memory_limit:
                continue
            place = _place(source, n_bytes)
            self.rows = torch.empty(
                (n_rows, *template.shape[1:]), dtype=template.dtype, device=place
            )
            self.kept, self.n_bytes = kept, n_bytes
            items = [(p, v) for p in range(n_samples) for v in range(self.n_views)]
            source.fill(self.reader, items, self.rows, progress)
            return

    def _sources(self):
        if self.frozen.runner is not None:
            yield self.frozen, "features"
        yield self.frozen.without_layers(), "pixels"

    def numbers(self, positions, epoch, rng):
        """Draw which view of each image an epoch sees."""
        if self.n_views is None:
            return np.full(len(positions), epoch)
        return rng.integers(self.n_views, size=len(positions))

    def batch(self, positions, numbers):
        """Return a batch on the device: outputs of the frozen part, or normalised pixels."""
        computed = self.kept == "features" or self.frozen.runner is None
        if computed and self.rows is not None:
            return self.frozen.prepared(_unrows(self._kept(positions, numbers)))
        if self.rows is not None and not self.frozen.runtime.on_cpu:
            return self.frozen.run_whole(_unrows(self._kept(positions, numbers)))
        reader = self.reader if self.rows is None else self._kept_image
        return self._computed(reader, list(zip(positions.tolist(), numbers.tolist(), strict=True)))

    def _kept(self, positions, numbers):
        index = torch.from_numpy(positions * self.n_views + numbers)
        return self.rows[index.to(self.rows.device)]

    def _kept_image(self, position, number):
        return self.rows[position * self.n_views + number].permute(2, 0, 1)

    def _computed(self, reader, items):
        out = torch.empty((len(items), *self.template.shape[1:]), dtype=self.template.dtype)
        self.frozen.fill(reader, items, out)
        return self.frozen.prepared(_unrows(out))


def _place(frozen, n_bytes):
    """Keep rows on the GPU where half of its free memory is enough, otherwise in main memory."""
    device = torch.device(frozen.runtime.device)
    if device.type == "cuda" and 2 * n_bytes <= torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


def batches(views, order, numbers, batch_size):
    """Yield (positions, batch); a last batch of one image joins the one before it.

    On an accelerator the next batch is made ready while this one is trained on.
    """
    parts = list(_parts(len(order), batch_size))

    def take(part):
        return order[part], views.batch(order[part], numbers[part])

    if views.frozen.runtime.on_cpu or views.kept == "features":
        yield from map(take, parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="sktransfer-ahead") as one_ahead:
        waiting = None
        for part in parts:
            waiting, ready = one_ahead.submit(take, part), waiting
            if ready is not None:
                yield ready.result()
        yield waiting.result()


def _parts(n_rows, batch_size):
    starts = list(range(0, n_rows, batch_size))
    if len(starts) > 1 and n_rows - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], n_rows], strict=True):
        yield slice(start, end)
