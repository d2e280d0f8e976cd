"""From a source to bytes that are stored and probed: what `stage` does, and `add` before it writes rows."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.media import Candidate, Disposition, MediaKind, Staged
from mindia.errors import MindiaError
from mindia.media import sniff
from mindia.media.names import clean_filename, content_disposition
from mindia.media.probe import Probed
from mindia.media.sniff import MediaType
from mindia.media.spool import Spooled, spool
from mindia.repositories._text import storable
from mindia.services.context import TenantContext
from mindia.services.leases import Slot
from mindia.services.sources import Source, name_of, opened

_MAX_FILENAME = 255

_log = logging.getLogger("mindia.media")


@attrs.frozen(kw_only=True)
class Received:
    """What has come in and is not stored yet.

    Attributes:
        spooled: The bytes.
        filename: Cleaned.
        original_filename: As it was handed in.
        declared: The type that the client says, or None.
        settings: With the limits of the tenant's own.
    """

    spooled: Spooled
    filename: str
    original_filename: str
    declared: str | None
    settings: Settings


@contextmanager
def received(
    context: TenantContext, source: Source, *, filename: str | None, content_type: str | None
) -> Iterator[Received]:
    """Receive a source; what is received is gone when this is left.

    Raises:
        TenantInactiveError: The tenant is suspended or deleted; no byte has been read then.
        PermissionDeniedError: The user may not add media; no byte has been read then.
        MediaError: The first bytes are of no allowed type, or there are too many.
    """
    if context.initiator is not None:
        context.as_member.run(lambda _: None, single=True)  # refused before anything is read
    settings = context.tenant().settings
    with opened(source) as file:
        original = filename or name_of(source)
        name = clean_filename(original, fallback="unnamed")
        with spool(file, filename=name, settings=settings) as spooled:
            yield Received(
                spooled=spooled,
                filename=name,
                original_filename=as_handed_in(original) or name,
                declared=content_type,
                settings=settings,
            )


def stage(context: TenantContext, incoming: Received, *, sanitize: bool, slot: Slot | None = None) -> Staged:
    """Store and probe what has been received. No database connection is held meanwhile.

    Args:
        context: Whose it will be.
        incoming: What has been received.
        sanitize: Whether what the file tells beside its content is removed before.
        slot: Where it is stored; a new place by default.

    Raises:
        MediaError: The bytes are not what can be taken in.
        StorageError: The object store failed.
    """
    spooled = incoming.spooled
    if found := _type_for_sure(context, incoming, sanitize=sanitize):
        return _stage_while_probing(context, incoming, found, slot)
    probed = context.prober.probe(
        spooled.file,
        size=spooled.size,
        filename=incoming.filename,
        declared=incoming.declared,
        settings=incoming.settings,
    )
    scan(context, spooled, probed, filename=incoming.filename)
    if sanitize:
        spooled = _sanitized(context, incoming, probed)
    slot = slot or context.leases.take(context.tenant_id, s3_bucket=context.bucket())
    _put(context, slot, incoming, spooled, content_type=probed.content_type)
    return _staged(slot, incoming, probed, spooled)


def scan(context: TenantContext, spooled: Spooled, probed: Probed, *, filename: str) -> None:
    """Show bytes to the hook of the host, if there is one, which may refuse them."""
    if context.scan is None:
        return
    context.scan(
        io.BufferedReader(_Lent(_from_start(spooled.file))),
        Candidate(
            tenant_id=context.tenant_id,
            filename=filename,
            content_type=probed.content_type,
            file_size=spooled.size,
            sha256=spooled.sha256,
            facts=probed.facts,
        ),
    )


def _stage_while_probing(context: TenantContext, incoming: Received, found: MediaType, slot: Slot | None) -> Staged:
    """Store bytes while their parser is at work on them; where it refuses them, they are removed again."""
    spooled = incoming.spooled
    slot = slot or context.leases.take(context.tenant_id, s3_bucket=context.bucket())
    with context.prober.begin(
        spooled.file,
        size=spooled.size,
        filename=incoming.filename,
        declared=incoming.declared,
        settings=incoming.settings,
    ) as pending:
        _put(context, slot, incoming, spooled, content_type=found.content_type)
        try:
            return _staged(slot, incoming, pending.result(), spooled)
        except BaseException:
            _discard(context, slot, found.kind)
            raise


def _put(context: TenantContext, slot: Slot, incoming: Received, spooled: Spooled, *, content_type: str) -> None:
    context.leases.put(
        context.storage,
        slot,
        _from_start(spooled.file),
        content_type=content_type,
        disposition=content_disposition(Disposition.INLINE, incoming.filename),
        region=context.tenant().s3_region,
    )


def _type_for_sure(context: TenantContext, incoming: Received, *, sanitize: bool) -> MediaType | None:
    """Return the type of a file that is stored quickly as it is, and whose parser can only confirm it or refuse it."""
    if sanitize or context.scan is not None or not 0 < incoming.spooled.size <= incoming.settings.spool_memory_bytes:
        return None
    found = sniff.sniff(_from_start(incoming.spooled.file).read(sniff.HEAD_BYTES))
    return found if found is not None and found.kind in (MediaKind.IMAGE, MediaKind.DOCUMENT) else None


def _sanitized(context: TenantContext, incoming: Received, probed: Probed) -> Spooled:
    from mindia.media.sanitize import sanitize

    spooled, filename = incoming.spooled, incoming.filename
    changed = sanitize(spooled.file, probed.content_type, size=spooled.size, filename=filename)
    if changed is None:
        return spooled
    # A damaged file may have been readable by what was removed from it.
    context.prober.probe(spooled.file, size=changed.size, filename=filename, declared=None, settings=incoming.settings)
    return attrs.evolve(spooled, size=changed.size, sha256=changed.sha256)


def _staged(slot: Slot, incoming: Received, probed: Probed, kept: Spooled) -> Staged:
    return Staged(
        id=slot.key,
        tenant_id=slot.tenant_id,
        filename=incoming.filename,
        original_filename=incoming.original_filename,
        content_type=probed.content_type,
        file_size=kept.size,
        sha256=kept.sha256,
        facts=probed.facts,
    )


def discard(context: TenantContext, staged: Staged) -> None:
    """Remove what was staged for an item that did not come to be; what fails here is left to the sweep."""
    slot = Slot(tenant_id=staged.tenant_id, key=staged.id, s3_bucket=context.bucket())
    _discard(context, slot, staged.kind)


def _discard(context: TenantContext, slot: Slot, kind: MediaKind) -> None:
    try:
        context.leases.discard(context.storage, slot, kind=kind)
    except MindiaError:
        _log.warning("staged object %s was not discarded; the sweep will remove it", slot.key, exc_info=True)


def as_handed_in(filename: str) -> str:
    """Return a filename as it was handed in, as far as it can be stored."""
    return storable(filename)[:_MAX_FILENAME]


def _from_start(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


class _Lent(io.RawIOBase):
    """A file for one who reads it, and can neither change nor close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer)
        content = self._file.read(len(into))
        into[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        return self._file.fileno()
