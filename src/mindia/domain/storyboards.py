"""What `library.media.storyboard` gives: a picture of many frames of a video, and where each is."""

from __future__ import annotations

import re

import attrs

from mindia.domain._operation import shown
from mindia.domain.derivatives import Derivative
from mindia.domain.operations import TILES_IN_A_ROW, Tiles
from mindia.domain.transformations import Transformation
from mindia.errors import InvalidError

_URL = re.compile(r"[!-~]+", re.ASCII)


@attrs.frozen(kw_only=True)
class StoryboardTile:
    """A frame within the sheet of a storyboard.

    Attributes:
        start_s: The second of the video that it shows, where the storyboard is exact.
        end_s: When the next one begins, or the video ends.
        x: Where it begins in the sheet, from the left, in pixels.
        y: Where it begins, from the top.
        width: In pixels.
        height: In pixels.
    """

    start_s: float
    end_s: float
    x: int
    y: int
    width: int
    height: int


@attrs.frozen(kw_only=True)
class Storyboard:
    """Frames of a video at even intervals, in one picture: players show the one where the pointer is in their bar.

    Attributes:
        sheet: The picture, as it is stored: `library.media.url(storyboard.sheet)` is its address.
        interval_s: Seconds from frame to frame.
        duration_s: When the last frame of the video is over. Whether it can be decoded is not known where a tile begins
            before it that can.
        is_exact: Whether each tile shows the frame of its time. Otherwise decoding took too long, and some show one
            that is earlier, by `interval_s` at most; `library.media.regenerate_derivatives(video)` tries again.
        tiles: Where each frame is in the picture, and when it is seen.
    """

    sheet: Derivative
    interval_s: float
    duration_s: float
    is_exact: bool
    tiles: tuple[StoryboardTile, ...] = attrs.field(repr=False)

    @classmethod
    def of(cls, sheet: Derivative) -> Storyboard:
        """Return the storyboard of a picture that is one.

        Args:
            sheet: One of `library.media.derivatives(video)`, say.

        Raises:
            InvalidError: It is another picture.
        """
        tiles = _tiles_of(sheet)
        if tiles is None or tiles.end is None or not sheet.width or not sheet.height:
            raise InvalidError(f"{sheet.operations!r} is no storyboard: library.media.storyboard(video) makes one")
        columns, rows = tiles.grid
        width, height = sheet.width // columns, sheet.height // rows
        starts_ms = [number * tiles.step_ms for number in range(tiles.count)]
        ends_ms = [*starts_ms[1:], round(tiles.end * 1000)]
        return cls(
            sheet=sheet,
            interval_s=tiles.step_ms / 1000,
            duration_s=tiles.end,
            is_exact=tiles.exact,
            tiles=tuple(
                StoryboardTile(
                    start_s=start_ms / 1000,
                    end_s=end_ms / 1000,
                    x=number % TILES_IN_A_ROW * width,
                    y=number // TILES_IN_A_ROW * height,
                    width=width,
                    height=height,
                )
                for number, (start_ms, end_ms) in enumerate(zip(starts_ms, ends_ms, strict=True))
            ),
        )

    def webvtt(self, url: str) -> str:
        """Return the text of a track for players (WebVTT, `text/vtt`), each of whose cues names a part of the picture.

        Args:
            url: Where the picture is, for the player: `library.media.url(storyboard.sheet)`. Where it expires, so does
                the track: give both out at once.

        Raises:
            InvalidError: It is no address, or names a part of one.
        """
        if not isinstance(url, str) or not _URL.fullmatch(url) or "#" in url or "-->" in url:
            raise InvalidError(f"url must be an address of ASCII characters, without spaces and a #, not {shown(url)}")
        cues = [
            f"{_time(tile.start_s)} --> {_time(tile.end_s)}\n{url}#xywh={tile.x},{tile.y},{tile.width},{tile.height}\n"
            for tile in self.tiles
        ]
        return "\n".join(["WEBVTT\n", *cues])


def _tiles_of(sheet: Derivative) -> Tiles | None:
    is_of_tiles = sheet.operations.startswith(f"{Tiles.name}_")
    return Transformation.parse(sheet.operations).tiles if is_of_tiles else None


def _time(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}.{thousandths:03}"
