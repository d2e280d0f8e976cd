"""How videos are encoded, as the settings say: read when an application is made, and so without what encoding needs."""

from __future__ import annotations

import re
from enum import StrEnum

import attrs

from mindia.config import Settings
from mindia.errors import InvalidError

MAX_SIDE = 4096
"""What decoders of H.264 in browsers and phones take."""

_PRESETS = {
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
}  # fmt: skip


class SegmentType(StrEnum):
    """What segments are."""

    TS = "ts"
    FMP4 = "fmp4"

    @property
    def extension(self) -> str:
        """Of the filenames of segments."""
        return "ts" if self is SegmentType.TS else "m4s"

    @property
    def content_type(self) -> str:
        """MIME type of segments."""
        return "video/mp2t" if self is SegmentType.TS else "video/iso.segment"


@attrs.frozen(kw_only=True)
class Rung:
    """A variant that videos may get.

    Attributes:
        height: Its short side in pixels: the height of a video that lies, the width of one that stands.
        bitrate: Of its pictures, in bits per second.
    """

    height: int
    bitrate: int

    @classmethod
    def parse(cls, text: str) -> Rung:
        """Read `720p@2800k`.

        Raises:
            InvalidError: It is none.
        """
        match = re.fullmatch(r"(\d{2,4})p@(\d{2,6})k", text) if isinstance(text, str) else None
        if match is None or not 16 <= int(match[1]) <= MAX_SIDE:
            raise InvalidError(f"a rung is written as 720p@2800k, and has 16 to {MAX_SIDE} lines, not {text!r}")
        return cls(height=int(match[1]), bitrate=1000 * int(match[2]))


@attrs.frozen(kw_only=True)
class HlsOptions:
    """How videos are encoded.

    Attributes:
        ladder: The rungs, the lowest first.
        segment_type: What segments are.
        segment_s: How long they are, in seconds.
        preset: Of libx264: how much time goes into how good it looks.
        max_frame_rate: What has more frames a second gets a half of them, a third, and so on.
    """

    ladder: tuple[Rung, ...]
    segment_type: SegmentType
    segment_s: float
    preset: str
    max_frame_rate: float

    @classmethod
    def of(cls, settings: Settings) -> HlsOptions:
        """Return those of the settings, if all are allowed.

        Raises:
            InvalidError: One is not.
        """
        ladder, segments, segment_s = settings.hls_ladder, settings.hls_segments, settings.hls_segment_s
        preset, max_frame_rate = settings.hls_preset, settings.hls_max_frame_rate
        rungs = tuple(sorted(map(Rung.parse, ladder), key=lambda rung: rung.height))
        if not rungs or len({rung.height for rung in rungs}) < len(rungs):
            raise InvalidError(f"hls_ladder must have rungs of different heights, not {ladder!r}")
        if segments not in tuple(SegmentType):
            raise InvalidError(f"hls_segments must be 'ts' or 'fmp4', not {segments!r}")
        if not 1 <= segment_s <= 60:
            raise InvalidError(f"hls_segment_s must be 1 to 60, not {segment_s!r}")
        if preset not in _PRESETS:
            raise InvalidError(f"hls_preset must be one of {', '.join(sorted(_PRESETS))}, not {preset!r}")
        if not 1 <= max_frame_rate <= 240:
            raise InvalidError(f"hls_max_frame_rate must be 1 to 240, not {max_frame_rate!r}")
        return cls(
            ladder=rungs,
            segment_type=SegmentType(segments),
            segment_s=segment_s,
            preset=preset,
            max_frame_rate=max_frame_rate,
        )
