"""Goes through all lines of an archive before anything is made of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Protocol
from uuid import UUID

import attrs

from mindia._ids import uuid7
from mindia.config import Settings
from mindia.db.session import Session
from mindia.db.units import Unit
from mindia.domain.archives import ArchivedDerivative, ArchivedMedia, ArchivedPreset, ArchivedUser
from mindia.domain.media import MediaKind
from mindia.domain.operations import Thumbnail, Tiles
from mindia.domain.transformations import Transformation
from mindia.errors import AlreadyExistsError, ArchiveError, InvalidError
from mindia.repositories import tenant_transfer
from mindia.services.archive_format import MANIFEST, read_derivative, read_media, read_preset, read_user
from mindia.services.archive_reader import ArchiveReader
from mindia.services.passwords import NO_PASSWORD
from mindia.services.users import checked_address

_BATCH = 500
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,9})\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}"
)
_COSTLIER = 4
"""How many times as costly as one of ours a hash may be: who logs in has it computed."""


class _Taken(Protocol):
    def __call__(self, session: Session, *, ids: Sequence[UUID]) -> list[UUID]: ...


@attrs.frozen(kw_only=True)
class Ids:
    """What has which id, by the id in the archive.

    Attributes:
        users: Of the users.
        media: Of the items.
    """

    users: Mapping[UUID, UUID]
    media: Mapping[UUID, UUID]

    def of_user(self, user: ArchivedUser, where: str) -> UUID:
        """Return the id of a user.

        Raises:
            ArchiveError: It was not there when the archive was gone through.
        """
        return _found(self.users, user.id, where)

    def of_media(self, media: ArchivedMedia, where: str) -> UUID:
        """Return the id of an item.

        Raises:
            ArchiveError: It was not there when the archive was gone through.
        """
        return _found(self.media, media.id, where)

    def of_maker(self, made: ArchivedDerivative, where: str) -> UUID:
        """Return the id of the item that something was made of.

        Raises:
            ArchiveError: It was not there when the archive was gone through.
        """
        return _found(self.media, made.media_id, where)


def users_of(archive: ArchiveReader, settings: Settings) -> Iterator[tuple[str, ArchivedUser]]:
    """Yield where each user of an archive is, and the user.

    Raises:
        ArchiveError: A line is none, or is not allowed.
    """
    for where, line in archive.users():
        user = read_user(line, where)
        try:
            address = checked_address(user.email)
        except InvalidError as error:
            raise ArchiveError(f"{where}: {error}") from error
        if address != user.email:
            raise ArchiveError(f"{where}: email has white space around it")
        if user.password_hash != NO_PASSWORD:
            _check_hash(user.password_hash, where, settings)
        yield where, user


def media_of(archive: ArchiveReader) -> Iterator[tuple[str, ArchivedMedia]]:
    """Yield where each item of an archive is, and the item.

    Raises:
        ArchiveError: A line is none.
    """
    for where, line in archive.media():
        yield where, read_media(line, where)


def presets_of(archive: ArchiveReader) -> Iterator[tuple[str, ArchivedPreset]]:
    """Yield where each preset of an archive is, and the preset.

    Raises:
        ArchiveError: A line is none.
    """
    for where, line in archive.presets():
        yield where, read_preset(line, where)


def derivatives_of(archive: ArchiveReader) -> Iterator[tuple[str, ArchivedDerivative]]:
    """Yield where each line of what was made of items is, and what was made.

    Raises:
        ArchiveError: A line is none.
    """
    for where, line in archive.derivatives():
        yield where, read_derivative(line, where)


def survey(archive: ArchiveReader, unit: Unit, settings: Settings, *, keep_ids: bool, max_items: int) -> Ids:
    """Look whether the lines, the objects and the manifest fit together, and the ids are free.

    Args:
        archive: The archive.
        unit: Whose transactions see the ids of all tenants.
        settings: What hashes of passwords may cost.
        keep_ids: Whether ids stay as they are, and so must be free.
        max_items: How many items, users, presets and pictures or streams there may be, at most, of each.

    Raises:
        ArchiveError: They do not.
        AlreadyExistsError: An id is taken.
    """
    users = _survey_users(archive, unit, settings, keep_ids=keep_ids, max_items=max_items)
    unused = dict(archive.objects)
    kinds: dict[UUID, MediaKind] = {}
    media = _survey_media(archive, unit, unused, kinds, keep_ids=keep_ids, max_items=max_items)
    _survey_presets(archive, max_items=max_items)
    _survey_derivatives(archive, unused, kinds, max_items=max_items)
    if unused:
        raise ArchiveError(f"the archive has {len(unused)} objects that are of no item, such as {min(unused)}")
    return Ids(users=users, media=media)


def check_users_free(unit: Unit, ids: Sequence[UUID]) -> None:
    """Refuse ids that users have, of whichever tenant.

    Raises:
        AlreadyExistsError: There is such a user.
    """
    _check_free(unit, ids, tenant_transfer.taken_users, what="user")


def check_media_free(unit: Unit, ids: Sequence[UUID]) -> None:
    """Refuse ids that media have, of whichever tenant.

    Raises:
        AlreadyExistsError: There is such an item.
    """
    _check_free(unit, ids, tenant_transfer.taken_media, what="media item")


def _survey_users(
    archive: ArchiveReader, unit: Unit, settings: Settings, *, keep_ids: bool, max_items: int
) -> dict[UUID, UUID]:
    ids: dict[UUID, UUID] = {}
    addresses: set[str] = set()
    for where, user in users_of(archive, settings):
        _note(ids, user.id, where, keep_ids=keep_ids, max_items=max_items)
        if user.email.lower() in addresses:
            raise ArchiveError(f"{where}: another user has the e-mail address {user.email!r}")
        addresses.add(user.email.lower())
    _check_count("user_count", len(ids), archive.manifest.user_count)
    if keep_ids:
        check_users_free(unit, list(ids))
    return ids


def _survey_media(
    archive: ArchiveReader,
    unit: Unit,
    unused: dict[str, int],
    kinds: dict[UUID, MediaKind],
    *,
    keep_ids: bool,
    max_items: int,
) -> dict[UUID, UUID]:
    ids: dict[UUID, UUID] = {}
    for where, media in media_of(archive):
        _note(ids, media.id, where, keep_ids=keep_ids, max_items=max_items)
        kinds[media.id] = media.kind
        _check_object(archive, media, where)
        unused.pop(media.sha256, None)
    manifest = archive.manifest
    _check_count("media_count", len(ids), manifest.media_count)
    _check_count("object_count", len(archive.objects), manifest.object_count)
    _check_count("object_bytes", sum(archive.objects.values()), manifest.object_bytes)
    if keep_ids:
        check_media_free(unit, list(ids))
    return ids


def _survey_derivatives(
    archive: ArchiveReader, unused: dict[str, int], kinds: Mapping[UUID, MediaKind], *, max_items: int
) -> None:
    """Look whether what was made has its item, of the kind that it can be made of, and is there once."""
    seen: set[bytes] = set()
    for where, made in derivatives_of(archive):
        _check_room(len(seen), where, max_items=max_items)
        kind = kinds.get(made.media_id)
        if kind is None:
            raise ArchiveError(f"{where}: the archive has no item {made.media_id} that this was made of")
        key = hashlib.sha256(made.media_id.bytes + made.operations.encode()).digest()
        if key in seen:
            raise ArchiveError(f"{where}: the item {made.media_id} had {made.operations[:100]!r} before")
        seen.add(key)
        if not _can_be_made(made, kind):
            raise ArchiveError(f"{where}: {made.operations[:100]!r} is not made of the kind {kind}")
        _check_object(archive, made, where)
        unused.pop(made.sha256, None)
    _check_count("derivative_count", len(seen), archive.manifest.derivative_count)


def _can_be_made(made: ArchivedDerivative, kind: MediaKind) -> bool:
    if made.is_stream:
        return kind is MediaKind.VIDEO
    first = next(iter(Transformation.parse(made.operations).operations), None)
    if isinstance(first, Tiles):
        return kind is MediaKind.VIDEO and first.end is not None
    return kind is MediaKind.IMAGE or isinstance(first, Thumbnail)


def _check_object(archive: ArchiveReader, owner: ArchivedMedia | ArchivedDerivative, where: str) -> None:
    size = archive.objects.get(owner.sha256)
    if size is None:
        raise ArchiveError(f"{where}: the archive has no object {owner.sha256}")
    if size != owner.file_size:
        raise ArchiveError(f"{where}: file_size is {owner.file_size}, and the object has {size} bytes")


def _survey_presets(archive: ArchiveReader, *, max_items: int) -> None:
    """Look whether all presets are there that others go on from.

    How many go on from one another, and whether all that they do together is too much, is looked at where they are
    used: changing one may have made that so.
    """
    places: dict[str, str] = {}
    goes_on: dict[str, tuple[str, ...]] = {}
    for where, preset in presets_of(archive):
        if preset.name in places:
            raise ArchiveError(f"{where}: the preset {preset.name!r} was there before")
        _check_room(len(places), where, max_items=max_items)
        places[preset.name] = where
        other = preset.transformation.preset
        goes_on[preset.name] = () if other is None else (other,)
    _check_count("preset_count", len(places), archive.manifest.preset_count)
    for name, others in goes_on.items():
        for other in others:
            if other not in places:
                raise ArchiveError(f"{places[name]}: there is no preset {other!r} to go on from")
    try:
        TopologicalSorter(goes_on).prepare()
    except CycleError as error:
        name = error.args[1][0]
        raise ArchiveError(f"{places[name]}: the preset {name!r} names itself, be it by way of others") from None


def _found(ids: Mapping[UUID, UUID], old: UUID, where: str) -> UUID:
    if old not in ids:
        raise ArchiveError(f"{where}: the id {old} is new: the file was changed while it was being imported")
    return ids[old]


def _note(ids: dict[UUID, UUID], old: UUID, where: str, *, keep_ids: bool, max_items: int) -> None:
    if old in ids:
        raise ArchiveError(f"{where}: the id {old} was there before")
    _check_room(len(ids), where, max_items=max_items)
    ids[old] = old if keep_ids else uuid7()


def _check_room(count: int, where: str, *, max_items: int) -> None:
    if count == max_items:
        raise ArchiveError(f"{where}: the limit is {max_items} lines: raise max_items")


def _check_count(name: str, found: int, told: int) -> None:
    if found != told:
        raise ArchiveError(f"{MANIFEST}: {name} is {told}, and it is {found}")


def _check_free(unit: Unit, ids: Sequence[UUID], taken: _Taken, *, what: str) -> None:
    for start in range(0, len(ids), _BATCH):
        found = unit.run(partial(taken, ids=ids[start : start + _BATCH]), single=True)
        if found:
            raise AlreadyExistsError(
                f"there is a {what} {found[0]} in this database already: import with keep_ids=False, which gives all "
                "new ids"
            )


def _check_hash(stored: str, where: str, settings: Settings) -> None:
    """Refuse what is no hash of a password, or one that takes much longer to verify than ours.

    Raises:
        ArchiveError: It is one. The message does not show it.
    """
    match = _HASH.fullmatch(stored)
    if match is None:
        raise ArchiveError(f"{where}: password_hash is no hash by argon2id, version 19")
    costs = {
        "argon2_memory_kib": settings.argon2_memory_kib,
        "argon2_time_cost": settings.argon2_time_cost,
        "argon2_parallelism": settings.argon2_parallelism,
    }
    for (name, ours), theirs in zip(costs.items(), match.groups(), strict=True):
        if not 1 <= int(theirs) <= _COSTLIER * ours:
            raise ArchiveError(
                f"{where}: password_hash was made with {name} {theirs}; at most {_COSTLIER} times what "
                f"Settings.{name} says is let in, and that is {ours}"
            )
