"""One picture of what is none: a frame of a video, a page of a document, the waveform of a sound."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

from mindia.config import Settings
from mindia.errors import CorruptMediaError, InvalidError, MissingExtraError, TooLargeError
from mindia.media import sniff
from mindia.media.documents import PDFIUM
from mindia.media.video import opened_sound, opened_video, pixel_aspect

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from PIL.Image import Image

_MICROSECONDS = 1_000_000

_BARS = 160
"""Of a waveform, at most."""
_BAR_PIXELS = 4
_COLOUR = (74, 126, 187, 255)
"""Of a waveform: is seen on light and on dark."""
_RATE = 8_000
"""Samples a second are enough to see how loud it is."""
_WHOLE_SECONDS = 900.0
"""What lasts longer is not decoded as a whole: a moment of each bar is."""
_SHARE = 0.4
"""Of `Settings.parser_timeout`, which decoding may last: what was heard until then is drawn."""


def frame_of_video(file: BinaryIO, kind: sniff.MediaType, *, filename: str, at_s: float, settings: Settings) -> Image:
    """Return the frame that is seen at a time, or the last one where that is behind the end.

    Raises:
        CorruptMediaError: There is none that can be decoded.
        MissingExtraError: PyAV is not installed.
    """
    with opened_video(file, kind, filename=filename, settings=settings) as (container, stream):
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        found = None
        for second in (at_s, 0.0):
            container.seek(int(second * _MICROSECONDS))
            for frame in container.decode(stream):
                found = frame
                if frame.time is None or frame.time - start >= at_s:
                    break
            if found is not None:
                break
        if found is None:
            raise CorruptMediaError(f"{filename!r} has no frame that can be read")
        picture: Image = found.to_image()  # type: ignore[no-untyped-call]  # of PyAV
        aspect = pixel_aspect(stream)
        if aspect != 1:
            picture = picture.resize((max(1, round(picture.width * aspect)), picture.height))
        return picture.rotate(found.rotation, expand=True)


def page_of_document(file: BinaryIO, *, filename: str, page: int, side: int, settings: Settings) -> Image:
    """Return a page of a PDF as a picture whose longer side has so many pixels.

    Raises:
        InvalidError: There is no such page.
        CorruptMediaError: It cannot be read.
        TooLargeError: It would have too many pixels.
        MissingExtraError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise MissingExtraError("thumbnails of PDF documents", extra="pdf") from error

    with PDFIUM:
        document: Any = None
        try:
            document = pdfium.PdfDocument(file)
            if page > len(document):
                raise InvalidError(f"{filename!r} has {len(document)} pages: there is no page {page}")
            opened = document[page - 1]
            width, height = opened.get_size()
            if not (width > 0 and height > 0):
                raise CorruptMediaError(f"page {page} of {filename!r} has no size")
            scale = side / max(width, height)
            if width * scale * height * scale > settings.max_derivative_pixels:
                raise TooLargeError(
                    f"{filename!r} would become {width * scale:.0f} x {height * scale:.0f} pixels; the limit is "
                    f"{settings.max_derivative_pixels} (Settings.max_derivative_pixels)"
                )
            bitmap = opened.render(scale=scale)
            picture: Image = bitmap.to_pil().convert("RGB")
            bitmap.close()
            opened.close()
        except pdfium.PdfiumError as error:
            raise CorruptMediaError(f"page {page} of {filename!r} cannot be read: {error}") from error
        finally:
            if document is not None:
                document.close()
    return picture


def waveform(file: BinaryIO, kind: sniff.MediaType, *, filename: str, width: int, settings: Settings) -> Image:
    """Return how loud a sound is over its time, a quarter as high as it is wide.

    Raises:
        CorruptMediaError: It cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    from PIL import Image, ImageDraw

    deadline = time.monotonic() + settings.parser_timeout.total_seconds() * _SHARE
    bars = max(1, min(_BARS, width // _BAR_PIXELS))
    with opened_sound(file, kind, filename=filename, settings=settings) as (container, stream):
        told = (container.duration or 0) / _MICROSECONDS
        if told > _WHOLE_SECONDS:
            heard = _moments(container, stream, told, bars, deadline)
        else:
            heard = _shortened(_whole(container, stream, deadline), bars)
    if not heard:
        raise CorruptMediaError(f"{filename!r} has no sound that can be read")
    loudest = max(*heard, 0.05)
    height = max(1, width // 4)
    picture = Image.new("RGBA", (width, height), (*_COLOUR[:3], 0))
    draw = ImageDraw.Draw(picture)
    step = width / bars
    for place, loud in enumerate(heard):
        half = max(0.5, loud / loudest * height / 2)
        left, right = round(place * step), max(round(place * step), round((place + 0.7) * step) - 1)
        draw.rectangle((left, height / 2 - half, right, height / 2 + half - 1), fill=_COLOUR)
    return picture


def _loud(frames: Any) -> list[float]:
    import numpy as np

    return [float(np.abs(frame.to_ndarray().astype(np.float32)).max(initial=0.0)) / 32768 for frame in frames]


def _whole(container: InputContainer, stream: AudioStream, deadline: float) -> list[float]:
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
    heard: list[float] = []
    for frame in container.decode(stream):
        frame.pts = None  # times that jump are of no interest
        heard += _loud(resampler.resample(frame))
        if time.monotonic() > deadline:
            break
    return heard


def _moments(container: InputContainer, stream: AudioStream, seconds: float, bars: int, deadline: float) -> list[float]:
    import av

    heard: list[float] = []
    for place in range(bars):
        resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
        container.seek(int(place / bars * seconds * _MICROSECONDS))
        moment = [0.0]
        for count, frame in enumerate(container.decode(stream)):
            frame.pts = None
            moment += _loud(resampler.resample(frame))
            if count >= 3:
                break
        heard.append(max(moment))
        if time.monotonic() > deadline:
            break
    return heard


def _shortened(heard: list[float], bars: int) -> list[float]:
    """Return the loudest of each of some parts."""
    if not heard:
        return []
    edges = [round(place * len(heard) / bars) for place in range(bars + 1)]
    return [max(heard[start : max(end, start + 1)], default=0.0) for start, end in pairwise(edges)]
