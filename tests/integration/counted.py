"""What is counted against the quota of a tenant, and what the tenant has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.media_rows import Host

import mindia
from mindia import Library, LocalStorage, Mindia
from mindia.testing import samples

IMAGES = [samples.image(color=color) for color in ("red", "green", "blue", "gold", "navy", "plum", "pink", "teal")]


@attrs.frozen
class Counted:
    """How much a tenant has."""

    items: int
    total_bytes: int


def on_record(host: Host, library: Library) -> Counted | None:
    """Return what is counted against the quota of a tenant; None where it has none."""
    with host.transaction():
        row = host.execute(
            "select item_count, total_bytes from mindia.quotas where tenant_id = %s", (library.tenant_id,)
        ).fetchone()
    return None if row is None else Counted(*row)


def actual(host: Host, library: Library) -> Counted:
    """Return what a tenant has."""
    with host.transaction():
        row = host.execute(
            "select count(*), coalesce(sum(file_size), 0)::bigint from mindia.all_media where tenant_id = %s",
            (library.tenant_id,),
        ).fetchone()
    assert row is not None
    return Counted(*row)


@contextmanager
def quick_app(application_url: str, roles: Roles, storage: LocalStorage) -> Iterator[Mindia]:
    """Make an application for many files of which it is known what they are."""
    settings = attrs.evolve(SETTINGS, worker_role=roles.worker, isolate_parsers=False, pool_size=16)
    with mindia.connect(application_url, storage=storage, settings=settings) as app:
        yield app
