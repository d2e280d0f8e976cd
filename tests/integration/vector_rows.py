"""Items with vectors that are made up, written straight into the tables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import psycopg
from numpy import float32
from numpy.typing import NDArray
from pgvector import Vector

from mindia import Library
from mindia._ids import uuid7

DIMENSIONS = 768
KINDS = ("image", "video", "audio", "document")
WORDS = ("harbour", "lighthouse", "tram", "windowsill", "orchard")

_MEDIA = {
    "image": "insert into mindia.images (s3_url, {}) values ('s3://x', {})",
    "video": "insert into mindia.videos ({}) values ({})",
    "audio": "insert into mindia.audios ({}) values ({})",
    "document": "insert into mindia.documents ({}) values ({})",
}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Item:
    """An item, with what it can be found by."""

    id: UUID
    kind: str
    filename: str
    content_type: str
    file_size: int
    metadata: dict[str, Any]
    uploaded_at: datetime
    words: Sequence[str]
    vectors: Sequence[NDArray[float32]]
    is_expired: bool = False

    def similarity(self, query: NDArray[float32]) -> float:
        return max(float(vector @ query) for vector in self.vectors) if self.vectors else -2.0


class FixedEmbedder:
    """Knows the vectors of some texts."""

    model_name = "fixed"
    native_dimensions = DIMENSIONS
    similarity_threshold = -1.0

    def __init__(self) -> None:
        self.vectors: dict[str, NDArray[float32]] = {}

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        return np.stack([self.vectors.get(text, one_at(0)) for text in texts])

    embed_queries = embed_documents


class Filled:
    """A library and what is in it."""

    def __init__(self, library: Library, items: list[Item]) -> None:
        self.library = library
        self.items = items

    def expected(self, query: np.ndarray[Any, Any], fits: Any, limit: int) -> list[Any]:
        found = [item for item in self.items if item.vectors and not item.is_expired and fits(item)]
        return [item.id for item in sorted(found, key=lambda item: -item.similarity(query))[:limit]]


def one_at(place: int) -> NDArray[float32]:
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[place % DIMENSIONS] = 1
    return vector


def some_vectors(rng: np.random.Generator, count: int) -> NDArray[float32]:
    """Vectors that vary in a few directions."""
    directions = np.random.default_rng(1).standard_normal((12, DIMENSIONS)).astype(np.float32)
    found = rng.standard_normal((count, 12)).astype(np.float32) @ directions
    unit: NDArray[float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def some_items(count: int, *, seed: int, passages: int = 1) -> list[Item]:
    """Items of all sorts; some have expired, some have no vector, some more than one."""
    rng, choose = np.random.default_rng(seed), random.Random(seed)
    items = []
    for number in range(count):
        kind = choose.choice(KINDS)
        items.append(
            Item(
                id=uuid7(),
                kind=kind,
                filename=choose.choice(("a/", "b/", "IMG_")) + f"{number}.bin",
                content_type=f"{kind}/{choose.choice(('x', 'y'))}",
                file_size=choose.randrange(1, 1000),
                metadata={"rating": choose.randrange(5), "place": choose.choice(("Lisbon", "Porto"))},
                uploaded_at=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=choose.randrange(1000)),
                words=choose.sample(WORDS, choose.randrange(4)),
                vectors=list(some_vectors(rng, choose.choice((0, 1, 1, passages)))),
                is_expired=choose.random() < 0.1,
            )
        )
    return items


def write(connection: psycopg.Connection[Any], tenant_id: UUID, items: Sequence[Item], *, space: int = 1) -> None:
    """Write items into a tenant, with the vectors of a model named `fixed`."""
    connection.execute(
        "insert into mindia.embedding_spaces (tenant_id, id, model_name, native_dimensions) "
        "values (%s, %s, 'fixed', 768) on conflict do nothing",
        (tenant_id, space),
    )
    columns = (
        "id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, uploaded_at, "
        "updated_at, expires_at"
    )
    values = "%(id)s, %(tenant_id)s, %(filename)s, 'x', 'k', %(content_type)s, %(file_size)s, sha256('x'), "
    values += "%(metadata)s::jsonb, %(uploaded_at)s, now(), case when %(is_expired)s then now() - interval '1 hour' end"
    with connection.cursor() as cursor:
        for kind in KINDS:
            rows = [_row(item, tenant_id) for item in items if item.kind == kind]
            if rows:
                cursor.executemany(_MEDIA[kind].format(columns, values).encode(), rows)
        cursor.executemany(
            b"insert into mindia.search_documents (tenant_id, entity_id, entity_type, title, metadata, tsv) values "
            b"(%(tenant_id)s, %(id)s, %(kind)s::mindia.entity_type, %(words)s, %(metadata)s::jsonb, "
            b"to_tsvector('english', %(words)s))",
            [_row(item, tenant_id) for item in items],
        )
        cursor.executemany(
            b"insert into mindia.embeddings (tenant_id, entity_id, entity_type, space_id, passage, locator, "
            b"description, embedding, model_name) "
            b"values (%s, %s, %s::mindia.entity_type, %s, %s, %s::jsonb, %s, %s::vector, 'fixed')",
            [
                (
                    tenant_id,
                    item.id,
                    item.kind,
                    space,
                    number,
                    f'{{"page": {number}}}' if number else None,
                    f"passage {number}",
                    Vector(vector).to_text(),
                )
                for item in items
                for number, vector in enumerate(item.vectors)
            ],
        )


def _row(item: Item, tenant_id: UUID) -> dict[str, Any]:
    import json

    return {
        "id": item.id,
        "tenant_id": tenant_id,
        "kind": item.kind,
        "filename": item.filename,
        "content_type": item.content_type,
        "file_size": item.file_size,
        "metadata": json.dumps(item.metadata),
        "uploaded_at": item.uploaded_at,
        "is_expired": item.is_expired,
        "words": " ".join(item.words),
    }
