"""A tenant may have limits of its own: they hold at once, for it alone, in place of those of the settings."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import attrs
import pytest
from tests.integration.media_rows import TABLES, Host, rows
from tests.integration.processes import wait_until
from tests.integration.shared_bytes import QUICK

import mindia
from mindia import Library, LocalStorage, MediaLimits, Mindia, Tenant
from mindia.errors import InvalidError, NotFoundError, TooLargeError
from mindia.testing import samples
from mindia.testing.storage import listed

PICTURE = samples.image("PNG", width=200, height=100) + bytes(9_000)
STRICT = attrs.evolve(QUICK, max_image_bytes=50_000, max_image_pixels=1_000_000)


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=STRICT) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


def by_adding(library: Library, content: bytes, filename: str) -> None:
    library.media.add(content, filename=filename)


def by_staging(library: Library, content: bytes, filename: str) -> None:
    library.media.stage(content, filename=filename)


def in_a_transaction(library: Library, content: bytes, filename: str) -> None:
    with library.transaction() as tx:
        tx.media.add(content, filename=filename)


def in_bulk(library: Library, content: bytes, filename: str) -> None:
    (result,) = library.media.add_many([mindia.MediaInput(content, filename=filename)])
    if result.error is not None:
        raise result.error


WAYS = (by_adding, by_staging, in_a_transaction, in_bulk)


def is_refused(library: Library, content: bytes) -> bool:
    try:
        library.media.add(content)
    except TooLargeError:
        return True
    return False


@pytest.mark.parametrize(
    ("limits", "make", "filename", "says"),
    [
        ({"max_image_bytes": 9_000}, lambda: PICTURE, "a.png", "limit for image is 9000"),
        ({"max_image_pixels": 19_999}, lambda: PICTURE, "a.png", "19999"),
        ({"max_video_bytes": 500}, lambda: samples.video(seconds=0.5), "b.mp4", "limit for video is 500"),
        ({"max_video_pixels": 128 * 96 - 1}, lambda: samples.video(seconds=0.5), "b.mp4", "12287"),
        ({"max_video_seconds": 0.25}, lambda: samples.video(seconds=0.5), "b.mp4", "0.25"),
        ({"max_audio_bytes": 3_200}, lambda: samples.wav(seconds=0.1), "c.wav", "limit for audio is 3200"),
        ({"max_audio_seconds": 0.05}, lambda: samples.wav(seconds=0.1), "c.wav", "0.05"),
        ({"max_document_bytes": 600}, lambda: samples.pdf(["a", "b"]), "d.pdf", "limit for document is 600"),
        ({"max_document_pages": 1}, lambda: samples.pdf(["a", "b"]), "d.pdf", "1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_limit_holds_at_once_and_for_its_tenant_alone(
    app: Mindia,
    library: Library,
    other: Library,
    tenant: Tenant,
    storage: LocalStorage,
    host: Host,
    limits: dict[str, Any],
    make: Callable[[], bytes],
    filename: str,
    says: str,
) -> None:
    content = make()
    library.media.delete(library.media.add(content, filename=filename))
    app.maintenance.remove_deleted()
    app.maintenance.sweep_staged()

    changed = app.tenants.set_limits(tenant.id, MediaLimits(**limits))

    assert changed.limits == MediaLimits(**limits)
    with mindia.connect(app._database._source, storage=storage, settings=STRICT) as fresh:
        for way in WAYS:
            for each in (library, fresh.library(tenant)):
                with pytest.raises(TooLargeError, match=says):
                    way(each, content, filename)
                assert rows(host, library, *TABLES) == {}
                assert listed(storage, tenant.s3_bucket) == {}
            way(other, content, filename)

    app.tenants.set_limits(tenant.id, MediaLimits())
    for way in WAYS:
        way(library, content, filename)


def test_a_limit_may_be_wider_than_that_of_the_settings(app: Mindia, library: Library, tenant: Tenant) -> None:
    large = samples.image("PNG", width=2_000, height=501) + bytes(60_000)
    assert is_refused(library, large)

    app.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=100_000))
    assert is_refused(library, large)
    app.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=100_000, max_image_pixels=1_002_000))
    assert not is_refused(library, large)
    app.tenants.set_limits(tenant.id, MediaLimits(max_image_pixels=1_002_000))
    assert is_refused(library, large), "limits are set as a whole"


def test_what_a_tenant_has_no_limit_for_is_held_to_that_of_the_settings(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    app.tenants.set_limits(tenant.id, MediaLimits(max_video_seconds=0.5, max_document_pages=None))

    assert not is_refused(library, PICTURE + bytes(50_000 - len(PICTURE)))
    assert is_refused(library, PICTURE + bytes(50_001 - len(PICTURE)))


def test_a_limit_reaches_parsers_in_processes_of_their_own(database_url: str, storage: LocalStorage) -> None:
    with mindia.connect(database_url, storage=storage) as app:
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        assert not is_refused(library, PICTURE)
        app.tenants.set_limits(tenant.id, MediaLimits(max_image_pixels=19_999))
        assert is_refused(library, PICTURE)
        app.tenants.set_limits(tenant.id, MediaLimits(max_image_pixels=10**30))
        assert not is_refused(library, PICTURE)


def test_limits_are_part_of_what_is_known_of_a_tenant(app: Mindia, tenant: Tenant) -> None:
    assert tenant.limits == MediaLimits()
    limits = MediaLimits(max_image_bytes=2**40, max_video_seconds=0.5, max_document_pages=7)

    changed = app.tenants.set_limits(tenant.id, limits)

    assert changed == attrs.evolve(tenant, limits=limits, updated_at=changed.updated_at)
    assert changed.updated_at > tenant.updated_at
    assert app.tenants.get(tenant.id) == changed == pickle.loads(pickle.dumps(changed))
    assert changed in list(app.tenants.list())
    assert app.tenants.rename(tenant.id, "Other").limits == limits


_NUMBERS = [field.name for field in attrs.fields(MediaLimits) if field.name != "language"]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, "5", b"5", [1]], ids=repr)
@pytest.mark.parametrize("name", _NUMBERS)
def test_a_limit_is_a_number_greater_than_nothing(name: str, value: Any) -> None:
    with pytest.raises(InvalidError, match=f"{name} must be a number greater than 0"):
        MediaLimits(**{name: value})


def test_there_are_limits_for_all_that_the_settings_limit_of_media() -> None:
    named = {field.name for field in attrs.fields(mindia.Settings) if field.name.startswith("max_")}

    assert set(_NUMBERS) == named - {"max_text_chars", "max_login_failures", "max_derivative_pixels"}


@pytest.mark.parametrize("value", [0, "", "no such language", "x\0", b"english"], ids=repr)
def test_a_language_is_the_name_of_a_text_search_configuration(value: Any) -> None:
    with pytest.raises(InvalidError, match="language must be the name of a text search configuration"):
        MediaLimits(language=value)


def test_a_tenant_that_is_not_there_has_no_limits(app: Mindia) -> None:
    nobody = uuid4()

    with pytest.raises(NotFoundError, match=str(nobody)):
        app.tenants.set_limits(nobody, MediaLimits(max_image_bytes=1))


def test_other_processes_notice_soon(
    app: Mindia, library: Library, tenant: Tenant, database_url: str, storage: LocalStorage
) -> None:
    with mindia.connect(database_url, storage=storage, settings=STRICT) as elsewhere:
        there = elsewhere.library(tenant)
        assert not is_refused(there, PICTURE)

        app.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=9_000))

        assert is_refused(library, PICTURE)
        wait_until(lambda: is_refused(there, PICTURE))


def test_limits_hold_in_the_transaction_that_sets_them_and_nowhere_if_it_is_rolled_back(
    app: Mindia, library: Library, tenant: Tenant
) -> None:
    assert not is_refused(library, PICTURE)
    for commits in (False, True):
        with suppress(ZeroDivisionError), app.transaction() as tx:
            tx.tenants.set_limits(tenant.id, MediaLimits(max_image_bytes=9_000))
            assert is_refused(tx.library(tenant), PICTURE)
            assert not is_refused(library, PICTURE), "it is not committed"
            assert is_refused(tx.library(tenant), PICTURE)
            if not commits:
                raise ZeroDivisionError
        assert is_refused(library, PICTURE) == commits
        assert app.tenants.get(tenant.id).limits.max_image_bytes == (9_000 if commits else None)
