"""Facts of images, by Pillow."""

from __future__ import annotations

import io
import os
import threading
import warnings
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from mindia.config import Settings
from mindia.domain.media import ImageFacts
from mindia.errors import CorruptMediaError, TooLargeError
from mindia.media import _jpeg, _webp, sniff
from mindia.media.exif import Exif
from mindia.media.sanitize import sanitize
from mindia.media.sniff import MediaType

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_HASHED = 72
"""Pixels of a side at least, so that a picture looks the same in every size."""

_TURNED = (5, 6, 7, 8)
"""Values of the EXIF orientation by which width and height change places (CIPA DC-008, 4.6.5.1)."""

_MAX_SCANS = 500
"""More than any encoder makes; each goes over the whole picture again, and need not take more than a dozen bytes."""
_HEAD = 1 << 16
"""Of a JPEG, in bytes, where most have all that stands before their picture."""
_MAX_SCANNED_PIXELS = 5_000_000_000
"""Of all scans together: fifty of the largest picture that `Settings` allow at first, or a second or two."""
_BYTES_PER_PIXEL = 8
"""What decoders of WebP and AVIF keep of a picture at least, beside the picture itself."""


def probe_image(file: BinaryIO, kind: MediaType, *, filename: str, settings: Settings) -> ImageFacts:
    """Decode an image wholly, since only that tells a truncated one, and return its facts.

    Raises:
        TooLargeError: It has more pixels than allowed.
        CorruptMediaError: It cannot be decoded.
    """
    try:
        return _probed(file, kind, filename, settings)
    except CorruptMediaError:
        sound = without_metadata(file, kind, filename)
        if sound is None:
            raise
    return _probed(sound, kind, filename, settings)


def without_metadata(file: BinaryIO, kind: MediaType, filename: str) -> BinaryIO | None:
    """Return a copy of an image without its metadata, over which decoders stumble, or None where it has none."""
    file.seek(0)
    copy = io.BytesIO(file.read())
    size = copy.getbuffer().nbytes
    try:
        return copy if sanitize(copy, kind.content_type, size=size, filename=filename) else None
    except CorruptMediaError:
        return None


def _probed(file: BinaryIO, kind: MediaType, filename: str, settings: Settings) -> ImageFacts:
    from PIL import Image, UnidentifiedImageError

    kept_bytes = refuse_slow(file, kind, filename)
    file.seek(0)
    try:
        with quiet, Image.open(file, formats=[kind.parser]) as image:
            if kind is sniff.AVIF:
                kept_bytes = _BYTES_PER_PIXEL * image.width * image.height
            return _facts(image, kind, filename, settings)
    except (TooLargeError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{filename!r} has far more pixels than allowed: {error}") from error
    except Exception as error:  # what a plugin raises over damaged bytes is not written down anywhere
        if "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        bytes(kept_bytes)  # not every decoder says why it gave up: it was for want of memory where this is refused
        reason = "it is damaged" if isinstance(error, UnidentifiedImageError) else error
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {reason}") from error


def refuse_slow(file: BinaryIO, kind: MediaType, filename: str) -> int:
    """Return how much memory a decoder keeps while it is at work, at least, as far as the file tells it beforehand.

    Raises:
        TooLargeError: It would be at work for very long.
    """
    file.seek(0)
    if kind is sniff.WEBP:
        width, height = _webp.canvas(file.read(sniff.HEAD_BYTES))
        return _BYTES_PER_PIXEL * width * height
    if kind is sniff.JPEG:
        head = file.read(_HEAD)
        if _jpeg.is_one_scan(head):
            return 0
        content = head + file.read()
        if not _jpeg.may_have_scans(content):
            return 0
        work = _jpeg.work(content, most_scans=_MAX_SCANS)
        if work.scans > _MAX_SCANS or work.scans * work.pixels > _MAX_SCANNED_PIXELS:
            raise TooLargeError(
                f"{filename!r} has {work.scans} scans or more of {work.pixels} pixels; the limits are {_MAX_SCANS} "
                f"scans, and {_MAX_SCANNED_PIXELS} pixels in all of them"
            )
        return work.kept_bytes
    return 0


def _facts(image: ImageFile, kind: MediaType, filename: str, settings: Settings) -> ImageFacts:
    width, height = image.size
    if width * height > settings.max_image_pixels:
        raise TooLargeError(
            f"{filename!r} has {width} x {height} pixels; the limit is {settings.max_image_pixels} "
            "(Settings.max_image_pixels)"
        )
    if kind.parser == "JPEG":
        # Whole in its compressed form, but an eighth in size and without its colours.
        image.draft("L", (max(_HASHED, width // 8), max(_HASHED, height // 8)))
    image.load()
    looks = _perceptual_hash(image)
    raw = image.info.get("exif")
    if not isinstance(raw, bytes):  # a text of PNG may be called so, too
        return ImageFacts(width=width, height=height, perceptual_hash=looks)
    exif = Exif(raw)
    if exif.orientation in _TURNED:
        width, height = height, width
    location = exif.location if settings.keep_location else None
    return ImageFacts(
        width=width,
        height=height,
        taken_at=exif.taken_at,
        camera=exif.camera,
        location=location,
        perceptual_hash=looks,
    )


def _perceptual_hash(image: ImageFile) -> str | None:
    """Return which of neighbouring places is the lighter one, of 8 rows of 9 places (dHash); None where all are alike.

    ImageHash has the same, and brings SciPy along for the others that it has.
    """
    from PIL.Image import Resampling

    places = image.convert("L").resize((9, 8), Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            at = 9 * row + column
            bits = bits << 1 | (places[at] < places[at + 1])
    return f"{bits:016x}" if bits else None


class _Quiet:
    """Hides the parser's doubts about damaged metadata and about sizes that the settings allow.

    The filters of warnings belong to the whole process: threads share one change of them, which the last one undoes.
    """

    def __init__(self) -> None:
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: AbstractContextManager[object] = warnings.catch_warnings()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._start_afresh()  # threads of the parent are not in a forked child, and would never leave
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


quiet = _Quiet()
