"""What the router of searches goes by."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

# Vectors are counted where there is no index, and no further than matters.
_FACTS: LiteralString = """
select coalesce(v.row_count, c.row_count), coalesce(v.item_count, c.item_count), v.typical_distance
from (select) one
left join mindia.vector_indexes v on v.tenant_id = %(tenant_id)s and v.space_id = %(space)s
left join lateral (
    select count(*) as row_count, count(distinct e.entity_id) as item_count from (
        select e.entity_id from mindia.embeddings e where e.tenant_id = %(tenant_id)s and e.space_id = %(space)s
        limit %(most)s
    ) e
) c on v.row_count is null
"""


@attrs.frozen
class SpaceFacts:
    """What is known of the vectors of a tenant in a space.

    Attributes:
        row_count: How many there are: when the index was made, or as far as was counted.
        item_count: How many items they are of.
        typical_distance: How far from an item its tenth nearest is, of nine items in ten; None without an index.
    """

    row_count: int
    item_count: int
    typical_distance: float | None


def facts(session: Session, tenant_id: UUID, *, space: int, most: int) -> SpaceFacts:
    """Read what is known of the vectors of a space, which are counted up to `most`."""
    found = session.one(_FACTS, {"tenant_id": tenant_id, "space": space, "most": most}, row=SpaceFacts)
    assert found is not None
    return found
