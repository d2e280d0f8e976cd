"""The lines of an archive: what is written is read back as it was, and no line is too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia import (
    Document,
    Grayscale,
    ImageFormat,
    MediaLimits,
    Quota,
    Resize,
    Transformation,
    UserRole,
    Watermark,
)
from mindia._ids import uuid7
from mindia.domain.archives import (
    FACTS,
    MAX_TEXT_CHARS,
    ArchivedDerivative,
    ArchivedFile,
    ArchivedMedia,
    ArchivedPreset,
    ArchivedTenant,
    ArchivedUser,
    Manifest,
)
from mindia.domain.media import AudioFacts, DocumentFacts, ImageFacts, Location, VideoFacts
from mindia.errors import ArchiveError
from mindia.services.archive_format import (
    FORMAT,
    MAX_LINE_BYTES,
    MAX_MANIFEST_BYTES,
    VERSION,
    derivative_line,
    manifest_line,
    media_line,
    preset_line,
    read_derivative,
    read_manifest,
    read_media,
    read_preset,
    read_user,
    user_line,
)

ANY_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def texts(most: int, *, least: int = 1) -> st.SearchStrategy[str]:
    return st.text(ANY_TEXT, min_size=least, max_size=most)


floats = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
times = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones() | st.just(timezone.utc)).map(  # noqa: DTZ001, UP017 - the zone is beside
    lambda time: time.astimezone(timezone(time.utcoffset() or timedelta()))
)
"""With an offset from UTC, as texts have it: the hour that the end of daylight saving time repeats equals no other."""
naive = st.datetimes()
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
ids = st.builds(uuid7)
places = st.builds(Location, latitude=st.floats(-90, 90), longitude=st.floats(-180, 180), altitude=st.none() | floats)
details = st.none() | texts(200)
facts: dict[type[Any], st.SearchStrategy[Any]] = {
    ImageFacts: st.builds(
        ImageFacts,
        width=counts,
        height=counts,
        taken_at=st.none() | times | naive,
        camera=details,
        location=st.none() | places,
    ),
    VideoFacts: st.builds(VideoFacts, duration=floats, width=counts, height=counts),
    AudioFacts: st.builds(
        AudioFacts,
        duration=floats,
        bitrate=counts,
        sample_rate=counts,
        channels=counts,
        title=details,
        artist=details,
        album=details,
    ),
    DocumentFacts: st.builds(DocumentFacts, page_count=counts, text=texts(50, least=0), title=details),
}
media = st.builds(
    ArchivedMedia,
    id=ids,
    filename=texts(255),
    original_filename=texts(255),
    content_type=texts(100),
    file_size=st.integers(1, 2**63 - 1),
    sha256=hashes,
    shares_bytes=st.booleans(),
    metadata=st.dictionaries(texts(64), st.none() | st.booleans() | st.integers(-9, 9) | texts(20), max_size=5),
    description=texts(50, least=0),
    facts=st.one_of(*facts.values()),
    uploaded_at=times,
    updated_at=times,
    expires_at=st.none() | times,
)
users = st.builds(
    ArchivedUser,
    id=ids,
    email=texts(255),
    password_hash=texts(255),
    role=st.sampled_from(UserRole),
    is_active=st.booleans(),
    created_at=times,
    updated_at=times,
    last_login_at=st.none() | times,
)
presets = st.builds(
    ArchivedPreset,
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", fullmatch=True),
    transformation=st.builds(
        Transformation,
        operations=st.lists(
            st.builds(Resize, width=st.integers(1, 1000))
            | st.builds(Watermark, ids, opacity=st.floats(0, 1))
            | st.just(Grayscale()),
            max_size=5,
        ),
        preset=st.none() | st.just("card"),
        format=st.none() | st.sampled_from(ImageFormat),
        quality=st.none() | st.integers(1, 100),
    ),
    created_at=times,
    updated_at=times,
)
sides = st.none() | st.integers(1, 16_383)
pictures = st.builds(
    ArchivedDerivative,
    media_id=ids,
    operations=st.builds(
        Transformation,
        operations=st.lists(
            st.builds(Resize, width=st.integers(1, 1000))
            | st.builds(Watermark, ids, opacity=st.floats(0, 1))
            | st.just(Grayscale()),
            max_size=5,
        ),
        format=st.none() | st.sampled_from(ImageFormat),
    ).map(lambda transformation: str(transformation.settled())),
    file_size=st.integers(1, 2**63 - 1),
    sha256=hashes,
    files=st.just(()),
    width=sides,
    height=sides,
    created_at=times,
)
streams = st.builds(
    lambda made, files: attrs.evolve(
        made, operations="hls", files=tuple(files), file_size=sum(file.size for file in files)
    ),
    pictures,
    st.lists(
        st.builds(
            ArchivedFile,
            name=st.from_regex(r"\A[0-9]{2,4}p/(index\.m3u8|init(_[0-9])?\.mp4|segment_[0-9]{3,5}\.(ts|m4s))\Z"),
            size=st.integers(1, 1 << 22),
        ),
        unique_by=lambda file: file.name,
    ).map(lambda files: [*files, ArchivedFile(name="master.m3u8", size=100)]),
)
limits = st.builds(
    MediaLimits, max_image_bytes=st.none() | st.integers(1), max_video_seconds=st.none() | st.floats(1, 9)
)
manifests = st.builds(
    Manifest,
    format=st.just(FORMAT),
    version=st.just(VERSION),
    mindia=texts(100),
    tenant=st.builds(
        ArchivedTenant,
        name=texts(255).filter(str.strip),
        region=texts(50),
        limits=limits,
        quota=st.builds(Quota, max_items=st.none() | counts, max_total_bytes=st.none() | counts),
    ),
    user_count=counts,
    media_count=counts,
    preset_count=counts,
    derivative_count=counts,
    object_count=counts,
    object_bytes=counts,
    users_sha256=hashes,
    media_sha256=hashes,
    presets_sha256=hashes,
    derivatives_sha256=hashes,
)


def test_there_are_facts_of_every_kind() -> None:
    assert set(FACTS.values()) == set(facts)


@given(media)
def test_an_item_is_read_as_it_was_written(item: ArchivedMedia) -> None:
    line = media_line(item)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert read_media(line, "line 1") == item


@given(users)
def test_a_user_is_read_as_it_was_written(user: ArchivedUser) -> None:
    assert read_user(user_line(user), "line 1") == user
    assert "$argon2id$secret" not in repr(attrs.evolve(user, password_hash="$argon2id$secret"))


@given(presets)
def test_a_preset_is_read_as_it_was_written(preset: ArchivedPreset) -> None:
    assert read_preset(preset_line(preset), "line 1") == preset


@given(pictures | streams)
def test_what_was_made_is_read_as_it_was_written(made: ArchivedDerivative) -> None:
    assert read_derivative(derivative_line(made), "line 1") == made


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    content = manifest_line(manifest)

    assert len(content) < MAX_MANIFEST_BYTES
    assert read_manifest(content) == manifest


@given(st.binary(max_size=200))
def test_whatever_a_line_is_it_is_refused_with_a_typed_error(line: bytes) -> None:
    for read in (read_media, read_user, read_preset, read_derivative):
        with pytest.raises(ArchiveError, match="line 7 of it"):
            read(line, "line 7 of it")
    with pytest.raises(ArchiveError):
        read_manifest(line)


def test_the_longest_line_that_is_written_is_not_too_long_to_be_read() -> None:
    now = datetime.now(UTC)
    worst = "\x01"  # six bytes in JSON
    document = Document(
        id=uuid7(),
        tenant_id=uuid7(),
        filename=worst * 255,
        original_filename=worst * 255,
        content_type=worst * 100,
        file_size=2**63 - 1,
        sha256="0" * 64,
        s3_key="originals/1",
        metadata={f"{number:02}" + worst * 62: "a" * 510 for number in range(50)},
        description=worst * 65_536,
        uploaded_at=now,
        updated_at=now,
        expires_at=now,
        page_count=2**31,
        title=worst * 500,
    )
    archived = ArchivedMedia.of(document, text=worst * (2 * MAX_TEXT_CHARS), shares_bytes=True)

    line = media_line(archived)

    assert len(line) < MAX_LINE_BYTES
    assert read_media(line, "line 1") == archived
    assert isinstance(archived.facts, DocumentFacts)
    assert len(archived.facts.text) == MAX_TEXT_CHARS
