"""Search texts, spaces and vectors: what is written."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.media import Media

_TEXTS = """
select body, updated_at from mindia.search_documents where tenant_id = %s and entity_id = %s
"""

_MAKE_SPACE = """
insert into mindia.embedding_spaces (tenant_id, id, model_name, native_dimensions)
select %(tenant_id)s::uuid, coalesce(max(id), 0) + 1, %(model_name)s, %(native_dimensions)s::int
from mindia.embedding_spaces where tenant_id = %(tenant_id)s
on conflict do nothing
"""

_SPACE = "select id from mindia.embedding_spaces where tenant_id = %s and model_name = %s"

# The lock keeps the texts as they are until the vector is committed.
_PUT = """
insert into mindia.embeddings (tenant_id, entity_id, entity_type, space_id, description, embedding, model_name)
select d.tenant_id, d.entity_id, d.entity_type, %(space)s, %(description)s, %(vector)s::{vector}.vector, %(model_name)s
from mindia.search_documents d
where d.tenant_id = %(tenant_id)s and d.entity_id = %(entity_id)s and d.updated_at = %(version)s
for share
on conflict on constraint embeddings_passage_key
do update set description = excluded.description, embedding = excluded.embedding, created_at = now()
"""


@attrs.frozen
class Texts:
    """The text of an item's own, and when what is said about the item was changed."""

    body: str
    updated_at: datetime


def texts(session: Session, tenant_id: UUID, entity_id: UUID) -> Texts | None:
    """Read the texts of an item."""
    return session.one(_TEXTS, (tenant_id, entity_id), row=Texts)


def space_id(session: Session, tenant_id: UUID, *, model_name: str, native_dimensions: int) -> int:
    """Return the number of a model's space, which is made where it is missing."""
    parameters = {"tenant_id": tenant_id, "model_name": model_name, "native_dimensions": native_dimensions}
    while True:
        found = session.one(_SPACE, (tenant_id, model_name), row=int)
        if found is not None:
            return found
        # Nothing is written where another session takes the same number; the next round sees which model has it.
        session.execute(_MAKE_SPACE, parameters)


def put_vector(
    session: Session, media: Media, *, space: int, description: str, vector: str, model_name: str, version: datetime
) -> bool:
    """Write the vector of an item in place of an earlier one; False where its texts are of another version by now."""
    parameters = {
        "tenant_id": media.tenant_id,
        "entity_id": media.id,
        "space": space,
        "description": description,
        "vector": vector,
        "model_name": model_name,
        "version": version,
    }
    return session.execute(_PUT, parameters) > 0
