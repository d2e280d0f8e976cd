"""Vectors of tenants of several sizes, with the items that they belong to, written straight into the tables.

The vectors are as those of models are: they vary in some tens of directions (noise that went in all 768 would make all
distances alike), and they are clustered. Each tenant has a mix of topics of its own. A query is near a topic that the
tenant has, or, "off-topic", near one that only others have, which is the hard case of an index with a filter.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs
import numpy as np
import psycopg
from benchmarks._server import Server

from mindia import Mindia, Tenant

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

DIMENSIONS = 768
_TOPICS, _TOPICS_OF_TENANT, _DIRECTIONS, _SPREAD, _NOISE = 200, 12, 48, 0.7, 0.15

_ITEMS = """
create temporary table items as
select n, (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7' || substr(noise, 1, 3)
           || '8' || substr(noise, 4, 15))::uuid as id, moment
from (select n, md5(%(tenant_id)s::text || n) as noise, now() - (%(items)s - n) * interval '1 second' as moment
      from generate_series(1, %(items)s) as n) as numbers
"""
_IMAGES = """
insert into mindia.images (id, tenant_id, filename, original_filename, s3_key, s3_url, content_type, file_size, sha256,
                           metadata, uploaded_at, updated_at, width, height)
select id, %(tenant_id)s::uuid, 'item_' || n || '.jpg', 'item ' || n || '.jpg', 'originals/' || id,
       's3://bench/originals/' || id, 'image/jpeg', 1000000 + n, sha256(n::text::bytea),
       jsonb_build_object('rating', n %% 5), moment, moment, 4032, 3024
from items
"""
_TEXTS = """
insert into mindia.search_documents (tenant_id, entity_id, entity_type, title, metadata, tsv, updated_at)
select %(tenant_id)s::uuid, id, 'image', 'item ' || n, jsonb_build_object('rating', n %% 5),
       setweight(to_tsvector('english', 'item ' || n || ' album ' || n %% 1000 || ' word' || n %% 37), 'A'), moment
from items
"""


_COPY = """
copy mindia.embeddings (tenant_id, entity_id, entity_type, space_id, description, model_name, embedding)
from stdin (format binary)
"""


@attrs.frozen(kw_only=True, eq=False)
class Collection:
    """The vectors of one tenant.

    Attributes:
        tenant: Whose they are.
        ids: Of the items.
        vectors: One for each item, of length 1.
        queries: Near topics of the tenant's own.
        off_topic: Near topics that only others have.
    """

    tenant: Tenant
    ids: list[UUID]
    vectors: NDArray[float32]
    queries: NDArray[float32]
    off_topic: NDArray[float32]

    def nearest(self, query: NDArray[float32], count: int) -> list[UUID]:
        """Return the right answers, best first."""
        similarities = self.vectors @ query
        best = np.argsort(-similarities, kind="stable")[:count]
        return [self.ids[at] for at in best]


class Topics:
    """Makes vectors."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._directions = _unit(self._random.standard_normal((_DIRECTIONS, DIMENSIONS), dtype=np.float32))
        self._weights = (np.arange(1, _DIRECTIONS + 1, dtype=np.float32) ** -0.5)[np.newaxis]
        self._centres = self._latent(_TOPICS)

    def of_tenant(self, count: int) -> tuple[NDArray[float32], NDArray[np.int64]]:
        """Return vectors of a new mix of topics, and these topics."""
        own = self._random.choice(_TOPICS, min(_TOPICS_OF_TENANT, max(1, count // 5)), replace=False)
        shares = self._random.dirichlet(np.ones(len(own)))
        return self._around(self._random.choice(own, count, p=shares)), own

    def queries(self, topics: NDArray[np.int64], count: int, *, others: bool = False) -> NDArray[float32]:
        """Return queries near some of the topics, or near some of all others."""
        chosen = np.setdiff1d(np.arange(_TOPICS), topics) if others else topics
        return self._around(self._random.choice(chosen, count))

    def _around(self, topics: NDArray[np.int64]) -> NDArray[float32]:
        latent = self._centres[topics] + _SPREAD * self._latent(len(topics))
        noise = _unit(self._random.standard_normal((len(topics), DIMENSIONS), dtype=np.float32))
        return _unit(_unit(latent @ self._directions) + _NOISE * noise)

    def _latent(self, count: int) -> NDArray[float32]:
        return _unit(self._random.standard_normal((count, _DIRECTIONS), dtype=np.float32) * self._weights)


def fill(running: Server, app: Mindia, sizes: dict[str, int], *, topics: Topics, queries: int) -> dict[str, Collection]:
    """Make a tenant of each size with items and search texts; the vectors are not written yet."""
    made = {}
    with psycopg.connect(running.url, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
        for name, size in sizes.items():
            tenant = app.tenants.create(name)
            values: dict[str, Any] = {"tenant_id": tenant.id, "items": size}
            for query in (_ITEMS, _IMAGES, _TEXTS):
                cursor.execute(query.encode(), values)
            cursor.execute("select id from items order by n")
            ids = [row[0] for row in cursor.fetchall()]
            cursor.execute("drop table items")
            vectors, own = topics.of_tenant(size)
            made[name] = Collection(
                tenant=tenant,
                ids=ids,
                vectors=vectors,
                queries=topics.queries(own, queries),
                off_topic=topics.queries(own, queries, others=True),
            )
    return made


def index_all(running: Server, collections: Sequence[Collection], model_name: str) -> None:
    """Write the vectors by COPY, in random order, as the owner."""
    rows = [(each.tenant.id, *row) for each in collections for row in zip(each.ids, each.vectors, strict=True)]
    with psycopg.connect(running.url) as connection:
        for each in collections:
            connection.execute(
                "insert into mindia.embedding_spaces (tenant_id, id, model_name, native_dimensions) "
                "values (%s, 1, %s, %s)",
                (each.tenant.id, model_name, DIMENSIONS),
            )
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            for at in np.random.default_rng(3).permutation(len(rows)):
                tenant_id, media_id, vector = rows[at]
                fields = (
                    tenant_id.bytes,
                    media_id.bytes,
                    b"image",
                    struct.pack("!h", 1),
                    b"an item with some words",
                    model_name.encode(),
                    struct.pack("!HH", DIMENSIONS, 0) + vector.astype(">f4").tobytes(),
                )
                row = b"".join(struct.pack("!i", len(field)) + field for field in fields)
                copy.write(struct.pack("!h", len(fields)) + row)
            copy.write(struct.pack("!h", -1))


def _unit(vectors: NDArray[float32]) -> NDArray[float32]:
    lengths: NDArray[float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
