"""Many items in one tenant, with their search texts, written straight into the tables."""

from __future__ import annotations

import random
from uuid import UUID

import psycopg
from benchmarks._server import Server
from psycopg import sql

from mindia import Tenant

_SPECIAL = {
    "image": ("s3_url, width, height", "'s3://bench/originals/' || id, 4032, 3024"),
    "video": ("duration, width, height", "61.5, 1920, 1080"),
    "audio": ("duration, bitrate, sample_rate, channels", "182.25, 192000, 44100, 2"),
    "document": ("page_count", "12"),
}

# The bits of a UUIDv7, from the time of the row and its number.
_ROWS = """
create temporary table items as
select n, mod(n, 4) as kind, moment,
       (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7' || substr(noise, 1, 3)
        || '8' || substr(noise, 4, 15))::uuid as id,
       jsonb_build_object('album', 'album ' || mod(n, 1000), 'camera', 'camera ' || mod(n, 7), 'rating',
                          mod(n, 5)) as metadata
from (select n, md5(n::text) as noise, now() - (%(items)s - n) * interval '1 second' as moment
      from generate_series(1, %(items)s) as n) as numbers
"""

_MEDIA = """
insert into mindia.{table} (id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256,
                            metadata, uploaded_at, updated_at, {columns})
select id, %(tenant_id)s, 'item_' || n || '.bin', 'item ' || n || '.bin', 'originals/' || id, {content_type},
       1000000 + n, sha256(n::text::bytea), metadata, moment, moment, {values}
from items where kind = %(kind)s
"""

_TEXTS = """
insert into mindia.search_documents (tenant_id, entity_id, entity_type, title, metadata, tsv, updated_at)
select %(tenant_id)s, id, (array['image', 'video', 'audio', 'document'])[kind + 1]::mindia.entity_type, 'item ' || n,
       metadata, setweight(to_tsvector('english', 'item ' || n || ' album ' || mod(n, 1000)), 'A'), moment
from items
"""


def fill(running: Server, tenant: Tenant, items: int, *, vacuum: bool = True) -> list[UUID]:
    """Write the items straight into the tables, and return some of their ids."""
    with psycopg.connect(running.url, autocommit=True) as connection:
        connection.execute("set maintenance_work_mem = '1GB'")
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(_ROWS, {"items": items})
            for kind, (name, (columns, values)) in enumerate(_SPECIAL.items()):
                query = sql.SQL(_MEDIA).format(
                    table=sql.Identifier(name + "s"),
                    columns=sql.SQL(columns),
                    values=sql.SQL(values),
                    content_type=sql.Literal(f"{name}/x-bench"),
                )
                cursor.execute(query, {"tenant_id": tenant.id, "kind": kind})
            cursor.execute(_TEXTS, {"tenant_id": tenant.id})
            cursor.execute("select id from items where mod(n, %s) = 0", [max(1, items // 1000)])
            ids = [row[0] for row in cursor.fetchall()]
            cursor.execute("drop table items")
            if vacuum:
                cursor.execute("vacuum (analyze)")
                cursor.execute("checkpoint")
    random.Random(1).shuffle(ids)
    return ids
