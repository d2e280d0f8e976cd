"""Statements that bind their transaction to the tenant by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from mindia import Library, Mindia
from mindia._ids import uuid7
from mindia.db._cursor import OwnCursor
from mindia.errors import NotFoundError, TenantInactiveError
from mindia.testing import samples


@attrs.frozen
class Note:
    text: str


@pytest.fixture
def noted(app: Mindia, library: Library) -> Library:
    app.register_task("note", Note, lambda _context, _note: None)
    library.media.add(samples.image(), filename="first.jpg")
    return library


@contextmanager
def _sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    sent: list[Any] = []
    execute = OwnCursor.execute

    def recording(cursor: OwnCursor[Any], query: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(cursor, query, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(OwnCursor, "execute", recording)
        yield sent


def _enqueued(library: Library) -> None:
    library.tasks.enqueue(Note("one"))


def _added(library: Library) -> None:
    library.media.add(samples.image(), filename="second.jpg")


@pytest.mark.parametrize("write", [_enqueued, _added])
def test_what_is_written_takes_one_statement(
    noted: Library, write: Callable[[Library], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _sent(monkeypatch) as sent:
        write(noted)
    writes = (b"mindia.enqueue(", b"insert into mindia.tasks")
    writing = [query for query in sent if isinstance(query, bytes) and any(each in query for each in writes)]
    assert len(writing) == 1
    assert not [query for query in sent if isinstance(query, str) and "set_tenant(" in query]


@pytest.mark.parametrize("write", [_enqueued, _added])
def test_a_tenant_that_is_suspended_is_refused_by_it(
    app: Mindia, noted: Library, write: Callable[[Library], None]
) -> None:
    app.tenants.suspend(noted.tenant_id)
    with pytest.raises(TenantInactiveError):
        write(noted)


@pytest.mark.usefixtures("noted")
def test_a_tenant_that_is_not_there_is_refused_by_it(app: Mindia) -> None:
    with pytest.raises(NotFoundError):
        _enqueued(app.library(uuid7()))


@pytest.mark.parametrize("write", [_enqueued, _added])
def test_in_a_transaction_it_is_bound_as_before(noted: Library, write: Callable[[Any], None]) -> None:
    with noted.transaction() as tx:
        write(tx)
        write(tx)
    assert len(list(noted.tasks.list())) == 3  # an item has a task, too
