"""A place for what is made of the bytes of an item, on record before anything is put there."""

from __future__ import annotations

import logging
import threading
import time
from typing import BinaryIO
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.media import Disposition, Media
from mindia.domain.transformations import ImageFormat
from mindia.errors import MindiaError, NotFoundError, StagedObjectExpiredError
from mindia.media.names import content_disposition
from mindia.repositories import derivatives, objects
from mindia.services._keys import derivative_prefix
from mindia.services.context import TenantContext

_log = logging.getLogger("mindia.media")


class DerivedPlace:
    """A prefix that objects are put under, until a row is written for them or they are discarded. Thread-safe.

    What is neither is swept, as whatever else was staged: the process may be killed at any time. While objects are put
    there, or `renew_if_due` is called now and then, the sweep stays away.

    Args:
        context: Of the tenant.
        media: The item, whose bytes something is made of.

    Attributes:
        id: Of what is made.
        prefix: What the keys of its objects begin with.
        file_count: How many objects have been put.
        file_size: How many bytes these have.

    Raises:
        TenantInactiveError: The tenant is deleted.
        NotFoundError: The item is none that bytes of ours are kept of.
    """

    def __init__(self, context: TenantContext, media: Media) -> None:
        source_id = derivatives.source_of(media.s3_key)
        if source_id is None:
            raise NotFoundError(f"there are no bytes of media item {media.id}")
        self._context = context
        self._bucket = context.bucket()
        self._lock = threading.Lock()
        self.id: UUID = context.leases.lease_derived(context.tenant_id, source_id=source_id, s3_bucket=self._bucket)
        self._renewed_at = time.monotonic()
        self.prefix = derivative_prefix(source_id, self.id)
        self.file_count = 0
        self.file_size = 0

    def put_picture(self, media: Media, source: BinaryIO, *, form: ImageFormat, size: int) -> str:
        """Store a picture, and return its key.

        Args:
            media: The item that it was made of, whose name it has.
            source: Its bytes.
            form: What they are.
            size: How many bytes it has.

        Raises:
            StagedObjectExpiredError: The place was swept.
            StorageError: The object store failed.
        """
        stem = media.filename.rpartition(".")[0] or media.filename
        return self.put(
            f"picture.{form.extension}",
            source,
            content_type=form.content_type,
            size=size,
            disposition=content_disposition(Disposition.INLINE, f"{stem}.{form.extension}"),
        )

    def put(self, name: str, source: BinaryIO, *, content_type: str, size: int, disposition: str | None = None) -> str:
        """Store an object, and return its key.

        Args:
            name: Behind the prefix: `master.m3u8`, `720p/segment_000.ts`.
            source: Its bytes.
            content_type: MIME type.
            size: How many bytes it has.
            disposition: As for `Storage.put`.

        Raises:
            StagedObjectExpiredError: The place was swept.
            StorageError: The object store failed.
        """
        self.renew_if_due()
        key = self.prefix + name
        self._context.storage.put(
            self._bucket,
            key,
            source,
            content_type=content_type,
            disposition=disposition,
            region=self._context.tenant().s3_region,
        )
        with self._lock:
            self.file_count += 1
            self.file_size += size
        return key

    def renew_if_due(self) -> None:
        """Keep the sweep away for longer, if a good part of the time is over.

        Raises:
            StagedObjectExpiredError: The place was swept, or the tenant was deleted.
        """
        with self._lock:
            if time.monotonic() - self._renewed_at < self._context.leases.renew_after_s:
                return
            self._renewed_at = time.monotonic()
        self._context.leases.renew(self._context.tenant_id, self.id)

    def discard(self) -> None:
        """Remove what was put there, unless a row has been written for it; what fails is left to the sweep."""
        tenant_id = self._context.tenant_id

        def work(session: Session) -> None:
            if objects.take_one_staged(session, tenant_id, self.id) is None and (
                objects.is_staged(session, tenant_id, self.id) or derivatives.is_there(session, tenant_id, self.id)
            ):
                return
            self._context.storage.delete_prefix(self._bucket, self.prefix)

        try:
            self._context.leases.aside(tenant_id).run(work)
        except MindiaError:
            _log.warning("what was made below %s was not discarded; the sweep will", self.prefix, exc_info=True)

    def expired(self) -> StagedObjectExpiredError:
        """Return the error for a place that was swept before a row was written."""
        return StagedObjectExpiredError(
            f"what was made below {self.prefix} was swept before it was recorded: that took longer than "
            "Settings.staging_grace. In a transaction of the isolation level repeatable read or serializable, make it "
            "before that begins"
        )
