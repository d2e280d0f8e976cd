"""What is said about an item can be changed: all of it or nothing, no change is lost, and search follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
import pytest
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.media_rows import Host, four_kinds, register, rolled_back, rows
from tests.integration.shared_bytes import QUICK, told, wait_for_a_lock

import mindia
from mindia import Library, LocalStorage, Media, MetadataDescriber, Mindia
from mindia._ids import uuid7
from mindia.domain.media import Metadata
from mindia.errors import (
    DatabaseUnavailableError,
    InvalidError,
    NotFoundError,
    TransactionConflictError,
    TypeMismatchError,
)
from mindia.testing import samples

LATER = datetime(2999, 1, 2, 3, 4, 5, 678_901, UTC)


@pytest.fixture
def app(database_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    with mindia.connect(database_url, storage=storage, settings=QUICK) as app:
        yield app


@pytest.fixture
def other(app: Mindia) -> Library:
    """Another tenant's library."""
    return app.library(app.tenants.create("Globex"))


@pytest.fixture
def item(library: Library) -> Media:
    return library.media.add(
        samples.image(),
        filename="cat.jpg",
        description="on a windowsill",
        metadata={"place": "Lisbon", "year": 1987},
        expires_at=LATER - timedelta(days=1),
    )


def found_by_word(library: Library, query: str) -> list[Media]:
    return [result.media for result in library.search(query) if result.text_rank is not None]


def embedded_as(host: Host, item: Media) -> list[str]:
    """The descriptions that the vectors of an item were made of."""
    with host.transaction():
        found = host.execute("select description from mindia.embeddings where entity_id = %s", (item.id,)).fetchall()
    return [description for (description,) in found]


def refused(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# What is changed


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"filename": "../tiger\u202e.JPEG"}, {"filename": "tiger.JPEG"}),
        ({"filename": "tiger"}, {"filename": "tiger"}),
        ({"filename": "///"}, {"filename": "unnamed"}),
        ({"description": "in a basket \0"}, {"description": "in a basket \ufffd"}),
        ({"description": ""}, {"description": ""}),
        ({"metadata": {"year": 1988, "a": [1, None]}}, {"metadata": {"place": "Lisbon", "year": 1988, "a": [1, None]}}),
        ({"metadata": {"year": 1987.5}}, {"metadata": {"place": "Lisbon", "year": 1987.5}}),
        ({"metadata": {"year": None}}, {"metadata": {"place": "Lisbon", "year": None}}),
        ({"remove_metadata": ["year", "nothing"]}, {"metadata": {"place": "Lisbon"}}),
        ({"remove_metadata": iter(("year", "place"))}, {"metadata": {}}),
        ({"metadata": {"year": 1}, "remove_metadata": {"year", "place"}}, {"metadata": {"year": 1}}),
        ({"metadata": {"a": 1}, "replace_metadata": True}, {"metadata": {"a": 1}}),
        ({"replace_metadata": True}, {"metadata": {}}),
        ({"expires_at": LATER}, {"expires_at": LATER}),
        ({"expires_at": None}, {"expires_at": None}),
        (
            {"filename": "a.jpg", "description": "b", "metadata": {"c": "d"}, "expires_at": None},
            {
                "filename": "a.jpg",
                "description": "b",
                "metadata": {"place": "Lisbon", "year": 1987, "c": "d"},
                "expires_at": None,
            },
        ),
    ],
)
def test_what_is_named_is_changed_and_all_else_stays(
    library: Library, item: Media, host: Host, change: dict[str, Any], changed: dict[str, Any]
) -> None:
    register(host, library, ["*"])

    returned = library.media.update(item, **change)

    assert returned == library.media.get(item.id)
    fields = ("filename", "description", "metadata", "expires_at")
    assert {name: getattr(returned, name) for name in fields} == {
        name: getattr(item, name) for name in fields
    } | changed
    for name in ("id", "original_filename", "content_type", "file_size", "sha256", "s3_key", "uploaded_at", "kind"):
        assert getattr(returned, name) == getattr(item, name)
    assert returned.updated_at > item.updated_at
    assert told(host, library) == [("image.updated", str(item.id))]
    assert library.media.read(returned) == samples.image()


