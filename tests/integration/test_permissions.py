"""What users and API keys may do, by their role: each call of a library takes one at least, and looks each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.integration.library_calls import CALLS, Known, public_calls
from tests.integration.media_rows import Host
from tests.integration.tenant_rows import TenantRows, add_api_key, add_user

from mindia import Library, LocalStorage, MediaInput, Mindia, Tenant, UserRole
from mindia.errors import InvalidError, PermissionDeniedError
from mindia.testing import samples

VIEWER, MEMBER, ADMIN = UserRole.VIEWER, UserRole.MEMBER, UserRole.ADMIN

LEAST_ROLE = {
    "api_keys.get": ADMIN,
    "api_keys.issue": ADMIN,
    "api_keys.list": ADMIN,
    "api_keys.revoke": ADMIN,
    "index.embed": MEMBER,
    "index.passages": VIEWER,
    "index.vectors": VIEWER,
    "index.reindex": MEMBER,
    "index.near_duplicates": VIEWER,
    "index.search": VIEWER,
    "media.abort_upload": MEMBER,
    "index.set_transcript": MEMBER,
    "index.similar": VIEWER,
    "index.similar_to_image": VIEWER,
    "index.similar_to_vector": VIEWER,
    "index.stats": VIEWER,
    "media.add": MEMBER,
    "media.add_from_url": MEMBER,
    "media.add_many": MEMBER,
    "media.begin_upload": MEMBER,
    "media.complete_upload": MEMBER,
    "media.copy": MEMBER,
    "media.count": VIEWER,
    "media.delete": MEMBER,
    "media.delete_many": MEMBER,
    "media.derive": MEMBER,
    "media.derivatives": VIEWER,
    "media.exists": VIEWER,
    "media.find": VIEWER,
    "media.get": VIEWER,
    "media.get_many": VIEWER,
    "media.get_upload": MEMBER,
    "media.hls_url": VIEWER,
    "media.iterate": VIEWER,
    "media.open": VIEWER,
    "media.placeholder": MEMBER,
    "media.purge_derivatives": MEMBER,
    "media.read": VIEWER,
    "media.regenerate_derivatives": MEMBER,
    "media.save_to": VIEWER,
    "media.stage": MEMBER,
    "media.stage_from_url": MEMBER,
    "media.storyboard": MEMBER,
    "media.thumbnail": MEMBER,
    "media.transcode": MEMBER,
    "media.update": MEMBER,
    "media.url": VIEWER,
    "presets.create": ADMIN,
    "presets.delete": ADMIN,
    "presets.get": VIEWER,
    "presets.list": VIEWER,
    "presets.update": ADMIN,
    "request_log.counts": ADMIN,
    "request_log.list": ADMIN,
    "request_log.summary": ADMIN,
    "request_log.total": ADMIN,
    "search": VIEWER,
    "show": VIEWER,
    "statistics.storage": MEMBER,
    "statistics.tasks": MEMBER,
    "tasks.cancel": MEMBER,
    "tasks.counts": VIEWER,
    "tasks.enqueue": MEMBER,
    "tasks.enqueue_many": MEMBER,
    "tasks.errors": VIEWER,
    "tasks.get": VIEWER,
    "tasks.list": VIEWER,
    "tasks.reschedule": MEMBER,
    "tasks.retry": MEMBER,
    "tasks.wait": VIEWER,
    "usage": MEMBER,
    "users.activate": ADMIN,
    "users.authenticate": ADMIN,
    "users.by_email": ADMIN,
    "users.create": ADMIN,
    "users.deactivate": ADMIN,
    "users.get": ADMIN,
    "users.list": ADMIN,
    "users.set_password": ADMIN,
    "users.set_role": ADMIN,
    **dict.fromkeys(
        (
            "webhooks.attempts", "webhooks.delete", "webhooks.deliveries", "webhooks.delivery", "webhooks.get",
            "webhooks.health", "webhooks.list", "webhooks.pause", "webhooks.recover", "webhooks.register",
            "webhooks.resend", "webhooks.resume", "webhooks.rotate_secret", "webhooks.test", "webhooks.update",
        ),
        ADMIN,
    ),
    "webhooks.emit": MEMBER,
}  # fmt: skip
"""The role that may do least of those that may make a call."""

LOWER = {ADMIN: (MEMBER, VIEWER), MEMBER: (VIEWER,), VIEWER: ()}

Made = Callable[[Host, Library, UserRole], UUID]
INITIATORS = pytest.mark.parametrize("made", [add_user, add_api_key], ids=["a user", "an API key"])

PLACES = pytest.mark.parametrize("in_transaction", [False, True], ids=["own transactions", "one transaction"])


LibraryOf = Callable[[UUID], Library]


@contextmanager
def libraries(app: Mindia, tenant: Tenant, *, in_transaction: bool) -> Iterator[LibraryOf]:
    """Yield what returns the library of a user: outside of a transaction, or all in one."""
    if in_transaction:
        with app.transaction() as tx:
            yield lambda user: tx.library(tenant, user=user)
    else:
        yield lambda user: app.library(tenant, user=user)


@contextmanager
def nothing_changes(host: Host, tenant: Tenant, storage: LocalStorage) -> Iterator[None]:
    """Assert that neither a row nor an object of the tenant is another one afterwards."""
    rows = TenantRows(host)
    before = rows.of(tenant.id), set(storage.list(tenant.s3_bucket))
    yield
    assert (rows.of(tenant.id), set(storage.list(tenant.s3_bucket))) == before


class Untouchable:
    """A source that nobody may read."""

    name = "secret.jpg"

    def read(self, _: int = -1) -> bytes:
        pytest.fail("a call that is denied has read from its source")

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        pytest.fail("a call that is denied has taken a source")


SOURCES: dict[str, Callable[[Library], object]] = {
    "add": lambda library: library.media.add(Untouchable()),
    "add a duplicate": lambda library: library.media.add(Untouchable(), on_duplicate="return"),
    "stage": lambda library: library.media.stage(Untouchable()),
    "add_many": lambda library: library.media.add_many(Untouchable()),
    "add_many of an input": lambda library: library.media.add_many([MediaInput(Untouchable())]),
}


@pytest.fixture
def known(library: Library) -> Known:
    return Known.of(library)


def test_every_public_call_has_its_least_role(library: Library) -> None:
    assert set(LEAST_ROLE) == set(CALLS) == public_calls(library)


@INITIATORS
@PLACES
def test_every_call_is_denied_to_those_of_a_lower_role_and_leaves_no_trace(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host, storage: LocalStorage,
    made: Made, in_transaction: bool,
) -> None:  # fmt: skip
    users = {role: made(host, library, role) for role in UserRole}

    with (
        nothing_changes(host, tenant, storage),
        libraries(app, tenant, in_transaction=in_transaction) as library_of,
    ):
        for name, call in CALLS.items():
            for role in LOWER[LEAST_ROLE[name]]:
                theirs = library_of(users[role])
                with pytest.raises(PermissionDeniedError, match=f"is a {role}: this takes an? {LEAST_ROLE[name]}"):
                    call(theirs, known)
                assert theirs.media.get(known.item.id) == known.item, "what they may do goes on"


@INITIATORS
@PLACES
def test_every_call_succeeds_with_its_least_role(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host, made: Made, in_transaction: bool
) -> None:
    users = {role: made(host, library, role) for role in UserRole}

    with libraries(app, tenant, in_transaction=in_transaction) as library_of:
        for name, call in CALLS.items():
            call(library_of(users[LEAST_ROLE[name]]), known)


@INITIATORS
def test_an_admin_may_make_every_call(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host, made: Made
) -> None:
    theirs = app.library(tenant, user=made(host, library, ADMIN))

    for call in CALLS.values():
        call(theirs, known)


@PLACES
@pytest.mark.parametrize("call", SOURCES.values(), ids=SOURCES)
def test_a_denied_call_reads_nothing_of_its_source_and_stores_no_byte(
    app: Mindia, library: Library, tenant: Tenant, host: Host, storage: LocalStorage,
    call: Callable[[Library], object], in_transaction: bool,
) -> None:  # fmt: skip
    viewer = add_user(host, library, VIEWER)
    library.media.stage(samples.image())  # so that a key is leased already

    with (
        nothing_changes(host, tenant, storage),
        libraries(app, tenant, in_transaction=in_transaction) as library_of,
        pytest.raises(PermissionDeniedError),
    ):
        call(library_of(viewer))


def _nobody(*_: object) -> UUID:
    return uuid4()


def _of_another_tenant(app: Mindia, _: Library, host: Host) -> UUID:
    return add_user(host, app.library(app.tenants.create("Globex")), ADMIN)


def _key_of_another_tenant(app: Mindia, _: Library, host: Host) -> UUID:
    return add_api_key(host, app.library(app.tenants.create("Globex")), ADMIN)


REFUSED: dict[str, Callable[[Mindia, Library, Host], UUID]] = {
    "unknown": _nobody,
    "user of another tenant": _of_another_tenant,
    "API key of another tenant": _key_of_another_tenant,
    "deactivated user": lambda _, library, host: add_user(host, library, ADMIN, is_active=False),
    "revoked API key": lambda _, library, host: add_api_key(host, library, ADMIN, revoked_at=datetime.now(UTC)),
    "expired API key": lambda _, library, host: add_api_key(
        host, library, ADMIN, expires_at=datetime.now(UTC) - timedelta(seconds=1)
    ),
}


@PLACES
@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
def test_every_call_is_denied_to_who_is_no_active_user_of_the_tenant(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host, storage: LocalStorage,
    made: Callable[[Mindia, Library, Host], UUID], in_transaction: bool,
) -> None:  # fmt: skip
    user = made(app, library, host)

    with nothing_changes(host, tenant, storage):
        with libraries(app, tenant, in_transaction=in_transaction) as library_of:
            for call in CALLS.values():
                with pytest.raises(PermissionDeniedError, match=f"{user} is no active user and no valid API key"):
                    call(library_of(user), known)
        with pytest.raises(PermissionDeniedError), app.library(tenant, user=user).transaction():
            pytest.fail("a transaction was begun on behalf of somebody who may do nothing")


@PLACES
@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
def test_nothing_is_read_for_who_is_no_active_user_of_the_tenant(
    app: Mindia, library: Library, tenant: Tenant, host: Host, storage: LocalStorage,
    made: Callable[[Mindia, Library, Host], UUID], in_transaction: bool,
) -> None:  # fmt: skip
    user = made(app, library, host)

    with (
        nothing_changes(host, tenant, storage),
        libraries(app, tenant, in_transaction=in_transaction) as library_of,
    ):
        for call in SOURCES.values():
            with pytest.raises(PermissionDeniedError):
                call(library_of(user))


def test_a_user_who_is_deactivated_is_refused_by_the_next_call_also_in_a_transaction_that_is_open(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host
) -> None:
    user = add_user(host, library, MEMBER)
    theirs = app.library(tenant, user=user)
    theirs.media.get(known.item.id)

    with theirs.transaction() as tx:
        tx.media.update(known.item, description="a view")
        _set(host, user, "is_active = false")
        with pytest.raises(PermissionDeniedError, match="no active user"):
            tx.media.get(known.item.id)
    with pytest.raises(PermissionDeniedError, match="no active user"):
        theirs.media.get(known.item.id)
    _set(host, user, "is_active = true")
    assert theirs.media.get(known.item.id).description == "a view", "what was done before is kept"


def test_a_role_that_is_changed_is_in_force_from_the_next_call_on(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host
) -> None:
    user = add_user(host, library, VIEWER)
    theirs = app.library(tenant, user=user)
    with pytest.raises(PermissionDeniedError):
        theirs.media.delete(known.other)

    _set(host, user, "role = 'member'")
    theirs.media.delete(known.other)

    _set(host, user, "role = 'viewer'")
    with pytest.raises(PermissionDeniedError):
        theirs.media.delete(known.item)


def _set(host: Host, user: UUID, assignment: str) -> None:
    with host.transaction():
        host.execute(f"update mindia.users set {assignment} where id = %s".encode(), (user,))


def test_a_denied_call_is_an_error_that_hosts_can_tell(
    app: Mindia, library: Library, tenant: Tenant, host: Host
) -> None:
    viewer = app.library(tenant, user=add_user(host, library, VIEWER))

    with pytest.raises(PermissionDeniedError) as caught:
        viewer.usage()

    assert isinstance(caught.value, PermissionError)
    assert (caught.value.http_status, caught.value.retryable) == (403, False)
    assert isinstance(caught.value.__cause__, psycopg.Error)


def test_users_of_one_transaction_do_not_lend_each_other_their_roles(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host
) -> None:
    admin, viewer = add_user(host, library, ADMIN), add_user(host, library, VIEWER)

    with app.transaction() as tx:
        for _ in range(3):
            assert tx.library(tenant, user=admin).usage().item_count
            with pytest.raises(PermissionDeniedError):
                tx.library(tenant, user=viewer).usage()
            assert tx.library(tenant).usage().item_count, "without a user it is the host itself"
            tx.library(tenant, user=viewer).media.get(known.item.id)


def test_a_transaction_within_a_transaction_is_on_behalf_of_the_same_user(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host
) -> None:
    with app.library(tenant, user=add_user(host, library, VIEWER)).transaction() as tx, tx.transaction() as inner:
        inner.media.get(known.item.id)
        with pytest.raises(PermissionDeniedError):
            inner.media.delete(known.item)


def test_a_hosts_transaction_is_held_to_the_role_too(
    app: Mindia, library: Library, tenant: Tenant, known: Known, host: Host
) -> None:
    theirs = app.library(tenant, user=add_user(host, library, VIEWER))

    with host.transaction(), theirs.transaction(connection=host) as tx:
        tx.media.get(known.item.id)
        with pytest.raises(PermissionDeniedError):
            tx.media.delete(known.item)


@pytest.mark.parametrize("user", ["ada", 7, b"x", "acme"])
def test_a_user_is_a_user_an_api_key_or_an_id_and_nothing_else(app: Mindia, tenant: Tenant, user: Any) -> None:
    with pytest.raises(InvalidError, match="user must be"):
        app.library(tenant, user=user)
    with app.transaction() as tx, pytest.raises(InvalidError, match="user must be"):
        tx.library(tenant, user=user)


def test_a_user_and_an_api_key_are_taken_as_they_were_returned(app: Mindia, tenant: Tenant, known: Known) -> None:
    for who in (known.user, known.issued.key):
        assert app.library(tenant, user=who).media.get(known.item.id) == known.item
    with pytest.raises(PermissionDeniedError, match=f"{known.issued.key.id} is a viewer"):
        app.library(tenant, user=known.issued.key).media.delete(known.item)
