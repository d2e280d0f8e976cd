"""From staged bytes to an item: the rows, and what becomes of bytes that the tenant has already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Self
from uuid import UUID

import attrs

from mindia import _trace_context
from mindia._ids import uuid7, uuid7s
from mindia.config import Settings
from mindia.db.session import Session
from mindia.describing.metadata import file_words, metadata_words
from mindia.domain.events import MediaEvent
from mindia.domain.media import Facts, Media, MediaKind, Metadata, OnDuplicate, Staged, Video
from mindia.errors import ConflictError, DuplicateError, InvalidError, NotFoundError, StagedObjectExpiredError
from mindia.media import sniff
from mindia.media.names import words_of
from mindia.repositories import media as repository
from mindia.repositories import media_add, media_link
from mindia.repositories._new_media import NewTranscode, Texts
from mindia.repositories._text import storable
from mindia.repositories.derivatives import source_of
from mindia.repositories.media_add import NewMedia
from mindia.repositories.media_link import NewLink
from mindia.services._keys import original_key, transcode_key
from mindia.services._metadata import checked_metadata
from mindia.services._named import named
from mindia.services.context import TenantContext
from mindia.services.ingest import Received
from mindia.services.signed_urls import event_url

MAX_DESCRIPTION_BYTES = 1 << 16


@attrs.frozen(kw_only=True)
class Addition:
    """What is said about new bytes, and what to do where they are not new.

    Attributes:
        description: What a person says about them.
        metadata: The host's own values.
        expires_at: From when on the item is not found any more.
        on_duplicate: What to do where the tenant has an item of the same bytes.
        initiated_by: On whose behalf; None for the host itself.
        settings: With which the URL is signed that events have; None where there is to be none.
        link_id: The id of an item that shares them.
        task_id: Of the task that embeds the item.
        transcode_id: Of the task that encodes it, if it is a video that nobody has encoded yet.
        event_id: Of the event that tells of it.
        trace_context: In which trace the tasks are enqueued, as JSON, or None.
    """

    description: str
    metadata: Metadata
    expires_at: datetime | None
    on_duplicate: OnDuplicate
    initiated_by: UUID | None
    settings: Settings | None = None
    link_id: UUID = attrs.field(factory=uuid7)
    task_id: UUID = attrs.field(factory=uuid7)
    transcode_id: UUID = attrs.field(factory=uuid7)
    event_id: UUID = attrs.field(factory=uuid7)
    trace_context: str | None = attrs.field(factory=_trace_context.current)

    @classmethod
    def checked(
        cls,
        *,
        description: str,
        metadata: Metadata | None,
        expires_at: datetime | None,
        on_duplicate: OnDuplicate | str,
        initiated_by: UUID | None,
        settings: Settings,
    ) -> Self:
        """Return it, if all of it is allowed.

        Raises:
            InvalidError: Something is not.
        """
        checked_expiry(expires_at)
        link_id, task_id, transcode_id, event_id = islice(uuid7s(), 4)
        return cls(
            description=checked_description(description),
            metadata=checked_metadata(metadata),
            expires_at=expires_at,
            on_duplicate=named(on_duplicate, OnDuplicate, argument="on_duplicate"),
            initiated_by=initiated_by,
            settings=settings,
            link_id=link_id,
            task_id=task_id,
            transcode_id=transcode_id,
            event_id=event_id,
        )


def checked_expiry(expires_at: datetime | None) -> None:
    """Refuse a time without time zone.

    Raises:
        InvalidError: It has none.
    """
    if expires_at is not None and (not isinstance(expires_at, datetime) or expires_at.tzinfo is None):
        raise InvalidError(f"expires_at must be a datetime with a time zone: {expires_at!r}")


def checked_description(description: str) -> str:
    """Return a description as it is stored.

    Raises:
        InvalidError: It is no text, or too long.
    """
    if not isinstance(description, str):
        raise InvalidError(f"description must be a text, not {type(description).__name__}")
    plain = storable(description)
    size = len(plain.encode())
    if size > MAX_DESCRIPTION_BYTES:
        raise InvalidError(f"the description has {size} bytes; the limit is {MAX_DESCRIPTION_BYTES}")
    return plain


def texts_of(media: Media) -> Texts:
    """Return what is said about an item, as it is searched."""
    return _texts(media.filename, media, media.description, media.metadata)


def add_staged(
    context: TenantContext, staged: Staged, addition: Addition, *, settle: Callable[[], None] | None = None
) -> Media:
    """Make an item of what was staged, or find one of the same bytes.

    Args:
        context: Whose it is.
        staged: The bytes.
        addition: What is said about them.
        settle: Is called before anything is committed, while the server is at work where that is one statement; what it
            raises undoes all. It may be called again.

    Raises:
        NotFoundError: It is another tenant's.
        DuplicateError: There is such an item, and none is wanted.
        StagedObjectExpiredError: What was staged has been swept, or added already.
    """
    new = prepared(context, staged, addition)
    if addition.on_duplicate is OnDuplicate.STORE:
        return _item(context.as_member.run(lambda session: add_all(session, [new], meanwhile=settle)[0], single=True))
    if settle is not None:
        settle()

    def work(session: Session) -> Media | ConflictError:
        return add_unless_there(session, new, addition)

    return _item(context.as_member.run(work))


def add_duplicate(context: TenantContext, incoming: Received, addition: Addition) -> Media | None:
    """Return or make the item that comes of bytes that the tenant has already; None where it has not.

    Raises:
        DuplicateError: It has, and no item is wanted.
        TypeMismatchError: The name or the declared type contradicts the bytes.
    """

    def work(session: Session) -> Media | ConflictError | None:
        if session.repeated and (made := repository.get(session, context.tenant_id, addition.link_id)):
            return made
        found = repository.duplicate(session, context.tenant_id, incoming.spooled.sha256)
        if found is None:
            return None
        check_name(found, incoming.filename, declared=incoming.declared)
        return _settled(session, found, addition, incoming.filename, incoming.original_filename)

    found = context.as_member.run(work)
    return None if found is None else _item(found)


def add_all(
    session: Session, news: Sequence[NewMedia], *, meanwhile: Callable[[], None] | None = None
) -> list[Media | ConflictError]:
    """Write items of staged bytes, or say `StagedObjectExpiredError` of those that were swept or added already.

    Errors are returned: nothing was written for them, and the others may be committed by now.
    """
    added = media_add.add_all(session, news, meanwhile=meanwhile)
    return [item or _written_before(session, new) for item, new in zip(added, news, strict=True)]


def add_unless_there(session: Session, new: NewMedia, addition: Addition) -> Media | ConflictError:
    """Write an item of staged bytes, or do with an item of the same bytes what `on_duplicate` says.

    Errors are returned, so that the transaction goes on.
    """
    staged = new.staged
    if session.repeated:
        for made_id in (staged.id, addition.link_id):
            if made := repository.get(session, staged.tenant_id, made_id):
                return made
    repository.lock_bytes(session, staged.tenant_id, staged.sha256)
    found = repository.duplicate(session, staged.tenant_id, staged.sha256)
    if found is not None and (settled := _settled(session, found, addition, staged.filename, staged.original_filename)):
        return settled
    return add_all(session, [new])[0]


def prepared(context: TenantContext, staged: Staged, addition: Addition) -> NewMedia:
    """Return what is written for an item of staged bytes.

    Raises:
        NotFoundError: They are another tenant's.
    """
    if staged.tenant_id != context.tenant_id:
        raise NotFoundError(f"there is no staged object {staged.id}")
    return NewMedia(
        staged=staged,
        s3_key=original_key(staged.id),
        texts=_texts(staged.filename, staged.facts, addition.description, addition.metadata),
        expires_at=addition.expires_at,
        language=context.tenant().settings.language,
        task_id=addition.task_id,
        event=MediaEvent.of(
            staged,
            "uploaded",
            id=addition.event_id,
            occurred_at=datetime.now(UTC),
            initiated_by=context.initiator,
            url=event_url(staged, settings=context.settings),
        ),
        transcode=_transcode(staged.facts.kind, staged.id, addition, context.settings),
        trace_context=addition.trace_context,
    )


def link(
    session: Session, original: Media, addition: Addition, *, filename: str, original_filename: str
) -> Media | None:
    """Write an item that shares the bytes of another one; None where that is gone."""
    named = attrs.evolve(original, id=addition.link_id, filename=filename)
    return media_link.link(
        session,
        NewLink(
            id=addition.link_id,
            original=original,
            filename=filename,
            original_filename=original_filename,
            texts=_texts(filename, original, addition.description, addition.metadata),
            expires_at=addition.expires_at,
            task_id=addition.task_id,
            event=MediaEvent.of(
                named,
                "uploaded",
                id=addition.event_id,
                occurred_at=datetime.now(UTC),
                initiated_by=addition.initiated_by,
                url=None if addition.settings is None else event_url(named, settings=addition.settings),
            ),
            transcode=_transcode_of_copy(original, addition),
            trace_context=addition.trace_context,
        ),
    )


def _transcode_of_copy(original: Media, addition: Addition) -> NewTranscode | None:
    source_id = source_of(original.s3_key)
    if source_id is None or not isinstance(original, Video) or original.hls_master_key is not None:
        return None
    return _transcode(original.kind, source_id, addition, addition.settings)


def _transcode(kind: MediaKind, source_id: UUID, addition: Addition, settings: Settings | None) -> NewTranscode | None:
    if kind is not MediaKind.VIDEO or settings is None or not settings.transcode_on_add:
        return None
    return NewTranscode(id=addition.transcode_id, dedup_key=transcode_key(source_id))


def check_name(media: Media, filename: str, *, declared: str | None = None) -> None:
    """Refuse a name that contradicts the bytes of an item.

    Raises:
        TypeMismatchError: The extension or the declared type is that of another type.
    """
    sniff.check_name(sniff.of_content_type(media.content_type), filename=filename, declared=declared)


def _settled(
    session: Session, found: Media, addition: Addition, filename: str, original_filename: str
) -> Media | ConflictError | None:
    """Do what `on_duplicate` says with an item of the same bytes; None where it has gone meanwhile."""
    match addition.on_duplicate:
        case OnDuplicate.RETURN:
            return found
        case OnDuplicate.ERROR:
            return DuplicateError(f"there is an item of the same bytes already: {found.id} ({found.filename!r})")
        case _:
            return link(session, found, addition, filename=filename, original_filename=original_filename)


def _item(found: Media | ConflictError) -> Media:
    if isinstance(found, ConflictError):
        raise found
    return found


def _written_before(session: Session, new: NewMedia) -> Media | ConflictError:
    staged = new.staged
    found = repository.get(session, staged.tenant_id, staged.id) if session.repeated else None
    return found or StagedObjectExpiredError(
        f"the staged object {staged.id} ({staged.filename!r}) is not there any more: it was added already, or not "
        "added within Settings.staging_grace: stage the bytes again. In a transaction of the isolation level "
        "repeatable read or serializable, stage them before it begins"
    )


def _texts(filename: str, facts: Facts | Media, description: str, metadata: Metadata) -> Texts:
    return Texts(
        metadata=metadata,
        description=description,
        title=" ".join(filter(None, (words_of(filename), file_words(facts)))),
        words=metadata_words(metadata),
    )
