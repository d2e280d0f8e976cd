"""What the services of one tenant share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.units import Unit
from mindia.delivery.addresses import Guard
from mindia.delivery.secrets import SecretBox
from mindia.describing.base import Describer
from mindia.domain.media import Candidate
from mindia.embedding.base import Embedder
from mindia.embedding.vectors import Vectors
from mindia.services.event_types import EventTypes
from mindia.services.flights import Flights
from mindia.services.known_tenants import KnownTenant
from mindia.services.leases import StagingLeases
from mindia.services.search_router import SearchRouter
from mindia.services.spaces import Spaces
from mindia.storage.base import BatchStorage, Storage
from mindia.worker.registry import TaskRegistry

Scan = Callable[[BinaryIO, Candidate], object]
"""Is called with the bytes and what is known of them; raises `RejectedError` to refuse them."""

if TYPE_CHECKING:
    from mindia.media.probe import Prober


@attrs.frozen(kw_only=True)
class TenantContext:
    """What the services of one tenant share.

    Attributes:
        tenant_id: The tenant.
        tenant: Returns what is known of it; refuses one that is suspended or deleted.
        bucket: Returns the tenant's bucket.
        initiator: The user or API key on whose behalf calls are made; None for the host itself.
        as_viewer: Where statements run that a viewer may cause: each in a transaction of its own, or all in one that
            is open.
        as_member: The same for what takes a member.
        as_admin: The same for what takes an admin.
        leases: Keys for bytes that are about to be stored.
        prober: Finds out type and facts of files.
        flights: What is being made at the moment, which nobody needs to make a second time.
        storage: Where the bytes are.
        batches: The same, where it takes several objects at once; or None.
        embedder: Makes vectors.
        describer: Makes the words that are embedded.
        spaces: The embedders, and which space of each tenant is searched.
        vectors: What surrounds the embedders.
        router: Chooses how vectors are compared.
        registry: The types of tasks.
        events: The types of events.
        secret_box: Encrypts the signing secrets of webhooks.
        address_guard: Tells where webhooks may be sent.
        scan: Looks at bytes before they are stored, or None.
        settings: Limits and times.
    """

    tenant_id: UUID
    tenant: Callable[[], KnownTenant]
    bucket: Callable[[], str]
    initiator: UUID | None
    as_viewer: Unit
    as_member: Unit
    as_admin: Unit
    leases: StagingLeases
    prober: Prober
    flights: Flights
    storage: Storage
    batches: BatchStorage | None
    embedder: Embedder
    describer: Describer
    spaces: Spaces
    vectors: Vectors
    router: SearchRouter
    registry: TaskRegistry
    events: EventTypes
    secret_box: SecretBox
    address_guard: Guard
    scan: Scan | None
    settings: Settings
