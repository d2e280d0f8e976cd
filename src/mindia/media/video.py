"""Facts of video and audio, by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from mindia.config import Settings
from mindia.domain.media import AudioFacts, MediaKind, VideoFacts
from mindia.errors import CorruptMediaError, MissingExtraError, TooLargeError
from mindia.media import _mp3, sniff
from mindia.media.sniff import MediaType
from mindia.media.text import decoded, one_line

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

    _Stream = TypeVar("_Stream", VideoStream, AudioStream)

MAX_TAG_CHARS = 500

_MICROSECONDS = 1_000_000
_END = 1 << 62
"""A time behind the end of everything, in microseconds: what is sought there is the last that there is."""
_WRAPPED = 1 << 31
_MAX_ASPECT = 16
"""Of the width of a pixel to its height: what is beyond is nonsense, and pixels are taken for square."""
_MAX_SAMPLE_RATE = 100_000_000
"""More than twice as many as the fastest recordings in one bit have (DSD1024)."""
_EVEN = 0.02
"""By how much of itself the bitrate of MP3 may differ from what its frames need before it is not that of all."""
_MAX_BITRATE = (1 << 31) - 1
"""What an integer of PostgreSQL holds; a file that says more plays for no time."""
_TRUSTED_SECONDS = 1.0
"""By how much the packets may go on after the duration of the header before the header is not believed."""


def probe_av(file: BinaryIO, kind: MediaType, *, filename: str, settings: Settings) -> VideoFacts | AudioFacts:
    """Decode the beginning of a video or audio file and return its facts.

    A container of video that holds nothing but sound is audio. The demuxer is held to the type that was found from the
    bytes, and reads nothing but the file: left to itself FFmpeg would follow a playlist to other files.

    Raises:
        TooLargeError: Its frames are larger than allowed, or it plays for longer.
        CorruptMediaError: It cannot be decoded, or has no stream of its kind.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("probing video and audio", extra="video") from error

    try:
        with _opened(file, kind, max_pixels=decoded_pixels(settings)) as container:
            pictures = _pictures(container)
            if kind.kind is MediaKind.VIDEO and pictures:
                return _video(container, _decodable(pictures[0], filename), filename, settings)
            if container.streams.audio and (kind.kind is MediaKind.AUDIO or kind in sniff.SOUND_ONLY):
                sound = _decodable(container.streams.audio[0], filename)
                return _audio(file, container, sound, kind, filename, settings)
    except (CorruptMediaError, TooLargeError):
        raise
    except (av.error.BlockingIOError, av.error.MemoryError) as error:
        raise _wants_memory(error) from error
    except (av.error.FFmpegError, OSError, ValueError, EOFError, IndexError) as error:
        _refuse_large_frames(file, kind, filename, settings)
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {reason}") from error
    raise CorruptMediaError(f"{filename!r} ({kind.content_type}) has no {kind.kind} stream")


def has_pictures(file: BinaryIO, kind: MediaType, *, filename: str, settings: Settings) -> bool:
    """Tell whether a container of video holds more than sound.

    Raises:
        CorruptMediaError: It cannot be opened.
        MissingExtraError: PyAV is not installed.
    """
    with _for_decoding(file, kind, filename, settings) as container:
        return bool(_pictures(container))


