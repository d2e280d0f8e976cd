"""What an original says of its maker is removed from it; what is seen and heard stays as it is, bit by bit."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit import media_with_metadata as made
from tests.unit.media_with_metadata import CANARY

from mindia import Settings
from mindia.domain.media import Facts
from mindia.errors import CorruptMediaError
from mindia.media import _isobmff
from mindia.media.probe import Unprobed, probe
from mindia.media.sanitize import SANITIZED, Sanitized, sanitize
from mindia.media.sniff import ALLOWED
from mindia.testing import samples

MOVING: dict[str, Any] = {"save_all": True, "append_images": [made.picture(seed=2)], "duration": 90}
IMAGES: dict[str, tuple[str, Callable[..., bytes], dict[str, Any]]] = {
    "jpeg": ("image/jpeg", made.jpeg, {}),
    "progressive jpeg": ("image/jpeg", made.jpeg, {"progressive": True}),
    "grey jpeg": ("image/jpeg", made.jpeg, {"mode": "L"}),
    "cmyk jpeg": ("image/jpeg", made.jpeg, {"mode": "CMYK"}),
    "jpeg with restarts": ("image/jpeg", made.jpeg, {"restart_marker_blocks": 2}),
    "jpeg of several pictures": ("image/jpeg", made.mpo, {}),
    "png": ("image/png", made.png, {}),
    "png with a palette": ("image/png", made.png, {"mode": "P", "transparency": 3}),
    "png with alpha": ("image/png", made.png, {"mode": "RGBA"}),
    "animated png": ("image/png", made.png, MOVING),
    "webp": ("image/webp", made.webp, {}),
    "lossless webp": ("image/webp", made.webp, {"lossless": True}),
    "webp with alpha": ("image/webp", made.webp, {"mode": "RGBA"}),
    "animated webp": ("image/webp", made.webp, MOVING),
    "gif": ("image/gif", made.gif, {}),
    "animated gif": ("image/gif", made.gif, MOVING | {"loop": 3}),
    "avif": ("image/avif", made.avif, {}),
    "animated avif": ("image/avif", made.avif, MOVING),
}
FILMS: dict[str, tuple[str, Callable[..., bytes], dict[str, Any]]] = {
    "mp4": ("video/mp4", made.film, {}),
    "mp4 that begins with its index": ("video/mp4", made.film_with_index_first, {}),
    "fragmented mp4": ("video/mp4", made.film, {"options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}),
    "mov": ("video/quicktime", made.film, {"container_format": "mov"}),
    "m4a": ("audio/mp4", made.song, {}),
}
EVERY = IMAGES | FILMS


def make(name: str, **options: Any) -> bytes:
    _, maker, fixed = EVERY[name]
    return maker(**fixed, **options)


def sanitized(content: bytes, content_type: str) -> tuple[bytes, Sanitized | None]:
    file = io.BytesIO(content)
    result = sanitize(file, content_type, size=len(content), filename="x")
    return file.getvalue(), result


def clean(name: str, **options: Any) -> tuple[bytes, bytes]:
    before = make(name, **options)
    after, _ = sanitized(before, EVERY[name][0])
    return before, after


def facts(content: bytes) -> Facts:
    return probe(Unprobed(file=io.BytesIO(content), size=len(content), filename="x"), settings=Settings()).facts


def size_of(content: bytes) -> tuple[int, int]:
    found = facts(content)
    return getattr(found, "width", 0), getattr(found, "height", 0)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_of_what_an_original_says_of_its_maker(name: str) -> None:
    before, after = clean(name)

    assert before.count(CANARY) >= 4
    assert "CANARY".encode("utf-16-le") not in after
    assert CANARY not in after
    assert b"2024:05:06" not in after


@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_is_the_same_in_every_pixel_of_every_frame(name: str) -> None:
    before, after = clean(name)
    if name == "jpeg of several pictures":
        assert made.frames(after) == made.frames(before)[:1]
    else:
        assert made.frames(after) == made.frames(before)


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_the_same_in_every_frame_and_every_sample(name: str) -> None:
    before, after = clean(name)

    assert made.media(before)
    assert made.media(after) == made.media(before)
    assert len(after) == len(before)


TURNED = sorted(IMAGES.keys() - {"gif", "animated gif", "animated avif", "jpeg of several pictures"})
"""Those that can be turned; the encoder of Pillow crashes over an animated AVIF that is."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", TURNED)
def test_a_picture_stays_turned_as_it_was(name: str, orientation: int) -> None:
    before, after = clean(name, orientation=orientation)

    with Image.open(io.BytesIO(after)) as image:
        tags = dict(image.getexif())
    assert tags == ({} if orientation == 1 else {0x0112: orientation})
    assert size_of(after) == size_of(before) == ((43, 61) if orientation >= 5 else (61, 43))


