"""Fitting a decoded image to the input of a network."""

from ..exceptions import UnreadableImageError
from ._containers import MAX_PIXELS


def fit_to_network(pixels, preprocessing):
    """Resize a decoded image and crop its center, or squash it without a `resize_size`.

    This is torchvision's ``ImageClassification`` preset up to normalization, on uint8. The result
    has the strides of ``channels_last``.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = pixels.shape[1:]
    if preprocessing.resize_size is None:
        size = preprocessing.image_size, preprocessing.image_size
    else:
        short = preprocessing.resize_size
        long = int(short * max(height, width) / min(height, width))
        if short * long > MAX_PIXELS:
            raise UnreadableImageError(
                f"{width} x {height} pixels is too elongated to resize its shorter side to {short};"
                " crop it first"
            )
        size = (short, long) if height <= width else (long, short)
    # Few operations: threads hand over the interpreter at each of them. The vectorized uint8
    # kernel of torch needs no repacking of channels_last.
    batch = pixels[None].contiguous(memory_format=torch.channels_last)
    if (height, width) != size:
        mode = preprocessing.interpolation
        batch = interpolate(batch, size, mode=mode, align_corners=False, antialias=True)
    return _crop_center(batch[0], preprocessing.image_size)


def _crop_center(pixels, side):
    """Crop the center, as torchvision's ``center_crop`` does."""
    height, width = pixels.shape[1:]
    if (height, width) == (side, side):
        return pixels
    if min(height, width) < side:  # it is padded
        from torchvision.transforms.functional import center_crop

        return center_crop(pixels, [side, side]).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    top, left = round((height - side) / 2), round((width - side) / 2)
    # Whole lines of bytes: copying pixel by pixel takes thirty times as long.
    lines = pixels.permute(1, 2, 0).reshape(height, 3 * width)
    center = lines[top : top + side, 3 * left : 3 * (left + side)].contiguous()
    return center.view(side, side, 3).permute(2, 0, 1)
