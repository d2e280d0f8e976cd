"""The users of a tenant: `library.users`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.db.units import OpenTransaction
from mindia.domain.tenants import User, UserRole
from mindia.errors import AuthenticationError, InvalidError, NotFoundError
from mindia.repositories import users as repository
from mindia.services._named import named, shown
from mindia.services.context import TenantContext
from mindia.services.passwords import NO_PASSWORD, Passwords, normalised

if TYPE_CHECKING:
    from mindia.services.login_attempts import LoginAttempts

_PAGE = 500
_MAX_EMAIL = 254
"""As RFC 5321 allows, section 4.5.3.1.3, with the correction of erratum 1690."""

_REFUSED = "no active user has this e-mail address and this password"


class Users(Handle):
    """Makes and changes the users of one tenant, and lets them log in. Thread-safe, unless it is of a transaction.

    Through a library that is bound to a user, every call takes an admin.
    """

    def __init__(self, context: TenantContext, passwords: Passwords, attempts: LoginAttempts) -> None:
        self._context = context
        self._passwords = passwords
        self._attempts = attempts

    def create(self, email: str, *, password: str | None = None, role: UserRole | str = UserRole.MEMBER) -> User:
        """Make a user.

        Args:
            email: Unique within the tenant, without regard to case; at most 254 characters.
            password: At least 8 characters, at most 1024 bytes in UTF-8. Without one nobody can log in as this user,
                as where the host lets users in by other means.
            role: What the user may do.

        Raises:
            InvalidError: An argument is not allowed.
            AlreadyExistsError: Another user of the tenant has the e-mail address.
            PermissionDeniedError: The user of the library is no admin.
            MissingExtraError: argon2-cffi is not installed.
        """
        address, role = checked_address(email), named(role, UserRole, argument="role")
        password_hash = NO_PASSWORD if password is None else self._passwords.hash(normalised(password))
        user_id, tenant_id = uuid7(), self._context.tenant_id

        def work(session: Session) -> User:
            if session.repeated and (made := repository.get(session, tenant_id, user_id)):
                return made
            return repository.create(
                session, tenant_id, id=user_id, email=address, password_hash=password_hash, role=role
            )

        return self._context.as_admin.run(work)

    def get(self, user_id: UUID) -> User:
        """Return a user, active or not.

        Raises:
            NotFoundError: There is none, or it is another tenant's.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._found(lambda session: repository.get(session, self._context.tenant_id, user_id), user_id)

    def by_email(self, email: str) -> User:
        """Return the user with an e-mail address, without regard to case, active or not.

        Raises:
            InvalidError: It is no e-mail address.
            NotFoundError: There is none.
            PermissionDeniedError: The user of the library is no admin.
        """
        address = checked_address(email)
        return self._found(lambda session: repository.by_email(session, self._context.tenant_id, address), address)

    def list(self) -> Iterator[User]:
        """Yield all users, inactive ones among them, the oldest first.

        Raises:
            PermissionDeniedError: The user of the library is no admin.
        """
        tenant_id = self._context.tenant_id
        after: UUID | None = None
        while True:
            page = self._context.as_admin.run(
                lambda session, after=after: repository.page(session, tenant_id, after=after, limit=_PAGE),  # type: ignore[misc]  # mypy cannot type the default
                single=True,
            )
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def set_role(self, user_id: UUID, role: UserRole | str) -> User:
        """Change what a user may do, from the next call on.

        Raises:
            InvalidError: There is no such role.
            NotFoundError: There is no such user.
            PermissionDeniedError: The user of the library is no admin.
        """
        wanted = named(role, UserRole, argument="role")
        return self._found(
            lambda session: repository.set_role(session, self._context.tenant_id, user_id, wanted), user_id
        )

    def deactivate(self, user_id: UUID) -> User:
        """Refuse a user from the next call on, until activated.

        Raises:
            NotFoundError: There is no such user.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._set_active(user_id, is_active=False)

    def activate(self, user_id: UUID) -> User:
        """Admit a user again.

        Raises:
            NotFoundError: There is no such user.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._set_active(user_id, is_active=True)

    def set_password(self, user_id: UUID, password: str) -> User:
        """Change the password. What is held against the e-mail address for failed log-ins stays.

        Args:
            user_id: The user.
            password: As for `create`.

        Raises:
            InvalidError: The password is not allowed.
            NotFoundError: There is no such user.
            PermissionDeniedError: The user of the library is no admin.
            MissingExtraError: argon2-cffi is not installed.
        """
        password_hash = self._passwords.hash(normalised(password))
        return self._found(
            lambda session: repository.set_password(session, self._context.tenant_id, user_id, password_hash), user_id
        )

    def authenticate(self, email: str, password: str) -> User:
        """Return the active user with this e-mail address and this password, and record the log-in.

        It takes as long, and says the same, whether there is no such user or the password is wrong. No connection of
        ours is held while the password is hashed. In a transaction, failed attempts are counted also where it is
        rolled back.

        Args:
            email: As it was typed in.
            password: As it was typed in.

        Raises:
            AuthenticationError: There is no such user, or one who is not active, or has another password or none.
            LockedOutError: Too many attempts with this e-mail address have failed; its `until` tells when to try again.
            TenantInactiveError: The tenant is suspended or deleted.
            PermissionDeniedError: The user of the library is no admin.
            MissingExtraError: argon2-cffi is not installed.
        """
        context, tenant_id = self._context, self._context.tenant_id
        context.as_admin.check()
        self._passwords.check_installed()
        try:
            address, password = checked_address(email), normalised(password)
        except InvalidError:
            raise AuthenticationError(_REFUSED) from None  # nobody has what cannot be one
        found = context.as_admin.run(lambda session: repository.with_password(session, tenant_id, address), single=True)
        beside = isinstance(context.as_admin, OpenTransaction)
        self._attempts.count(tenant_id, address, beside=beside)
        stored = found.password_hash if found is not None and found.user.is_active else None
        if not self._passwords.verify(stored, password) or found is None:
            raise AuthenticationError(_REFUSED)
        verified = found.password_hash
        rehashed = self._passwords.hash(password) if self._passwords.is_outdated(verified) else verified
        user = context.as_admin.run(
            lambda session: repository.log_in(session, tenant_id, found.user.id, verified=verified, rehashed=rehashed),
            single=True,
        )
        if user is None:
            raise AuthenticationError(_REFUSED)  # deactivated meanwhile
        self._attempts.forget(tenant_id, address, beside=beside)
        return user

    def _set_active(self, user_id: UUID, *, is_active: bool) -> User:
        return self._found(
            lambda session: repository.set_active(session, self._context.tenant_id, user_id, is_active=is_active),
            user_id,
        )

    def _found(self, work: Callable[[Session], User | None], who: object) -> User:
        user = self._context.as_admin.run(work, single=True)
        if user is None:
            raise NotFoundError(f"there is no user {who}")
        return user


def checked_address(email: str) -> str:
    """Return an e-mail address as it is stored.

    Raises:
        InvalidError: It is none.
    """
    if not isinstance(email, str):
        raise InvalidError(f"email must be a str, not {type(email).__name__}")
    address = email.strip()
    name, _, domain = address.partition("@")
    # What is not printable is white space other than a blank, of control, or half a character.
    is_one = name and domain and "@" not in domain and address.isprintable() and " " not in address
    if not is_one or len(address) > _MAX_EMAIL:
        raise InvalidError(
            f"an e-mail address has one @ with something on both sides, no white space, and at most {_MAX_EMAIL} "
            f"characters: {shown(email)}"
        )
    return address
