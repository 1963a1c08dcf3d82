"""What an image may be, and what becomes of each kind, good or broken."""

import os
import stat
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.utils import Bunch
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import _images as module
from sktransfer.images import (
    check_images,
    decode_image,
    digest_image,
    fit_to_network,
    image_name,
)
from sktransfer.images._files import read_file

HEIGHT, WIDTH = 29, 43


def smooth_pixels(height=HEIGHT, width=WIDTH, seed=0):
    """Colour pixels with some detail, as JPEG and resizing expect of photographs."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(image, format, **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width, height, *, depth=8, color=0, rows=b"", extra=b""):
    """Write a PNG by hand, for what Pillow does not write; without rows it is a mere header."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def as_array(tensor):
    assert tensor.dtype == torch.uint8
    assert tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy()


def by_pillow(data):
    """Decode the way everybody does by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))


@pytest.fixture
def rgb():
    return Image.fromarray(smooth_pixels())


@pytest.fixture
def pillow_only(monkeypatch):
    monkeypatch.setattr(module, "_fast_decoder", lambda header: None)


# --- containers ------------------------------------------------------------------------------

PATHS = ["a.jpg", "b.png", "c.webp"]


@pytest.mark.parametrize(
    "container",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        np.array(PATHS, dtype=object)[:, None],
        np.array(PATHS)[:, None],
        pd.Series(PATHS, index=[7, 3, 5]),
        pd.Series(PATHS, dtype=object),
        pd.Series(PATHS, dtype="category"),
        pd.DataFrame({"path": PATHS}),
    ],
    ids=lambda container: f"{type(container).__name__}-{getattr(container, 'shape', '')}",
)
def test_containers_of_paths_become_a_flat_list(container):
    images = check_images(container)
    assert images == PATHS
    assert all(type(path) is str for path in images)


def test_polars_containers_become_a_flat_list():
    polars = pytest.importorskip("polars")
    assert check_images(polars.Series(PATHS)) == PATHS
    assert check_images(polars.DataFrame({"path": PATHS})) == PATHS


@pytest.mark.parametrize("shape", [(4, 8, 9), (4, 8, 9, 1), (4, 8, 9, 3), (4, 8, 9, 4)])
def test_stacked_arrays_give_views(shape):
    stack = np.zeros(shape, dtype=np.uint8)
    images = check_images(stack)
    assert [image.shape for image in images] == [shape[1:]] * 4
    assert all(np.shares_memory(image, stack) for image in images)


@pytest.mark.parametrize(
    "tensor", [torch.ones(3, 4, 4).to_sparse(), torch.ones(3, 4, 4, device="meta")]
)
def test_tensors_without_memory_are_unreadable(tensor):
    for read in (digest_image, decode_image):
        with pytest.raises(UnreadableImageError, match="sparse or has no memory"):
            read(tensor)


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(200 << 30)  # takes no room on the disk
    for read in (digest_image, decode_image):
        with pytest.raises(UnreadableImageError, match="more than an image has"):
            read(str(tmp_path / "huge.jpg"))


def test_tensor_batches_give_views():
    stack = torch.zeros(4, 3, 8, 9, dtype=torch.uint8)
    images = check_images(stack)
    assert [tuple(image.shape) for image in images] == [(3, 8, 9)] * 4
    stack += 1
    assert all((image == 1).all() for image in images)


def test_anything_that_turns_into_an_array_is_taken():
    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.zeros((2, 8, 9), dtype=np.uint8)

    assert len(check_images(Wrapped())) == 2


def test_a_list_may_mix_kinds(rgb):
    mixed = ["a.jpg", Path("b.jpg"), b"\xff\xd8", rgb, np.zeros((3, 3)), torch.zeros(3, 4, 4)]
    assert all(one is other for one, other in zip(check_images(mixed), mixed, strict=True))


@pytest.mark.parametrize(
    ("X", "error", "hint"),
    [
        ("a.jpg", TypeError, r"\[X\]"),
        (Path("a.jpg"), TypeError, r"\[X\]"),
        (str(Path(__file__).parent), TypeError, r"X is a folder .*load_image_folder"),
        (b"\xff\xd8", TypeError, r"\[X\]"),
        (Image.new("RGB", (4, 4)), TypeError, r"\[X\]"),
        (3, TypeError, "list"),
        ((path for path in PATHS), TypeError, r"list\(X\)"),
        ({"a.jpg": 1}, TypeError, r"list\(X\)"),
        (Bunch(data=PATHS, target=[0, 1]), TypeError, r'X is a Bunch.*X\["data"\]'),
        ([], ValueError, "empty"),
        (np.zeros((0, 8, 8), dtype=np.uint8), ValueError, "empty"),
        (pd.Series([], dtype=object), ValueError, "empty"),
        (np.array("a.jpg"), ValueError, r"\(n,\)"),
        (np.array([PATHS, PATHS], dtype=object), ValueError, r"\(n, 1\)"),
        (np.array([b"a.jpg"]), TypeError, r"X.astype\(str\)"),
        (np.zeros(4), ValueError, r"\(n, H, W\)"),
        (np.zeros((4, 64)), ValueError, "reshape"),
        (np.zeros((8, 9, 3), dtype=np.uint8), ValueError, r"X\[None\]"),
        (np.zeros((4, 3, 8, 9)), ValueError, r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 9, 5)), ValueError, "list"),
        (np.zeros((4, 8, 9), dtype=np.int64), ValueError, r"astype\(np.uint8\)"),
        (np.zeros((4, 8, 9), dtype=bool), ValueError, r"astype\(float\)"),
        (torch.zeros(3, 8, 9), ValueError, r"X\[None\]"),
        (torch.zeros(4, 8, 9, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (pd.DataFrame({"path": PATHS, "y": [0, 1, 2]}), ValueError, r"'path', 'y'"),
    ],
)
def test_what_cannot_hold_images_says_what_to_pass(X, error, hint):
    with pytest.raises(error, match=hint):
        check_images(X)


def test_only_paths_have_names(rgb):
    assert image_name(Path("photos/a.jpg")) == os.path.join("photos", "a.jpg")
    assert image_name(np.str_("a.jpg")) == "a.jpg"
    assert [image_name(other) for other in (b"a.jpg", rgb, np.zeros((4, 4)))] == [None] * 3


# --- digest ----------------------------------------------------------------------------------


def test_a_path_and_its_bytes_have_one_digest(tmp_path, rgb):
    data = encode(rgb, "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    digests = {digest_image(each) for each in (path, str(path), data, bytearray(data))}
    assert [len(digest) for digest in digests] == [20]


def test_digests_tell_pixels_shapes_dtypes_and_kinds_apart():
    pixels = smooth_pixels()
    changed = pixels.copy()
    changed[3, 4, 1] ^= 1
    palette = Image.fromarray(pixels[..., 0], "L").convert("P")
    recoloured = palette.copy()
    recoloured.putpalette([1, 2, 3] * 256)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    different = [
        pixels,
        changed,
        pixels.transpose(1, 0, 2),
        pixels.reshape(WIDTH, HEIGHT, 3),
        pixels.astype(np.float32) / 255,
        pixels.astype(np.float64) / 255,
        pixels.tobytes(),
        Image.fromarray(pixels),
        turned,
        palette,
        recoloured,
    ]
    assert len({digest_image(each) for each in different}) == len(different)


def test_equal_pixels_have_equal_digests_however_they_lie_in_memory():
    pixels = smooth_pixels()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [
        pixels,
        np.asfortranarray(pixels),
        pixels[::-1].copy()[::-1],
        tensor,
        tensor.contiguous(),
    ]
    assert len({digest_image(each) for each in same}) == 1


def test_a_file_that_changed_since_its_digest_is_not_used(tmp_path, rgb):
    path = tmp_path / "a.png"
    path.write_bytes(encode(rgb, "PNG"))
    digest = digest_image(path)
    assert decode_image(path, expected_digest=digest).shape == (3, HEIGHT, WIDTH)
    path.write_bytes(encode(rgb.rotate(180), "PNG"))
    with pytest.raises(UnreadableImageError, match="changed"):
        decode_image(path, expected_digest=digest)


# --- kinds of images -----------------------------------------------------------------------


def test_every_kind_of_one_image_gives_the_same_pixels(tmp_path):
    pixels = smooth_pixels()
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    alpha = np.dstack([pixels, np.zeros((HEIGHT, WIDTH), dtype=np.uint8)])
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [
        path,
        str(path),
        np.str_(path),
        path.read_bytes(),
        memoryview(path.read_bytes()),
        Image.open(path),
        Image.fromarray(pixels),
        pixels,
        alpha,
        pixels / 255,
        (pixels / 255).astype(np.float32),
        tensor,
        tensor.float() / 255,
        torch.from_numpy(alpha).permute(2, 0, 1),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(as_array(decode_image(kind)), pixels)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
def test_grey_arrays_get_three_equal_channels(shape):
    grey = smooth_pixels()[..., 0]
    decoded = as_array(decode_image(grey.reshape(shape)))
    np.testing.assert_array_equal(decoded, np.dstack([grey] * 3))


def test_floats_are_rounded_not_cut():
    image = np.array([[0.0, 1.0, 0.4999, 254.6 / 255, 1.0000002]])
    assert as_array(decode_image(image))[0, :, 0].tolist() == [0, 255, 127, 255, 255]


def test_half_precision_is_taken():
    for dtype in (torch.float16, torch.bfloat16):
        assert (decode_image(torch.ones(3, 4, 5, dtype=dtype)) == 255).all()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((4, 5), 17.0), "from 17 to 17; rescale them: divide by 255"),
        (np.full((4, 5), -0.5), "rescale"),
        (np.array([[0.5, np.nan]]), "floats must lie in"),
        (np.zeros((4, 5), dtype=np.int32), r"astype\(np.uint8\)"),
        (np.zeros((4, 5), dtype=bool), r"astype\(float\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros(5, dtype=np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5), dtype=np.uint8), "no pixels"),
        (torch.zeros(4, 5), r"\(C, H, W\)"),
        (torch.zeros(7, 5, 3), r"\(C, H, W\)"),
        (torch.full((3, 4, 5), 255.0), "divide by 255"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "int64"),
        (None, "NoneType None is not an image"),
        (float("nan"), "float nan is not an image"),
        (["a.jpg"], "list .* is not an image"),
    ],
)
def test_objects_that_are_no_image_say_why(image, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(image)


def test_results_own_their_memory():
    pixels = smooth_pixels()
    for given in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels)):
        decode_image(given).zero_()
        assert pixels.any()
    pixels.flags.writeable = False  # as joblib's memory maps are
    decode_image(pixels).zero_()


# --- encodings -------------------------------------------------------------------------------

LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_formats_decode_as_pillow_does(rgb, format, mode):
    data = encode(rgb.convert(mode), format)
    decoded = as_array(decode_image(data))
    np.testing.assert_array_equal(decoded, by_pillow(data))
    if format in LOSSLESS:
        np.testing.assert_array_equal(decoded, np.asarray(rgb.convert(mode).convert("RGB")))


def test_avif_is_read_where_pillow_has_it(rgb):
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    difference = as_array(decode_image(encode(rgb, "AVIF", quality=95))) - smooth_pixels() * 1.0
    assert abs(difference).mean() < 8


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"quality": 60}),
        ("RGB", {"progressive": True}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 2, "quality": 95}),
        ("L", {}),
    ],
    ids=str,
)
def test_the_fast_decoder_and_pillow_agree(rgb, monkeypatch, mode, options):
    data = encode(rgb.convert(mode), "JPEG", **options)
    assert module._fast_decoder(Image.open(BytesIO(data))) is not None
    fast = as_array(decode_image(data))
    monkeypatch.setattr(module, "_fast_decoder", lambda header: None)
    np.testing.assert_array_equal(fast, as_array(decode_image(data)))


def test_a_torchvision_without_decoders_is_no_loss(rgb, monkeypatch):
    data = encode(rgb, "JPEG")
    expected = decode_image(data)
    monkeypatch.setattr(module.torch.ops, "image", SimpleNamespace())
    assert torch.equal(decode_image(data), expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(rgb, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(rgb, format, exif=exif)
    decoded = as_array(decode_image(data))
    assert decoded.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    np.testing.assert_array_equal(decoded, by_pillow(data))
    np.testing.assert_array_equal(as_array(decode_image(Image.open(BytesIO(data)))), decoded)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 9])
def test_broken_exif_is_no_reason_to_refuse_a_image(rgb, exif):
    data = encode(rgb, "JPEG", exif=exif)
    assert decode_image(data).shape == (3, HEIGHT, WIDTH)


def test_cmyk_becomes_rgb():
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    decoded = as_array(decode_image(encode(red.convert("CMYK"), "JPEG", quality=95)))
    assert abs(decoded - np.array([200.0, 30.0, 40.0])).max() < 6


def test_alpha_is_dropped():
    pixels = smooth_pixels()
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    data = encode(Image.fromarray(np.dstack([pixels, alpha])), "PNG")
    np.testing.assert_array_equal(as_array(decode_image(data)), pixels)


@pytest.mark.parametrize("transparency", [3, bytes(range(256))], ids=["index", "alphas"])
def test_palette_with_alpha_gives_the_palette_colours(rgb, transparency):
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    data = encode(palette, "PNG", transparency=transparency)
    np.testing.assert_array_equal(as_array(decode_image(data)), np.asarray(palette.convert("RGB")))
    reopened = Image.open(BytesIO(data))
    np.testing.assert_array_equal(as_array(decode_image(reopened)), as_array(decode_image(data)))


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = (ramp / 257).round()
    given = [encode(Image.fromarray(ramp), format) for format in ("PNG", "TIFF")]
    given.append(Image.fromarray(ramp))
    given.append(b"P5 8 8 65535\n" + ramp.astype(">u2").tobytes())
    for image in given:
        assert abs(as_array(decode_image(image)) - expected[..., None]).max() <= 1


def test_sixteen_bit_colour_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 8 * 8 * 3).astype(">u2").reshape(8, 8, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    decoded = as_array(decode_image(png(8, 8, depth=16, color=2, rows=rows)))
    assert abs(decoded - ramp / 257).max() <= 1


def test_tiff_of_floats_follows_the_rule_of_floats():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    decoded = as_array(decode_image(encode(Image.fromarray(ramp), "TIFF")))
    np.testing.assert_array_equal(decoded[..., 0], np.rint(ramp * 255))
    with pytest.raises(UnreadableImageError, match="rescale"):
        decode_image(encode(Image.fromarray(ramp * 255), "TIFF"))


def test_thirty_two_bit_integers_are_not_guessed_at():
    deep = Image.fromarray(np.full((8, 8), 1 << 20, dtype=np.int32))
    with pytest.raises(UnreadableImageError, match="32-bit"):
        decode_image(encode(deep, "TIFF"))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (16, 12), color) for color in ((250, 10, 10), (10, 10, 250))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(BytesIO(data)).n_frames == 2
    assert as_array(decode_image(data))[5, 5].tolist() == [250, 10, 10]


# --- broken and hostile files ----------------------------------------------------------------


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
        (b"\0\0\0\x18ftypheic\0\0\0\0", "pillow-heif"),
        (bytes(range(200, 256)), "no image in a format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is a drawing"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_files_that_are_no_image_say_what_they_are(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason in reason_of(path)


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
def test_random_damage_gives_a_image_or_a_reason_and_no_warning(format):
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


# --- fitting to a network --------------------------------------------------------------------


def preprocessing(image_size=224, resize_size=256, interpolation="bilinear"):
    return SimpleNamespace(
        image_size=image_size, resize_size=resize_size, interpolation=interpolation
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "shape", [(192, 288), (288, 192), (100, 100), (256, 300), (40, 333), (257, 256), (700, 500)]
)
@pytest.mark.parametrize("sizes", [(224, 256), (96, 110), (64, 64)])
def test_fitting_agrees_with_the_preset_of_torchvision(shape, sizes, interpolation):
    pixels = smooth_pixels(*shape)
    preset = ImageClassification(
        crop_size=sizes[0],
        resize_size=sizes[1],
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=InterpolationMode(interpolation),
    )
    expected = preset(Image.fromarray(pixels)) * 255
    fitted = fit_to_network(decode_image(pixels), preprocessing(*sizes, interpolation))
    assert fitted.dtype == torch.uint8
    assert fitted.shape == (3, sizes[0], sizes[0])
    assert (fitted - expected).abs().mean() <= 0.25  # far inside 1/255 of the range


def test_without_a_resize_size_the_whole_image_is_squashed():
    pixels = smooth_pixels(100, 200)
    fitted = fit_to_network(decode_image(pixels), preprocessing(64, None))
    expected = np.array(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    assert abs(as_array(fitted) - expected.astype(float)).mean() <= 0.25


def test_a_image_of_the_right_size_is_only_cropped():
    pixels = smooth_pixels(64, 80)
    fitted = fit_to_network(decode_image(pixels), preprocessing(48, 64))
    np.testing.assert_array_equal(as_array(fitted), pixels[8:56, 16:64])


def test_a_image_that_is_too_small_after_resizing_is_padded():
    pixels = smooth_pixels(64, 80)
    fitted = fit_to_network(decode_image(pixels), preprocessing(72, 64))
    np.testing.assert_array_equal(as_array(fitted)[4:68], pixels[:, 4:76])
    assert not as_array(fitted)[:4].any()


def test_fitting_depends_neither_on_strides_nor_on_threads():
    image = decode_image(smooth_pixels(300, 400))
    expected = fit_to_network(image, preprocessing())
    n_threads = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for same in (image, image.contiguous(), image.flip(1).flip(1)):
                assert torch.equal(fit_to_network(same, preprocessing()), expected)
    finally:
        torch.set_num_threads(n_threads)


def test_fitted_images_are_channels_last_and_hold_no_larger_memory():
    fitted = fit_to_network(decode_image(smooth_pixels(300, 400)), preprocessing())
    assert fitted.permute(1, 2, 0).is_contiguous()
    assert fitted.untyped_storage().nbytes() == fitted.numel()


def test_a_file_that_grows_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    (tmp_path / "growing").write_bytes(b"0123456789")
    status = SimpleNamespace(st_mode=stat.S_IFREG, st_size=4)
    monkeypatch.setattr(os, "fstat", lambda file: status)
    assert read_file(tmp_path / "growing") == b"0123456789"


def test_a_thread_of_a_image_is_refused_before_it_is_blown_up():
    thread = decode_image(np.zeros((1, 5000), dtype=np.uint8))
    with pytest.raises(UnreadableImageError, match="elongated"):
        fit_to_network(thread, preprocessing())
    assert fit_to_network(thread, preprocessing(32, None)).shape == (3, 32, 32)
