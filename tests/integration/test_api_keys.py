"""API keys: shown once, found by their token alone, and refused as soon as they are revoked."""

from __future__ import annotations

import hashlib
import logging
import pickle
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import attrs
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import IssuedApiKey, Library, LocalStorage, Mindia, Tenant, UserRole
from mindia.db._cursor import OwnCursor
from mindia.errors import (
    AuthenticationError,
    DatabaseUnavailableError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    RoleError,
    TenantInactiveError,
)
from mindia.services import api_keys
from mindia.services.api_keys import KnownKeys
from mindia.testing import samples

Owner = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def owner(database_url: str) -> Iterator[Owner]:
    """One who sees all rows, each statement committed by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def issued(library: Library) -> IssuedApiKey:
    return library.api_keys.issue("robot", role="member")


@pytest.fixture
def another(app: Mindia, application_url: str, storage: LocalStorage) -> Iterator[Mindia]:
    """Another process of the host's, as far as a key can tell."""
    with mindia.connect(application_url, storage=storage, settings=app.settings) as another:
        yield another


@contextmanager
def statements() -> Iterator[list[str]]:
    """Record what is sent meanwhile."""
    sent: list[str] = []
    execute = OwnCursor.execute

    def executing(cursor: OwnCursor[Any], query: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(query if isinstance(query, str) else query.decode())
        return execute(cursor, query, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnCursor, "execute", executing)
        yield sent


class Clock:
    """That of what is remembered: it goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(api_keys, "time", clock)
    return clock


def refused(app: Mindia, token: Any) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as raised:
        app.api_keys.verify(token)
    assert type(raised.value) is AuthenticationError
    assert str(raised.value) == "this is no valid API key"
    return raised.value


# Issued and managed


def test_a_key_is_issued_with_a_token_that_is_shown_once(library: Library, tenant: Tenant) -> None:
    issued = library.api_keys.issue("  nightly import ", role="viewer")
    key = issued.key

    assert key.name == "nightly import"
    assert key.role is UserRole.VIEWER
    assert key.tenant_id == tenant.id
    assert key.id.version == 7
    assert (key.created_by, key.expires_at, key.revoked_at, key.last_used_at) == (None, None, None, None)
    assert key.created_at.tzinfo is UTC
    assert re.fullmatch(rf"mindia_{key.prefix}_[0-9a-f]{{64}}", issued.token)
    assert library.api_keys.get(key.id) == key
    assert list(library.api_keys.list()) == [key]
    assert pickle.loads(pickle.dumps(issued)) == issued


def test_no_two_tokens_have_anything_in_common(library: Library) -> None:
    tokens = [library.api_keys.issue("robot", role="viewer").token for _ in range(50)]

    for part in (1, 2):
        assert len({token.split("_")[part] for token in tokens}) == 50


def test_only_the_hash_of_a_token_is_stored(issued: IssuedApiKey, owner: Owner) -> None:
    row = owner.execute(
        "select secret_hash, to_jsonb(k)::text from mindia.api_keys k where id = %s", (issued.key.id,)
    ).fetchone()

    assert row is not None
    assert row[0] == hashlib.sha256(issued.token.encode()).digest()
    assert issued.token.rpartition("_")[2] not in row[1]


def test_it_is_known_who_issued_a_key(app: Mindia, library: Library) -> None:
    admin = library.users.create("ann@example.org", role="admin")
    first = app.library(library.tenant_id, user=admin).api_keys.issue("first", role="admin").key
    second = app.library(library.tenant_id, user=first).api_keys.issue("second", role="viewer").key

    assert (first.created_by, second.created_by) == (admin.id, first.id)


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "nul \0", "\ud800", None, 7, b"robot"], ids=ascii)
def test_a_name_has_1_to_255_characters_that_can_be_stored(library: Library, name: Any) -> None:
    with pytest.raises(InvalidError, match="name of an API key has 1 to 255"):
        library.api_keys.issue(name, role="viewer")
    assert library.api_keys.issue("猫" * 255, role="viewer").key.name == "猫" * 255


@pytest.mark.parametrize("role", ["owner", "", None, 1])
def test_a_role_is_one_of_three(library: Library, role: Any) -> None:
    with pytest.raises(InvalidError, match="role must be one of admin, member, viewer"):
        library.api_keys.issue("robot", role=role)


@pytest.mark.parametrize(
    "expires_at",
    [datetime(2999, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), "2999-01-01", 60, timedelta(days=1)],  # noqa: DTZ001 - what is tested
    ids=repr,
)
def test_an_expiry_is_a_time_to_come_with_a_time_zone(library: Library, expires_at: Any) -> None:
    with pytest.raises(InvalidError, match="expires_at must be"):
        library.api_keys.issue("robot", role="viewer", expires_at=expires_at)


def test_an_expiry_is_kept_in_utc(library: Library) -> None:
    for expires_at in (datetime.now(UTC) + timedelta(days=1), datetime.max.replace(tzinfo=UTC)):
        key = library.api_keys.issue("robot", role="viewer", expires_at=expires_at).key
        assert key.expires_at == expires_at


def test_keys_are_listed_once_and_the_oldest_first_however_many(
    library: Library, issued: IssuedApiKey, owner: Owner
) -> None:
    revoked = library.api_keys.revoke(issued.key.id)
    owner.execute(
        "insert into mindia.api_keys (tenant_id, id, name, prefix, secret_hash, role) "
        "select %s, ('ffff0000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, number::text, "
        "substr(md5(%s::text || number), 1, 16), sha256(number::text::bytea), 'viewer' "
        "from generate_series(1, 1000) as number",
        (library.tenant_id, library.tenant_id),
    )

    listed = list(library.api_keys.list())

    assert listed[0] == revoked
    assert [key.name for key in listed[1:]] == [str(number) for number in range(1, 1001)]


def test_a_revoked_key_stays_revoked_as_it_was(library: Library, issued: IssuedApiKey) -> None:
    revoked = library.api_keys.revoke(issued.key.id)

    assert revoked.revoked_at is not None
    assert revoked == attrs.evolve(issued.key, revoked_at=revoked.revoked_at)
    assert library.api_keys.revoke(issued.key.id) == library.api_keys.get(issued.key.id) == revoked


def test_another_tenants_key_is_not_found_and_stays_as_it_is(
    app: Mindia, library: Library, issued: IssuedApiKey
) -> None:
    other = app.library(app.tenants.create("Globex"))

    for key_id in (issued.key.id, uuid4()):
        for call in (other.api_keys.get, other.api_keys.revoke):
            with pytest.raises(NotFoundError, match=str(key_id)):
                call(key_id)
        with other.transaction() as tx, pytest.raises(NotFoundError):
            tx.api_keys.revoke(key_id)
    assert list(other.api_keys.list()) == []
    assert library.api_keys.get(issued.key.id) == issued.key


# Verified


def test_a_token_leads_to_its_key_and_the_key_to_its_tenant(
    app: Mindia, library: Library, issued: IssuedApiKey
) -> None:
    key = app.api_keys.verify(issued.token)

    assert key == issued.key
    bound = app.library(key.tenant_id, user=key)
    item = bound.media.add(samples.image())
    assert library.media.get(item.id) == item
    with pytest.raises(PermissionDeniedError, match=f"{key.id} is a member"):
        bound.users.create("ann@example.org")


def test_keys_of_many_tenants_are_told_apart(app: Mindia) -> None:
    libraries = [app.library(app.tenants.create(name)) for name in ("Acme", "Globex", "Initech")]
    issued = [library.api_keys.issue("robot", role="admin") for library in libraries for _ in range(3)]

    for each in issued:
        assert app.api_keys.verify(each.token) == each.key


def test_verifying_takes_neither_a_tenant_nor_the_role_of_a_worker(
    application_url: str, storage: LocalStorage, issued: IssuedApiKey
) -> None:
    with mindia.connect(application_url, storage=storage, settings=SETTINGS) as app:
        assert app.check().role.is_isolated
        with pytest.raises(RoleError):
            next(app.tenants.list())
        with statements() as sent:
            assert app.api_keys.verify(issued.token) == issued.key

    assert "mindia.find_api_key(" in sent[0]
    assert not any("'role'" in statement for statement in sent)


def _unknown_prefix(_: Library, issued: IssuedApiKey, __: Owner) -> str:
    return issued.token.replace(issued.key.prefix, "0" * 16)


def _wrong_secret(_: Library, issued: IssuedApiKey, __: Owner) -> str:
    return issued.token[:-1] + ("1" if issued.token[-1] == "0" else "0")


def _secret_of_another_key(library: Library, issued: IssuedApiKey, _: Owner) -> str:
    another = library.api_keys.issue("another", role="admin")
    return another.token.replace(another.key.prefix, issued.key.prefix)


def _revoked(library: Library, issued: IssuedApiKey, _: Owner) -> str:
    library.api_keys.revoke(issued.key.id)
    return issued.token


def _expired(_: Library, issued: IssuedApiKey, owner: Owner) -> str:
    owner.execute("update mindia.api_keys set expires_at = now() where id = %s", (issued.key.id,))
    return issued.token


def _of_a_tenant_that_is(status: str) -> Callable[[Library, IssuedApiKey, Owner], str]:
    def make(library: Library, issued: IssuedApiKey, owner: Owner) -> str:
        owner.execute(
            "update mindia.tenants set status = %s::mindia.tenant_status where id = %s", (status, library.tenant_id)
        )
        return issued.token

    return make


def _rolled_back(library: Library, _: IssuedApiKey, __: Owner) -> str:
    with library.transaction() as tx:
        token = tx.api_keys.issue("lost", role="admin").token
        _roll_back()
    return token


def _roll_back() -> None:
    raise psycopg.Rollback


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_unknown_prefix, id="unknown prefix"),
        pytest.param(_wrong_secret, id="wrong secret"),
        pytest.param(_secret_of_another_key, id="secret of another key"),
        pytest.param(_revoked, id="revoked"),
        pytest.param(_expired, id="expired"),
        pytest.param(_of_a_tenant_that_is("suspended"), id="suspended tenant"),
        pytest.param(_of_a_tenant_that_is("deleted"), id="deleted tenant"),
        pytest.param(_rolled_back, id="rolled back"),
    ],
)
def test_the_answer_is_the_same_whatever_is_wrong_with_a_token(
    app: Mindia,
    library: Library,
    issued: IssuedApiKey,
    owner: Owner,
    make: Callable[[Library, IssuedApiKey, Owner], str],
) -> None:
    token = make(library, issued, owner)

    for _ in range(2):  # nothing of it is remembered
        with statements() as sent:
            error = refused(app, token)
        assert len(sent) == 1
        assert token not in repr((error.args, vars(error), error.__cause__, error.__context__))


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}0", "x{}", "{}_"])
def test_what_has_not_the_form_of_a_token_is_refused_without_a_statement(
    app: Mindia, issued: IssuedApiKey, change: str
) -> None:
    token = issued.token
    for wrong in (
        change.format(token), token.upper(), token[:-1], token.replace("_", "-"), token.removeprefix("mindia_"),
        token.encode(), "", None, 7, [token], token.replace("_", "_\u0661", 1),
    ):  # fmt: skip
        with statements() as sent:
            refused(app, wrong)
        assert sent == []


ODD: list[Any] = [None, True, 0, 1.5, 10**400, b"", (), [], {}, object(), Exception("x"), str, "", " ", "\0", "\ud800"]


def _any_token(generator: random.Random, token: str) -> Any:
    kind = generator.randrange(6)
    if kind == 0:
        return generator.choice(ODD)
    if kind == 1:
        return "".join(generator.choices("mindia_0123456789abcdef\0\ud800 é%", k=generator.choice([1, 23, 88, 1_000])))
    if kind == 2:  # of the right form
        prefix = generator.choice([token.split("_")[1], f"{generator.getrandbits(64):016x}"])
        return f"mindia_{prefix}_{generator.getrandbits(256):064x}"
    changed = list(token)
    for _ in range(generator.randrange(1, 4)):
        place = generator.randrange(len(changed))
        changed[place] = generator.choice(
            ["", "0", "f", "F", "_", "\0", "\ud800", "é", "'", "%s", "\n", changed[place]]
        )
    return "".join(changed)


def test_whatever_is_handed_in_is_refused_by_the_error_that_is_documented(app: Mindia, issued: IssuedApiKey) -> None:
    generator = random.Random("verify")
    answers: Counter[str] = Counter()

    with statements() as sent:
        for _ in range(10_000):
            token = _any_token(generator, issued.token)
            try:
                assert app.api_keys.verify(token).id == issued.key.id
                assert token == issued.token
                answers["right"] += 1
            except AuthenticationError as error:
                answers[error.code] += 1

    assert answers["authentication"] > 9_000
    assert answers.total() == 10_000
    assert len(sent) > 1_000, "many have the form of a token"


def test_an_unreachable_database_is_told_as_such(issued: IssuedApiKey, storage: LocalStorage) -> None:
    with (
        mindia.connect("postgresql://nobody.invalid/db", storage=storage) as unreachable,
        pytest.raises(DatabaseUnavailableError),
    ):
        unreachable.api_keys.verify(issued.token)


# Remembered


def test_a_verified_key_is_asked_for_once_in_some_seconds(app: Mindia, issued: IssuedApiKey, clock: Clock) -> None:
    app.api_keys.verify(issued.token)

    with statements() as sent:
        for _ in range(100):
            assert app.api_keys.verify(issued.token) == issued.key
        refused(app, _wrong_secret(None, issued, None))  # type: ignore[arg-type]  # it needs neither
    assert len(sent) == 1

    clock.now = 5
    with statements() as sent:
        assert app.api_keys.verify(issued.token).id == issued.key.id
    assert len(sent) == 1


def test_a_key_is_not_remembered_for_longer_than_it_is_valid(
    app: Mindia, library: Library, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_FRESH", timedelta(hours=1))
    issued = library.api_keys.issue("robot", role="viewer", expires_at=datetime.now(UTC) + timedelta(minutes=10))
    app.api_keys.verify(issued.token)

    clock.now = 600
    with statements() as sent:
        app.api_keys.verify(issued.token)  # by the clock of the database it is valid still

    assert len(sent) == 1


@pytest.mark.usefixtures("clock")
def test_a_key_that_is_revoked_in_the_same_process_is_refused_at_once(
    app: Mindia, library: Library, issued: IssuedApiKey
) -> None:
    kept = library.api_keys.issue("kept", role="viewer")
    for token in (issued.token, kept.token):
        app.api_keys.verify(token)

    library.api_keys.revoke(issued.key.id)

    refused(app, issued.token)
    with statements() as sent:
        app.api_keys.verify(kept.token)
    assert sent == []


@pytest.mark.parametrize("change", ["revoked", "suspended"])
def test_a_key_that_another_process_remembers_verifies_for_seconds_but_no_call_is_made_with_it(
    app: Mindia,
    another: Mindia,
    library: Library,
    issued: IssuedApiKey,
    clock: Clock,
    change: str,
) -> None:
    another.api_keys.verify(issued.token)
    if change == "revoked":
        library.api_keys.revoke(issued.key.id)
    else:
        app.tenants.suspend(library.tenant_id)

    key = another.api_keys.verify(issued.token)
    with pytest.raises(PermissionDeniedError if change == "revoked" else TenantInactiveError):
        another.library(key.tenant_id, user=key).media.find()

    clock.now = 5
    refused(another, issued.token)


def test_what_is_remembered_is_bounded_and_no_token(app: Mindia, issued: IssuedApiKey) -> None:
    known = KnownKeys()
    for number in range(25_000):
        known.put(number.to_bytes(32), issued.key, until=time.monotonic() + 60)
        assert known.get(number.to_bytes(32)) == issued.key
    assert len(known._known) <= 10_000

    app.api_keys.verify(issued.token)
    remembered = repr(vars(app._known_keys))
    assert str(issued.key.id) in remembered
    assert issued.token.rpartition("_")[2] not in remembered


def test_many_threads_verify_at_once_while_keys_are_revoked(app: Mindia, library: Library) -> None:
    kept = [library.api_keys.issue("kept", role="viewer") for _ in range(5)]
    gone = [library.api_keys.issue("gone", role="viewer") for _ in range(20)]
    start = threading.Barrier(5)

    def verify() -> None:
        start.wait()
        for each in kept * 200:
            assert app.api_keys.verify(each.token).id == each.key.id

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(verify) for _ in range(4)]
        start.wait()
        for each in gone:
            app.api_keys.verify(each.token)
            library.api_keys.revoke(each.key.id)
            refused(app, each.token)
    for thread in done:
        thread.result()


# The last use


def last_used(owner: Owner, issued: IssuedApiKey) -> datetime | None:
    row = owner.execute("select last_used_at from mindia.api_keys where id = %s", (issued.key.id,)).fetchone()
    assert row is not None
    used_at: datetime | None = row[0]
    return used_at


def test_the_last_use_is_recorded_at_most_once_a_minute(
    app: Mindia, library: Library, issued: IssuedApiKey, owner: Owner, clock: Clock
) -> None:
    app.api_keys.verify(issued.token)
    first = last_used(owner, issued)
    assert first is not None
    assert library.api_keys.get(issued.key.id).last_used_at == first

    clock.now = 5
    app.api_keys.verify(issued.token)
    assert last_used(owner, issued) == first

    owner.execute(
        "update mindia.api_keys set last_used_at = last_used_at - interval '1 minute' where id = %s", (issued.key.id,)
    )
    clock.now = 10
    app.api_keys.verify(issued.token)
    used_again = last_used(owner, issued)
    assert used_again is not None
    assert used_again >= first


def test_what_was_refused_is_no_use(app: Mindia, issued: IssuedApiKey, owner: Owner) -> None:
    refused(app, _wrong_secret(None, issued, None))  # type: ignore[arg-type]  # it needs neither
    assert last_used(owner, issued) is None


def test_whoever_holds_the_row_does_not_hold_up_verification(app: Mindia, issued: IssuedApiKey, owner: Owner) -> None:
    with owner.transaction():
        owner.execute("select from mindia.api_keys where id = %s for update", (issued.key.id,))
        assert app.api_keys.verify(issued.token) == issued.key

    assert last_used(owner, issued) is None


def test_a_use_that_cannot_be_recorded_is_logged_and_does_not_fail_verification(
    app: Mindia, issued: IssuedApiKey, application_url: str, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    read_only = make_conninfo(application_url, options="-c default_transaction_read_only=on")
    with (
        mindia.connect(read_only, storage=storage, settings=app.settings) as reader,
        caplog.at_level(logging.DEBUG),
    ):
        assert reader.api_keys.verify(issued.token) == issued.key

    assert f"API key {issued.key.id} was used is not on record" in caplog.text
    assert issued.token.rpartition("_")[2] not in caplog.text


# Calls that are made with a key


def test_a_role_decides_what_may_be_done_with_a_key(app: Mindia, library: Library) -> None:
    admin, member, viewer = (
        app.library(library.tenant_id, user=library.api_keys.issue(role, role=role).key) for role in UserRole
    )
    item = member.media.add(samples.image(), filename="cat.jpg")

    assert viewer.media.get(item.id) == item
    with pytest.raises(PermissionDeniedError, match="viewer"):
        viewer.media.delete(item)
    with pytest.raises(PermissionDeniedError, match="member"):
        next(member.api_keys.list())
    assert len(list(admin.api_keys.list())) == 3


@pytest.mark.parametrize("end", [_revoked, _expired])
def test_a_key_that_has_ended_is_refused_by_the_next_call(
    app: Mindia,
    library: Library,
    issued: IssuedApiKey,
    owner: Owner,
    end: Callable[[Library, IssuedApiKey, Owner], str],
) -> None:
    bound = app.library(library.tenant_id, user=issued.key)
    item = bound.media.add(samples.image())

    end(library, issued, owner)

    with pytest.raises(PermissionDeniedError, match=str(issued.key.id)):
        bound.media.get(item.id)
    with pytest.raises(PermissionDeniedError, match=str(issued.key.id)), bound.transaction():
        pass


def test_a_key_that_is_revoked_is_refused_by_the_next_call_of_a_transaction_that_is_open(
    app: Mindia, library: Library, issued: IssuedApiKey
) -> None:
    with app.library(library.tenant_id, user=issued.key).transaction() as tx:
        item = tx.media.add(samples.image())
        library.api_keys.revoke(issued.key.id)
        with pytest.raises(PermissionDeniedError, match=str(issued.key.id)):
            tx.media.get(item.id)


def test_a_key_of_another_tenant_is_nobody_here(app: Mindia, issued: IssuedApiKey) -> None:
    other = app.tenants.create("Globex")

    with pytest.raises(PermissionDeniedError, match=str(issued.key.id)):
        app.library(other, user=issued.key).media.find()


# Secrets


def test_a_token_is_shown_nowhere(
    app: Mindia, library: Library, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        issued = library.api_keys.issue("robot", role="member")
        key = app.api_keys.verify(issued.token)
        again = app.api_keys.verify(issued.token)
        revoked = library.api_keys.revoke(key.id)
        error = refused(app, issued.token)
        handles = [app, app.api_keys, vars(app.api_keys), library.api_keys, vars(library.api_keys), app._known_keys]
    rows = owner.execute("select to_jsonb(k)::text from mindia.api_keys k where id = %s", (key.id,)).fetchall()

    shown = repr([issued, key, again, revoked, error, vars(error), handles, rows]) + str(issued) + caplog.text
    assert "token='***'" in shown
    assert key.prefix in shown
    assert issued.token.rpartition("_")[2] not in shown
