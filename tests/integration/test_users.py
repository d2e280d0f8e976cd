"""Users of a tenant: made, found, changed, and held to their role by the next call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import attrs
import psycopg
import pytest
from tests.integration.library_calls import CALLS, PASSWORD, Known, new_user

from mindia import ApiKey, Library, Mindia, Tenant, User, UserRole
from mindia.errors import (
    AlreadyExistsError,
    AuthenticationError,
    InvalidError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
)
from mindia.testing import samples

Owner = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def owner(database_url: str) -> Iterator[Owner]:
    """One who sees all rows, each statement committed by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_user_is_made_and_found_by_id_and_by_address(library: Library, tenant: Tenant) -> None:
    user = library.users.create("  Ann.Smith@Example.org ", password=PASSWORD, role="viewer")

    assert user.email == "Ann.Smith@Example.org"
    assert user.role is UserRole.VIEWER
    assert user.tenant_id == tenant.id
    assert user.id.version == 7
    assert user.is_active
    assert user.created_at == user.updated_at
    assert user.last_login_at is None
    assert library.users.get(user.id) == user
    assert library.users.by_email("ann.smith@EXAMPLE.org") == user
    assert list(library.users.list()) == [user]


def test_a_user_is_a_member_unless_told_otherwise(library: Library) -> None:
    assert library.users.create("ann@example.org").role is UserRole.MEMBER


@pytest.mark.parametrize("same", ["ann@example.org", "ANN@EXAMPLE.ORG", " Ann@Example.org\n"])
def test_an_address_is_unique_within_a_tenant_without_regard_to_case(app: Mindia, library: Library, same: str) -> None:
    user = library.users.create("Ann@example.org")

    with pytest.raises(AlreadyExistsError, match="another user of the tenant has this e-mail address"):
        library.users.create(same)

    other = app.library(app.tenants.create("Globex"))
    too = other.users.create(same)
    assert other.users.by_email("ann@example.org") == too
    assert library.users.by_email("ann@example.org") == user


@pytest.mark.parametrize(
    "email",
    [
        "a@b",
        "ann+media@example.org",
        "o'hara@example.org",
        "猫@例え.jp",
        f"{'x' * 242}@example.org",
        "ann@[192.0.2.1]",
    ],
)
def test_an_address_has_one_at_sign_with_something_on_both_sides(library: Library, email: str) -> None:
    assert library.users.by_email(library.users.create(email).email).email == email


@pytest.mark.parametrize(
    "email",
    [
        "",
        "   ",
        "@",
        "ann",
        "ann@",
        "@example.org",
        "ann@@example.org",
        "ann@home@example.org",
        "ann smith@example.org",
        "ann@example.org\nbcc: bob@example.org",
        "ann\t@example.org",
        "ann\u00a0@example.org",
        "ann\u200b@example.org",
        "ann\0@example.org",
        "ann\x7f@example.org",
        "ann\ud800@example.org",
        f"{'x' * 243}@example.org",
    ],
    ids=ascii,
)
def test_anything_else_is_refused_as_an_address(library: Library, email: str) -> None:
    for call in (library.users.create, library.users.by_email):
        with pytest.raises(InvalidError, match="an e-mail address has one @"):
            call(email)
    assert list(library.users.list()) == []


@pytest.mark.parametrize("email", [None, 7, b"ann@example.org", UUID(int=1)], ids=repr)
def test_an_address_is_a_str(library: Library, email: Any) -> None:
    with pytest.raises(InvalidError, match=f"email must be a str, not {type(email).__name__}"):
        library.users.create(email)


@pytest.mark.parametrize("role", ["owner", "", "Admin", None, 1])
def test_a_role_is_one_of_three(library: Library, role: Any) -> None:
    user = library.users.create("ann@example.org")

    with pytest.raises(InvalidError, match="role must be one of admin, member, viewer"):
        library.users.create("bob@example.org", role=role)
    with pytest.raises(InvalidError, match="role must be one of admin, member, viewer"):
        library.users.set_role(user.id, role)
    assert list(library.users.list()) == [user]


@pytest.mark.parametrize("password", ["", "7 chars", "x" * 1025, "nul \0 inside", "\ud800" * 9, b"12345678", 12345678])
def test_a_password_that_is_not_allowed_makes_no_user_and_changes_none(library: Library, password: Any) -> None:
    user = library.users.create("ann@example.org", password=PASSWORD)

    with pytest.raises(InvalidError, match="a password"):
        library.users.create("bob@example.org", password=password)
    with pytest.raises(InvalidError, match="a password"):
        library.users.set_password(user.id, password)

    assert list(library.users.list()) == [user]
    assert library.users.authenticate("ann@example.org", PASSWORD).id == user.id


