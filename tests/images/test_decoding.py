"""Images of any kind and encoding become the pixels that Pillow gives."""

import warnings
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_data import HEIGHT, WIDTH, as_array, encode, png, smooth_pixels
from PIL import Image, ImageOps

from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import _decoding, decode_image, digest_image


def by_pillow(data):
    """Decode the way everybody does by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))


@pytest.fixture
def rgb():
    return Image.fromarray(smooth_pixels())


# --- kinds of images --------------------------------------------------------------------------


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
    gray = smooth_pixels()[..., 0]
    decoded = as_array(decode_image(gray.reshape(shape)))
    np.testing.assert_array_equal(decoded, np.dstack([gray] * 3))


def test_floats_are_rounded_not_cut():
    image = np.array([[0.0, 1.0, 0.4999, 254.6 / 255, 1.0000002]])
    assert as_array(decode_image(image))[0, :, 0].tolist() == [0, 255, 127, 255, 255]


def test_half_precision_is_taken():
    for dtype in (torch.float16, torch.bfloat16):
        assert (decode_image(torch.ones(3, 4, 5, dtype=dtype)) == 255).all()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((4, 5), 17.0), "from 17 to 17; rescale them: divide"),
        (np.full((4, 5), -0.5), "rescale"),
        (np.array([[0.5, np.nan]]), "NaN pixels; replace"),
        (np.zeros((4, 5), dtype=np.int32), r"astype\(np.uint8\)"),
        (np.zeros((4, 5), dtype=bool), r"astype\(float\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros(5, dtype=np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5), dtype=np.uint8), "no pixels"),
        (torch.zeros(4, 5), r"\(C, H, W\)"),
        (torch.zeros(7, 5, 3), r"\(C, H, W\)"),
        (torch.full((3, 4, 5), 255.0), "by 255"),
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


@pytest.mark.parametrize(
    "tensor", [torch.ones(3, 4, 4).to_sparse(), torch.ones(3, 4, 4, device="meta")]
)
def test_tensors_without_memory_are_unreadable(tensor):
    for read in (digest_image, decode_image):
        with pytest.raises(UnreadableImageError, match="sparse, quantized or has no memory"):
            read(tensor)


# --- encodings --------------------------------------------------------------------------------

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
    with monkeypatch.context() as patch:
        patch.setattr(_decoding, "_pillow_pixels", None)  # it is not needed
        fast = as_array(decode_image(data))
    monkeypatch.setattr(torch.ops, "image", SimpleNamespace())
    np.testing.assert_array_equal(fast, as_array(decode_image(data)))


def test_a_torchvision_without_decoders_is_no_loss(rgb, monkeypatch):
    data = encode(rgb, "JPEG")
    expected = decode_image(data)
    monkeypatch.setattr(torch.ops, "image", SimpleNamespace())
    assert torch.equal(decode_image(data), expected)


def test_heic_is_read_where_its_extra_is_installed():
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    heif.register_heif_opener()
    pixels = smooth_pixels(120, 160)
    decoded = as_array(decode_image(encode(Image.fromarray(pixels), "HEIF", quality=95)))
    assert np.abs(pixels.astype(int) - decoded).mean() < 3


# --- decoding at a fraction of the size --------------------------------------------------------


@pytest.mark.parametrize(
    ("min_side", "shape"), [(600, (600, 800)), (299, (300, 400)), (10, (75, 100))]
)
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(min_side, shape):
    data = encode(Image.fromarray(smooth_pixels(600, 800)), "JPEG", quality=95)
    pixels = as_array(decode_image(data, min_side=min_side))
    assert pixels.shape[:2] == shape
    reduced = np.asarray(Image.open(BytesIO(data)).resize(shape[::-1], Image.Resampling.BOX))
    assert np.abs(pixels.astype(int) - reduced).mean() < 1


def test_a_fraction_of_a_turned_jpeg_is_upright(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(rgb.resize((400, 300)), "JPEG", exif=exif)
    assert decode_image(data, min_side=75).shape == (3, 100, 75)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_other_formats_are_decoded_in_full(format):
    data = encode(Image.fromarray(smooth_pixels(80, 80)), format)
    assert decode_image(data, min_side=10).shape == (3, 80, 80)


@pytest.mark.parametrize("min_side", [0, -1, 1.5, "10", float("nan")])
def test_a_min_side_that_is_no_number_of_pixels(min_side):
    with pytest.raises(ValueError, match="min_side"):
        decode_image(np.zeros((8, 8)), min_side=min_side)


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
def test_broken_exif_is_no_reason_to_refuse_an_image(rgb, exif):
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
def test_palette_with_alpha_gives_the_palette_colors(rgb, transparency):
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


def test_sixteen_bit_color_is_scaled_not_clipped():
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
