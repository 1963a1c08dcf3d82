"""Fitting to a network is what torchvision does, whatever the threads."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_data import as_array, smooth_pixels
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from sktransfer.exceptions import UnreadableImageError
from sktransfer.images import decode_image, fit_to_network


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


def test_an_image_of_the_right_size_is_only_cropped():
    pixels = smooth_pixels(64, 80)
    fitted = fit_to_network(decode_image(pixels), preprocessing(48, 64))
    np.testing.assert_array_equal(as_array(fitted), pixels[8:56, 16:64])


def test_an_image_that_is_too_small_after_resizing_is_padded():
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


def test_a_thread_of_an_image_is_refused_before_it_is_blown_up():
    thread = decode_image(np.zeros((1, 5000), dtype=np.uint8))
    with pytest.raises(UnreadableImageError, match="elongated"):
        fit_to_network(thread, preprocessing())
    assert fit_to_network(thread, preprocessing(32, None)).shape == (3, 32, 32)
