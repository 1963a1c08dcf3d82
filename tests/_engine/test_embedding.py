"""`embed_images`: each image is decoded once, each view goes through a network once."""

import sys
import time
import traceback
from hashlib import blake2b

import numpy as np
import pytest
from torch import nn

from sktransfer import ImageEmbedder
from sktransfer._engine import (
    Network,
    PixelNetwork,
    Runtime,
    _embedding,
    embed_images,
)
from sktransfer.backbones import Preprocessing
from sktransfer.cache import cache_info
from sktransfer.datasets import make_shapes
from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import decode_image, fit_to_network

SMALL = Preprocessing(8, None, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def images():
    return list(make_shapes(n_samples=21, image_size=40, random_state=0).data)


class Rolled:
    """Views: number 0 is the image, the others are rolled by their number; counts its work."""

    def __init__(self, n_views, broken=()):
        self.n_views, self.broken, self.applied = n_views, broken, []

    def __len__(self):
        return self.n_views

    def digest(self, image_digest, number):
        if number == 0:
            return image_digest
        return blake2b(image_digest + bytes([number]), digest_size=20).digest()

    def apply(self, pixels, image_digest, number):
        if number in self.broken:
            raise UnreadableImageError(f"view {number} fails")
        self.applied.append(number)
        return pixels.roll(number, 2)


def network(rows=4, device="cpu"):
    """Mean, per channel, of the left half of an image."""

    class Left(nn.Module):
        def forward(self, pixels):
            return pixels[..., : pixels.shape[-1] // 2].mean((2, 3))

    runtime = Runtime(device, "float32", "torch", rows=rows)
    return Network("left", "left half", 3, SMALL, runtime, Left, custom_module=True)


def expected_row(image, number):
    pixels = fit_to_network(decode_image(image).roll(number, 2), SMALL)
    return (pixels[..., :4] / 255).mean((1, 2)).numpy()


@pytest.fixture
def decoded(monkeypatch):
    """Every image that is decoded."""
    seen, decode = [], _embedding.decode_image
    monkeypatch.setattr(
        _embedding, "decode_image", lambda image, *args: seen.append(image) or decode(image, *args)
    )
    return seen


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("n_views", [1, 3, 9])
def test_an_image_is_decoded_once_for_its_views(images, decoded, tmp_path, rows, n_views):
    found, failures = embed_images(images, network(rows), views=Rolled(n_views), cache=tmp_path)
    assert found.shape == (21, n_views, 3) and failures == {}
    assert len(decoded) == 21
    expected = [[expected_row(image, number) for number in range(n_views)] for image in images]
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    views = Rolled(n_views + 2)
    more, _ = embed_images(images, network(rows), views=views, cache=tmp_path)
    assert (more[:, :n_views] == found).all()
    assert set(views.applied) == {n_views, n_views + 1}
    assert len(decoded) == 42


def test_numbers_choose_views_of_each_image(images, decoded):
    numbers = np.random.default_rng(0).integers(0, 5, (21, 2))
    found, _ = embed_images(images, network(), views=Rolled(5), numbers=numbers)
    expected = [
        [expected_row(image, number) for number in row]
        for image, row in zip(images, numbers, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    order = np.random.default_rng(1).permutation(21)
    again, _ = embed_images(
        [images[i] for i in order], network(), views=Rolled(5), numbers=numbers[order]
    )
    assert (again == found[order]).all()


def test_equal_images_share_their_views(images, decoded):
    found, _ = embed_images(
        [images[0]] * 5, network(), views=Rolled(2), numbers=[[0], [1], [0], [1], [1]]
    )
    assert len(decoded) == 1
    assert (found[0] == found[2]).all() and (found[1] == found[3]).all()


def test_failures_are_named_by_image(images):
    broken = [images[0], b"no image", images[1]]
    found, failures = embed_images(broken, network(), views=Rolled(3, broken={2}))
    assert list(failures) == [0, 1, 2]
    assert np.isnan(found[1]).all() and np.isnan(found[:, 2]).all()
    assert not np.isnan(found[[0, 2], :2]).any()
    found, failures = embed_images(broken, PixelNetwork(SMALL))
    assert list(failures) == [1] and (found[1] == 0).all()


def test_pixels_are_rows_of_bytes(images, tmp_path):
    found, _ = embed_images(images, PixelNetwork(SMALL), cache=tmp_path)
    assert found.dtype == np.uint8
    expected = [fit_to_network(decode_image(image), SMALL).flatten().numpy() for image in images]
    assert (found == expected).all()
    assert (embed_images(images, PixelNetwork(SMALL), cache=tmp_path)[0] == found).all()
    assert cache_info(tmp_path).misses == 21


@pytest.mark.parametrize("rows", [4, 64])
def test_an_accelerator_gets_full_batches(images, rows, monkeypatch):
    """The CPU plays the accelerator."""
    sizes = []

    class Seen(Network):
        def runner(self):
            run = super().runner()
            return lambda pixels: (
                sizes.append(int((pixels.amax((1, 2, 3)) > 0).sum())) or run(pixels)
            )

    left = network(rows)
    seen = Seen("left", "left half", 3, SMALL, left.runtime, left.load, custom_module=True)
    monkeypatch.setattr(Runtime, "on_cpu", False)
    mixed = [*images[:5], b"no image", *images[5:]]
    found, failures = embed_images(mixed, seen, views=Rolled(3))
    assert list(failures) == [5]
    # The last batch and those with a view of the bad image are not full.
    assert sum(sizes) == 63 and sum(size < rows for size in sizes) <= 3
    monkeypatch.undo()
    expected, _ = embed_images(mixed, left, views=Rolled(3))
    np.testing.assert_array_equal(found, expected)


def test_an_error_on_an_accelerator_leaves_no_task_behind(images, monkeypatch):
    begun, ended = [], []

    class Failing(Network):
        def runner(self):
            return lambda pixels: 1 / 0

    def decode(image, *args):
        begun.append(image)
        time.sleep(0.02)
        ended.append(image)
        return decode_image(image)

    left = network(4)
    failing = Failing("left", "left half", 3, SMALL, left.runtime, left.load, custom_module=True)
    monkeypatch.setattr(Runtime, "on_cpu", False)
    monkeypatch.setattr(_embedding, "decode_image", decode)
    with pytest.raises(ZeroDivisionError) as caught:
        embed_images(images, failing)
    n_begun = len(begun)
    time.sleep(0.1)
    assert caught and len(begun) == len(ended) == n_begun < len(images)


def test_progress_adds_up(images, tmp_path):
    embed_images(images[:5], network(), cache=tmp_path)
    counts = []
    mixed = [*images, images[0], b"no image", "no-such-file.jpg"]
    embed_images(mixed, network(), views=Rolled(2), cache=tmp_path, progress=counts.append)
    assert counts[:2] == [6 + 2, 0]  # those in the cache, and the views of the missing file
    assert sum(counts) == 2 * len(mixed)


def test_few_rows_are_lost_when_a_network_fails(images, tmp_path):
    class Failing(nn.Module):
        n_seen = 0

        def forward(self, pixels):
            Failing.n_seen += len(pixels)
            if Failing.n_seen > 12:
                raise ZeroDivisionError
            return pixels.mean((2, 3))

    runtime = Runtime("cpu", "float32", "torch", rows=1)
    failing = Network("f", "f", 3, SMALL, runtime, Failing, custom_module=True)
    with pytest.raises(ZeroDivisionError):
        embed_images(images, failing, cache=tmp_path, batch_size=4)
    assert cache_info(tmp_path).backbones[0].n_rows >= 8


def test_a_row_is_a_few_frames_away_from_transform(images):
    """From `ImageEmbedder.transform` to the network: at most seven frames in three files."""
    frames = []

    class Watched(nn.Module):
        preprocessing = SMALL

        def forward(self, pixels):
            here = traceback.extract_stack()
            if any(frame.name == "_embed_handful" for frame in here):
                frames.extend(
                    frame
                    for thread in sys._current_frames().values()
                    for frame in traceback.extract_stack(thread)
                )
            return pixels.mean((2, 3))

    ImageEmbedder(Watched(), cache=None).fit(images).transform(images[:1])
    ours = {
        (frame.filename, frame.name)
        for frame in frames
        if "/sktransfer/" in frame.filename and "<" not in frame.name
    }
    assert len(ours) <= 7, ours
    assert len({file for file, _ in ours}) <= 3, ours
    assert any(name == "transform" for _, name in ours)


@pytest.mark.parametrize(("rows", "most"), [(1, 8), (2, 7), (4, 3), (8, 8)])
def test_threads_take_whole_passes_and_few_of_them_at_the_end(rows, most):
    work = [(index, [(b"key", 0)]) for index in range(101)]
    handfuls = list(_embedding._handfuls(work, rows, most, n_tasks=8))
    assert [item for handful in handfuls for item in handful] == work
    sizes = [len(handful) for handful in handfuls]
    assert max(sizes) == max(rows, most // rows * rows)
    assert all(size % rows == 0 for size in sizes[:-1])
    assert sizes[-1] <= rows
