"""No call of a library reaches what belongs to another tenant: by its statements, and by row-level security alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Roles
from tests.integration.library_calls import CALLS, SETTINGS, Known, public_calls
from tests.integration.media_rows import Host, four_kinds, rolled_back
from tests.integration.tenant_filters import (
    Intruder,
    Sent,
    recorded,
    statements_with_filters,
    without_any_tenant,
    without_filters,
    without_one_filter,
)
from tests.integration.tenant_rows import TenantRows, a_row_of_every_table

import mindia
from mindia import (
    ApiKey,
    Image,
    Library,
    LibraryTransaction,
    LocalStorage,
    Media,
    MediaKind,
    Mindia,
    Staged,
    Task,
    User,
    Video,
    Webhook,
)
from mindia.db.session import Session
from mindia.domain.search import SearchStrategy
from mindia.domain.tasks import GenerateEmbedding
from mindia.errors import AuthenticationError, DuplicateError, NotFoundError, PermissionDeniedError
from mindia.repositories import (
    api_keys,
    derivatives,
    embeddings,
    media,
    media_find,
    search,
    search_counts,
    spaces,
    tenant_transfer,
    vector_indexes,
    videos,
    vocabulary,
)
from mindia.repositories._vectors import as_binary
from mindia.repositories.derivatives import NewDerivative
from mindia.repositories.media_find import Selection
from mindia.repositories.vector_indexes import LargeSpace
from mindia.services.derived_place import DerivedPlace
from mindia.services.leases import Slot
from mindia.storage.base import StoredObject
from mindia.testing import samples
from mindia.worker.handlers import REINDEX


def _foreign(found: Iterable[User | ApiKey | Webhook], library: Library) -> list[User | ApiKey | Webhook]:
    return [each for each in found if each.tenant_id != library.tenant_id]


def _add_from_url_and_delete(library: Library, known: Known) -> None:
    added = CALLS["media.add_from_url"](library, known)
    assert isinstance(added, Image)
    library.media.delete(added)


WITHOUT_IDS: dict[str, Callable[[Library, Known], object]] = {
    "api_keys.issue": lambda library, known: CALLS["api_keys.issue"](library, known) and None,
    "api_keys.list": lambda library, _: _foreign(library.api_keys.list(), library),
    "index.reindex": lambda library, _: library.index.reindex() and None,
    "index.search": lambda library, _: list(library.index.search("harbour")),
    "media.add_from_url": lambda library, known: _add_from_url_and_delete(library, known),
    "media.begin_upload": lambda library, known: CALLS["media.begin_upload"](library, known) and None,
    "index.similar": lambda library, known: list(library.index.similar(known.item)),
    "index.similar_to_image": lambda library, known: CALLS["index.similar_to_image"](library, known),
    "index.similar_to_vector": lambda library, _: list(library.index.similar_to_vector([1.0] * 768)),
    "index.stats": lambda library, _: library.index.stats().items,
    "index.vectors": lambda library, known: library.index.vectors([known.item]).ids,
    "media.count": lambda library, _: library.media.count(),
    "media.exists": lambda library, _: library.media.exists(),
    "media.find": lambda library, _: list(library.media.find()),
    "media.get_many": lambda library, known: library.media.get_many([known.item.id]),
    "media.iterate": lambda library, _: list(library.media.iterate()),
    "media.stage": lambda library, known: CALLS["media.stage"](library, known) and None,
    "media.stage_from_url": lambda library, known: CALLS["media.stage_from_url"](library, known) and None,
    "presets.create": lambda library, known: CALLS["presets.create"](library, known) and None,
    "presets.list": lambda library, _: [each for each in library.presets.list() if each.tenant_id != library.tenant_id],
    "request_log.counts": lambda library, known: CALLS["request_log.counts"](library, known),
    "request_log.list": lambda library, _: library.request_log.list(),
    "request_log.summary": lambda library, _: list(library.request_log.summary()),
    "request_log.total": lambda library, _: library.request_log.total().requests,
    "search": lambda library, _: list(library.search("harbour")),
    "statistics.storage": lambda library, _: library.statistics.storage(),
    "statistics.tasks": lambda library, _: [each for each in library.statistics.tasks() if each.kind != REINDEX],
    "tasks.counts": lambda library, _: [each for each in library.tasks.counts() if each.kind != REINDEX],
    # The ids are in the payload, where the handler does not find them.
    "tasks.enqueue": lambda library, known: CALLS["tasks.enqueue"](library, known) and None,
    "tasks.enqueue_many": lambda library, known: CALLS["tasks.enqueue_many"](library, known) and None,
    "tasks.errors": lambda library, known: library.tasks.errors(known.task),
    "tasks.list": lambda library, _: [each for each in library.tasks.list() if each.tenant_id != library.tenant_id],
    "usage": lambda library, _: library.usage().by_type,
    "users.create": lambda library, known: CALLS["users.create"](library, known) and None,
    "users.list": lambda library, _: _foreign(library.users.list(), library),
    "webhooks.deliveries": lambda library, _: list(library.webhooks.deliveries()),
    "webhooks.emit": lambda library, known: CALLS["webhooks.emit"](library, known) and None,
    "webhooks.list": lambda library, _: _foreign(library.webhooks.list(), library),
    "webhooks.register": lambda library, known: CALLS["webhooks.register"](library, known) and None,
}
"""Calls that name nothing; of a tenant that has nothing, each returns nothing."""


@attrs.frozen
class Others:
    """A tenant with something in every table and in the store, and how all that was before."""

    library: Library
    known: Known
    rows: TenantRows
    before: list[tuple[str, str]]
    objects: set[StoredObject]

    @classmethod
    def of(cls, library: Library, owner: Host) -> Others:
        known = Known.of(library)
        a_row_of_every_table(owner, library)
        rows = TenantRows(owner)
        return cls(library, known, rows, rows.of(library.tenant_id), _objects(library))

    def are_as_before(self) -> bool:
        return self.rows.of(self.library.tenant_id) == self.before and _objects(self.library) == self.objects


def _objects(library: Library) -> set[StoredObject]:
    return set(library._context.storage.list(library._context.bucket()))


def reached(intruder: Library, others: Others) -> list[str]:
    """Return the calls that came upon something of the others', as an answer or by changing it."""
    found = []
    for name, call in CALLS.items():
        try:
            answer = WITHOUT_IDS.get(name, call)(intruder, others.known)
        except (NotFoundError, PermissionDeniedError, AuthenticationError):
            answer = None
        else:
            answer = answer if name in WITHOUT_IDS else f"{name} has found what it names"
        if answer or not others.are_as_before():
            found.append(name)
    return found


