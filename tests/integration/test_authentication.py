"""Log-in: right passwords only, the same answer and the same work for all others, and not for long."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import argon2
import attrs
import psycopg
import pytest
from tests.conftest import Roles
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.library_calls import PASSWORD, SETTINGS
from tests.integration.processes import wait_until

import mindia
from mindia import Library, LocalStorage, Mindia, User
from mindia.db._cursor import OwnCursor
from mindia.errors import (
    AuthenticationError,
    ConnectionLostError,
    LockedOutError,
    MindiaError,
    NotFoundError,
    PermissionDeniedError,
    TenantInactiveError,
)

Owner = psycopg.Connection[tuple[Any, ...]]

EMAIL = "Ann@example.org"
LIMIT = 5


@pytest.fixture
def owner(database_url: str) -> Iterator[Owner]:
    """One who sees all rows, each statement committed by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def app(application_url: str, roles: Roles, storage: LocalStorage) -> Iterator[Mindia]:
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, max_login_failures=LIMIT)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def user(library: Library) -> User:
    return library.users.create(EMAIL, password=PASSWORD)


@attrs.define
class Work:
    """What was done meanwhile."""

    statements: list[str] = attrs.field(factory=list)
    verifications: int = 0
    hashes: int = 0


@contextmanager
def work_done() -> Iterator[Work]:
    """Count statements and what argon2 is asked for."""
    work = Work()
    execute, verify, hash_ = OwnCursor.execute, argon2.PasswordHasher.verify, argon2.PasswordHasher.hash

    def executing(cursor: OwnCursor[Any], query: Any, *arguments: Any, **options: Any) -> Any:
        work.statements.append(query if isinstance(query, str) else query.decode())
        return execute(cursor, query, *arguments, **options)

    def verifying(*arguments: Any) -> bool:
        work.verifications += 1
        return verify(*arguments)

    def hashing(*arguments: Any) -> str:
        work.hashes += 1
        return hash_(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnCursor, "execute", executing)
        patch.setattr(argon2.PasswordHasher, "verify", verifying)
        patch.setattr(argon2.PasswordHasher, "hash", hashing)
        yield work


def refused(library: Library, email: Any = EMAIL, password: Any = "wrong password") -> AuthenticationError:
    """Log in in vain."""
    with pytest.raises(AuthenticationError) as raised:
        library.users.authenticate(email, password)
    return raised.value


def failures(owner: Owner, library: Library) -> list[int]:
    rows = owner.execute(
        "select failure_count from mindia.login_failures where tenant_id = %s", (library.tenant_id,)
    ).fetchall()
    return [count for (count,) in rows]


def let_time_pass(owner: Owner, library: Library, seconds: float) -> None:
    """Have all failures been counted so much earlier."""
    owner.execute(
        "update mindia.login_failures set expires_at = expires_at - make_interval(secs => %s) where tenant_id = %s",
        (seconds, library.tenant_id),
    )


# Who may


@pytest.mark.parametrize("email", [EMAIL, EMAIL.upper(), EMAIL.lower(), f" {EMAIL}\n"])
def test_who_has_the_password_logs_in_and_that_is_recorded(library: Library, user: User, email: str) -> None:
    logged_in = library.users.authenticate(email, PASSWORD)

    assert logged_in.last_login_at is not None
    assert logged_in.last_login_at >= user.created_at
    assert logged_in == attrs.evolve(user, last_login_at=logged_in.last_login_at)
    assert library.users.get(user.id) == logged_in


def test_a_password_may_be_typed_on_another_keyboard(library: Library) -> None:
    user = library.users.create(EMAIL, password="cafe\u0301 au lait")

    assert library.users.authenticate(EMAIL, "café au lait").id == user.id


def test_the_same_address_is_another_user_in_another_tenant(app: Mindia, library: Library, user: User) -> None:
    other = app.library(app.tenants.create("Globex"))
    too = other.users.create(EMAIL, password="another horse")

    assert library.users.authenticate(EMAIL, PASSWORD).id == user.id
    assert other.users.authenticate(EMAIL, "another horse").id == too.id
    refused(other, password=PASSWORD)