def test_users_are_listed_once_and_the_oldest_first_however_many(library: Library, owner: Owner) -> None:
    first = library.users.create("first@example.org")
    library.users.deactivate(first.id)
    owner.execute(
        "insert into mindia.users (id, tenant_id, email, password_hash) "
        "select ('ffff0000-' || substr(gen_random_uuid()::text, 10, 15) || lpad(to_hex(number), 12, '0'))::uuid, "
        "%s, number || '@example.org', '!' from generate_series(1, 1000) as number",
        (library.tenant_id,),
    )

    listed = list(library.users.list())

    assert listed[0].id == first.id
    assert len({user.id for user in listed}) == len(listed) == 1001
    assert [user.id for user in listed] == sorted(user.id for user in listed)


def test_changes_are_returned_and_stay(library: Library) -> None:
    user = library.users.create("ann@example.org", password=PASSWORD)

    changes: list[tuple[Callable[[], User], User]] = [
        (lambda: library.users.set_role(user.id, UserRole.ADMIN), attrs.evolve(user, role=UserRole.ADMIN)),
        (lambda: library.users.deactivate(user.id), attrs.evolve(user, role=UserRole.ADMIN, is_active=False)),
        (lambda: library.users.deactivate(user.id), attrs.evolve(user, role=UserRole.ADMIN, is_active=False)),
        (lambda: library.users.activate(user.id), attrs.evolve(user, role=UserRole.ADMIN)),
        (lambda: library.users.set_role(user.id, "member"), user),
        (lambda: library.users.set_password(user.id, "another horse"), user),
    ]
    for change, expected in changes:
        changed = change()
        assert changed == library.users.get(user.id) == attrs.evolve(expected, updated_at=changed.updated_at)
        assert changed.updated_at > changed.created_at


def test_a_new_password_takes_the_place_of_the_old_one(library: Library) -> None:
    user = library.users.create("ann@example.org", password=PASSWORD)
    library.users.set_password(user.id, "another horse")

    assert library.users.authenticate("ann@example.org", "another horse").id == user.id
    with pytest.raises(AuthenticationError):
        library.users.authenticate("ann@example.org", PASSWORD)


def test_without_the_extra_users_can_be_made_and_kept_but_not_given_a_password(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)

    user = library.users.create("ann@example.org")
    library.users.set_role(user.id, "admin")
    calls: list[Callable[[], User]] = [
        lambda: library.users.create("bob@example.org", password=PASSWORD),
        lambda: library.users.set_password(user.id, PASSWORD),
        lambda: library.users.authenticate("ann@example.org", PASSWORD),
    ]
    for call in calls:
        with pytest.raises(MissingExtraError, match=r"mindia\[users\]"):
            call()


BY_ID: dict[str, Callable[[Library, Any], object]] = {
    "users.get": lambda library, user_id: library.users.get(user_id),
    "users.set_role": lambda library, user_id: library.users.set_role(user_id, "viewer"),
    "users.activate": lambda library, user_id: library.users.activate(user_id),
    "users.deactivate": lambda library, user_id: library.users.deactivate(user_id),
    "users.set_password": lambda library, user_id: library.users.set_password(user_id, "another horse"),
}


@pytest.mark.parametrize("name", BY_ID)
def test_another_tenants_user_is_not_found_and_stays_as_it_is(app: Mindia, library: Library, name: str) -> None:
    user = library.users.create("ann@example.org", password=PASSWORD, role="admin")
    library.users.deactivate(user.id)
    before = library.users.get(user.id)
    other = app.library(app.tenants.create("Globex"))

    for user_id in (user.id, uuid4()):
        with pytest.raises(NotFoundError, match=str(user_id)):
            BY_ID[name](other, user_id)
        with other.transaction() as tx, pytest.raises(NotFoundError):
            BY_ID[name](tx, user_id)

    with pytest.raises(NotFoundError, match=r"ann@example\.org"):
        other.users.by_email("ann@example.org")
    assert library.users.get(user.id) == before


def test_users_and_keys_are_part_of_a_transaction(app: Mindia, library: Library) -> None:
    kept = library.users.create("kept@example.org")

    with library.transaction() as tx:
        tx.users.create("lost@example.org", password=PASSWORD)
        tx.users.set_role(kept.id, "admin")
        issued = tx.api_keys.issue("lost", role="admin")
        with pytest.raises(AlreadyExistsError):
            tx.users.create("KEPT@example.org")
        assert [user.email for user in tx.users.list()] == ["kept@example.org", "lost@example.org"]
        assert tx.api_keys.get(issued.key.id) == issued.key
        _roll_back()

    assert list(library.users.list()) == [kept]
    assert list(library.api_keys.list()) == []
    with pytest.raises(AuthenticationError):
        app.api_keys.verify(issued.token)


