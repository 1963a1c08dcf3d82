"""What an image may be: containers, digests, decoding, resizing, files."""

from ._containers import MAX_PIXELS, check_images, image_name
from ._containers import holds_images as holds_images
from ._decoding import decode_image
from ._diagnosis import image_problems as image_problems
from ._digest_memory import digest_images as digest_images
from ._digests import digest_image as digest_image
from ._files import read_file as read_file
from ._resizing import fit_to_network as fit_to_network

# The other names are for the package only.
__all__ = ["MAX_PIXELS", "check_images", "decode_image", "image_name"]
