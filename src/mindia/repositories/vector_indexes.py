"""Which vectors have an index, on record for the router of searches. Written as the owner of the tables."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

_LARGE: LiteralString = """
select tenant_id, space_id, count(*), count(distinct entity_id) from mindia.embeddings
group by tenant_id, space_id having count(*) >= %s order by count(*) desc, tenant_id, space_id
"""

_ON_RECORD: LiteralString = "select tenant_id, space_id, row_count from mindia.vector_indexes"

# How far from some items their tenth nearest is; from nine in ten of them no further than this.
_TYPICAL: LiteralString = """
with chosen as materialized (
    select id from mindia.embeddings where tenant_id = %(tenant_id)s and space_id = %(space)s
    order by random() limit 100
)
select percentile_cont(0.9) within group (order by n.distance)
from chosen cross join lateral (
    select * from mindia.embeddings i where i.tenant_id = %(tenant_id)s and i.id = chosen.id offset 0
) e cross join lateral (
    select x.distance from mindia.nearest_by_index(
        %(tenant_id)s, %(space)s::smallint, e.embedding, null::mindia.entity_type[], 50, 100
    ) x
    order by x.distance offset 10 limit 1
) n
"""

_PUT: LiteralString = """
insert into mindia.vector_indexes (tenant_id, space_id, row_count, item_count, typical_distance)
values (%(tenant_id)s, %(space)s, %(row_count)s, %(item_count)s, %(typical)s)
on conflict on constraint vector_indexes_pkey do update
set row_count = excluded.row_count, item_count = excluded.item_count, typical_distance = excluded.typical_distance
"""

_FORGET: LiteralString = "delete from mindia.vector_indexes where tenant_id = %s and space_id = %s"


@attrs.frozen
class LargeSpace:
    """A space with many vectors.

    Attributes:
        tenant_id: Whose it is.
        space_id: Its number.
        row_count: How many vectors there are.
        item_count: How many items they are of.
    """

    tenant_id: UUID
    space_id: int
    row_count: int
    item_count: int


@attrs.frozen
class Recorded:
    """An index on record.

    Attributes:
        tenant_id: Whose it is.
        space_id: Of which space.
        row_count: How many vectors there were when it was looked at last.
    """

    tenant_id: UUID
    space_id: int
    row_count: int


def large_spaces(session: Session, *, least: int) -> list[LargeSpace]:
    """Find the spaces of at least so many vectors, the largest first."""
    return session.all(_LARGE, (least,), row=LargeSpace)


def on_record(session: Session) -> list[Recorded]:
    """Read which spaces have an index on record."""
    return session.all(_ON_RECORD, row=Recorded)


def put(session: Session, space: LargeSpace) -> None:
    """Put on record that the vectors of a space have an index that can be used, with what it is like."""
    keys = {"tenant_id": space.tenant_id, "space": space.space_id}
    typical = session.one(_TYPICAL, keys, row=lambda distance: distance)
    session.execute(
        _PUT,
        keys | {"row_count": space.row_count, "item_count": space.item_count, "typical": typical or 0.0},
    )


def forget(session: Session, tenant_id: UUID, space_id: int) -> None:
    """Take the index of a space off the record."""
    session.execute(_FORGET, (tenant_id, space_id))