def test_nobody_logs_in_as_a_user_without_a_password(library: Library, owner: Owner) -> None:
    user = library.users.create(EMAIL)
    row = owner.execute("select password_hash from mindia.users where id = %s", (user.id,)).fetchone()
    assert row is not None

    for password in (row[0], row[0] * 8, "", "None", "wrong password"):
        refused(library, password=password)
    library.users.set_password(user.id, PASSWORD)
    assert library.users.authenticate(EMAIL, PASSWORD).id == user.id


def test_an_inactive_user_logs_in_again_once_activated(library: Library, user: User) -> None:
    library.users.deactivate(user.id)
    refused(library, password=PASSWORD)
    library.users.activate(user.id)
    assert library.users.authenticate(EMAIL, PASSWORD).id == user.id


def test_who_is_deactivated_while_the_password_is_verified_is_refused(
    library: Library, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = argon2.PasswordHasher.verify

    def deactivating(*arguments: Any) -> bool:
        library.users.deactivate(user.id)
        return verify(*arguments)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", deactivating)

    refused(library, password=PASSWORD)
    assert library.users.get(user.id).last_login_at is None


def test_nobody_logs_in_where_the_tenant_is_not_served(app: Mindia, library: Library, user: User) -> None:
    app.tenants.suspend(library.tenant_id)
    with pytest.raises(TenantInactiveError):
        library.users.authenticate(user.email, PASSWORD)
    with pytest.raises(NotFoundError):
        app.library(uuid4()).users.authenticate(user.email, PASSWORD)


def test_who_may_not_ask_learns_nothing_and_costs_no_attempt(
    app: Mindia, library: Library, user: User, owner: Owner
) -> None:
    bound = app.library(library.tenant_id, user=user)

    with work_done() as work, pytest.raises(PermissionDeniedError):
        bound.users.authenticate(user.email, PASSWORD)

    assert work.verifications == 0
    assert failures(owner, library) == []


# The same for all who may not


def _unknown(_: Library) -> str:
    return f"{uuid4().hex}@example.org"


def _wrong_password(library: Library) -> str:
    return library.users.create(_unknown(library), password="another horse").email


def _no_password(library: Library) -> str:
    return library.users.create(_unknown(library)).email


def _inactive(library: Library) -> str:
    return library.users.deactivate(library.users.create(_unknown(library), password=PASSWORD).id).email


NOBODY = [_unknown, _wrong_password, _no_password, _inactive]


def test_the_answer_and_the_work_are_the_same_whether_there_is_such_a_user_or_not(library: Library) -> None:
    done = []
    for who in NOBODY:
        email = who(library)
        with work_done() as work:
            error = refused(library, email, PASSWORD)
        done.append((str(error), error.code, type(error), work.statements, work.verifications, work.hashes))

    assert done == [done[0]] * len(NOBODY)
    message, _, kind, statements, verifications, hashes = done[0]
    assert message == "no active user has this e-mail address and this password"
    assert kind is AuthenticationError
    assert (verifications, hashes) == (1, 0)
    # Each is sent together with what binds it to the tenant.
    assert [statement.split()[0] for statement in statements] == ["select", "select", "select", "insert"]


@pytest.mark.parametrize("who", NOBODY)
def test_the_lock_out_is_the_same_whether_there_is_such_a_user_or_not(
    library: Library, who: Callable[[Library], str]
) -> None:
    email = who(library)
    for _ in range(LIMIT):
        assert type(refused(library, email, PASSWORD)) is AuthenticationError

    with work_done() as work:
        error = refused(library, email.upper(), PASSWORD)

    assert type(error) is LockedOutError
    assert str(error).startswith("too many attempts to log in have failed: try again after 20")
    assert work.verifications == 0
    assert len(work.statements) == 4


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("email", "password"),
    [("ann", PASSWORD), (None, PASSWORD), (EMAIL, "short"), (EMAIL, None), (EMAIL, b"12345678"), (EMAIL, "x" * 2000)],
)
def test_what_cannot_be_an_address_or_a_password_is_refused_without_any_work(
    library: Library, owner: Owner, email: Any, password: Any
) -> None:
    with work_done() as work:
        error = refused(library, email, password)

    assert str(error) == "no active user has this e-mail address and this password"
    assert error.__context__ is None or error.__suppress_context__
    assert work == Work()
    assert failures(owner, library) == []