def test_an_item_of_any_kind_can_be_changed_and_keeps_its_facts(library: Library) -> None:
    for item in four_kinds(library):
        renamed = library.media.update(item.id, filename="tiger", metadata={"a": "windowsill"})

        assert library.media.get(item.id) == renamed
        facts = ("width", "height", "duration", "bitrate", "sample_rate", "channels", "page_count")
        assert [getattr(renamed, fact, None) for fact in facts] == [getattr(item, fact, None) for fact in facts]
    assert len(found_by_word(library, "tiger windowsill")) == 4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"filename": "cat.jpg"},
        {"filename": "/tmp/cat.jpg", "description": "on a windowsill"},
        {"metadata": {}},
        {"metadata": {"year": 1987}},
        {"metadata": {"year": 1987, "place": "Lisbon"}, "replace_metadata": True},
        {"metadata": {"place": "Lisbon", "year": 1987}, "replace_metadata": True},
        {"remove_metadata": ["nothing"]},
        {"expires_at": LATER - timedelta(days=1)},
    ],
    ids=str,
)
def test_what_changes_nothing_is_no_change(
    app: Mindia, library: Library, item: Media, host: Host, change: dict[str, Any]
) -> None:
    register(host, library, ["*"])
    app.run_until_idle()
    before = rows(host, library)

    assert library.media.update(item, **change) == item
    assert library.media.get(item.id) == item
    assert told(host, library) == []
    assert rows(host, library) == before


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), (0, False), (True, 1), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False})]
)
def test_values_that_python_takes_for_equal_are_not_the_same(library: Library, old: Any, new: Any) -> None:
    item = library.media.add(samples.image(), metadata={"value": old})

    changed = library.media.update(item, metadata={"value": new})

    assert repr(changed.metadata) == repr(library.media.get(item.id).metadata) == repr({"value": new})


def test_an_event_tells_of_each_change_as_it_is_then(library: Library, item: Media, host: Host) -> None:
    webhook_id = register(host, library, ["image.updated"])
    register(host, library, ["image.uploaded", "video.*"])

    library.media.update(item, filename="a.jpg")
    library.media.update(item, filename="b.jpg", description="twice")

    with host.transaction():
        events = host.execute(
            """select webhook_id, event_type, payload -> 'data' from mindia.webhook_events
            where tenant_id = %s order by id""",
            (library.tenant_id,),
        ).fetchall()
    assert [event[:2] for event in events] == [(webhook_id, "image.updated")] * 2
    assert [event[2]["filename"] for event in events] == ["a.jpg", "b.jpg"]
    assert {(event[2]["media_id"], event[2]["sha256"]) for event in events} == {(str(item.id), item.sha256)}


# What is refused


def test_what_is_refused_changes_nothing(library: Library, item: Media, host: Host) -> None:
    register(host, library, ["*"])
    full = library.media.update(item, metadata={str(number): number for number in range(48)})
    update = library.media.update
    before = told(host, library), rows(host, library)

    refused(lambda: update(item, metadata={"51": 1}), InvalidError, "51 keys; the limit is 50")
    refused(lambda: update(item, metadata={str(each): 1 for each in range(51)}), InvalidError, "51 keys")
    refused(lambda: update(item, metadata={"a" * 65: 1}, remove_metadata=["1"]), InvalidError, "1 to 64 characters")
    refused(lambda: update(item, metadata={"": 1}), InvalidError, "1 to 64 characters")
    refused(lambda: update(item, metadata={"1": "a" * 511}), InvalidError, "513 bytes; the limit is 512")
    refused(lambda: update(item, metadata={"1": "\0"}), InvalidError, "NUL")
    refused(lambda: update(item, metadata={"1": object()}), InvalidError, "not JSON")  # type: ignore[dict-item]  # as hosts do
    refused(lambda: update(item, metadata=["1"]), InvalidError, "mapping")  # type: ignore[arg-type]  # as hosts do
    refused(lambda: update(item, remove_metadata="year"), InvalidError, "must be keys")
    refused(lambda: update(item, filename="cat.png"), TypeMismatchError, r"cat\.png.*image/jpeg")
    refused(lambda: update(item, filename="cat.mp4", description="a"), TypeMismatchError, "video/mp4")
    refused(lambda: update(item, filename=None), InvalidError, "filename must be a text")  # type: ignore[arg-type]  # as hosts do
    refused(lambda: update(item, description="a" * 65_537), InvalidError, "65537 bytes")
    refused(lambda: update(item, description=None), InvalidError, "must be a text")  # type: ignore[arg-type]  # as hosts do
    refused(lambda: update(item, expires_at=datetime(2999, 1, 1)), InvalidError, "time zone")  # noqa: DTZ001 - as hosts do
    refused(lambda: update(item, expires_at=7), InvalidError, "time zone")  # type: ignore[arg-type]  # as hosts do

    assert library.media.get(item.id) == full
    assert (told(host, library), rows(host, library)) == before

    at_the_limits: Metadata = {"a" * 64: "b" * 510, "c": 1}
    kept = update(item, metadata=at_the_limits, remove_metadata=["1", "2"]).metadata
    assert len(kept) == 50
    assert kept.items() >= at_the_limits.items()


