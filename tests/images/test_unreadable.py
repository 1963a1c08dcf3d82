"""Broken and hostile images give a reason, and nothing else happens."""

import os
import signal
import stat
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_data import HEIGHT, WIDTH, encode, png, smooth_pixels
from PIL import Image

from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import (
    decode_image,
    digest_image,
    digest_images,
    image_problems,
)
from sktransfer.images._files import read_file


@pytest.fixture
def rgb():
    return Image.fromarray(smooth_pixels())


@pytest.fixture
def pillow_only(monkeypatch):
    monkeypatch.setattr(torch.ops, "image", SimpleNamespace())


@contextmanager
def without_root():
    """Give up root's right to read everything, for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def reason_of(image, **options):
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(image, **options)
    return str(caught.value)


def digest_reason_of(image):
    with pytest.raises(UnreadableImageError) as caught:
        digest_image(image)
    return str(caught.value)


def test_files_that_cannot_be_had_say_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.jpg").write_bytes(b"x")
    (tmp_path / "directory.jpg").mkdir()
    for read in (reason_of, digest_reason_of):
        assert f"relative to {tmp_path}" in read("missing.jpg")
        assert read(tmp_path / "missing.jpg") == "no such file"
        assert "download" in read("https://example.org/cat.jpg")
        assert "expanduser" in read("~/cat.jpg")
        assert "itself a file" in read("file.jpg/inside.jpg")
        assert "directory" in read("directory.jpg")
        assert "cannot be read" in read("null\0byte.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_a_file_without_permission_says_so(tmp_path, rgb):
    path = tmp_path / "secret.jpg"
    path.write_bytes(encode(rgb, "JPEG"))
    path.chmod(0)
    with without_root():
        assert "no permission" in reason_of(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in reason_of(tmp_path / "pipe.jpg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is a letter, not an image", "text, not an image"),
        (b"<!DOCTYPE html><html>", "error page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "sktransfer[heic]"),
        (bytes(range(200, 256)), "does not recognize the format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is a drawing"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_files_that_are_no_image_say_what_they_are(tmp_path, monkeypatch, content, reason):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason in reason_of(path)


def test_an_image_that_failed_once_fails_again():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = bytearray(encode(Image.fromarray(noise), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(byte ^ 0x5A for byte in data[middle : middle + 8])
    image = Image.open(BytesIO(data))
    assert len({reason_of(image) for _ in range(3)}) <= 2  # Pillow would give half an image


@pytest.mark.parametrize("mask", [False, True])
def test_a_masked_array_asks_for_values(mask):
    assert "filled" in reason_of(np.ma.masked_array(np.random.rand(8, 8, 3), mask=mask))


TRUNCATED = [
    ("JPEG", 0.3),
    ("JPEG", 0.6),
    ("JPEG", 0.95),
    ("PNG", 0.6),
    ("WEBP", 0.6),
    ("GIF", 0.6),
]


def check_truncated(format, share):
    data = encode(Image.fromarray(smooth_pixels(200, 300)), format)
    reason = reason_of(data[: int(share * len(data))])
    assert "again" in reason


@pytest.mark.parametrize(("format", "share"), TRUNCATED)
def test_a_truncated_file_is_an_error(format, share):
    check_truncated(format, share)


@pytest.mark.parametrize(("format", "share"), TRUNCATED)
def test_a_truncated_file_is_an_error_for_pillow(pillow_only, format, share):
    check_truncated(format, share)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_random_damage_gives_an_image_or_a_reason_and_no_warning(format):
    data = bytearray(encode(Image.fromarray(smooth_pixels(60, 80)), format))
    rng = np.random.default_rng(0)
    reasons = 0
    for _ in range(60):
        damaged = data.copy()
        for position in (*rng.integers(0, 60, 3), *rng.integers(0, len(data), 5)):
            damaged[position] = rng.integers(256)
        try:
            assert decode_image(damaged, max_pixels=10_000).shape[0] == 3
        except UnreadableImageError as error:
            assert str(error)
            reasons += 1
    assert reasons > 10


def test_a_huge_header_is_refused_before_any_memory_is_taken():
    reason = reason_of(png(60_000, 60_000))
    assert "max_pixels=100,000,000" in reason


def test_the_pixel_limit_is_exact_and_a_parameter(rgb):
    for image in (encode(rgb, "JPEG"), encode(rgb, "GIF"), rgb, smooth_pixels()):
        assert decode_image(image, max_pixels=HEIGHT * WIDTH).shape == (3, HEIGHT, WIDTH)
        reason = reason_of(image, max_pixels=HEIGHT * WIDTH - 1)
        assert "43 x 29" in reason
        assert "max_pixels=1,246" in reason


def test_pillows_own_limit_is_named_where_it_is_the_lower_one():
    reason = reason_of(png(60_000, 60_000), max_pixels=10**10)
    assert "PIL.Image.MAX_IMAGE_PIXELS" in reason


def test_pillows_warning_of_large_images_does_not_leak():
    header = png(12_000, 8_000)  # above Pillow's limit for a warning, below ours
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(header))
    assert "cut off or damaged" in reason_of(header)


def test_decoding_in_threads_gives_the_same_and_leaves_the_warning_filters_alone(rgb):
    transparent = encode(rgb.convert("P"), "PNG", transparency=bytes(range(256)))
    images = [encode(rgb, "JPEG"), transparent, png(12_000, 8_000), b"text", rgb] * 20

    def decode(image):
        try:
            return decode_image(image).tolist()
        except UnreadableImageError as error:
            return str(error)

    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decode, images)) == [decode(image) for image in images[:5]] * 20
    assert warnings.filters == filters


def test_one_lazy_pillow_image_may_be_shared_by_threads(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(smooth_pixels(300, 400)).save(path)
    lazy = Image.open(path)
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(decode_image, [lazy] * 16))
    assert all(torch.equal(each, decoded[0]) for each in decoded)


def test_a_broken_lazy_pillow_image_is_an_unreadable_image():
    data = encode(Image.fromarray(smooth_pixels(200, 300)), "JPEG")
    for function in (decode_image, digest_image):
        with pytest.raises(UnreadableImageError, match="truncated"):
            function(Image.open(BytesIO(data[: len(data) // 2])))


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(200 << 30)  # takes no room on the disk
    for read in (digest_image, decode_image):
        with pytest.raises(UnreadableImageError, match="images have at most"):
            read(str(tmp_path / "huge.jpg"))


def test_a_file_that_grows_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    (tmp_path / "growing").write_bytes(b"0123456789")
    status = SimpleNamespace(st_mode=stat.S_IFREG, st_size=4)
    monkeypatch.setattr(os, "fstat", lambda file: status)
    assert read_file(tmp_path / "growing") == b"0123456789"


def test_a_file_that_changed_since_its_digest_is_not_used(tmp_path, rgb):
    path = tmp_path / "a.png"
    path.write_bytes(encode(rgb, "PNG"))
    digest = digest_image(path)
    assert decode_image(path, expected_digest=digest).shape == (3, HEIGHT, WIDTH)
    path.write_bytes(encode(rgb.rotate(180), "PNG"))
    with pytest.raises(UnreadableImageError, match="changed"):
        decode_image(path, expected_digest=digest)


# --- odd objects -----------------------------------------------------------------------------


class BrokenPath:
    """A path that cannot even say where it leads."""

    def __fspath__(self):
        raise RuntimeError("the share is not mounted")


def released():
    view = memoryview(b"\xff\xd8\xff")
    view.release()
    return view


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated them
        return torch.quantize_per_tensor(torch.ones(3, 4, 4), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (BrokenPath, "RuntimeError: the share is not mounted"),
        (released, "released memoryview"),
        (quantized, "quantized"),
        (lambda: np.array([[None, "a"]], dtype=object), "dtype object"),
        (lambda: np.zeros((4, 4), dtype="datetime64[s]"), "dtype datetime64"),
        (lambda: Image.new("RGB", (4, 4)).close, "not an image"),
    ],
    ids=["path", "memoryview", "quantized", "object", "datetime", "method"],
)
def test_an_odd_object_is_one_unreadable_image(tmp_path, make, reason):
    good = np.zeros((4, 4), dtype=np.uint8)
    first, odd, last = digest_images([good, make(), good], root=tmp_path)
    assert first == last == digest_image(good)
    assert reason in str(odd)
    assert reason in reason_of(make())
    assert image_problems([good, make()], {1: odd}) == [(1, None, str(odd))]


def test_a_strided_memoryview_is_read_like_its_bytes():
    data = encode(Image.fromarray(smooth_pixels()), "PNG")
    strided = memoryview(bytes(2 * len(data)))[::2]
    assert "format" in reason_of(strided)
    doubled = np.repeat(np.frombuffer(data, np.uint8), 2)
    strided = memoryview(doubled)[::2]
    assert digest_image(strided) == digest_image(data)
    assert torch.equal(decode_image(strided), decode_image(data))


def test_too_little_memory_for_one_file_spoils_no_other(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a.png", "large.png", "b.png")]
    for path in paths:
        path.write_bytes(encode(Image.fromarray(smooth_pixels()), "PNG"))
    read = os.read
    large = os.stat(paths[1]).st_ino

    def scarce(file, n_bytes):
        if os.fstat(file).st_ino == large:
            raise MemoryError
        return read(file, n_bytes)

    monkeypatch.setattr(os, "read", scarce)
    first, failed, last = digest_images(paths)
    assert first == last
    assert "not enough memory" in str(failed)
    assert "not enough memory" in reason_of(paths[1])


# --- forks -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_threads_decode_can_decode(monkeypatch):
    """Whatever the other threads hold at the fork: here all of it, as long as it takes."""
    inside, leave = threading.Event(), threading.Event()

    class Slow(Image.Image):
        def load(self):
            inside.set()
            leave.wait(60)
            return super().load()

    slow = Slow()
    slow.__dict__.update(Image.new("RGB", (4, 4)).__dict__)
    filters = list(warnings.filters)
    thread = threading.Thread(target=decode_image, args=(slow,))
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that hangs
        good = decode_image(Image.new("RGB", (4, 4))).shape == (3, 4, 4)
        os._exit(0 if good and warnings.filters == filters else 1)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