# Too many attempts


def test_after_too_many_failures_the_right_password_is_refused_too_until_the_time_has_passed(
    library: Library, user: User, owner: Owner
) -> None:
    for _ in range(LIMIT):
        refused(library)

    error = refused(library, password=PASSWORD)
    assert isinstance(error, LockedOutError)
    assert error.retryable
    assert error.http_status == 429
    assert error.until is not None
    assert timedelta(minutes=14) < error.until - datetime.now(UTC) < timedelta(minutes=16)
    assert f"{error.until:%Y-%m-%d %H:%M:%S} UTC" in str(error)

    let_time_pass(owner, library, 890)
    again = refused(library, password=PASSWORD)
    assert isinstance(again, LockedOutError)
    assert again.until == error.until - timedelta(seconds=890), "what is refused does not make it longer"

    let_time_pass(owner, library, 10)
    assert library.users.authenticate(EMAIL, PASSWORD).id == user.id
    assert failures(owner, library) == []


@pytest.mark.usefixtures("user")
def test_a_success_has_the_failures_forgotten(library: Library, owner: Owner) -> None:
    for _ in range(3):
        for _ in range(LIMIT - 1):
            refused(library)
        library.users.authenticate(EMAIL, PASSWORD)
        assert failures(owner, library) == []


@pytest.mark.usefixtures("user")
def test_failures_count_for_a_while_from_the_first_one_on(library: Library, owner: Owner) -> None:
    for _ in range(LIMIT - 1):
        refused(library)
    assert failures(owner, library) == [LIMIT - 1]

    let_time_pass(owner, library, 900)
    refused(library)

    assert failures(owner, library) == [1]


@pytest.mark.usefixtures("user")
def test_the_lock_out_begins_with_the_last_failure_and_not_with_the_first(library: Library, owner: Owner) -> None:
    for _ in range(LIMIT - 1):
        refused(library)
    let_time_pass(owner, library, 890)
    refused(library)

    let_time_pass(owner, library, 890)
    assert type(refused(library)) is LockedOutError


@pytest.mark.usefixtures("user")
def test_a_lock_out_is_that_of_one_address_in_one_tenant(app: Mindia, library: Library) -> None:
    other = app.library(app.tenants.create("Globex"))
    for each in (library, other):
        each.users.create("bob@example.org", password=PASSWORD)
    other.users.create(EMAIL, password=PASSWORD)
    for _ in range(LIMIT + 1):
        refused(library)

    library.users.authenticate("bob@example.org", PASSWORD)
    other.users.authenticate(EMAIL, PASSWORD)
    other.users.authenticate("bob@example.org", PASSWORD)
    assert type(refused(library)) is LockedOutError


def test_a_lock_out_outlives_the_application_and_a_new_password(
    app: Mindia, library: Library, user: User, application_url: str, storage: LocalStorage
) -> None:
    for _ in range(LIMIT):
        refused(library)
    library.users.set_password(user.id, PASSWORD)

    with mindia.connect(application_url, storage=storage, settings=app.settings) as another:
        error = refused(another.library(library.tenant_id), password=PASSWORD)

    assert type(error) is LockedOutError


@pytest.mark.parametrize("who", [_unknown, _wrong_password])
def test_attempts_at_the_same_time_are_verified_no_more_often_than_is_allowed(
    library: Library, monkeypatch: pytest.MonkeyPatch, who: Callable[[Library], str]
) -> None:
    email = who(library)
    verify = argon2.PasswordHasher.verify
    verified: list[str] = []
    errors: list[MindiaError] = []
    go_on = threading.Event()

    def waiting(hasher: argon2.PasswordHasher, hashed: str, password: str) -> bool:
        verified.append(password)
        assert go_on.wait(30)
        return verify(hasher, hashed, password)

    def attempt(number: int) -> None:
        try:
            library.users.authenticate(email, f"guess {number:03}")
        except MindiaError as error:
            errors.append(error)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", waiting)
    with ThreadPoolExecutor(30) as threads:
        done = [threads.submit(attempt, number) for number in range(30)]
        try:
            # All that were let through are still being verified: none has been seen to fail.
            wait_until(lambda: len(verified) + len(errors) == 30)
        finally:
            go_on.set()
    for each in done:
        each.result()

    assert len(verified) == len(set(verified)) == LIMIT
    kinds = [type(error) for error in errors]
    assert (kinds.count(AuthenticationError), kinds.count(LockedOutError)) == (LIMIT, 30 - LIMIT)


