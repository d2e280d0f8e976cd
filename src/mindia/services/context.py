"""What the services of one tenant share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.session import Unit
from mindia.describing.base import Describer
from mindia.embedding.base import Embedder
from mindia.services.leases import StagingLeases
from mindia.storage.base import Storage
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.media.probe import Prober


@attrs.frozen(kw_only=True)
class TenantContext:
    """What the services of one tenant share.

    Attributes:
        tenant_id: The tenant.
        bucket: Returns the tenant's bucket.
        unit: Where statements run: each in a transaction of its own, or all in one that is open.
        leases: Keys for bytes that are about to be stored.
        prober: Finds out type and facts of files.
        storage: Where the bytes are.
        embedder: Makes vectors.
        describer: Makes the words that are embedded.
        registry: The types of tasks.
        settings: Limits and times.
    """

    tenant_id: UUID
    bucket: Callable[[], str]
    unit: Unit
    leases: StagingLeases
    prober: Prober
    storage: Storage
    embedder: Embedder
    describer: Describer
    registry: TaskRegistry
    settings: Settings
