"""All of a tenant at once: read in one snapshot, and written as it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.archives import ArchivedMedia, ArchivedPreset, ArchivedUser
from mindia.domain.derivatives import Derivative
from mindia.domain.filters import MediaOrder
from mindia.domain.media import Media, MediaKind
from mindia.domain.tenants import UserRole
from mindia.domain.transformations import Transformation
from mindia.repositories import derivatives, media_find
from mindia.repositories.derivatives import source_of

_SNAPSHOT = "set transaction isolation level repeatable read, read only"

_TEXTS = """
select m.id, m.is_shared, coalesce(d.body, '')
from mindia.media m left join mindia.search_documents d
    on d.tenant_id = m.tenant_id and d.tenant_id = %(tenant_id)s and d.entity_id = m.id
where m.tenant_id = %(tenant_id)s and m.id = any(%(ids)s::uuid[])
"""

_USER_COLUMNS: LiteralString = "id, email, password_hash, role::text, is_active, created_at, updated_at, last_login_at"

_USERS = f"""
select {_USER_COLUMNS} from mindia.users
where tenant_id = %(tenant_id)s and (%(after)s::uuid is null or id > %(after)s)
order by id limit %(limit)s
"""

# In the order of the bytes, which is the same in every database.
_PRESETS = """
select name, operations, created_at, updated_at from mindia.presets
where tenant_id = %(tenant_id)s and (%(after)s::text is null or name collate "C" > %(after)s)
order by name collate "C" limit %(limit)s
"""

_TAKEN_MEDIA = "select id from mindia.all_media where id = any(%s::uuid[])"

_TAKEN_USERS = "select id from mindia.users where id = any(%s::uuid[])"

_THERE = "select id from mindia.users where tenant_id = %s and id = any(%s::uuid[])"

_ADD_USER = """
insert into mindia.users
    (tenant_id, id, email, password_hash, role, is_active, created_at, updated_at, last_login_at)
values (%s, %s, %s, %s, %s::mindia.user_role, %s, %s, %s, %s)
"""

_PRESETS_THERE = "select name from mindia.presets where tenant_id = %s and name = any(%s::text[])"

_ADD_PRESET = """
insert into mindia.presets (tenant_id, name, operations, created_at, updated_at) values (%s, %s, %s, %s, %s)
"""

_SET: LiteralString = """
set uploaded_at = w.uploaded_at, updated_at = w.updated_at
from unnest(%(ids)s::uuid[], %(uploaded)s::timestamptz[], %(updated)s::timestamptz[])
    as w (id, uploaded_at, updated_at)
