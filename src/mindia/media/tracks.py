"""What encoding a video needs to know of its tracks, by PyAV."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.media import MediaKind, VideoFacts
from mindia.errors import CorruptMediaError
from mindia.media import sniff
from mindia.media.video import opened_video, probe_av

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAME_RATE = 1000
"""What says that it has more frames in a second counts its clock, not its frames."""
_STEADY = Fraction(5, 4)
"""By how much the rate of a video may be above its average where frames are only missing now and then."""
_USUAL = Fraction(30)


@attrs.frozen(kw_only=True)
class VideoTracks:
    """The tracks of a video that are shown and heard.

    Attributes:
        parser: The demuxer of FFmpeg that the file is held to.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        duration: In seconds, as the file says.
        frame_rate: In frames per second.
        video: The number of its pictures among its streams.
        audio: That of its sound, or None where there is none that can be decoded.
    """

    parser: str
    width: int
    height: int
    duration: float
    frame_rate: Fraction
    video: int
    audio: int | None


def tracks(file: BinaryIO, *, filename: str, settings: Settings) -> VideoTracks:
    """Look at the tracks of a video that was taken in before.

    Args:
        file: Seekable.
        filename: For messages.
        settings: Limits.

    Raises:
        MediaError: It cannot be decoded, or exceeds a limit.
        MissingExtraError: PyAV is not installed.
    """
    file.seek(0)
    kind = sniff.require(file.read(sniff.HEAD_BYTES), filename=filename)
    if kind.kind is not MediaKind.VIDEO:
        raise CorruptMediaError(f"{filename!r} is {kind.content_type}: no video")
    facts = probe_av(file, kind, filename=filename, settings=settings)
    if not isinstance(facts, VideoFacts):
        raise CorruptMediaError(f"{filename!r} has no pictures")
    with opened_video(file, kind, filename=filename, settings=settings) as (container, stream):
        return VideoTracks(
            parser=kind.parser,
            width=facts.width,
            height=facts.height,
            duration=facts.duration,
            frame_rate=_frame_rate(stream),
            video=stream.index,
            audio=_audio(container),
        )


def _frame_rate(stream: VideoStream) -> Fraction:
    average, base = (
        rate if rate and 0 < rate <= MAX_FRAME_RATE else None for rate in (stream.average_rate, stream.base_rate)
    )
    if average is None or base is None:
        return average or base or _USUAL
    return base if average <= base <= average * _STEADY else average


def _audio(container: InputContainer) -> int | None:
    for stream in container.streams.audio:
        if stream.codec_context and stream.sample_rate and stream.channels:
            return stream.index
    return None