@pytest.mark.usefixtures("user")
def test_no_connection_is_held_while_a_password_is_hashed(
    app: Mindia, library: Library, application_url: str, storage: LocalStorage
) -> None:
    settings = attrs.evolve(app.settings, pool_size=1, pool_timeout_s=1, argon2_time_cost=2)
    seen: list[int] = []
    with mindia.connect(application_url, storage=storage, settings=settings) as narrow:
        only = narrow.library(library.tenant_id)
        verify, hash_ = argon2.PasswordHasher.verify, argon2.PasswordHasher.hash

        def verifying(*arguments: Any) -> bool:
            seen.append(only.media.count())
            return verify(*arguments)

        def hashing(*arguments: Any) -> str:
            seen.append(only.media.count())
            return hash_(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argon2.PasswordHasher, "verify", verifying)
            patch.setattr(argon2.PasswordHasher, "hash", hashing)
            only.users.authenticate(EMAIL, PASSWORD)  # with a new hash, since the parameters have changed

    assert seen == [0, 0]


def test_maintenance_forgets_what_is_held_against_nobody_any_more(app: Mindia, library: Library, owner: Owner) -> None:
    other = app.library(app.tenants.create("Globex"))
    for each in (library, other):
        refused(each, "gone@example.org")
    for each in (library, other):
        let_time_pass(owner, each, 900)
        refused(each, "kept@example.org")

    assert app.maintenance.remove_login_failures() >= 2
    assert failures(owner, library) == failures(owner, other) == [1]

    let_time_pass(owner, library, 900)
    app.run_until_idle()
    assert failures(owner, library) == []
    assert failures(owner, other) == [1]


def test_maintenance_waits_for_nobody(app: Mindia, library: Library, owner: Owner, database_url: str) -> None:
    refused(library)
    let_time_pass(owner, library, 900)

    with psycopg.connect(database_url) as other:
        other.execute("select from mindia.login_failures where tenant_id = %s for update", (library.tenant_id,))
        app.maintenance.remove_login_failures()
        assert failures(owner, library) == [1]


# Parameters that change


def test_a_hash_is_renewed_at_log_in_when_the_parameters_have_changed(
    app: Mindia, library: Library, user: User, owner: Owner, application_url: str, storage: LocalStorage
) -> None:
    def stored() -> str:
        row = owner.execute("select password_hash from mindia.users where id = %s", (user.id,)).fetchone()
        assert row is not None
        return str(row[0])

    before = stored()
    library.users.authenticate(EMAIL, PASSWORD)
    assert stored() == before, "nothing has changed"

    settings = attrs.evolve(app.settings, argon2_time_cost=2, argon2_memory_kib=64, argon2_parallelism=2)
    with mindia.connect(application_url, storage=storage, settings=settings) as changed:
        renewed = changed.library(library.tenant_id)
        refused(renewed)
        assert stored() == before, "only the right password can be hashed anew"
        with work_done() as work:
            renewed.users.authenticate(EMAIL, PASSWORD)
        assert (work.verifications, work.hashes) == (1, 1)
        assert "$m=64,t=2,p=2$" in stored()
        with work_done() as work:
            renewed.users.authenticate(EMAIL, PASSWORD)
        assert (work.verifications, work.hashes) == (1, 0)

    assert library.users.authenticate(EMAIL, PASSWORD).updated_at == user.updated_at


