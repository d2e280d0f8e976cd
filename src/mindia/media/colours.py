"""Pictures as browsers see them: the right way up, in sRGB."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mindia.errors import CorruptMediaError, MindiaError, TooLargeError
from mindia.media.exif import Exif

if TYPE_CHECKING:
    from PIL.Image import Image

_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
          8: "ROTATE_90"}  # fmt: skip
"""By the value of the EXIF orientation (CIPA DC-008, 4.6.5.1)."""


@contextmanager
def decoding(filename: str, content_type: str) -> Iterator[None]:
    """Tell damaged files from those that are too large."""
    from PIL import Image

    try:
        yield
    except (MindiaError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{filename!r} has far more pixels than allowed: {error}") from error
    except Exception as error:  # what a plugin raises over damaged bytes is not written down anywhere
        if "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        raise CorruptMediaError(f"{filename!r} cannot be read as {content_type}: {error}") from error


def orientation(image: Image) -> int:
    """Return the EXIF orientation of a picture, as it was taken in."""
    raw = image.info.get("exif")
    return Exif(raw).orientation if isinstance(raw, bytes) else 1


def upright_srgb(image: Image) -> Image:
    """Return a picture the right way up, in sRGB; the same where it is that already."""
    from PIL.Image import Transpose

    turn = _TURNS.get(orientation(image))
    profile = image.info.get("icc_profile")
    plain = _in_srgb(image, profile) if isinstance(profile, bytes) else _plain(image)
    return plain if turn is None else plain.transpose(Transpose[turn])


def _plain(image: Image) -> Image:
    if image.mode.startswith(("I", "F")):  # of 16 bits, which Pillow would cut off instead of scaling
        return image.convert("I").point(_eighth).convert("L").convert("RGB")
    alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    mode = "RGBA" if alpha else "RGB"
    return image if image.mode == mode else image.convert(mode)  # a copy is no small part of the work


def _eighth(value: Any) -> Any:
    return value * (1 / 256)


def _in_srgb(image: Image, profile: bytes) -> Image:
    from PIL import ImageCms

    alpha = None
    if image.mode not in ("RGB", "L", "CMYK"):
        image = _plain(image)
        if image.mode == "RGBA":
            alpha = image.getchannel("A")
            image = image.convert("RGB")
    try:
        transform = _transform(profile, image.mode)
        colours = image if transform is None else ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # it is damaged, or of another kind of colours
        colours = image
    if colours is None or colours.mode != "RGB":
        colours = image.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Return what turns colours of a profile into sRGB, or None where they are that."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