where m.tenant_id = %(tenant_id)s and m.id = w.id
"""
_SET_TIMES: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "update mindia.images m " + _SET,
    MediaKind.VIDEO: "update mindia.videos m " + _SET,
    MediaKind.AUDIO: "update mindia.audios m " + _SET,
    MediaKind.DOCUMENT: "update mindia.documents m " + _SET,
}


@attrs.frozen
class _Texts:
    media_id: UUID
    is_shared: bool
    body: str


@attrs.frozen
class Archived:
    """An item as it is archived, and where its bytes are.

    Attributes:
        media: The item.
        s3_key: Of its bytes, within the bucket of its tenant.
    """

    media: ArchivedMedia
    s3_key: str


def begin_snapshot(session: Session) -> None:
    """Have all that follows in the transaction see what there is at the moment; the first statement of it."""
    session.execute(_SNAPSHOT)


def media_page(session: Session, tenant_id: UUID, *, after: Media | None, limit: int) -> list[Media]:
    """Read items that have not expired, the oldest first."""
    place = None
    if after is not None:
        place = media_find.Place(value=after.uploaded_at, media_id=after.id, backward=False)
    return media_find.page(
        session, tenant_id, selection=media_find.Selection(), order=MediaOrder.OLDEST, place=place, limit=limit
    )


def archived(session: Session, tenant_id: UUID, items: Sequence[Media]) -> list[Archived]:
    """Return items as they are archived, with their texts."""
    found = session.all(_TEXTS, {"tenant_id": tenant_id, "ids": [item.id for item in items]}, row=_Texts)
    texts = {each.media_id: each for each in found}
    return [
        Archived(ArchivedMedia.of(item, text=texts[item.id].body, shares_bytes=texts[item.id].is_shared), item.s3_key)
        for item in items
    ]


def made_of(session: Session, tenant_id: UUID, items: Sequence[Media]) -> list[Derivative]:
    """Read what was made of items, in the order of these; of those that share their bytes, of the first one."""
    order: dict[UUID | None, int] = {}
    for item in items:
        order.setdefault(source_of(item.s3_key), len(order))
    made = derivatives.of_items(session, tenant_id, items)
    return sorted(made, key=lambda each: order[each.source_id])


def users_page(session: Session, tenant_id: UUID, *, after: UUID | None, limit: int) -> list[ArchivedUser]:
    """Read users with the hashes of their passwords, in the order of their making."""
    return session.all(_USERS, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_user)


def presets_page(session: Session, tenant_id: UUID, *, after: str | None, limit: int) -> list[ArchivedPreset]:
    """Read presets by their names."""
    return session.all(_PRESETS, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_preset)


def taken_media(session: Session, *, ids: Sequence[UUID]) -> list[UUID]:
    """Return which ids media have, of whichever tenant."""
    return session.all(_TAKEN_MEDIA, (list(ids),), row=_itself)


def taken_users(session: Session, *, ids: Sequence[UUID]) -> list[UUID]:
    """Return which ids users have, of whichever tenant."""
    return session.all(_TAKEN_USERS, (list(ids),), row=_itself)


def add_users(session: Session, tenant_id: UUID, users: Sequence[ArchivedUser]) -> None:
    """Write users as they were."""
    there: set[UUID] = set()
    if session.repeated:
        there.update(session.all(_THERE, (tenant_id, [user.id for user in users]), row=_itself))
    for user in users:
        if user.id not in there:
            session.execute(_ADD_USER, (tenant_id, *attrs.astuple(user)))


def add_presets(session: Session, tenant_id: UUID, presets: Sequence[ArchivedPreset]) -> None:
    """Write presets as they were. Those that others go on from may come later: the whole was looked at before."""
    there: set[str] = set()
    if session.repeated:
        there.update(session.all(_PRESETS_THERE, (tenant_id, [preset.name for preset in presets]), row=str))
    for preset in presets:
        if preset.name not in there:
            operations = str(preset.transformation)
            session.execute(_ADD_PRESET, (tenant_id, preset.name, operations, preset.created_at, preset.updated_at))


def set_times(session: Session, tenant_id: UUID, items: Sequence[ArchivedMedia]) -> None:
    """Write when items were added and changed."""
    for kind in sorted({item.kind for item in items}):
        alike = [item for item in items if item.kind is kind]
        parameters = {
            "tenant_id": tenant_id,
            "ids": [item.id for item in alike],
            "uploaded": [item.uploaded_at for item in alike],
            "updated": [item.updated_at for item in alike],
        }
        session.execute(_SET_TIMES[kind], parameters)


def _itself(value: UUID) -> UUID:
    return value


def _preset(name: str, operations: str, created_at: datetime, updated_at: datetime) -> ArchivedPreset:
    return ArchivedPreset(
        name=name, transformation=Transformation.parse(operations), created_at=created_at, updated_at=updated_at
    )


def _user(
    id: UUID,  # noqa: A002 - the column
    email: str,
    password_hash: str,
    role: str,
    is_active: bool,  # noqa: FBT001 - the column
    created_at: datetime,
    updated_at: datetime,
    last_login_at: datetime | None,
) -> ArchivedUser:
    return ArchivedUser(
        id=id,
        email=email,
        password_hash=password_hash,
        role=UserRole(role),
        is_active=is_active,
        created_at=created_at,
        updated_at=updated_at,
        last_login_at=last_login_at,
    )