def test_every_public_call_is_tried_with_the_ids_of_another_tenant(library: Library) -> None:
    assert set(CALLS) == public_calls(library)
    assert WITHOUT_IDS.keys() <= CALLS.keys()


def test_a_task_does_not_depend_on_one_of_another_tenant(app: Mindia, library: Library) -> None:
    known = Known.of(library)
    intruder = app.library(app.tenants.create("Globex"))

    with pytest.raises(NotFoundError, match=str(known.task.id)):
        intruder.tasks.enqueue(_payload_of(known.item), depends_on=[known.task])
    assert list(intruder.tasks.list()) == []


@pytest.mark.parametrize("in_transaction", [False, True], ids=["own transactions", "one transaction"])
def test_no_call_finds_or_changes_what_belongs_to_another_tenant(
    app: Mindia, library: Library, host: Host, in_transaction: bool
) -> None:
    others = Others.of(library, host)
    intruder = app.library(app.tenants.create("Globex"))

    with intruder.transaction() if in_transaction else nullcontext(intruder) as calls:
        assert reached(calls, others) == []
    assert others.are_as_before()


def _ignore_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all statements sent without what holds them to a tenant, the parameters left as they are."""
    compose = Session._compose

    def composed(session: Session, query: Any) -> bytes:
        return compose(session, without_filters(query))

    monkeypatch.setattr(Session, "_compose", composed)


def test_row_level_security_alone_keeps_tenants_apart_whatever_a_statement_leaves_out(
    app: Mindia, library: Library, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Others.of(library, host)
    intruder = app.library(app.tenants.create("Globex"))

    _ignore_filters(monkeypatch)

    assert reached(intruder, others) == []
    assert others.are_as_before()


def test_without_row_level_security_most_calls_would_reach_another_tenant(
    fresh_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    with (
        mindia.connect(fresh_database_url, storage=LocalStorage(tmp_path), settings=SETTINGS) as app,
        psycopg.connect(fresh_database_url) as owner,
    ):
        others = Others.of(app.library(app.tenants.create("Acme")), owner)
        intruder = app.library(app.tenants.create("Globex"))

        _ignore_filters(monkeypatch)

        assert len(reached(intruder, others)) > 0.9 * len(CALLS)


Call = Callable[[LibraryTransaction], object]

OF_EACH_KIND = {
    "x.png": samples.image("PNG"), "x.mp4": samples.video(), "x.wav": samples.wav(), "x.pdf": samples.pdf(),
}  # fmt: skip


def every_call(library: Library) -> list[Call]:
    """Return calls that send, between them, all statements that are sent for a tenant, with ids of what is there."""
    known, kinds = Known.of(library), four_kinds(library)
    library.media.update(kinds[0], metadata={"place": "Lisbon"})
    shared = [kinds[0], library.media.copy(kinds[0])]
    gone = library.media.add(samples.image(color="lime"))
    library.media.copy(library.media.copy(gone))
    library.media.delete(gone)  # others share its bytes, and so its key
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = library.media.add(samples.image(color="red"), filename="old.jpg", expires_at=yesterday)
    staged = [library.media.stage(source, filename=name) for name, source in OF_EACH_KIND.items()]
    return [
        lambda tx: _discard(tx, gone.id, gone.kind),
        lambda tx: tx.tasks.enqueue(_payload_of(known.item), depends_on=[known.task]),
        *(partial(_known, call, known) for call in CALLS.values()),
        *(call for item in kinds for call in _calls_on(item)),
        *(partial(_add_while_it_is_discarded, each) for each in staged),
        *(partial(_derive_in_every_way, item) for item in kinds),
        lambda tx: tx.media.delete_many(shared),
        lambda tx: tx.media.delete(shared[1]),
        lambda tx: tx.media.find(metadata={"place": "Lisbon"}),
        lambda tx: tx._context.leases.renew(tx.tenant_id, staged[0].id),
        lambda tx: list(tx.webhooks.deliveries(known.webhook)),
        lambda tx: in_session(tx, lambda session: media.get_expired(session, tx.tenant_id, [expired.id])),
        lambda tx: in_session(tx, lambda session: api_keys.note_use(session, tx.tenant_id, known.issued.key.id)),
        lambda tx: in_session(tx, lambda session: _transfer(session, tx.tenant_id, kinds)),
        lambda tx: in_session(tx, lambda session: _encode(session, known.film, known.task)),
        lambda tx: in_session(tx, lambda session: _switch_spaces(session, tx.tenant_id, known.item)),
        lambda tx: in_session(tx, lambda session: _search_in_every_way(session, kinds[0])),
        _add_a_duplicate_in_vain,
    ]


def _payload_of(item: Media) -> GenerateEmbedding:
    return GenerateEmbedding(entity_id=item.id, entity_type=item.kind)


def in_session(tx: LibraryTransaction, work: Callable[[Session], object]) -> None:
    tx._context.as_admin.run(work)


def _transfer(session: Session, tenant_id: UUID, items: Sequence[Media]) -> None:
    """Read as for an archive, and write as an import does that is tried again."""
    archived = tenant_transfer.archived(session, tenant_id, items)
    tenant_transfer.set_times(session, tenant_id, [each.media for each in archived])
    session.repeated = True
    tenant_transfer.add_users(session, tenant_id, tenant_transfer.users_page(session, tenant_id, after=None, limit=5))
    presets = tenant_transfer.presets_page(session, tenant_id, after=None, limit=5)
    tenant_transfer.add_presets(session, tenant_id, presets)


def _derive_in_every_way(item: Media, tx: LibraryTransaction) -> None:
    """Make a picture, once more in its place, and do what the tasks do that go over pictures."""
    made, tenant_id = tx.media.thumbnail(item), tx.tenant_id
    place = DerivedPlace(tx._context, item)
    new = NewDerivative(
        id=place.id, media=item, operations=made.operations, s3_key=place.prefix, content_type="image/webp", file_size=1
    )

    def work(session: Session) -> None:
        derivatives.replace(session, new)
        derivatives.item_of(session, tenant_id, made)
        derivatives.is_there(session, tenant_id, place.id)
        derivatives.page(session, tenant_id, after=UUID(int=0), limit=5)
        derivatives.remove_by_id(session, tenant_id, [place.id])
        derivatives.forget(session, tenant_id, [made.source_id])

    in_session(tx, work)
    place.discard()


def _encode(session: Session, film: Media, task: Task) -> None:
    """Write what a worker does that encodes a video, and what is said of one that has failed."""
    assert isinstance(film, Video)
    videos.of_source(session, film.tenant_id, film.s3_key)
    videos.begin(session, film, task_id=task.id)
    videos.tasks_of(session, film.tenant_id, [task.id])
    videos.settle(session, film.tenant_id, [film.id], task_id=task.id, status="failed")
    videos.complete(session, film, hls_master_key="derived/master.m3u8")
    videos.forget_task(session, film.tenant_id, task.dedup_key or "")


def _search_in_every_way(session: Session, item: Media) -> None:
    """Send each part that a search can have."""
    assert isinstance(item, Image)
    plain = search.Question(
        words="harbour",
        excluded="quay",
        language="english",
        vector=as_binary(np.full(768, 768**-0.5, dtype=np.float32)),
        space=1,
        threshold=-1.0,
        kinds=[str(kind) for kind in MediaKind],
        selection=None,
        strategy=SearchStrategy.EXACT,
        rows=100,
        breadth=100,
        head=0,
        depth=100,
        floor=0,
        place=None,
        text_weight=1.0,
        vector_weight=1.0,
        limit=10,
        highlight=False,
        has_passages=True,
        is_small=False,
    )
    by_size, by_metadata = {"min_bytes": 1}, {"equal": Jsonb({"place": "Lisbon"})}
    for strategy, parameters, head in (
        (SearchStrategy.EXACT, by_size, 0),
        (SearchStrategy.EXACT, None, 10),
        (SearchStrategy.EXACT_FILTERED, by_metadata, 0),
        (SearchStrategy.INDEX, by_size, 0),
    ):
        selection = None if parameters is None else Selection(parameters=parameters)
        how = attrs.evolve(plain, selection=selection, strategy=strategy, head=head)
        search.search(session, item.tenant_id, how)
    for parameters in (by_size, by_metadata):
        media_find.count_up_to(session, item.tenant_id, Selection(parameters=parameters), most=10)
    for words, vector in (("harbour", None), (None, plain.vector), ("harbour", plain.vector), (None, None)):
        for highlight in (False, True):
            how = attrs.evolve(plain, words=words, vector=vector, highlight=highlight)
            search.search(session, item.tenant_id, how)
    search.search(session, item.tenant_id, attrs.evolve(plain, has_passages=False, is_small=True))
    search.vector_of(session, item.tenant_id, media_id=item.id, space=1)
    search.near_duplicates(session, attrs.evolve(item, perceptual_hash="0" * 16), max_distance=64, limit=10)
    search_counts.facts(session, item.tenant_id, space=1, most=10)
    vocabulary.learn(session, item.tenant_id, [item.id])
    vocabulary.look_up(session, item.tenant_id, "harbuor", language="english")
    vector_indexes.put(session, LargeSpace(item.tenant_id, 1, 1, 1))
    vector_indexes.forget(session, item.tenant_id, 1)


def _switch_spaces(session: Session, tenant_id: UUID, item: Media) -> None:
    """Do what a describer of pictures, a reindexing and the maintenance after it cause."""
    version = embeddings.texts(session, tenant_id, [item.id])[item.id].updated_at
    said = embeddings.set_generated(
        tenant_id, item.id, version=version, body="", generated="a quay", generated_by="eye"
    )
    session.batch([said])
    for number in spaces.lock_spaces(session, tenant_id):
        embeddings.missing(session, tenant_id, space_id=number, since=None, after=UUID(int=0), limit=5)
        embeddings.left(session, tenant_id, space_id=number, failed=[item.id], gone=[])
        another = spaces.space_of(session, tenant_id, model_name="another", native_dimensions=2)
        spaces.activate(session, tenant_id, another.id)
        spaces.revive(session, tenant_id, number)
        spaces.activate(session, tenant_id, number)
        spaces.activate(session, tenant_id, another.id)
        spaces.prune(session, tenant_id, number, limit=1000)


def _known(call: Callable[[Library, Known], object], known: Known, tx: LibraryTransaction) -> None:
    call(tx, known)


def _calls_on(item: Media) -> list[Call]:
    return [
        lambda tx: tx.media.update(item, description="a view"),
        lambda tx: tx.media.update(item, expires_at=datetime.now(UTC) + timedelta(days=1)),
        lambda tx: tx.media.copy(item),
        lambda tx: tx.media.delete(item),
        lambda tx: tx.media.find(kind=item.kind),
        lambda tx: _discard(tx, item.id, item.kind),
    ]


def _add_while_it_is_discarded(staged: Staged, tx: LibraryTransaction) -> None:
    tx.media.add(staged)
    _discard(tx, staged.id, staged.kind)


def _discard(tx: LibraryTransaction, key: UUID, kind: MediaKind) -> None:
    context = tx._context
    slot = Slot(tenant_id=tx.tenant_id, key=key, s3_bucket=context.bucket())
    context.leases.discard(context.storage, slot, kind=kind)


def _add_a_duplicate_in_vain(tx: LibraryTransaction) -> None:
    with pytest.raises(DuplicateError):
        tx.media.add(samples.image(), on_duplicate="error")


ACROSS_TENANTS = {
    "tenant_deletion.": "of maintenance, which removes what is left of tenants",
    "objects._DELETE_LATER": "of maintenance, which goes over all tenants",
    "objects._GIVE_UP": "of maintenance, which goes over all tenants",
    "objects._DONE": "of maintenance, which goes over all tenants",
    "objects._POSTPONE": "of maintenance, which goes over all tenants",
    "webhook_ends._DISABLE": "of workers, for endpoints that fail",
    "webhook_ends._TELL": "of workers, which tell of an endpoint that they have disabled",
    "webhooks._RESEAL": "of maintenance, which goes over all tenants",
    "quotas._SET": "of app.tenants",
    "quotas._CLEAR": "of app.tenants",
    "uploads._FORGET": "of maintenance, which goes over all tenants",
    "uploads._POSTPONE": "of maintenance, which goes over all tenants",
    "uploads._SET_MULTIPART": "for object stores that others can reach",
    "verification.": "of maintenance, which goes over all tenants",
}
"""Statements that name a tenant, and are sent as the worker's role; all of a module where its name stands alone."""