def test_a_renewed_hash_does_not_take_the_place_of_a_new_password(
    app: Mindia, library: Library, user: User, application_url: str, storage: LocalStorage
) -> None:
    hash_ = argon2.PasswordHasher.hash
    settings = attrs.evolve(app.settings, argon2_time_cost=2)
    changed: list[bool] = []

    def changing(*arguments: Any) -> str:
        if not changed:
            changed.append(True)
            library.users.set_password(user.id, "another horse")
        return hash_(*arguments)

    with (
        mindia.connect(application_url, storage=storage, settings=settings) as another,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(argon2.PasswordHasher, "hash", changing)
        another.library(library.tenant_id).users.authenticate(EMAIL, PASSWORD)

    refused(library, password=PASSWORD)
    assert library.users.authenticate(EMAIL, "another horse").id == user.id


# Transactions and lost connections


@pytest.mark.usefixtures("user")
def test_attempts_in_a_transaction_are_counted_also_where_it_is_rolled_back(library: Library, owner: Owner) -> None:
    for number in range(1, LIMIT + 1):
        with suppress(AuthenticationError), library.transaction() as tx:
            tx.users.authenticate(EMAIL, "wrong password")
        assert failures(owner, library) == [number]

    with library.transaction() as tx, pytest.raises(LockedOutError):
        tx.users.authenticate(EMAIL, PASSWORD)


def test_who_was_made_in_a_transaction_can_log_in_within_it(app: Mindia, owner: Owner) -> None:
    with app.transaction() as tx:
        library = tx.library(tx.tenants.create("Globex"))
        user = library.users.create(EMAIL, password=PASSWORD)
        refused(library)
        assert library.users.authenticate(EMAIL, PASSWORD).id == user.id
        assert library.users.authenticate(EMAIL, PASSWORD).last_login_at is not None
    assert app.library(library.tenant_id).users.authenticate(EMAIL, PASSWORD).id == user.id
    assert failures(owner, library) == []


@attrs.frozen
class Cut:
    """A log-in whose connection is lost, and what came of it."""

    result: User | MindiaError
    verifications: int
    failures: list[int]


def _cut(
    library: Library, owner: Owner, proxy: Proxy, password: str, moment: Moment, *, at: int, limit: int, times: int = 1
) -> Cut:
    settings = attrs.evolve(SETTINGS, max_login_failures=limit, pool_timeout_s=5)
    with mindia.connect(proxy.url, storage=mindia.MemoryStorage(), settings=settings) as app:
        behind = app.library(library.tenant_id)
        behind.media.count()  # so that it is connected
        proxy.cut_at(Words.COMMIT, moment, skip=at, times=times)
        result: User | MindiaError
        with work_done() as work:
            try:
                result = behind.users.authenticate(EMAIL, password)
            except MindiaError as error:
                result = error
        assert not proxy.cuts_left
    return Cut(result, work.verifications, failures(owner, library))


READ, COUNT, LOG_IN, FORGET = range(4)
"""The commits of a log-in, in their order."""


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("at", [READ, COUNT, LOG_IN, FORGET])
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("limit", [1, 10])
def test_a_log_in_does_not_fail_for_a_lost_connection(
    library: Library, owner: Owner, database_url: str, moment: Moment, at: int, limit: int
) -> None:
    with Proxy(database_url) as proxy:
        cut = _cut(library, owner, proxy, PASSWORD, moment, at=at, limit=limit)

    assert isinstance(cut.result, User), cut.result
    assert cut.verifications == 1
    assert cut.failures == []


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(("moment", "counted"), [(Moment.BEFORE, 1), (Moment.ANSWERED, 2)])
def test_a_failure_whose_connection_is_lost_may_count_twice_but_never_not_at_all(
    library: Library, owner: Owner, database_url: str, moment: Moment, counted: int
) -> None:
    with Proxy(database_url) as proxy:
        cut = _cut(library, owner, proxy, "wrong password", moment, at=COUNT, limit=10)

    assert type(cut.result) is AuthenticationError
    assert cut.verifications == 1
    assert cut.failures == [counted]


@pytest.mark.usefixtures("user")
def test_an_attempt_that_cannot_be_counted_is_not_made(library: Library, owner: Owner, database_url: str) -> None:
    with Proxy(database_url) as proxy:
        cut = _cut(library, owner, proxy, PASSWORD, Moment.BEFORE, at=COUNT, limit=10, times=2)

    assert isinstance(cut.result, ConnectionLostError)
    assert cut.verifications == 0


@pytest.mark.usefixtures("user")
def test_a_lock_out_holds_also_where_the_connection_is_lost(library: Library, owner: Owner, database_url: str) -> None:
    for _ in range(LIMIT + 1):
        refused(library)

    with Proxy(database_url) as proxy:
        cut = _cut(library, owner, proxy, PASSWORD, Moment.ANSWERED, at=COUNT, limit=LIMIT)

    assert type(cut.result) is LockedOutError
    assert cut.verifications == 0


# Whatever is handed in


ODD: list[Any] = [
    None, True, 0, -1, 1.5, float("nan"), 10**400, b"", b"ann@example.org", (), [], {}, set(), object(), uuid4(),
    Exception("x"), int, lambda: None, "", " ", "@", "a@b", "\0", "\ud800", "\udfff@\ud800", "a" * 100_000,
    "a@" + "b" * 100_000, "%s@%s", "{}@{}", "'; drop table mindia.users; --@x", "a@b\0", "\uff20", "a\uff20b",
    "\u202ea@b", "\U0010ffff@\U0010ffff", "İ@İ", "ß@ẞ", "ﷺ" * 60, "e" + "\u0301" * 1_000, "\r\n@\r\n",
    "$argon2id$v=19$m=8,t=1,p=1$",
]  # fmt: skip


class Odd(str):
    """A host's own kind of text."""

    __slots__ = ()


def _any_text(random: random.Random) -> Any:
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(ODD)
    if kind == 1:
        return random.choice([EMAIL, PASSWORD, EMAIL.upper(), Odd(EMAIL), Odd(PASSWORD)])
    alphabets = ["ab@.", "0123456789abcdef_", "".join(map(chr, range(128))), "éß猫İ\u0301\u200b\ud800😺\0@ \x85"]
    length = random.choice([0, 1, 3, 7, 8, 9, 20, 254, 255, 1024, 1025])
    text = "".join(random.choices(random.choice(alphabets), k=length))
    return f"{text[:100]}@{text[:20]}" if kind == 2 else text


def test_whatever_is_handed_in_is_refused_by_the_errors_that_are_documented(
    app: Mindia, user: User, application_url: str, storage: LocalStorage
) -> None:
    generator = random.Random("authenticate")
    settings = attrs.evolve(app.settings, max_login_failures=1_000)
    answers: Counter[str] = Counter()
    with mindia.connect(application_url, storage=storage, settings=settings) as patient, work_done() as work:
        library = patient.library(user.tenant_id)
        for _ in range(10_000):
            email, password = _any_text(generator), _any_text(generator)
            try:
                assert library.users.authenticate(email, password).id == user.id
                answers["right"] += 1
            except (AuthenticationError, LockedOutError) as error:
                answers[error.code] += 1
        assert len(list(library.users.list())) == 1

    assert answers["authentication"] > 9_000
    assert answers.total() == 10_000
    assert work.verifications > 500


# Secrets


def test_a_password_is_shown_nowhere(
    app: Mindia, library: Library, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ["swordfish one", "swordfish two", "swordfish three"]
    shown: list[object] = []
    with caplog.at_level(logging.DEBUG):
        user = library.users.create(EMAIL, password=secrets[0])
        shown += [user, library.users.set_password(user.id, secrets[1])]
        shown += [library.users.authenticate(EMAIL, secrets[1])]
        calls: list[Callable[[str], object]] = [
            lambda password: library.users.create(EMAIL, password=password),
            lambda password: library.users.create(EMAIL, password=f"{password}\0"),
            lambda password: library.users.set_password(uuid4(), password),
            lambda password: library.users.authenticate(EMAIL, f"{password}!"),
            lambda password: library.users.authenticate(EMAIL, f"{password}\0"),
            lambda password: library.users.authenticate("bob@example.org", password),
        ]
        for call, password in product(calls, secrets):
            with pytest.raises(MindiaError) as raised:
                call(password)
            shown += _chain(raised.value)
        shown += [app, library, library.users, app._passwords, app._login_attempts, vars(library.users)]
    rows = owner.execute("select to_jsonb(u)::text from mindia.users u where tenant_id = %s", (library.tenant_id,))
    shown += rows.fetchall()

    text = " ".join(f"{each!r} {each!s}" for each in shown) + caplog.text
    assert EMAIL in text
    assert "swordfish" not in text
    assert "argon2id" not in " ".join(map(repr, shown[:3])), "the hash is shown by no user"


def _chain(error: BaseException | None) -> list[object]:
    found: list[object] = []
    while error is not None:
        found += [error, error.args, vars(error)]
        error = error.__cause__ or error.__context__
    return found
