"""What a camera wrote beside a picture: EXIF (CIPA DC-008), which is an image file directory of TIFF 6.0."""

from __future__ import annotations

import re
import struct
from datetime import datetime
from typing import Final

from mindia.domain.media import Location
from mindia.errors import InvalidError
from mindia.media.text import decoded, one_line

MAX_CAMERA_CHARS = 200

PREFIX = b"Exif\0\0"
"""Precedes the directory in JPEG, and often elsewhere."""

_MAKE, _MODEL, _ORIENTATION, _DATE_TIME = 0x010F, 0x0110, 0x0112, 0x0132
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = range(1, 7)
_TIMES = ((0x9003, 0x9011), (0x9004, 0x9012), (_DATE_TIME, 0x9010))
"""Tags of a time and of its offset from UTC: when the picture was taken, digitized, last changed (4.6.5 F)."""

_SHORT = 3
_FORMATS = {1: "B", 2: "s", _SHORT: "H", 4: "I", 5: "II", 7: "s", 129: "s"}
"""Types of values that are read, as `struct` has them: BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF-8."""

_MAX_COUNT = 1 << 12
_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) ((?:[01]\d|2[0-3]):\d\d:\d\d)", re.ASCII)
_OFFSET = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d", re.ASCII)
_YEARS = range(1826, 2200)
"""From the oldest photograph to a clock that is badly set; what is outside is no date."""

Value = bytes | tuple[int, ...]


class Exif:
    """The tags of a picture. Never raises over damaged ones: they are not there.

    Args:
        raw: The directory, with or without the prefix "Exif" and two zeros.
    """

    def __init__(self, raw: bytes) -> None:
        while raw.startswith(PREFIX):
            raw = raw[len(PREFIX) :]
        self._raw = raw
        self._order = {b"II*\0": "<", b"MM\0*": ">"}.get(raw[:4], "")
        self._main = self._entries(*struct.unpack_from(f"{self._order}I", raw, 4)) if len(raw) >= 8 else {}

    @property
    def orientation(self) -> int:
        """How the stored picture is turned for display, 1 to 8; 1 is not at all."""
        match self._main.get(_ORIENTATION):
            case (int(value),) if 1 <= value <= 8:
                return value
        return 1

    @property
    def taken_at(self) -> datetime | None:
        """When the picture was taken: with a time zone where it says its own, else by the camera's clock."""
        tags = self._main | self._below(_EXIF_DIRECTORY)
        times = (_time(_text(tags.get(time)), _text(tags.get(offset))) for time, offset in _TIMES)
        return next((time for time in times if time is not None), None)

    @property
    def camera(self) -> str | None:
        """Make and model; the make only once where the model begins with it."""
        make, model = (one_line(_text(self._main.get(tag)), max_chars=MAX_CAMERA_CHARS) for tag in (_MAKE, _MODEL))
        if make is None or model is None:
            return make or model
        if model.split()[0].casefold() in make.casefold().split():
            return model
        return one_line(f"{make} {model}", max_chars=MAX_CAMERA_CHARS)

    @property
    def location(self) -> Location | None:
        """Where the picture was taken."""
        tags = self._below(_GPS_DIRECTORY)
        latitude = _degrees(tags.get(_LATITUDE), _text(tags.get(_LATITUDE_REF)), "NS")
        longitude = _degrees(tags.get(_LONGITUDE), _text(tags.get(_LONGITUDE_REF)), "EW")
        # Devices that do not know where they are write zeros.
        if latitude is None or longitude is None or latitude == longitude == 0:
            return None
        try:
            return Location(latitude=latitude, longitude=longitude, altitude=_altitude(tags))
        except InvalidError:
            return None

    def _below(self, tag: int) -> dict[int, Value]:
        match self._main.get(tag):
            case (int(offset),):
                return self._entries(offset)
        return {}

    def _entries(self, offset: int) -> dict[int, Value]:
        if not self._order or offset + 2 > len(self._raw):
            return {}
        (count,) = struct.unpack_from(f"{self._order}H", self._raw, offset)
        entries: dict[int, Value] = {}
        for at in range(offset + 2, min(offset + 2 + 12 * count, len(self._raw) - 11), 12):
            tag, kind, values = struct.unpack_from(f"{self._order}HHI", self._raw, at)
            if tag in _READ and kind in _FORMATS and values <= _MAX_COUNT:
                value = self._value(at + 8, kind, values)
                if value is not None:
                    entries[tag] = value
        return entries

    def _value(self, at: int, kind: int, count: int) -> Value | None:
        unit = _FORMATS[kind]
        layout = f"{self._order}{count}s" if unit == "s" else self._order + unit * count
        if struct.calcsize(layout) > 4:
            (at,) = struct.unpack_from(f"{self._order}I", self._raw, at)
        if at + struct.calcsize(layout) > len(self._raw):
            return None
        values = struct.unpack_from(layout, self._raw, at)
        return bytes(values[0]) if unit == "s" else values


_READ: Final = {
    _MAKE, _MODEL, _ORIENTATION, _EXIF_DIRECTORY, _GPS_DIRECTORY,
    *(tag for pair in _TIMES for tag in pair),
    _LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE,
}  # fmt: skip


def only_orientation(orientation: int) -> bytes:
    """Return the smallest EXIF that turns a picture, without the prefix: one entry (TIFF 6.0, section 2)."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, _SHORT, 1, orientation, 0, 0)


def _text(value: Value | None) -> str:
    return decoded(value.rstrip(b"\0 ")) if isinstance(value, bytes) else ""


def _time(text: str, offset: str) -> datetime | None:
    found = _TIME.match(text)
    if found is None or int(found[1]) not in _YEARS:
        return None
    zone = offset if _OFFSET.fullmatch(offset) else ""
    try:
        return datetime.fromisoformat(f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}")
    except ValueError:
        return None


def _ratios(value: Value | None) -> list[float]:
    """Return fractions as numbers, none where one of them is none."""
    if not isinstance(value, tuple) or not all(value[1::2]):
        return []
    return [above / below for above, below in zip(value[::2], value[1::2], strict=False)]


def _degrees(value: Value | None, direction: str, directions: str) -> float | None:
    match _ratios(value):
        case [degrees, minutes, seconds] if direction in tuple(directions):
            size = degrees + minutes / 60 + seconds / 3600
            return size if direction == directions[0] else -size
    return None


def _altitude(tags: dict[int, Value]) -> float | None:
    below_sea = tags.get(_ALTITUDE_REF) in (b"\1", (1,))
    match _ratios(tags.get(_ALTITUDE)):
        case [metres]:
            return -metres if below_sea else metres
    return None