@pytest.mark.parametrize("name", EVERY)
def test_facts_are_the_same_but_for_what_was_removed(name: str) -> None:
    before, after = clean(name)
    removed = ("taken_at", "camera", "location", "title", "artist", "album")

    for field in ("width", "height", "duration", "bitrate", "channels", "sample_rate"):
        assert getattr(facts(after), field, None) == getattr(facts(before), field, None)
    assert {getattr(facts(after), field, None) for field in removed} == {None}


@pytest.mark.parametrize("name", EVERY)
def test_the_result_tells_size_and_hash_of_what_the_file_holds_now(name: str) -> None:
    after, result = sanitized(make(name), EVERY[name][0])

    assert result == Sanitized(size=len(after), sha256=hashlib.sha256(after).hexdigest())


@pytest.mark.parametrize("name", EVERY)
def test_there_is_nothing_to_remove_a_second_time(name: str) -> None:
    _, after = clean(name, **({"orientation": 6} if name in ("jpeg", "png", "webp", "avif") else {}))

    assert sanitized(after, EVERY[name][0]) == (after, None)


def test_the_animation_of_a_picture_goes_on_as_often_as_before() -> None:
    _, after = clean("animated gif")

    with Image.open(io.BytesIO(after)) as image:
        assert image.info["loop"] == 3


def test_a_picture_with_nothing_to_remove_is_left_alone() -> None:
    for image_format, content_type in (("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")):
        buffer = io.BytesIO()
        made.picture().save(buffer, image_format)
        assert sanitized(buffer.getvalue(), content_type) == (buffer.getvalue(), None)


@pytest.mark.parametrize("content_type", sorted({kind.content_type for kind in ALLOWED} - SANITIZED))
def test_a_type_from_which_nothing_is_removed_is_left_alone(content_type: str) -> None:
    content = random.Random(1).randbytes(1_000)

    assert sanitized(content, content_type) == (content, None)


def test_an_orientation_in_xmp_alone_turns_nothing_before_and_after() -> None:
    buffer = io.BytesIO()
    made.picture().save(buffer, "JPEG", xmp=made.XMP)
    after, _ = sanitized(buffer.getvalue(), "image/jpeg")

    assert size_of(buffer.getvalue()) == size_of(after) == (61, 43)


def test_a_thumbnail_in_a_jpeg_goes_with_the_rest() -> None:
    """JFIF may hold one after its header, of three bytes a pixel (ITU-T T.871, 10.1)."""
    content = io.BytesIO()
    made.picture().save(content, "JPEG")
    header = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
    assert content.getvalue()[2:20] == header
    thumbnail = b"\xff\xe0\0\x16JFIF\0\1\1\0\0\1\0\1\2\1CANARY"

    after, _ = sanitized(content.getvalue().replace(header, thumbnail), "image/jpeg")

    assert after == content.getvalue()


def test_a_video_that_goes_all_round_is_still_known_for_one() -> None:
    _, after = clean("mp4")

    assert made.SPHERICAL + b"<rdf:SphericalVideo/>" in after


def test_what_is_played_stays_whatever_the_box_is_called_that_holds_it() -> None:
    content = samples.video().replace(b"mdat", b"zzzz")
    expected = made.media(content)
    assert expected

    after, _ = sanitized(content, "video/mp4")

    assert made.media(after) == expected


def test_times_of_64_bits_are_removed_as_well() -> None:
    content = samples.video()
    start = content.index(b"moov") - 4
    header, rest = content[start + 8 : start + 116], content[start + 116 :]
    assert header[4:9] == b"mvhd\0"
    version_1 = b"\1\0\0\0" + b"CANARY!!" * 2 + header[20:24] + bytes(4) + header[24:]
    longer = content[:start] + made.box(b"moov", made.box(b"mvhd", version_1) + rest)

    after, _ = sanitized(longer, "video/mp4")

    assert CANARY in longer
    assert CANARY not in after
    assert facts(after) == facts(content)


@pytest.mark.parametrize("container_format", ["mp4", "mov"])
def test_a_track_of_what_sensors_measured_is_emptied(container_format: str) -> None:
    """Action cameras keep where they were in a track of the kind `meta`; here the sound is made to be one."""
    content = samples.video(container_format, audio_codec="aac")
    pictures = made.media(content, kinds=("video",))
    with av.open(io.BytesIO(content), "r") as container:
        measured = [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]
    assert all(sample in content for sample in measured)

    after, _ = sanitized(content.replace(b"soun", b"meta"), "video/mp4")

    assert not any(sample in after for sample in measured if len(sample) > 8)
    assert made.media(after) == pictures


