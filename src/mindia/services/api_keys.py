"""API keys: `library.api_keys`, and `app.api_keys`, which tells whose a token is."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.database import Database
from mindia.db.session import Scope, Session
from mindia.db.units import OwnTransaction
from mindia.domain.tenants import ApiKey, IssuedApiKey, UserRole
from mindia.errors import AuthenticationError, InvalidError, MindiaError, NotFoundError
from mindia.repositories import api_keys as repository
from mindia.repositories._text import storable
from mindia.services._named import named, shown
from mindia.services.context import TenantContext

_PAGE = 500
_MAX_NAME = 255
_PREFIX_BYTES, _SECRET_BYTES = 8, 32
_TOKEN = re.compile(rf"mindia_([0-9a-f]{{{2 * _PREFIX_BYTES}}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}")

_FRESH = timedelta(seconds=5)
"""How long a key that was verified is believed to be valid."""

_MAX_KNOWN = 10_000

_REFUSED = "this is no valid API key"

_log = logging.getLogger("mindia.api_keys")


class KnownKeys:
    """Remembers verified keys for a moment, by the hash of their token. Thread-safe, as single calls of a dict are."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[ApiKey, float]] = {}

    def get(self, token_hash: bytes) -> ApiKey | None:
        """Return a key that was verified just now."""
        key, until = self._known.get(token_hash, (None, 0.0))
        return key if time.monotonic() < until else None

    def put(self, token_hash: bytes, key: ApiKey, *, until: float) -> None:
        """Remember a key until a time of `time.monotonic`."""
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[token_hash] = key, until

    def forget(self, key_id: UUID) -> None:
        """Look again next time: the key has been revoked."""
        for token_hash, (key, _) in self._known.copy().items():
            if key.id == key_id:
                self._known.pop(token_hash, None)


class ApiKeys(Handle):
    """Issues and revokes the API keys of one tenant. Thread-safe, unless it is that of a transaction.

    Through a library that is bound to a user, every call takes an admin.
    """

    def __init__(self, context: TenantContext, known: KnownKeys) -> None:
        self._context = context
        self._known = known

    def issue(self, name: str, *, role: UserRole | str, expires_at: datetime | None = None) -> IssuedApiKey:
        """Make a key. Its token is in what is returned, and nowhere else.

        Args:
            name: For people, 1 to 255 characters.
            role: What may be done with it, as for a user.
            expires_at: From when on it is refused, with time zone; never by default.

        Raises:
            InvalidError: An argument is not allowed.
            PermissionDeniedError: The user of the library is no admin.
        """
        context, key_id = self._context, uuid7()
        name, role = _checked_name(name), named(role, UserRole, argument="role")
        _check_expiry(expires_at)
        prefix, secret = secrets.token_hex(_PREFIX_BYTES), secrets.token_hex(_SECRET_BYTES)
        token = f"mindia_{prefix}_{secret}"

        def work(session: Session) -> ApiKey:
            if session.repeated and (made := repository.get(session, context.tenant_id, key_id)):
                return made
            return repository.create(
                session,
                context.tenant_id,
                id=key_id,
                name=name,
                prefix=prefix,
                secret_hash=_hash(token),
                role=role,
                created_by=context.initiator,
                expires_at=expires_at,
            )

        return IssuedApiKey(key=context.as_admin.run(work), token=token)

    def get(self, key_id: UUID) -> ApiKey:
        """Return a key, revoked or not.

        Raises:
            NotFoundError: There is none, or it is another tenant's.
            PermissionDeniedError: The user of the library is no admin.
        """
        return self._found(lambda session: repository.get(session, self._context.tenant_id, key_id), key_id)

    def list(self) -> Iterator[ApiKey]:
        """Yield all keys, those that are revoked or have expired among them, the oldest first.

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

    def revoke(self, key_id: UUID) -> ApiKey:
        """Refuse a key for good: at once in every call made with it; other processes may verify it for seconds more.

        Raises:
            NotFoundError: There is no such key.
            PermissionDeniedError: The user of the library is no admin.
        """
        try:
            return self._found(lambda session: repository.revoke(session, self._context.tenant_id, key_id), key_id)
        finally:
            self._known.forget(key_id)

    def _found(self, work: Callable[[Session], ApiKey | None], key_id: UUID) -> ApiKey:
        key = self._context.as_admin.run(work, single=True)
        if key is None:
            raise NotFoundError(f"there is no API key {key_id}")
        return key


class ApiKeyVerifier(Handle):
    """Tells whose a token is, before a tenant is known. Thread-safe."""

    def __init__(self, database: Database, known: KnownKeys) -> None:
        self._database = database
        self._known = known
        # The statement is about no tenant yet, and must not see more than the one key either.
        self._unit = OwnTransaction(database, None)

    def verify(self, token: str) -> ApiKey:
        """Return the key of a token. A valid one is asked for once in 5 seconds.

        Hand it on: `app.library(key.tenant_id, user=key)`, whose every call looks whether it is still valid.

        Args:
            token: As it was sent; anything may be handed in.

        Raises:
            AuthenticationError: It is none, was revoked or has expired, or its tenant is not active.
        """
        self._unit.check()
        form = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if form is None:
            raise AuthenticationError(_REFUSED)
        token_hash = _hash(token)
        if (known := self._known.get(token_hash)) is not None:
            return known
        asked_at = time.monotonic()
        found = self._unit.run(lambda session: repository.find(session, form[1]), single=True)
        if found is None or not hmac.compare_digest(found.secret_hash, token_hash) or not found.is_valid:
            raise AuthenticationError(_REFUSED)
        fresh = _FRESH if found.valid_for is None else min(_FRESH, found.valid_for)
        self._known.put(token_hash, found.key, until=asked_at + fresh.total_seconds())
        if found.is_use_due:
            self._note_use(found.key)
        return found.key

    def _note_use(self, key: ApiKey) -> None:
        unit = OwnTransaction(self._database, Scope(tenant_id=key.tenant_id, is_served=False))
        try:
            unit.run(lambda session: repository.note_use(session, key.tenant_id, key.id), single=True)
        except MindiaError as error:
            _log.warning("that API key %s was used is not on record: %s", key.id, error)


def _hash(token: str) -> bytes:
    # The secret has 256 random bits: nobody can try them all, however fast a hash is. A slow one is for passwords.
    return hashlib.sha256(token.encode()).digest()


def _checked_name(name: str) -> str:
    stripped = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(stripped) <= _MAX_NAME or storable(stripped) != stripped:
        raise InvalidError(f"the name of an API key has 1 to {_MAX_NAME} characters of Unicode, no NUL: {shown(name)}")
    return stripped


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is None:
        return
    if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
        raise InvalidError(f"expires_at must be a datetime with a time zone: {shown(expires_at)}")
    if expires_at <= datetime.now(UTC):
        raise InvalidError(f"expires_at must be in the future: {expires_at}")
