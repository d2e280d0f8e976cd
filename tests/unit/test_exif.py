"""What a camera wrote beside a picture becomes facts; what it wrote wrongly is not there, and never fails the file."""

from __future__ import annotations

import io
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mindia import Settings
from mindia.domain.media import ImageFacts, Location
from mindia.errors import InvalidError
from mindia.media.exif import MAX_CAMERA_CHARS, PREFIX, Exif, only_orientation
from mindia.media.probe import Unprobed, probe
from mindia.testing import samples

SYDNEY = Location(latitude=-33.8567844, longitude=151.2152967, altitude=-12.5)
TAKEN = datetime.fromisoformat("2024-05-06T07:08:09")
PLACE: dict[int, Any] = {1: "N", 2: (48.0, 51.0, 24.0), 3: "E", 4: (2.0, 21.0, 3.0)}


def facts(content: bytes, **settings: Any) -> ImageFacts:
    unprobed = Unprobed(file=io.BytesIO(content), size=len(content), filename="x")
    found = probe(unprobed, settings=Settings(**settings)).facts
    assert isinstance(found, ImageFacts)
    return found


def written(
    tags: dict[int, Any] | None = None, *, times: dict[int, Any] | None = None, place: dict[int, Any] | None = None
) -> bytes:
    """Return EXIF data as Pillow writes it."""
    exif = Image.Exif()
    exif.update(tags or {})
    exif.get_ifd(0x8769).update(times or {})
    exif.get_ifd(0x8825).update(place or {})
    return exif.tobytes()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_picture_has_its_time_its_camera_and_where_that_is_wanted_its_place(image_format: str) -> None:
    content = samples.image(image_format, orientation=6, taken_at=TAKEN, camera="Canon EOS R5", location=SYDNEY)

    found = facts(content, keep_location=True)

    assert (found.width, found.height) == (48, 64)
    assert found.taken_at == TAKEN
    assert found.camera == "Canon EOS R5"
    assert found.location is not None
    assert found.location.latitude == pytest.approx(SYDNEY.latitude, abs=1e-6)
    assert found.location.longitude == pytest.approx(SYDNEY.longitude, abs=1e-6)
    assert found.location.altitude == SYDNEY.altitude
    assert facts(content).location is None, "it is read unless it is asked for"


def test_a_time_with_a_zone_is_aware_and_one_without_is_the_clock_of_the_camera() -> None:
    tokyo = TAKEN.replace(tzinfo=timezone(timedelta(hours=9)))

    assert facts(samples.image(taken_at=tokyo)).taken_at == tokyo
    naive = facts(samples.image(taken_at=TAKEN)).taken_at
    assert naive == TAKEN
    assert naive is not None
    assert naive.tzinfo is None


WHEN, OTHER = "2024:05:06 07:08:09", "2001:01:01 00:00:00"


@pytest.mark.parametrize(
    ("tags", "times", "expected"),
    [
        ({0x0132: OTHER}, {0x9003: WHEN, 0x9004: OTHER}, TAKEN),
        ({0x0132: OTHER}, {0x9004: WHEN}, TAKEN),
        ({0x0132: WHEN}, {}, TAKEN),
        ({}, {0x9003: WHEN, 0x9010: "+01:00", 0x9012: "+02:00"}, TAKEN),
        ({}, {0x9003: WHEN, 0x9011: "+00:00"}, TAKEN.replace(tzinfo=UTC)),
        ({}, {0x9004: WHEN, 0x9012: "-05:30"}, TAKEN.replace(tzinfo=timezone(-timedelta(hours=5, minutes=30)))),
        ({0x0132: WHEN}, {0x9010: "+14:00"}, TAKEN.replace(tzinfo=timezone(timedelta(hours=14)))),
        ({}, {0x9003: WHEN, 0x9011: "+25:00"}, TAKEN),
        ({}, {0x9003: WHEN, 0x9011: "   :  "}, TAKEN),
        ({}, {0x9003: "    :  :     :  :  ", 0x9004: WHEN}, TAKEN),
        ({}, {0x9003: "0000:00:00 00:00:00"}, None),
        ({}, {0x9003: "2023:02:29 12:00:00"}, None),
        ({}, {0x9003: "2023:02:28 24:00:00"}, None),
        ({}, {0x9003: "0001:01:01 00:00:00", 0x9011: "+14:00"}, None),
        ({}, {0x9003: "9999:12:31 23:59:59", 0x9011: "-14:00"}, None),
        ({}, {0x9003: "yesterday"}, None),
        ({}, {0x9003: 2024}, None),
        ({}, {}, None),
    ],
    ids=repr,
)
def test_the_best_time_that_makes_sense_is_taken(
    tags: dict[int, Any], times: dict[int, Any], expected: datetime | None
) -> None:
    found = Exif(written(tags, times=times)).taken_at

    assert found == expected
    assert found is None or found.tzinfo == (None if expected is None else expected.tzinfo)


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Eastman Kodak Company", "KODAK DC240", "KODAK DC240"),
        ("samsung", "SM-G991B", "samsung SM-G991B"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("Canon", None, "Canon"),
        (None, "X100V", "X100V"),
        ("  ", "\0", None),
        (None, None, None),
        ("Can\0on\r\n", "\x1bEOS\t R5", "Can on EOS R5"),
        ("m" * 150, "n" * 150, "m" * 150 + " " + "n" * 49),
    ],
)
def test_a_camera_is_called_by_make_and_model_and_by_no_word_twice(
    make: str | None, model: str | None, expected: str | None
) -> None:
    tags = {tag: value for tag, value in ((0x010F, make), (0x0110, model)) if value is not None}

    found = Exif(written(tags)).camera

    assert found == expected
    assert found is None or len(found) <= MAX_CAMERA_CHARS