def test_what_is_not_there_cannot_be_changed(library: Library, other: Library, item: Media, host: Host) -> None:
    theirs = other.media.add(samples.image(), filename="theirs.jpg")
    deleted = library.media.add(samples.image())
    library.media.delete(deleted)
    expired = library.media.update(item, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    register(host, library, ["*"])
    register(host, other, ["*"])

    changes: list[dict[str, Any]] = [{}, {"filename": "cat.png"}, {"expires_at": None}]
    for media_id in (theirs.id, deleted.id, expired.id, uuid7()):
        for change in changes:
            with pytest.raises(NotFoundError, match=str(media_id)):
                library.media.update(media_id, **change)
    with pytest.raises(NotFoundError):
        library.media.update(theirs, filename="ours.jpg")

    assert other.media.get(theirs.id) == theirs
    assert told(host, library) == told(host, other) == []


# At once


def test_of_eight_that_change_an_item_at_once_none_loses_the_keys_of_another(library: Library, host: Host) -> None:
    item = library.media.add(samples.image(), metadata={f"old-{number}": number for number in range(8)})
    register(host, library, ["image.updated"])
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(30)
        for turn in range(3):
            library.media.update(
                item,
                metadata={f"new-{number}-{turn}": "windowsill", "last": number},
                remove_metadata=[f"old-{number}", f"new-{number}-{turn - 1}"],
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    changed = library.media.get(item.id)
    assert changed.metadata.keys() == {f"new-{number}-2" for number in range(8)} | {"last"}
    assert len(told(host, library)) == 24
    assert rows(host, library, "tasks") == {"tasks": 1}, "one that embeds it is enough"


def test_a_change_waits_for_another_one_that_is_open(library: Library, item: Media, host: Host) -> None:
    with ThreadPoolExecutor(1) as pool:
        with library.transaction() as tx:
            tx.media.update(item, metadata={"a": 1}, description="first")
            second = pool.submit(library.media.update, item, metadata={"b": 2})
            wait_for_a_lock(host)
        changed = second.result(30)

    assert changed.metadata == {"place": "Lisbon", "year": 1987, "a": 1, "b": 2}
    assert changed.description == "first"
    assert library.media.get(item.id) == changed


def test_an_item_that_is_deleted_while_its_change_waits_is_not_found(library: Library, item: Media, host: Host) -> None:
    register(host, library, ["*"])
    with ThreadPoolExecutor(1) as pool:
        with library.transaction() as tx:
            tx.media.delete(item)
            change = pool.submit(library.media.update, item, filename="tiger.jpg")
            wait_for_a_lock(host)
        with pytest.raises(NotFoundError, match=str(item.id)):
            change.result(30)

    assert told(host, library) == [("image.deleted", str(item.id))]


# In a transaction


def test_a_change_happens_with_its_transaction_or_not_at_all(
    app: Mindia, library: Library, item: Media, host: Host, database_url: str
) -> None:
    register(host, library, ["*"])
    app.run_until_idle()
    before = rows(host, library)

    with rolled_back(library) as tx:
        changed = tx.media.update(item, filename="tiger.jpg")
        assert tx.media.get(item.id) == changed
        assert found_by_word(tx, "tiger") == [changed]
        assert library.media.get(item.id) == item
    assert library.media.get(item.id) == item
    assert not found_by_word(library, "tiger")
    assert (rows(host, library), told(host, library)) == (before, [])

    with psycopg.connect(database_url) as connection, library.transaction(connection=connection) as tx:
        tx.media.update(item, metadata={"a": 1})
        with pytest.raises(TypeMismatchError):
            tx.media.update(item, filename="tiger.png", metadata={"lost": 1})
        changed = tx.media.update(item, metadata={"b": 2}, filename="tiger.jpg")
    assert library.media.get(item.id) == changed
    assert changed.metadata == {"place": "Lisbon", "year": 1987, "a": 1, "b": 2}
    assert told(host, library) == [("image.updated", str(item.id))] * 2


def test_an_item_can_be_changed_in_the_transaction_that_adds_it(app: Mindia, library: Library, host: Host) -> None:
    with library.transaction() as tx:
        added = tx.media.add(samples.image(), filename="cat.jpg")
        changed = tx.media.update(added, filename="tiger.jpg")

    assert library.media.get(added.id) == changed
    app.run_until_idle()
    (description,) = embedded_as(host, changed)
    assert "tiger" in description


def test_a_change_whose_commit_was_not_acknowledged_is_made_and_told_once(
    database_url: str, app: Mindia, storage: LocalStorage, host: Host
) -> None:
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=storage, settings=QUICK) as behind:
        for moment in (Moment.BEFORE, Moment.ANSWERED):
            for commit in count():
                library = app.library(app.tenants.create("Acme"))
                item = library.media.add(samples.image(), filename="cat.jpg", metadata={"a": 1})
                register(host, library, ["image.updated"])
                proxy.cut_at(Words.COMMIT, moment, skip=commit)

                changed = behind.library(library.tenant_id).media.update(item, metadata={"b": 2}, remove_metadata=["a"])

                assert library.media.get(item.id) == changed
                assert changed.metadata == {"b": 2}
                assert told(host, library) == [("image.updated", str(item.id))]
                assert rows(host, library, "tasks") == {"tasks": 1}
                if proxy.cuts_left:
                    break
            assert commit > 0


# Expiry


def test_an_expiry_can_be_set_put_off_and_taken_back(app: Mindia, library: Library, host: Host) -> None:
    item = library.media.add(samples.image(), filename="cat.jpg")
    app.run_until_idle()
    with host.transaction():
        host.execute("update mindia.search_documents set updated_at = 'epoch' where entity_id = %s", (item.id,))

    for expires_at in (LATER, LATER + timedelta(days=1), None):
        changed = library.media.update(item, expires_at=expires_at)
        assert changed.expires_at == expires_at
        app.maintenance.remove_expired()
        assert library.media.get(item.id) == changed

    assert rows(host, library, "embeddings", "tasks") == {"embeddings": 1, "tasks": 1}
    with host.transaction():
        (indexed,) = host.execute(
            "select updated_at from mindia.search_documents where entity_id = %s", (item.id,)
        ).fetchall()
    assert indexed == (datetime.fromtimestamp(0, UTC),), "it was indexed anew although its texts are the same"

    library.media.update(item, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(NotFoundError):
        library.media.get(item.id)
    with pytest.raises(NotFoundError):
        library.media.update(item, expires_at=None)


# Search


def test_search_by_word_follows_at_once(library: Library) -> None:
    item = library.media.add(
        samples.pdf(["The llama farm"], title="Annual report"),
        filename="letter.pdf",
        description="on a windowsill",
        metadata={"place": "Lisbon"},
    )

    changed = library.media.update(
        item, filename="envelope.pdf", description="in a basket", metadata={"place": "Porto"}
    )

    for query in ("envelope", "basket", "porto", "llamas", "annual report", '"llama farm"', "envelope basket llama"):
        assert found_by_word(library, query) == [changed], query
    for query in ("letter", "windowsill", "lisbon"):
        assert not found_by_word(library, query), query

    changed = library.media.update(item, remove_metadata=["place"], description="")
    assert not found_by_word(library, "porto")
    assert not found_by_word(library, "basket")
    assert found_by_word(library, "llamas envelope annual") == [changed]


def test_a_word_of_the_name_still_counts_more_than_one_of_the_text(library: Library) -> None:
    by_text = library.media.add(samples.pdf(["windowsill"]), filename="a.pdf")
    by_name = library.media.add(samples.pdf(["llama"]), filename="b.pdf")
    library.media.update(by_text, description="changed")
    library.media.update(by_name, filename="windowsill.pdf")

    assert [result.media.id for result in library.search("windowsill")] == [by_name.id, by_text.id]


def test_search_by_vector_follows_once_a_worker_has_run(app: Mindia, library: Library, item: Media, host: Host) -> None:
    app.run_until_idle()
    assert [(result.media, result.text_rank) for result in library.search("windwosill", mode="semantic")] == [
        (item, None)
    ]

    changed = library.media.update(item, description="lighthouse keeper", metadata={"place": "Porto"})
    app.run_until_idle()

    assert [(result.media, result.text_rank) for result in library.search("lighthuose", mode="semantic")] == [
        (changed, None)
    ]
    assert not library.search("windwosill")
    assert embedded_as(host, item) == ["cat. 1987 Porto. lighthouse keeper. image"]


def test_of_those_that_share_their_bytes_only_the_one_that_was_named_is_changed(
    app: Mindia, library: Library, item: Media, host: Host
) -> None:
    copy = library.media.copy(item)
    changed = library.media.update(copy, filename="tiger.jpg", description="in a basket")
    app.run_until_idle()

    assert library.media.get(item.id) == item
    assert found_by_word(library, "windowsill") == [item]
    assert found_by_word(library, "basket") == [changed]
    assert embedded_as(host, item) == ["cat. 1987 Lisbon. on a windowsill. image"]
    assert embedded_as(host, copy) == ["tiger. 1987 Lisbon. in a basket. image"]


class Meanwhile(MetadataDescriber):
    """Does something while it describes an item that the test has named."""

    def __init__(self) -> None:
        self.media_id: UUID | None = None
        self.act: Callable[[], object] = lambda: None
        self.times = 0

    def describe(self, media: Media, *, text: str, open_media: Callable[[], BinaryIO]) -> str:
        described = super().describe(media, text=text, open_media=open_media)
        if media.id == self.media_id:
            self.times += 1
            self.act()
        return described


@pytest.fixture
def meanwhile() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
def embedding(database_url: str, storage: LocalStorage, meanwhile: Meanwhile) -> Iterator[Mindia]:
    """An application whose describer does what the test says."""
    with mindia.connect(database_url, storage=storage, settings=QUICK, describer=meanwhile) as app:
        yield app


class Held:
    """Holds up who comes by until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.go_on.wait(30)


@pytest.mark.parametrize("ends", ["before the vector is stored", "while the vector is stored", "with a rollback"])
def test_the_vector_is_of_the_new_texts_although_it_was_being_made_meanwhile(
    embedding: Mindia, app: Mindia, library: Library, item: Media, host: Host, meanwhile: Meanwhile, ends: str
) -> None:
    held = meanwhile.act = Held()
    meanwhile.media_id = item.id
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(embedding.run_until_idle)
        try:
            assert held.reached.wait(30)
            if ends == "before the vector is stored":
                library.media.update(item, description="in a basket", filename="tiger.jpg")
                held.go_on.set()
            else:
                with suppress(ZeroDivisionError), library.transaction() as tx:
                    tx.media.update(item, description="in a basket", filename="tiger.jpg")
                    held.go_on.set()
                    wait_for_a_lock(host)
                    if ends == "with a rollback":
                        raise ZeroDivisionError
        finally:
            held.go_on.set()
        working.result(30)
    app.run_until_idle()

    wanted = "cat. 1987 Lisbon. on a windowsill" if ends == "with a rollback" else "tiger. 1987 Lisbon. in a basket"
    assert embedded_as(host, item) == [f"{wanted}. image"]
    assert rows(host, library, "embeddings") == {"embeddings": 1}
    assert library.search("baskets windowsills")[0].media == library.media.get(item.id)


def test_an_item_that_is_changed_again_and_again_is_embedded_once_it_rests(
    embedding: Mindia, app: Mindia, library: Library, item: Media, host: Host, meanwhile: Meanwhile
) -> None:
    def change() -> None:
        library.media.update(item, description=f"number {meanwhile.times}")

    meanwhile.media_id, meanwhile.act = item.id, change
    with pytest.raises(TransactionConflictError, match="again and again"):
        embedding.library(library.tenant_id).index.embed(item.id)
    assert embedded_as(host, item) == []

    meanwhile.act = lambda: None
    app.run_until_idle()

    assert embedded_as(host, item) == [f"cat. 1987 Lisbon. number {meanwhile.times}. image"]


def test_one_task_waits_however_often_an_item_is_changed(
    app: Mindia, library: Library, item: Media, host: Host
) -> None:
    for number in range(3):
        library.media.update(item, description=str(number))
    assert rows(host, library, "tasks") == {"tasks": 1}

    app.run_until_idle()
    with host.transaction():
        host.execute("delete from mindia.tasks where tenant_id = %s and status = 'completed'", (library.tenant_id,))
    for number in range(3):
        library.media.update(item, description=f"again {number}")

    assert rows(host, library, "tasks") == {"tasks": 1}
    app.run_until_idle()
    assert embedded_as(host, item) == ["cat. 1987 Lisbon. again 2. image"]


def test_an_outage_is_an_error_that_may_pass_and_changes_nothing(
    database_url: str, library: Library, item: Media, storage: LocalStorage
) -> None:
    with (
        Proxy(database_url) as proxy,
        mindia.connect(proxy.url, storage=storage, settings=mindia.Settings(pool_timeout_s=0.5)) as behind,
    ):
        there = behind.library(library.tenant_id)
        there.media.get(item.id)
        proxy.refuse()
        with pytest.raises(DatabaseUnavailableError) as raised:
            there.media.update(item, filename="tiger.jpg")
        assert raised.value.retryable

    assert library.media.get(item.id) == item