def _roll_back() -> None:
    raise psycopg.Rollback


# Roles


MANAGEMENT = [name for name in CALLS if name.startswith(("users.", "api_keys."))]


@attrs.frozen
class Caller:
    """Whom a library is bound to."""

    name: str
    make: Callable[[Library], User | ApiKey]


def _user(role: str) -> Caller:
    return Caller(f"a {role}", lambda library: library.users.set_role(new_user(library).id, role))


def _key(role: str) -> Caller:
    return Caller(f"a key of a {role}", lambda library: library.api_keys.issue("robot", role=role).key)


def _inactive(library: Library) -> User:
    return library.users.deactivate(library.users.create(f"{uuid4()}@example.org", role="admin").id)


def _revoked(library: Library) -> ApiKey:
    return library.api_keys.revoke(library.api_keys.issue("robot", role="admin").key.id)


@pytest.mark.parametrize("caller", [_user("admin"), _key("admin")], ids=lambda caller: caller.name)
def test_an_admin_may_manage_users_and_keys(app: Mindia, library: Library, caller: Caller) -> None:
    known = Known.of(library)
    bound = app.library(library.tenant_id, user=caller.make(library))

    for name in MANAGEMENT:
        CALLS[name](bound, known)


@pytest.mark.parametrize(
    "caller",
    [
        _user("member"),
        _user("viewer"),
        _key("member"),
        _key("viewer"),
        Caller("an inactive admin", _inactive),
        Caller("a revoked key", _revoked),
    ],
    ids=lambda caller: caller.name,
)
def test_nobody_else_may_manage_users_and_keys(app: Mindia, library: Library, caller: Caller, owner: Owner) -> None:
    known = Known.of(library)
    who = caller.make(library)
    before = _rows(owner, library)

    for name in MANAGEMENT:
        with pytest.raises(PermissionDeniedError, match=str(who.id)):
            CALLS[name](app.library(library.tenant_id, user=who), known)
    with app.transaction() as tx:
        for name in MANAGEMENT:
            with pytest.raises(PermissionDeniedError, match=str(who.id)):
                CALLS[name](tx.library(library.tenant_id, user=who), known)

    assert _rows(owner, library) == before


def _rows(owner: Owner, library: Library) -> list[tuple[Any, ...]]:
    return owner.execute(
        "select to_jsonb(u)::text from mindia.users u where tenant_id = %(tenant)s "
        "union all select to_jsonb(k)::text from mindia.api_keys k where tenant_id = %(tenant)s "
        "union all select to_jsonb(f)::text from mindia.login_failures f where tenant_id = %(tenant)s order by 1",
        {"tenant": library.tenant_id},
    ).fetchall()


def test_a_user_who_is_deactivated_is_refused_by_the_next_call(app: Mindia, library: Library) -> None:
    user = library.users.create("ann@example.org", role="member")
    bound = app.library(library.tenant_id, user=user)
    item = bound.media.add(samples.image())

    library.users.deactivate(user.id)
    with pytest.raises(PermissionDeniedError):
        bound.media.get(item.id)
    with pytest.raises(PermissionDeniedError), bound.transaction():
        pass

    library.users.activate(user.id)
    assert bound.media.get(item.id) == item


def test_a_user_who_is_deactivated_is_refused_by_the_next_call_of_a_transaction_that_is_open(
    app: Mindia, library: Library
) -> None:
    user = library.users.create("ann@example.org", role="member")
    with app.library(library.tenant_id, user=user).transaction() as tx:
        item = tx.media.add(samples.image())
        library.users.deactivate(user.id)
        with pytest.raises(PermissionDeniedError):
            tx.media.get(item.id)


def test_a_role_is_in_force_from_the_next_call_on(app: Mindia, library: Library) -> None:
    user = library.users.create("ann@example.org", role="viewer")
    bound = app.library(library.tenant_id, user=user)

    with pytest.raises(PermissionDeniedError, match="viewer"):
        bound.media.add(samples.image())
    library.users.set_role(user.id, "member")
    bound.media.add(samples.image())
    with pytest.raises(PermissionDeniedError, match="member"):
        list(bound.users.list())
    library.users.set_role(user.id, "admin")
    assert [each.id for each in bound.users.list()] == [user.id]
    library.users.set_role(user.id, "viewer")
    with pytest.raises(PermissionDeniedError, match="viewer"):
        bound.media.add(samples.image())
    assert len(bound.media.find()) == 1


def test_a_user_of_another_tenant_is_nobody_here(app: Mindia, library: Library) -> None:
    stranger = app.library(app.tenants.create("Globex")).users.create("ann@example.org", role="admin")

    with pytest.raises(PermissionDeniedError, match=str(stranger.id)):
        app.library(library.tenant_id, user=stranger).media.find()