def test_a_track_that_claims_bytes_outside_of_the_media_is_refused() -> None:
    content = samples.video().replace(b"soun", b"meta")
    at = content.rindex(b"stco") + 12

    with pytest.raises(CorruptMediaError, match="none of the media"):
        sanitized(content[:at] + bytes(4) + content[at + 4 :], "video/mp4")


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif"])
def test_a_picture_that_is_cut_off_is_refused_and_left_alone(name: str) -> None:
    content = make(name)
    cut = content[: content.index(CANARY)]
    file = io.BytesIO(cut)

    with pytest.raises(CorruptMediaError, match="'x' cannot be read as image/"):
        sanitize(file, EVERY[name][0], size=len(cut), filename="x")
    assert file.getvalue() == cut


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "image/jpeg"),
        (b"\xff\xd8\xff\xd9", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\0\1", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\xff\xff", "image/jpeg"),
        (b"\xff\xd8" + b"\xff" * 1000, "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n" + made.chunk(b"IEND", b""), "image/png"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIDAT", "image/png"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\xff\xff\xff\xffWEBP", "image/webp"),
        (b"RIFF\x0c\0\0\0WEBPVP8X\xff\xff\xff\xff", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"GIF89a" + bytes(6) + b"\x3b", "image/gif"),
        (b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\xff" * 100, "image/gif"),
        (made.box(b"moov", b"\0\0\0\x04trak"), "video/mp4"),
        (made.box(b"moov", b"\0\0\0\x40trak"), "video/mp4"),
        (made.box(b"moov", b"\0\0\0\1trak" + bytes(8)), "video/mp4"),
        (made.box(b"moov", b"\0\0\0\1trak" + b"\xff" * 8), "video/mp4"),
        (made.box(b"moov", made.box(b"mvhd", b"\0\0\0\0\0\0")), "video/mp4"),
        (made.box(b"meta", bytes(4) + made.box(b"iinf", bytes(6)) + made.box(b"iloc", b"")), "image/avif"),
        (
            made.box(b"meta", bytes(4) + made.box(b"iinf", bytes(6)) + made.box(b"iloc", bytes(6) + b"\1\1")),
            "image/avif",
        ),
    ],
    ids=range(20),
)
def test_a_structure_that_contradicts_itself_is_refused(content: bytes, content_type: str) -> None:
    with pytest.raises(CorruptMediaError, match="cannot be read as"):
        sanitized(content, content_type)


@pytest.mark.parametrize("name", ["avif", "animated avif"])
def test_metadata_that_claims_the_bytes_of_the_picture_is_refused(name: str) -> None:
    content = make(name)
    at = content.index(b"iloc") + 12
    entries = [
        content[start + 6 : start + 14] for start in range(at, at + 14 * int.from_bytes(content[at - 2 : at]), 14)
    ]
    exif = next(entry for entry in entries if content[int.from_bytes(entry[:4]) + 4 :].startswith(b"Exif"))
    claiming = content.replace(exif, entries[0])
    assert claiming != content

    with pytest.raises(CorruptMediaError, match="share bytes"):
        sanitized(claiming, "image/avif")


def test_a_file_of_nothing_but_boxes_keeps_nobody_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_isobmff, "MAX_BOXES", 1_000)

    with pytest.raises(CorruptMediaError, match="more than 1000 boxes"):
        sanitized(b"\0\0\0\x08mdat" * 1_001, "video/mp4")
    with pytest.raises(CorruptMediaError, match="more than 1000 boxes"):
        sanitized(made.box(b"moov", b"\0\0\0\x08trak" * 1_001), "video/mp4")


@pytest.mark.parametrize("name", ["jpeg", "mp4"])
@pytest.mark.parametrize("memory", [1, 1_000_000])
def test_a_file_that_was_spooled_is_changed_in_its_place(name: str, memory: int) -> None:
    content = make(name)
    expected, result = sanitized(content, EVERY[name][0])
    with tempfile.SpooledTemporaryFile(memory) as file:
        file.write(content)

        assert sanitize(file, EVERY[name][0], size=len(content), filename="x") == result  # type: ignore[arg-type]  # no BinaryIO by name
        file.seek(0)
        assert file.read() == expected


def test_a_large_video_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    content = made.film()
    size = 200_000_000
    with path.open("w+b") as file:
        file.write(content)
        file.write(struct.pack(">I", size - len(content)) + b"free")
        file.truncate(size)
        tracemalloc.start()
        result = sanitize(file, "video/mp4", size=size, filename="x")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert result is not None
    assert result.size == size
    assert peak < 20_000_000


SMALL = {name: make(name) for name in EVERY}


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
@example("avif", [(0.42578125, 0)], 0.0)  # the kind of the box that its content is in
@example("avif", [(0.06109376761575414, 0)], 0.0)  # where an item is
def test_whatever_is_damaged_there_is_a_result_or_a_typed_error(
    name: str, changes: list[tuple[float, int]], kept: float
) -> None:
    content = bytearray(SMALL[name])
    for at, byte in changes:
        content[int(at * len(content))] = byte
    damaged = bytes(content[: int(kept * len(content)) or len(content)])

    try:
        after, _ = sanitized(damaged, EVERY[name][0])
    except CorruptMediaError:
        return
    assert sanitized(after, EVERY[name][0]) == (after, None)