@pytest.mark.parametrize(("raw", "expected"), [("Fühler".encode(), "Fühler"), ("Fühler".encode("cp1252"), "Fühler")])
def test_a_camera_that_writes_more_than_ascii_is_understood(raw: bytes, expected: str) -> None:
    written_as = struct.pack("<2sHIHHHIIi", b"II", 42, 8, 1, 0x010F, 2, len(raw), 26, 0) + raw

    assert Exif(written_as).camera == expected


def place(**changed: Any) -> Location | None:
    tags = {tag: changed.get(f"tag{tag}", value) for tag, value in PLACE.items()}
    tags |= {int(name[3:]): value for name, value in changed.items()}
    return Exif(written(place={tag: value for tag, value in tags.items() if value is not None})).location


def test_a_place_is_in_degrees_and_the_letters_say_on_which_side() -> None:
    north_east = place()
    assert north_east is not None
    assert (north_east.latitude, north_east.longitude) == pytest.approx((48.856667, 2.350833), abs=1e-6)

    assert place(tag1="S", tag3="W") == Location(latitude=-north_east.latitude, longitude=-north_east.longitude)
    for altitude, below, expected in ((35.5, b"\0", 35.5), (35.5, b"\1", -35.5), (0.0, b"\0", 0.0)):
        found = place(tag5=below, tag6=altitude)
        assert found is not None
        assert found.altitude == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"tag1": None},
        {"tag1": "X"},
        {"tag1": ""},
        {"tag3": "N"},
        {"tag2": None},
        {"tag4": (2.0, 21.0)},
        {"tag2": (91.0, 0.0, 0.0)},
        {"tag2": (90.0, 0.0, 1.0)},
        {"tag4": (180.0, 60.0, 0.0)},
        {"tag2": (0.0, 0.0, 0.0), "tag4": (0.0, 0.0, 0.0)},
    ],
    ids=repr,
)
def test_a_place_that_makes_no_sense_is_none(changed: dict[str, Any]) -> None:
    assert place(**changed) is None


def test_a_fraction_of_nothing_is_no_place_and_no_altitude() -> None:
    content = written(place=PLACE | {6: 35.0})
    whole = Exif(content).location
    assert whole is not None
    assert whole.altitude == 35.0

    altitude = struct.pack(">II", 35, 1)
    without = Exif(content.replace(altitude, struct.pack(">II", 35, 0))).location
    assert without == Location(latitude=whole.latitude, longitude=whole.longitude)
    assert Exif(content.replace(struct.pack(">II", 48, 1), bytes(8))).location is None


@pytest.mark.parametrize(
    "values", [(91, 0), (-90.1, 0), (0, 180.5), (0, -181), (float("nan"), 0), (0, float("inf")), (0, 0, float("nan"))]
)
def test_a_location_outside_the_earth_cannot_be_made(values: tuple[float, ...]) -> None:
    names = ("latitude", "longitude", "altitude")
    with pytest.raises(InvalidError, match="itude must be"):
        Location(**dict(zip(names, values, strict=False)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_smallest_exif_turns_a_picture_and_says_nothing_else(orientation: int) -> None:
    raw = only_orientation(orientation)

    assert Exif(raw).orientation == Exif(PREFIX + raw).orientation == orientation
    exif = Image.Exif()
    exif.load(raw)
    assert dict(exif) == {0x0112: orientation}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"MM\0*",
        b"MM\0*\0\0\0",
        b"MM\0*\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"XX\0*\0\0\0\x08\0\0",
        bytes(100),
        written({0x0112: 6})[:20],
        written({0x0112: 6}).replace(b"\x01\x12\0\x03\0\0\0\x01", b"\x01\x12\0\x03\0\0\0\x02"),
        written({0x0112: 6}).replace(b"\x01\x12\0\x03\0\0\0\x01", b"\x01\x12\0\x02\0\0\0\x01"),
        written({0x0112: 9}),
    ],
    ids=range(11),
)
def test_damaged_exif_says_nothing(raw: bytes) -> None:
    exif = Exif(raw)

    assert exif.orientation == 1
    assert (exif.taken_at, exif.camera, exif.location) == (None, None, None)


WHOLE = written({0x010F: "Canon", 0x0110: "EOS", 0x0112: 6, 0x0132: WHEN}, times={0x9003: WHEN}, place=PLACE | {6: 9.0})


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(WHOLE)))
def test_whatever_is_damaged_the_facts_are_facts_that_can_be_stored(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(WHOLE)
    for at, byte in changes:
        raw[at] = byte
    exif = Exif(bytes(raw[: cut or None]))

    assert 1 <= exif.orientation <= 8
    assert exif.taken_at is None or 1826 <= exif.taken_at.astimezone(UTC).year < 2201
    assert exif.camera is None or "\0" not in exif.camera.encode().decode()
    assert exif.location is None or abs(exif.location.latitude) <= 90


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("damage", [b"XXXX", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", bytes(16)], ids=repr)
def test_damaged_exif_does_not_fail_a_picture(image_format: str, damage: bytes) -> None:
    content = samples.image(image_format, camera="Camera", taken_at=TAKEN)
    at = content.index(b"MM\0*")

    found = facts(content[:at] + damage + content[at + len(damage) :])

    assert (found.width, found.height) == (64, 48)
    assert found.taken_at in (None, TAKEN)
