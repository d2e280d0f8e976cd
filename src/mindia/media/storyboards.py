"""Frames of a video at even intervals, laid out in one picture: for players that show where one is about to go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.operations import TILES_IN_A_ROW, Resize, Tiles
from mindia.errors import CorruptMediaError, TooLargeError
from mindia.media import sniff
from mindia.media.pixels import Canvas, resized_to
from mindia.media.video import opened_video, pixel_aspect

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from PIL.Image import Image

_MICROSECONDS = 1_000_000
_BEHIND_ALL = float(1 << 40)
"""A time that no video has, in seconds: what is sought there is its last part."""
_SHARE = 0.5
"""Of `Settings.parser_timeout`, in which frames are decoded; the rest is for finding the end, and for encoding."""
_NEAR_S = 2.0
"""What is no further away is decoded on the way there, rather than sought."""
_EARLIER_S = (0.0, 10.0, 60.0, _BEHIND_ALL)
"""How much earlier is sought once more, where what is found can be decoded only from a later time on."""
_REORDERED = 16
"""How many frames one may come behind those that are seen before it, at most (H.264, A.3.1)."""
_EPSILON_S = 0.0005
"""Times are kept to a thousandth."""
_MOST_S = 1_000_000.0
_TRIES = 3
_RATE = 25.0
"""Frames a second, where the file does not say."""


def laid_out(
    file: BinaryIO, kind: sniff.MediaType, asked: Tiles, canvas: Canvas, settings: Settings
) -> tuple[Image, Tiles]:
    """Return tiles in one picture, and what was found: when the last frame is over, and whether they are exact.

    Each tile shows what is seen when its time begins. Where decoding takes too long, it is a frame that is seen
    earlier, but not before the time of the tile before.

    Args:
        file: Seekable.
        kind: Its type.
        asked: How large tiles are, and how far apart; the rest is of no account.
        canvas: What is made within, and the name for messages.
        settings: Limits.

    Raises:
        CorruptMediaError: There is no frame that can be decoded.
        InvalidError: There would be too many tiles.
        TooLargeError: Decoding takes too long, or there would be too many pixels.
        MissingExtraError: PyAV is not installed.
    """
    deadline = time.monotonic() + settings.parser_timeout.total_seconds() * _SHARE
    with opened_video(file, kind, filename=canvas.filename, settings=settings) as (container, stream):
        reel = _Reel(container, stream)
        end = reel.end_of_packets()
        for _ in range(_TRIES):
            tiles = attrs.evolve(asked, end=max(0.001, min(end, _MOST_S)), exact=True)
            sheet, is_exact, end = _sheet(reel, tiles, canvas, deadline)
            if sheet is not None:
                return sheet, attrs.evolve(tiles, exact=is_exact)
            # What is behind cannot be decoded: the intervals may become shorter with that.
    raise CorruptMediaError(f"{canvas.filename!r} ends at another time whenever it is read")


def _sheet(reel: _Reel, tiles: Tiles, canvas: Canvas, deadline: float) -> tuple[Image | None, bool, float]:
    """Return tiles in one picture, whether all are exact, and when the video is over; no picture if before they are."""
    from PIL import Image

    sheet: Image.Image | None = None
    size = (0, 0)
    is_exact = True
    reel.rewind()
    for number in range(tiles.count):
        at_s = number * tiles.step_ms / 1000
        now = time.monotonic()
        frame = reel.seen_at(at_s, until=now + max(0.0, deadline - now) / (tiles.count - number))
        if frame is None or reel.is_over_by(at_s):
            if frame is None and not number:
                raise CorruptMediaError(f"{canvas.filename!r} has no frame that can be read")
            if number:
                end = reel.end_behind((number - 1) * tiles.step_ms / 1000) if frame is None else reel.end
                return None, is_exact, min(end, at_s)
        assert frame is not None
        is_exact = is_exact and not reel.was_cut_short
        if reel.was_cut_short and at_s - reel.time_of(frame) > tiles.step_ms / 1000:
            raise TooLargeError(
                f"{canvas.filename!r} takes too long to be decoded for {tiles.count} tiles (Settings.parser_timeout): "
                "take an interval that is longer"
            )
        if sheet is None:
            size = reel.tile_of(frame, tiles.side)
            columns, rows = tiles.grid
            canvas.check(columns * size[0], rows * size[1])
            sheet = Image.new("RGB", (columns * size[0], rows * size[1]))
        row, column = divmod(number, TILES_IN_A_ROW)
        sheet.paste(_shrunk(frame, size), (column * size[0], row * size[1]))
    return sheet, is_exact, reel.end


def _shrunk(frame: VideoFrame, size: tuple[int, int]) -> Image:
    turned = frame.rotation % 180 != 0
    width, height = size[::-1] if turned else size
    picture: Image = frame.to_image(width=width, height=height, interpolation="AREA")  # type: ignore[no-untyped-call]  # of PyAV
    upright = picture.rotate(frame.rotation, expand=True)
    return upright if upright.size == size else upright.resize(size)


class _Reel:
    """A video that is gone through from beginning to end. Seconds are those of a player: they begin with the file.

    Attributes:
        end: When the last of all frames that were decoded is over.
        was_cut_short: Whether there was no time to decode up to what was asked for last.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        own = float((stream.start_time or 0) * (stream.time_base or 0))
        whole = own if container.start_time is None else container.start_time / _MICROSECONDS
        self._start = min(own, whole)
        self._frame_s = 1 / float(stream.average_rate or _RATE)
        self._frames: Iterator[VideoFrame] = iter(())
        self._shown: VideoFrame | None = None
        self._ahead: VideoFrame | None = None
        self._has_ended = False
        self._is_fresh = True
        self._furthest_s = _NEAR_S
        self.end = 0.0
        self.was_cut_short = False

    def end_of_packets(self) -> float:
        """Return when the last packet ends that is whole; whether it can be decoded is not known then."""
        last = self._last_packet(_BEHIND_ALL)
        # Packets stand in the order of decoding: the last one need not be the one that is seen last.
        before = 0.0 if last is None else last - (_REORDERED + 1) * self._frame_s
        return max(last or 0.0, self._last_packet(before) or 0.0)

    def rewind(self) -> None:
        """Begin again: what is asked for next may be of any time."""
        self._is_fresh = True

    def seen_at(self, at_s: float, *, until: float) -> VideoFrame | None:
        """Return the frame that is seen at a time, or the first one before there is any, or None behind the last one.

        Args:
            at_s: Later than before.
            until: When decoding is to stop; then it is a frame that is seen earlier.
        """
        self.was_cut_short = False
        if self._is_fresh or at_s - self._position > self._furthest_s:
            for earlier_s in _EARLIER_S:
                self._seek(at_s - earlier_s)
                self._decode(at_s, until)
                if self._shown is not None or earlier_s >= at_s:
                    break
        else:
            self._decode(at_s, until)
        return self._shown or self._ahead

    def is_over_by(self, at_s: float) -> bool:
        """Tell whether no frame is seen at the time that was asked for last, nor later."""
        return self._has_ended and self._ahead is None and at_s > self.end - _EPSILON_S

    def end_behind(self, at_s: float) -> float:
        """Return when the last frame is over that can be decoded from a time on."""
        self._seek(at_s)
        for frame in self._frames:
            self._note(frame)
        return self.end

    def time_of(self, frame: VideoFrame) -> float:
        """Return when a frame begins to be seen."""
        return 0.0 if frame.time is None else frame.time - self._start

    def tile_of(self, frame: VideoFrame, side: int) -> tuple[int, int]:
        """Return width and height of a frame as it is displayed, brought within a square."""
        width = max(1, round(frame.width * pixel_aspect(self._stream)))
        shown = (frame.height, width) if frame.rotation % 180 else (width, frame.height)
        return resized_to(*shown, Resize(side, side))[0]

    @property
    def _position(self) -> float:
        newest = self._ahead or self._shown
        return 0.0 if newest is None else self.time_of(newest)

    def _seek(self, at_s: float) -> None:
        self._go_to(at_s)
        self._frames = self._decoded()
        self._shown = self._ahead = None
        self._has_ended = self._is_fresh = False

    def _go_to(self, at_s: float) -> None:
        import av

        if at_s > 0:
            # Without an index, not every demuxer finds the place.
            with suppress(av.error.FFmpegError):
                self._container.seek(int((self._start + at_s) * _MICROSECONDS))
                return
        self._container.seek(min(0, int(self._start * _MICROSECONDS)))

    def _decode(self, at_s: float, until: float) -> None:
        is_first = self._shown is None
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
                if self._ahead is None:
                    self._has_ended = True
                    return
                self._note(self._ahead)
                if is_first:  # how far apart frames are that decoding can begin with
                    self._furthest_s = max(self._furthest_s, at_s - self.time_of(self._ahead))
                    is_first = False
            if self.time_of(self._ahead) > at_s + _EPSILON_S:
                return
            self._shown, self._ahead = self._ahead, None
            if time.monotonic() > until:
                self.was_cut_short = self._end_of(self._shown) < at_s + _EPSILON_S
                return

    def _note(self, frame: VideoFrame) -> None:
        self.end = max(self.end, self._end_of(frame))

    def _end_of(self, frame: VideoFrame) -> float:
        long = frame.duration * float(frame.time_base) if frame.duration and frame.time_base else self._frame_s
        return self.time_of(frame) + long

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield the frames from here on; what is damaged is left out, as players do."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # broken off
                packet = None
            with suppress(av.error.FFmpegError):
                yield from self._stream.decode(packet)
            if packet is None:
                return

    def _last_packet(self, at_s: float) -> float | None:
        import av

        last: float | None = None
        with suppress(av.error.FFmpegError):  # what is behind damage is not seen
            self._go_to(at_s)
            for packet in self._container.demux(self._stream):
                at = packet.dts if packet.pts is None else packet.pts
                if at is None or not packet.time_base or not packet.size or packet.is_corrupt:
                    continue
                long = float(packet.duration * packet.time_base) if packet.duration else self._frame_s
                last = max(last or 0.0, float(at * packet.time_base) - self._start + long)
        return last
