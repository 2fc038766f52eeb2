"""Encoded images: checked before they are decoded, decoded to uint8. Uses Pillow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from PIL import Image

from compressors.errors import InvalidData

# Part of the address of decoded caches: raise it when the same bytes would decode to other pixels.
DECODER_VERSION = f"1-pillow{PIL.__version__}"
MAX_PIXELS = 64 * 10**6
# Raster formats with decoders in Pillow itself; EPS, for one, would start another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_GRAYSCALE = frozenset({"1", "L", "LA", "La"})
_ID_MODES = frozenset({"1", "L", "P"})
_LOSSY = frozenset({"JPEG", "WEBP"})
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class UnreadableImage(Exception):
    """These bytes do not decode. The caller knows column and row."""


@dataclass(frozen=True)
class ImageFacts:
    """shape: (channels, height, width); 1 channel for grayscale, else 3. class_ids: (smallest, largest) if the image is
    a mask; None if its pixels cannot be class ids: colours, or stored with loss.
    """

    shape: tuple[int, int, int]
    class_ids: tuple[int, int] | None


def image_facts(encoded: bytes) -> ImageFacts:
    """Decodes in full. Raises UnreadableImage; InvalidData above MAX_PIXELS, before anything is decoded."""
    with _opened(encoded) as image:
        _load(image)
        return ImageFacts((1 if image.mode in _GRAYSCALE else 3, image.height, image.width), _class_ids(image))


def _class_ids(image: Image.Image) -> tuple[int, int] | None:
    if image.mode not in _ID_MODES or image.format in _LOSSY:
        return None
    pixels = np.asarray(image)
    return int(pixels.min()), int(pixels.max())


def decode_class_ids(encoded: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels (height, width) of a gray image, or palette indices, as they are stored. Raises like `image_facts`."""
    with _opened(encoded) as image:
        _load(image)
        if _class_ids(image) is None:
            raise UnreadableImage(f"{image.format} of mode {image.mode}, whose pixels are no class ids")
        return np.asarray(image).astype(np.uint8)


def decode_image(encoded: bytes, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels as uint8 (channels, height, width), converted to grayscale (1) or RGB (3). Raises like `image_facts`."""
    with _opened(encoded) as image:
        _load(image)
        converted = image.convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(converted)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _opened(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidData(f"{error}; the limit is {MAX_PIXELS} pixels; resize the images") from None
    except Image.DecompressionBombWarning as error:  # where warnings are errors
        raise InvalidData(f"{error}; the limit is {MAX_PIXELS} pixels; resize the images") from None
    except Exception as error:  # decoders raise whatever damaged bytes lead to
        raise UnreadableImage(f"not an image ({_reason(error)})") from None
    if image.width * image.height > MAX_PIXELS:
        raise InvalidData(
            f"an image of {image.width}x{image.height} pixels; the limit is {MAX_PIXELS} pixels; resize the images"
        )
    if image.mode in _DEEP:
        raise UnreadableImage(f"pixels of more than 8 bits (mode {image.mode}); convert the images to 8 bits")
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        raise UnreadableImage(f"damaged image ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return str(error).split("<")[0].strip()[:80] or type(error).__name__
