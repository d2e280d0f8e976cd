"""From a source to bytes that are stored and probed: what `stage` does, and `add` before it writes rows."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

import attrs

from mindia.config import Settings
from mindia.domain.media import Candidate, Disposition, MediaKind, Staged
from mindia.errors import MindiaError
from mindia.media import sniff
from mindia.media.names import clean_filename, content_disposition
from mindia.media.probe import Pending, Probed, Unprobed
from mindia.media.sniff import MediaType
from mindia.media.spool import Spooled, spool
from mindia.repositories._text import storable
from mindia.services._keys import original_key
from mindia.services.context import TenantContext
from mindia.services.leases import Slot
from mindia.services.readers import Approved, Lent
from mindia.services.sources import Source, name_of, opened
from mindia.storage.base import BatchStorage, NewObject

_MAX_FILENAME = 255
_MAX_UNSETTLED_BYTES = 1 << 20
"""Of a file that the disk may be waited for while a database connection is held."""

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

    @property
    def unprobed(self) -> Unprobed:
        """What a parser is told of it."""
        return Unprobed(file=self.spooled.file, size=self.spooled.size, filename=self.filename, declared=self.declared)


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
    with staging(context, incoming, sanitize=sanitize, slot=slot, at_once=True) as begun:
        return begun.staged


@attrs.frozen(kw_only=True)
class Staging:
    """What has been probed and is being stored.

    Attributes:
        staged: What it is.
        settle: Returns once its bytes are there for good, before which no row may be, or raises `StorageError`; None
            where they are.
    """

    staged: Staged
    settle: Callable[[], None] | None = None


@contextmanager
def staging(
    context: TenantContext,
    incoming: Received,
    *,
    sanitize: bool,
    slot: Slot | None = None,
    at_once: bool = False,
) -> Iterator[Staging]:
    """Do what `stage` does, and let the caller choose when to wait for the disk, where a store has it wait.

    The end of the block waits for it, too; where the block raises before that, nothing stays in such a store. A caller
    who has nothing to do meanwhile wants it `at_once`: then it is waited for while the parser is at work.
    """
    with ExitStack() as stack:
        yield _begun(context, incoming, stack, sanitize=sanitize, slot=slot, at_once=at_once)


def _begun(
    context: TenantContext, incoming: Received, stack: ExitStack, *, sanitize: bool, slot: Slot | None, at_once: bool
) -> Staging:
    spooled = incoming.spooled
    if not sanitize and context.scan is None:
        found = sniff.sniff(_from_start(spooled.file).read(sniff.HEAD_BYTES))
        if found is not None and spooled.size > incoming.settings.spool_memory_bytes:
            if context.settings.isolate_parsers:
                return Staging(staged=_stage_if_approved(context, incoming, found, slot or _slot(context)))
        elif found is not None and found.kind in (MediaKind.IMAGE, MediaKind.DOCUMENT):
            with context.prober.begin(incoming.unprobed, settings=incoming.settings) as pending:
                if pending is not None:
                    slot = slot or _slot(context)
                    return _begun_while_probing(context, incoming, found, slot, pending, stack, at_once=at_once)
    probed = context.prober.probe(incoming.unprobed, settings=incoming.settings)
    accepted = accept(context, incoming, probed, sanitize=sanitize)
    return _begun_in(context, accepted, slot or _slot(context), stack)


def _slot(context: TenantContext) -> Slot:
    return context.leases.take(context.tenant_id, s3_bucket=context.bucket())


@attrs.frozen(kw_only=True)
class Accepted:
    """What has come in and may be stored.

    Attributes:
        incoming: What has come in.
        probed: What it is.
        spooled: The bytes that are kept, which are not all that came in where it was sanitized.
    """

    incoming: Received
    probed: Probed
    spooled: Spooled

    def at(self, slot: Slot) -> Staged:
        """Return what it is called once it is stored in a place."""
        return Staged(
            id=slot.key,
            tenant_id=slot.tenant_id,
            filename=self.incoming.filename,
            original_filename=self.incoming.original_filename,
            content_type=self.probed.content_type,
            file_size=self.spooled.size,
            sha256=self.spooled.sha256,
            facts=self.probed.facts,
        )


def accept(context: TenantContext, incoming: Received, probed: Probed, *, sanitize: bool) -> Accepted:
    """Let the host's hook see what has been received and probed, and remove what is not to be kept.

    Raises:
        MediaError: The hook refuses it, or it cannot be sanitized.
    """
    scan(context, incoming.spooled, probed, filename=incoming.filename)
    spooled = _sanitized(context, incoming, probed) if sanitize else incoming.spooled
    return Accepted(incoming=incoming, probed=probed, spooled=spooled)


def store(context: TenantContext, accepted: Accepted) -> Staged:
    """Store what has been accepted.

    Raises:
        StorageError: The object store failed.
    """
    with ExitStack() as stack:
        return _begun_in(context, accepted, _slot(context), stack).staged


def store_all(context: TenantContext, storage: BatchStorage, accepted: Sequence[Accepted]) -> list[Staged]:
    """Store small ones together; where this raises, none is stored.

    Raises:
        StorageError: The object store failed.
    """
    slots = [_slot(context) for _ in accepted]
    objects = [
        _object(slot, each.incoming, each.spooled, each.probed.content_type)
        for slot, each in zip(slots, accepted, strict=True)
    ]
    with context.leases.putting(storage, slots, objects, region=context.tenant().s3_region):
        return [each.at(slot) for slot, each in zip(slots, accepted, strict=True)]


def scan(context: TenantContext, spooled: Spooled, probed: Probed, *, filename: str) -> None:
    """Show bytes to the hook of the host, if there is one, which may refuse them."""
    if context.scan is None:
        return
    context.scan(
        io.BufferedReader(Lent(_from_start(spooled.file))),
        Candidate(
            tenant_id=context.tenant_id,
            filename=filename,
            content_type=probed.content_type,
            file_size=spooled.size,
            sha256=spooled.sha256,
            facts=probed.facts,
        ),
    )


def _begun_in(context: TenantContext, accepted: Accepted, slot: Slot, stack: ExitStack) -> Staging:
    settle = _storing(context, slot, accepted.incoming, accepted.spooled, accepted.probed.content_type, stack)
    return Staging(staged=accepted.at(slot), settle=settle)


def _begun_while_probing(
    context: TenantContext,
    incoming: Received,
    found: MediaType,
    slot: Slot,
    pending: Pending,
    stack: ExitStack,
    *,
    at_once: bool,
) -> Staging:
    """Store bytes while their parser is at work on them; where it refuses them, they are removed again.

    It is for what is stored quickly, and whose parser can only confirm its type or refuse it.
    """
    spooled = incoming.spooled
    settle = _storing(context, slot, incoming, spooled, found.content_type, stack)
    try:
        if at_once and settle is not None:
            settle()
        staged = Accepted(incoming=incoming, probed=pending.result(), spooled=spooled).at(slot)
    except BaseException:
        _discard(context, slot, found.kind)
        raise
    return Staging(staged=staged, settle=settle)


def _storing(
    context: TenantContext, slot: Slot, incoming: Received, spooled: Spooled, content_type: str, stack: ExitStack
) -> Callable[[], None] | None:
    """Store bytes, and return what waits for the disk, if it is still to be waited for; the end of the stack does."""
    if context.batches is None or spooled.size > _MAX_UNSETTLED_BYTES:
        _put(context, slot, incoming, _from_start(spooled.file), content_type=content_type)
        return None
    objects = [_object(slot, incoming, spooled, content_type)]
    return stack.enter_context(
        context.leases.putting(context.batches, [slot], objects, region=context.tenant().s3_region)
    )


def _object(slot: Slot, incoming: Received, spooled: Spooled, content_type: str) -> NewObject:
    return NewObject(
        key=original_key(slot.key),
        source=_from_start(spooled.file),
        content_type=content_type,
        disposition=_disposition(incoming),
    )


def _stage_if_approved(context: TenantContext, incoming: Received, found: MediaType, slot: Slot) -> Staged:
    """Store many bytes while their parser is at work on them; the last of them only once it has approved of them."""
    spooled = incoming.spooled
    with ThreadPoolExecutor(1, thread_name_prefix="mindia-probe") as thread:
        verdict = thread.submit(context.prober.probe, incoming.unprobed, settings=incoming.settings)
        approved = cast("BinaryIO", Approved(_from_start(spooled.file), spooled.size, verdict))
        try:
            _put(context, slot, incoming, approved, content_type=found.content_type)
        except BaseException:
            # Where the store has failed instead, something may be on its way to it still, which the sweep comes after.
            if verdict.done() and verdict.exception() is not None:
                _discard(context, slot, found.kind)
            raise
        probed = verdict.result()
        if probed.content_type != found.content_type:  # a video without pictures is a sound
            _put(context, slot, incoming, _from_start(spooled.file), content_type=probed.content_type)
        return Accepted(incoming=incoming, probed=probed, spooled=spooled).at(slot)


def _put(context: TenantContext, slot: Slot, incoming: Received, source: BinaryIO, *, content_type: str) -> None:
    context.leases.put(
        context.storage,
        slot,
        source,
        content_type=content_type,
        disposition=_disposition(incoming),
        region=context.tenant().s3_region,
    )


def _disposition(incoming: Received) -> str:
    return content_disposition(Disposition.INLINE, incoming.filename)


def _sanitized(context: TenantContext, incoming: Received, probed: Probed) -> Spooled:
    from mindia.media.sanitize import sanitize

    spooled, filename = incoming.spooled, incoming.filename
    changed = sanitize(spooled.file, probed.content_type, size=spooled.size, filename=filename)
    if changed is None:
        return spooled
    # A damaged file may have been readable by what was removed from it.
    sanitized = Unprobed(file=spooled.file, size=changed.size, filename=filename)
    context.prober.probe(sanitized, settings=incoming.settings)
    return attrs.evolve(spooled, size=changed.size, hexdigest=lambda: changed.sha256)


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
