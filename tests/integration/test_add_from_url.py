"""What stands at a URL becomes an item as if it had been added, and nothing is left of what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from tests.integration.library_calls import SETTINGS
from tests.unit.test_fetching import Hostile, ok, says

import mindia
from mindia import Image, Library, LocalStorage, Mindia, Tenant
from mindia.errors import (
    DownloadError,
    DownloadFailedError,
    DuplicateError,
    ForbiddenAddressError,
    InvalidError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.testing import samples
from mindia.testing.storage import listed


@pytest.fixture
def app(application_url: str, roles: Any, storage: LocalStorage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def server() -> Iterator[Hostile]:
    server = Hostile()
    says(server, ok(samples.image(), "Content-Type: text/plain"))
    yield server
    server.close()


def test_what_is_there_becomes_an_item(library: Library, server: Hostile) -> None:
    item = library.media.add_from_url(server.url, description="a cat", metadata={"from": "there"})

    assert isinstance(item, Image)
    assert (item.filename, item.content_type, item.description) == ("cat.jpg", "image/jpeg", "a cat")
    assert library.media.read(item) == samples.image()
    staged = library.media.stage_from_url(server.url, filename="mine.jpg")
    assert (staged.filename, staged.sha256) == ("mine.jpg", item.sha256)


def test_an_extension_of_the_url_that_does_not_fit_is_put_right_and_one_that_was_given_is_not(
    library: Library, server: Hostile
) -> None:
    says(server, ok(samples.image("PNG")))

    assert library.media.add_from_url(server.url).filename == "cat.png"
    with pytest.raises(TypeMismatchError):
        library.media.add_from_url(server.url, filename="cat.jpg")


def test_what_the_tenant_has_already_is_told(library: Library, server: Hostile) -> None:
    item = library.media.add_from_url(server.url)
    assert library.media.add_from_url(server.url, on_duplicate="return") == item
    with pytest.raises(DuplicateError):
        library.media.add_from_url(server.url, on_duplicate="error")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ok(b"<html>", status="404 Not Found"), DownloadError),
        (ok(b"<html>cat</html>"), UnsupportedTypeError),
        (ok(b"#EXTM3U\nfile:///etc/passwd"), UnsupportedTypeError),
        (ok(samples.image(), "Content-Length: 99999"), DownloadFailedError),
        (ok(samples.image() + bytes(12_000_000)), TooLargeError),
        (ok(b"", "Location: http://169.254.169.254/", status="302 Found"), ForbiddenAddressError),
    ],
    ids=["missing", "page", "playlist", "cut", "too large", "metadata"],
)
def test_what_is_refused_leaves_nothing(
    library: Library, tenant: Tenant, storage: LocalStorage, server: Hostile, answer: bytes, error: type[Exception]
) -> None:
    says(server, answer)
    with pytest.raises(error):
        library.media.add_from_url(server.url)
    assert listed(storage, tenant.s3_bucket) == {}
    assert not library.media.exists()


def test_private_networks_are_refused_unless_they_are_named(database_url: str, server: Hostile) -> None:
    settings = attrs.evolve(SETTINGS, fetch_allow_private=())
    with mindia.connect(database_url, storage=mindia.MemoryStorage(), settings=settings) as app:
        library = app.library(app.tenants.create("Acme"))
        with pytest.raises(ForbiddenAddressError):
            library.media.add_from_url(server.url)
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments", [{"max_bytes": 0}, {"timeout": timedelta()}, {"timeout": 5}, {"url": "cat.jpg"}, {"url": 5}], ids=str
)
def test_arguments_that_are_not_allowed_are_refused(
    library: Library, server: Hostile, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidError):
        library.media.add_from_url(**{"url": server.url} | arguments)
    assert server.requests == []


def test_a_limit_and_a_time_of_the_call_hold(library: Library, server: Hostile) -> None:
    with pytest.raises(TooLargeError):
        library.media.add_from_url(server.url, max_bytes=100)
    server.script = lambda _, __: server.ended.wait(20)
    with pytest.raises(DownloadFailedError, match="slow"):
        library.media.add_from_url(server.url, timeout=timedelta(seconds=0.2))
