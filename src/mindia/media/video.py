"""Facts of video and audio, by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

from mindia.domain.media import AudioFacts, MediaKind, VideoFacts
from mindia.errors import CorruptMediaError, MissingExtraError
from mindia.media import sniff
from mindia.media.sniff import MediaType

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MICROSECONDS = 1_000_000


def probe_av(file: BinaryIO, kind: MediaType, *, filename: str) -> VideoFacts | AudioFacts:
    """Decode the beginning of a video or audio file and return its facts.

    A container of video that holds nothing but sound is audio. The demuxer is held to the type that was found from the
    bytes, and reads nothing but the file: left to itself FFmpeg would follow a playlist to other files.

    Raises:
        CorruptMediaError: It cannot be decoded, or has no stream of its kind.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("probing video and audio", extra="video") from error

    try:
        with av.open(file, mode="r", format=kind.parser, options={"protocol_whitelist": "file"}) as container:
            cover = av.stream.Disposition.attached_pic
            pictures = [stream for stream in container.streams.video if not stream.disposition & cover]
            if kind.kind is MediaKind.VIDEO and pictures:
                return _video(container, pictures[0], filename)
            if container.streams.audio and (kind.kind is MediaKind.AUDIO or kind in sniff.SOUND_ONLY):
                return _audio(container, container.streams.audio[0], kind, filename)
    except CorruptMediaError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, EOFError, IndexError) as error:
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {reason}") from error
    raise CorruptMediaError(f"{filename!r} ({kind.content_type}) has no {kind.kind} stream")


def _video(container: InputContainer, stream: VideoStream, filename: str) -> VideoFacts:
    frame = next(container.decode(stream), None)
    if frame is None:
        raise CorruptMediaError(f"{filename!r} has no video frame")
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = round(frame.width * aspect) if aspect > 0 else frame.width, frame.height
    if frame.rotation % 180:
        width, height = height, width
    return VideoFacts(width=width, height=height, duration=_duration(container, stream))


def _audio(container: InputContainer, stream: AudioStream, kind: MediaType, filename: str) -> AudioFacts:
    if next(container.decode(stream), None) is None:
        raise CorruptMediaError(f"{filename!r} has no sound")
    if kind is sniff.MP3:
        # Without an index the header only lets guess; the packets tell.
        container.seek(0)
        duration = float(sum((packet.duration or 0) * (packet.time_base or 0) for packet in container.demux(stream)))
    else:
        duration = _duration(container, stream)
    bitrate = stream.bit_rate or container.bit_rate or (round(container.size * 8 / duration) if duration else 0)
    return AudioFacts(duration=duration, bitrate=bitrate, sample_rate=stream.sample_rate or 0, channels=stream.channels)


def _duration(container: InputContainer, stream: VideoStream | AudioStream) -> float:
    if container.duration:
        return container.duration / _MICROSECONDS
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    container.seek(0)
    last = Fraction(0)
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base:
            last = max(last, (packet.pts + (packet.duration or 0)) * packet.time_base)
    return float(last)