TRIED_ELSEWHERE = {
    "vocabulary._BY_TRIGRAMS": "takes an extension that this server does not have: see test_trigrams",
    "vocabulary._LOOK_UPS[True]": "the same",
}
"""Statements that another module tries with rows of two tenants."""


@pytest.fixture
def sent(library: Library, host: Host) -> list[Sent]:
    """Every statement that is held to a tenant, as it was sent for one that has something to be found and changed."""
    with recorded() as preparing:
        a_row_of_every_table(host, library)
        calls = every_call(library)
    with recorded() as sent:
        for call in calls:
            with rolled_back(library) as tx:
                call(tx)
    # Each once; with the ids that are still there, where it was sent then.
    return list({each.query: each for each in preparing + sent}.values())


def test_every_statement_that_is_held_to_a_tenant_is_tried_below(app: Mindia, sent: list[Sent]) -> None:
    schema = app.check().vector_schema or ""
    queries = [each.query for each in sent]

    missing = {
        name
        for name, part in statements_with_filters().items()
        if not any(part.replace("{vector}", schema) in query for query in queries)
    }
    elsewhere = tuple(ACROSS_TENANTS | TRIED_ELSEWHERE)
    assert sorted(name for name in missing if not name.startswith(elsewhere)) == []


def test_a_statement_without_its_filter_reaches_no_other_tenant_since_row_level_security_does_not_let_it(
    app: Mindia, library: Library, host: Host, roles: Roles, sent: list[Sent]
) -> None:
    globex = app.library(app.tenants.create("Globex"))
    globex.media.add(samples.image(), filename="harbour.jpg")
    intruder = Intruder(host, globex.tenant_id, library.tenant_id, roles.application)
    would_leak = 0

    for each in sent:
        expected = intruder.effect(each, as_owner=False)
        assert expected.harmed == []
        for query in {*without_one_filter(each.query), without_any_tenant(each.query)}:
            assert intruder.effect(attrs.evolve(each, query=query), as_owner=False) == expected, query
        without = attrs.evolve(each, query=without_any_tenant(each.query))
        would_leak += intruder.effect(without, as_owner=True) != expected

    assert would_leak > 0.8 * len(sent)
