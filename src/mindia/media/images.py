"""Facts of images, by Pillow."""

from __future__ import annotations

import warnings
from typing import BinaryIO

from mindia.domain.media import ImageFacts
from mindia.errors import CorruptMediaError, TooLargeError
from mindia.media.sniff import MediaType

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Values of the EXIF orientation by which width and height change places (CIPA DC-008, 4.6.5.1)."""


def probe_image(file: BinaryIO, kind: MediaType, *, filename: str, max_pixels: int) -> ImageFacts:
    """Decode an image wholly, since only that tells a truncated one, and return its facts.

    Raises:
        TooLargeError: It has more pixels than allowed.
        CorruptMediaError: It cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # doubts of the parser about damaged metadata
            with Image.open(file, formats=[kind.parser]) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise TooLargeError(
                        f"{filename!r} has {width} x {height} pixels; the limit is {max_pixels} "
                        "(Settings.max_image_pixels)"
                    )
                turned = image.getexif().get(_ORIENTATION) in _TURNED
                if kind.parser == "JPEG":
                    image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
                image.load()
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{filename!r} has far more pixels than allowed: {error}") from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
    ) as error:
        if isinstance(error, TooLargeError):
            raise
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {error}") from error
    return ImageFacts(width=height, height=width) if turned else ImageFacts(width=width, height=height)