@contextmanager
def opened_video(
    file: BinaryIO, kind: MediaType, *, filename: str, settings: Settings
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video, and give its pictures for decoding.

    Raises:
        CorruptMediaError: It cannot be decoded, or has no pictures.
        MissingExtraError: PyAV is not installed.
    """
    with _for_decoding(file, kind, filename, settings) as container:
        stream = _decodable(_first(_pictures(container), filename), filename)
        stream.codec_context.options = {"max_pixels": str(decoded_pixels(settings))}
        yield container, stream


@contextmanager
def opened_sound(
    file: BinaryIO, kind: MediaType, *, filename: str, settings: Settings
) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open what has sound, and give that for decoding.

    Raises:
        CorruptMediaError: It cannot be decoded, or has no sound.
        MissingExtraError: PyAV is not installed.
    """
    with _for_decoding(file, kind, filename, settings) as container:
        if not container.streams.audio:
            raise CorruptMediaError(f"{filename!r} has no sound")
        yield container, _decodable(container.streams.audio[0], filename)


@contextmanager
def _for_decoding(file: BinaryIO, kind: MediaType, filename: str, settings: Settings) -> Iterator[InputContainer]:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading video and audio", extra="video") from error

    try:
        with _opened(file, kind, max_pixels=decoded_pixels(settings)) as container:
            yield container
    except (CorruptMediaError, TooLargeError):
        raise
    except (av.error.BlockingIOError, av.error.MemoryError) as error:
        raise _wants_memory(error) from error
    except (av.error.FFmpegError, OSError, ValueError, EOFError, IndexError) as error:
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise CorruptMediaError(f"{filename!r} cannot be read as {kind.content_type}: {reason}") from error


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Return how much wider than high a pixel of a video is."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else Fraction(1)


def _wants_memory(error: Exception) -> MemoryError:
    """Return what says that it is memory that is missing; "try again" is what a decoder says that has no thread."""
    return MemoryError(str(error))


def _opened(file: BinaryIO, kind: MediaType, *, max_pixels: int | None) -> InputContainer:
    import av

    options = {"protocol_whitelist": "file"}
    if max_pixels is not None:
        options["max_pixels"] = str(max_pixels)
    file.seek(0)
    return av.open(file, mode="r", format=kind.parser, options=options, metadata_errors="surrogateescape")


def _pictures(container: InputContainer) -> list[VideoStream]:
    import av

    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _first(streams: Sequence[VideoStream], filename: str) -> VideoStream:
    if not streams:
        raise CorruptMediaError(f"{filename!r} has no pictures")
    return streams[0]


def _decodable(stream: _Stream, filename: str) -> _Stream:
    if not stream.codec_context:
        raise CorruptMediaError(f"{filename!r} is coded in a way that is not known")
    return stream


def _refuse_large_frames(file: BinaryIO, kind: MediaType, filename: str, settings: Settings) -> None:
    """Tell a decoder that was not allowed so many pixels from a damaged file: it says the same of both."""
    import av

    try:
        with _opened(file, kind, max_pixels=None) as container:
            pictures = _pictures(container)
    except (av.error.FFmpegError, OSError, ValueError, EOFError, IndexError):
        return
    if kind.kind is MediaKind.VIDEO and pictures and pictures[0].codec_context:
        _check_pixels(pictures[0].width, pictures[0].height, filename, settings)


def _video(container: InputContainer, stream: VideoStream, filename: str, settings: Settings) -> VideoFacts:
    _check_pixels(stream.width, stream.height, filename, settings)
    _check_seconds(_told(container, stream), MediaKind.VIDEO, filename, settings)
    stream.codec_context.options = {"max_pixels": str(decoded_pixels(settings))}
    frame = next(container.decode(stream), None)
    if frame is None:
        raise CorruptMediaError(f"{filename!r} has no video frame")
    _check_pixels(frame.width, frame.height, filename, settings)
    duration = _duration(container, stream)
    _check_seconds(duration, MediaKind.VIDEO, filename, settings)
    width, height = max(1, round(frame.width * pixel_aspect(stream))), frame.height
    if frame.rotation % 180:
        width, height = height, width
    return VideoFacts(width=width, height=height, duration=duration)


def _audio(
    file: BinaryIO,
    container: InputContainer,
    stream: AudioStream,
    kind: MediaType,
    filename: str,
    settings: Settings,
) -> AudioFacts:
    if kind is not sniff.MP3:
        _check_seconds(_told(container, stream), MediaKind.AUDIO, filename, settings)
    start = _decoded_from(container, stream, filename)
    if kind is sniff.MP3:
        duration, bitrate = _counted(file, container, stream, settings)
    else:
        duration = _duration(container, stream)
        bitrate = stream.bit_rate or (round((container.size - start) * 8 / duration) if duration else 0)
    _check_seconds(duration, MediaKind.AUDIO, filename, settings)
    sample_rate, channels = stream.sample_rate or 0, stream.channels
    if not (0 < sample_rate <= _MAX_SAMPLE_RATE and channels > 0):
        raise CorruptMediaError(f"{filename!r} says that it has {channels} channels of {sample_rate} samples a second")
    # Ogg has its tags in the stream; elsewhere those of a stream are of a track, as "English".
    tags = {**(stream.metadata if kind is sniff.OGG else {}), **container.metadata}
    return AudioFacts(
        duration=duration,
        bitrate=min(max(0, bitrate), _MAX_BITRATE),
        sample_rate=sample_rate,
        channels=channels,
        title=_tag(tags, "title"),
        artist=_tag(tags, "artist"),
        album=_tag(tags, "album"),
    )


def _decoded_from(container: InputContainer, stream: AudioStream, filename: str) -> int:
    """Decode the beginning of the sound; return where it is in the file, behind covers and other tags, or 0."""
    start: int | None = None
    for packet in container.demux(stream):
        if start is None:
            start = packet.pos
        if packet.decode():
            return max(0, start or 0)
    raise CorruptMediaError(f"{filename!r} has no sound")


def _counted(file: BinaryIO, container: InputContainer, stream: AudioStream, settings: Settings) -> tuple[float, int]:
    """Return duration and bitrate of MP3: without an index the header only lets guess, and an index may lie."""
    told = stream.bit_rate or 0
    sound = _mp3.sound(file, most_seconds=settings.max_audio_seconds)
    if sound.seconds:
        bitrate = round(sound.size * 8 / sound.seconds)
        return sound.seconds, told if abs(told - bitrate) <= told * _EVEN else bitrate
    container.seek(0)
    duration = float(sum((packet.duration or 0) * (packet.time_base or 0) for packet in container.demux(stream)))
    return duration, told


def _tag(tags: Mapping[str, str], name: str) -> str | None:
    value = next((value for key, value in tags.items() if key.lower() == name), "")
    return one_line(decoded(value.encode(errors="surrogateescape")), max_chars=MAX_TAG_CHARS)


def decoded_pixels(settings: Settings) -> int:
    """Return the limit for decoders, which count what they fill up to their blocks and lines as well."""
    return 2 * settings.max_video_pixels + (1 << 16)


def _check_pixels(width: int, height: int, filename: str, settings: Settings) -> None:
    if width * height > settings.max_video_pixels:
        raise TooLargeError(
            f"{filename!r} has frames of {width} x {height} pixels; the limit is {settings.max_video_pixels} "
            "(Settings.max_video_pixels)"
        )


def _check_seconds(seconds: float, kind: MediaKind, filename: str, settings: Settings) -> None:
    limit = settings.max_video_seconds if kind is MediaKind.VIDEO else settings.max_audio_seconds
    if seconds > limit:
        raise TooLargeError(
            f"{filename!r} plays for {seconds:.2f} seconds; the limit for {kind} is {limit:g} "
            f"(Settings.max_{kind}_seconds)"
        )


def _told(container: InputContainer, stream: VideoStream | AudioStream) -> float:
    """Return the duration that the header tells, or 0."""
    if container.duration:
        return container.duration / _MICROSECONDS
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _duration(container: InputContainer, stream: VideoStream | AudioStream) -> float:
    """Return the duration that the header tells, or that of the packets where they go on for longer."""
    told = _told(container, stream)
    last = _last(container, stream, _END if told else 0)
    return told if told > 0 and last <= told + _TRUSTED_SECONDS else last


def _last(container: InputContainer, stream: VideoStream | AudioStream, start: int) -> float:
    """Return when the last packet behind a time ends, from the beginning of the stream."""
    import av

    last = first = Fraction((stream.start_time or 0) * (stream.time_base or 0))
    with suppress(av.error.FFmpegError):  # what is behind damage is not played
        try:
            container.seek(start)
        except av.error.FFmpegError:
            container.seek(0)  # without an index, not every demuxer finds the end
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base:
                # FFmpeg computes the duration of a last packet in Ogg, and may wrap around below 0.
                duration = packet.duration or 0
                last = max(last, (packet.pts + (duration if duration < _WRAPPED else 0)) * packet.time_base)
    return float(last - first)
