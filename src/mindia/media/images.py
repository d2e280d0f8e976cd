"""Facts of images, by Pillow."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from mindia.domain.media import ImageFacts
from mindia.errors import CorruptMediaError, TooLargeError
from mindia.media.sniff import MediaType

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

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
        with _quiet, Image.open(file, formats=[kind.parser]) as image:
            return _facts(image, kind, filename, max_pixels)
    except (TooLargeError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{filename!r} has far more pixels than allowed: {error}") from error
    except Exception as error:  # what a plugin raises over damaged bytes is not written down anywhere
        reason = "it is damaged" if isinstance(error, UnidentifiedImageError) else error
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {reason}") from error


def _facts(image: ImageFile, kind: MediaType, filename: str, max_pixels: int) -> ImageFacts:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(
            f"{filename!r} has {width} x {height} pixels; the limit is {max_pixels} (Settings.max_image_pixels)"
        )
    turned = image.getexif().get(_ORIENTATION) in _TURNED
    if kind.parser == "JPEG":
        image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
    image.load()
    return ImageFacts(width=height, height=width) if turned else ImageFacts(width=width, height=height)


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


_quiet = _Quiet()
