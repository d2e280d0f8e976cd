"""The source document, docs/schema.md and the migrated database say the same, element by element."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import psycopg
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "schema.md"

# What the source document makes, in its own words and order: the statements, without the prose between them.
DOCUMENT = """
CREATE TABLE tenants (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(255) NOT NULL,
    s3_bucket VARCHAR(255) NOT NULL UNIQUE,
    s3_region VARCHAR(50) NOT NULL,
    status tenant_status NOT NULL DEFAULT 'active',
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TYPE tenant_status AS ENUM ('active', 'suspended', 'deleted');
CREATE TABLE users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    email VARCHAR(255) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    role user_role NOT NULL DEFAULT 'member',
    is_active BOOLEAN NOT NULL DEFAULT true,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    last_login_at TIMESTAMPTZ
);
CREATE TYPE user_role AS ENUM ('admin', 'member', 'viewer');
CREATE INDEX idx_users_tenant ON users(tenant_id);
CREATE INDEX idx_users_email ON users(email);
CREATE TABLE images (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    filename VARCHAR(255) NOT NULL,
    original_filename VARCHAR(255) NOT NULL,
    s3_key VARCHAR(512) NOT NULL,
    s3_url TEXT NOT NULL,
    content_type VARCHAR(100) NOT NULL,
    file_size BIGINT NOT NULL,
    width INTEGER,
    height INTEGER,
    uploaded_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_images_tenant ON images(tenant_id, uploaded_at DESC);
CREATE TABLE videos (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    filename VARCHAR(255) NOT NULL,
    s3_key VARCHAR(512) NOT NULL,
    processing_status processing_status NOT NULL DEFAULT 'pending',
    hls_master_key VARCHAR(512),
    duration FLOAT,
    width INTEGER,
    height INTEGER,
    uploaded_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TYPE processing_status AS ENUM ('pending', 'processing', 'completed', 'failed');
CREATE TABLE audios (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    filename VARCHAR(255) NOT NULL,
    s3_key VARCHAR(512) NOT NULL,
    duration FLOAT,
    bitrate INTEGER,
    sample_rate INTEGER,
    channels INTEGER,
    uploaded_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TABLE documents (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    filename VARCHAR(255) NOT NULL,
    s3_key VARCHAR(512) NOT NULL,
    file_size BIGINT NOT NULL,
    uploaded_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TABLE embeddings (
    id SERIAL PRIMARY KEY,
    entity_id UUID NOT NULL,
    entity_type entity_type NOT NULL,
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    description TEXT NOT NULL,
    embedding vector(768) NOT NULL,
    model_name VARCHAR(100) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    UNIQUE(entity_id, entity_type)
);
CREATE TYPE entity_type AS ENUM ('image', 'video', 'audio', 'document');
CREATE INDEX idx_embeddings_vector ON embeddings USING ivfflat (embedding vector_cosine_ops);
CREATE TABLE request_logs (
    id BIGSERIAL PRIMARY KEY,
    tenant_id UUID REFERENCES tenants(id),
    method VARCHAR(10) NOT NULL,
    path VARCHAR(512) NOT NULL,
    status_code INTEGER NOT NULL,
    response_time_ms INTEGER NOT NULL,
    bytes_sent BIGINT,
    bytes_received BIGINT,
    ip_address VARCHAR(45),
    user_agent TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_request_logs_tenant ON request_logs(tenant_id, created_at DESC);
CREATE TABLE webhooks (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL REFERENCES tenants(id),
    url VARCHAR(512) NOT NULL,
    events TEXT[] NOT NULL,
    signing_secret VARCHAR(255),
    is_active BOOLEAN NOT NULL DEFAULT true,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TABLE webhook_events (
    id BIGSERIAL PRIMARY KEY,
    webhook_id UUID NOT NULL REFERENCES webhooks(id),
    event_type VARCHAR(100) NOT NULL,
    payload JSONB NOT NULL,
    delivery_status delivery_status NOT NULL DEFAULT 'pending',
    retry_count INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TYPE delivery_status AS ENUM ('pending', 'delivered', 'failed');
CREATE TABLE tasks (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID REFERENCES tenants(id),
    task_type task_type NOT NULL,
    payload JSONB NOT NULL,
    status task_status NOT NULL DEFAULT 'pending',
    priority INTEGER NOT NULL DEFAULT 0,
    retry_count INTEGER NOT NULL DEFAULT 0,
    max_retries INTEGER NOT NULL DEFAULT 3,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    scheduled_for TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    error_message TEXT
);
CREATE TYPE task_type AS ENUM ('video_transcode', 'generate_embedding');
CREATE TYPE task_status AS ENUM ('pending', 'running', 'completed', 'failed');
CREATE INDEX idx_images_tenant_created ON images(tenant_id, created_at DESC);
CREATE INDEX idx_videos_tenant_created ON videos(tenant_id, created_at DESC);
CREATE INDEX idx_embeddings_tenant ON embeddings(tenant_id);
CREATE INDEX idx_embeddings_entity ON embeddings(entity_id, entity_type);
CREATE INDEX idx_request_logs_path ON request_logs(path, created_at DESC);
CREATE INDEX idx_request_logs_status ON request_logs(status_code, created_at DESC);
CREATE INDEX idx_tasks_status ON tasks(status, scheduled_for);
"""

# What stands under "Differences" in docs/schema.md, with what is in the database instead; None where nothing is.
DIFFERENCES: dict[str, str | None] = {
    "embeddings.id": "bigserial not null",
    "embeddings.embedding": "vector(768) not null storage plain",
    "embeddings_passage_key": "unique (tenant_id, entity_id, space_id, passage)",
    "idx_embeddings_vector": None,
    "idx_embeddings_tenant": "(tenant_id, space_id)",
    "idx_embeddings_entity": None,
    "idx_images_tenant": "(tenant_id, uploaded_at desc, id desc)",
    "idx_images_tenant_created": None,
    "idx_videos_tenant_created": "(tenant_id, uploaded_at desc, id desc)",
    "request_logs.tenant_id": "references nothing",
    "idx_request_logs_path": None,
    "idx_request_logs_status": None,
    "idx_tasks_status": "(kind, priority, scheduled_for, id) where status = 'pending' and waiting_on = 0",
    "tasks.tenant_id": "references nothing",
    "task_type": "video_transcode, generate_embedding, custom",
    "task_status": "pending, running, completed, failed, cancelled",
    "webhook_events.webhook_id": "references webhooks (id) on delete cascade",
}


@attrs.frozen
class Schema:
    """A schema as words that can be compared: in small letters, types by their common names.

    Attributes:
        columns: By table and column: type, whether it may be null, default, storage where it is not the type's own.
        references: By table and column, of a single column.
        constraints: Primary and unique keys and checks, by name.
        indexes: By name, the columns and all that follows; unless a key has made them.
        labels: By type.
    """

    columns: dict[str, str] = attrs.field(factory=dict)
    references: dict[str, str] = attrs.field(factory=dict)
    constraints: dict[str, str] = attrs.field(factory=dict)
    indexes: dict[str, str] = attrs.field(factory=dict)
    labels: dict[str, str] = attrs.field(factory=dict)

    def tables(self) -> set[str]:
        return {column.split(".")[0] for column in self.columns}

    def columns_of(self, table: str) -> list[str]:
        return [column.split(".")[1] for column in self.columns if column.startswith(f"{table}.")]


def words(text: str) -> str:
    """Return an expression so that it reads the same however it was written down."""
    text = re.sub(r"::[\w.]+(\[\])?", "", text.lower().replace("mindia.", ""))
    text = re.sub(r"= any \(array\[(.*?)\]\)", r"in (\1)", text)
    return re.sub(r"[()\s]+", " ", text).replace(" ,", ",").strip()


def common_type(name: str) -> str:
    name = re.sub(r".*\.", "", name.lower())
    for spelling, common in (
        ("character varying", "varchar"),
        ("timestamp with time zone", "timestamptz"),
        ("float", "double precision"),
    ):
        name = name.replace(spelling, common)
    return name


def of_document() -> Schema:
    schema = Schema()
    for statement in filter(str.strip, DOCUMENT.split(";\n")):
        if match := re.search(r"CREATE TYPE (\w+) AS ENUM \((.*)\)", statement):
            schema.labels[match[1]] = match[2].replace("'", "")
        elif match := re.search(r"CREATE INDEX (\w+) ON \w+\s*(.*)", statement):
            schema.indexes[match[1]] = words(match[2])
        elif match := re.search(r"CREATE TABLE (\w+) \((.*)\n\)", statement, re.DOTALL):
            for line in match[2].strip().split(",\n"):
                _read_line(schema, match[1], line.strip())
    return schema


def _read_line(schema: Schema, table: str, line: str) -> None:
    if line.startswith("UNIQUE"):
        schema.constraints["embeddings_passage_key"] = words(line)  # the only one, and its name is ours
        return
    match = re.match(r"(\w+) ([\w()\[\]]+)(.*)", line)
    assert match, line
    column, kind, rest = match[1], common_type(match[2]), match[3]
    null = " not null" if "NOT NULL" in rest or "PRIMARY KEY" in rest else ""
    default = re.search(r"DEFAULT (\S+)", rest)
    schema.columns[f"{table}.{column}"] = kind + null + (f" default {default[1].lower()}" if default else "")
    if "PRIMARY KEY" in rest:
        schema.constraints[f"{table}_pkey"] = words(f"primary key ({column})")
    if "UNIQUE" in rest:
        schema.constraints[f"{table}_{column}_key"] = words(f"unique ({column})")
    if referenced := re.search(r"REFERENCES (\w+)\((\w+)\)", rest):
        schema.references[f"{table}.{column}"] = words(f"references {referenced[1]} ({referenced[2]})")


def of_database(connection: psycopg.Connection[tuple[str, ...]]) -> Schema:
    """Read the catalogue, with a search_path that has every name written in full."""
    connection.execute("set search_path = ''")
    schema = Schema()
    for table, column, kind, null, default, storage in connection.execute(
        """
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), case when a.attnotnull then ' not null' end,
               case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid)
                    else replace(pg_get_expr(d.adbin, d.adrelid), '(email)::text', 'email') end,
               case when a.attstorage <> t.typstorage then a.attstorage end
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = 'mindia'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
        order by c.relname, a.attnum
        """
    ):
        name, value = common_type(kind), f" default {re.sub('::.*', '', default)}" if default else ""
        if default and default.startswith("nextval"):
            name, value = {"bigint": "bigserial", "integer": "serial"}[name], ""
        plain = " storage plain" if storage == "p" else ""
        schema.columns[f"{table}.{column}"] = name + (null or "") + value + plain
    for table, name, kind, columns, definition in connection.execute(
        """
        select c.relname, k.conname, k.contype::text,
               array(select a.attname::text from pg_attribute a
                     where a.attrelid = k.conrelid and a.attnum = any(k.conkey)),
               pg_get_constraintdef(k.oid)
        from pg_constraint k join pg_class c on c.oid = k.conrelid
        where k.connamespace = 'mindia'::regnamespace and k.contype <> 'n' and c.relkind = 'r'
        """
    ):
        schema.constraints[name] = words(definition)
        if kind == "f" and len(columns) == 1:
            schema.references[f"{table}.{columns[0]}"] = words(definition[definition.index("REFERENCES") :])
    for name, definition in connection.execute(
        """
        select i.indexname, i.indexdef from pg_indexes i
        where i.schemaname = 'mindia' and not exists (
            select from pg_constraint k where k.conname = i.indexname and k.connamespace = 'mindia'::regnamespace
        )
        """
    ):
        unique = "unique " if definition.startswith("CREATE UNIQUE") else ""
        schema.indexes[name] = unique + words(definition.partition(" USING ")[2].removeprefix("btree "))
    for name, labels in connection.execute(
        """
        select t.typname, string_agg(e.enumlabel, ', ' order by e.enumsortorder)
        from pg_enum e join pg_type t on t.oid = e.enumtypid
        where t.typnamespace = 'mindia'::regnamespace group by t.typname
        """
    ):
        schema.labels[name] = labels
    return schema


def of_docs() -> tuple[Schema, dict[str, str]]:
    """Read docs/schema.md: the schema that it tells, and where each column comes from."""
    schema, origins = Schema(), {}
    text = DOCS.read_text("utf-8")
    for name, labels in re.findall(r"^\| `(\w+)` \| (`\w+`(?:, `\w+`)*) \| \w+ \|$", text, re.MULTILINE):
        schema.labels[name] = labels.replace("`", "")
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        table = section.split("\n")[0].strip()
        for column, kind, default, origin in re.findall(
            r"^\| `(\w+)` \| ([^|]+) \| ([^|]*?) ?\| (document|added|reserved) \|", section, re.MULTILINE
        ):
            value = f" default {default.strip('`')}" if default else ""
            schema.columns[f"{table}.{column}"] = kind + value
            origins[f"{table}.{column}"] = origin
        for name, unique, definition in re.findall(r"^\| `(\w+)` \| (unique )?`([^`]+)` \|$", section, re.MULTILINE):
            is_index = definition.startswith(("(", "brin", "gin"))
            (schema.indexes if is_index else schema.constraints)[name] = (unique or "") + words(definition)
    return schema, origins


@pytest.fixture(scope="module")
def document() -> Schema:
    return of_document()


@pytest.fixture(scope="module")
def real(database_url: str) -> Schema:
    with psycopg.connect(database_url) as connection:
        return of_database(connection)


def test_the_document_is_read_whole(document: Schema) -> None:
    assert len(document.tables()) == DOCUMENT.count("CREATE TABLE") == 11
    assert len(document.labels) == DOCUMENT.count("CREATE TYPE") == 7
    assert len(document.indexes) == DOCUMENT.count("CREATE INDEX") == 12
    assert len(document.references) == DOCUMENT.count("REFERENCES") == 10
    assert len(document.constraints) == DOCUMENT.count("PRIMARY KEY") + DOCUMENT.count("UNIQUE") == 13
    assert len(document.columns) == len(re.findall(r"^    [a-z]", DOCUMENT, re.MULTILINE))


@pytest.mark.parametrize("what", ["columns", "references", "constraints", "indexes", "labels"])
def test_what_the_document_has_is_there_or_is_a_difference_that_is_told(
    document: Schema, real: Schema, what: str
) -> None:
    wanted: dict[str, str] = getattr(document, what)
    found: dict[str, str] = getattr(real, what)
    different = {element for element in wanted if found.get(element) != wanted[element]}

    assert different == {element for element in wanted if element in DIFFERENCES and _is_of(what, element)}
    for element in different:
        told = None if DIFFERENCES[element] == "references nothing" else DIFFERENCES[element]
        assert found.get(element) == (told if told is None or what in ("columns", "labels") else words(told))


def _is_of(what: str, element: str) -> bool:
    """Tell whether a difference is one of columns, or one of references: both go by the column."""
    is_reference = (DIFFERENCES[element] or "").startswith("references")
    return is_reference if what == "references" else not is_reference


def test_each_difference_stands_in_the_docs_with_its_reason() -> None:
    section = DOCS.read_text("utf-8").split("\n## Differences\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "| `" in line]

    assert {row[0].strip("`| ") for row in rows} == set(DIFFERENCES)
    for element, there, here, reason in rows:
        assert there
        assert (here == "not there") == (DIFFERENCES[element.strip("`| ")] is None)
        assert len(reason) > 20


def test_every_element_is_in_the_docs_as_it_is_in_the_database(real: Schema) -> None:
    docs, _ = of_docs()

    told = {column: kind.removesuffix(" storage plain") for column, kind in real.columns.items()}
    assert docs.columns == told
    assert docs.constraints == real.constraints
    assert docs.indexes == real.indexes
    assert docs.labels == real.labels


def test_the_docs_say_of_each_column_whether_it_is_the_documents(document: Schema) -> None:
    _, origins = of_docs()

    assert {column for column, origin in origins.items() if origin == "document"} == set(document.columns)


def test_columns_stand_in_the_docs_in_the_order_of_the_table(real: Schema) -> None:
    docs, _ = of_docs()

    for table in real.tables():
        assert docs.columns_of(table) == real.columns_of(table)


def test_the_views_and_the_functions_are_in_the_docs(database_url: str) -> None:
    text = DOCS.read_text("utf-8")
    with psycopg.connect(database_url) as connection:
        others = connection.execute(
            """
            select relname::text from pg_class
            where relnamespace = 'mindia'::regnamespace and relkind not in ('r', 'i', 'S')
            union all select proname::text from pg_proc where pronamespace = 'mindia'::regnamespace
            """
        ).fetchall()

    assert {name for (name,) in others} == {
        "all_media", "media", "set_tenant", "set_initiator", "enter", "enqueue", "take_staged", "use_quota",
        "find_api_key", "search_words", "items_with_metadata", "nearest_by_index", "grant_role", "grant_roles",
    }  # fmt: skip
    for (name,) in others:
        assert re.search(rf"^`{name}\b", text, re.MULTILINE)


def test_the_arguments_of_functions_are_in_the_docs(database_url: str) -> None:
    text = " ".join(DOCS.read_text("utf-8").split())
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = 'mindia'")
        functions = connection.execute(
            "select proname::text, pg_get_function_identity_arguments(oid) from pg_proc "
            "where pronamespace = 'mindia'::regnamespace"
        ).fetchall()

    for name, arguments in functions:
        assert f" `{name}({arguments})` " in text


def test_row_security_and_policies_are_as_in_the_docs(database_url: str, real: Schema) -> None:
    section = DOCS.read_text("utf-8").split("\n## Row-level security\n")[1]
    (expression,) = re.findall(r"^```sql\n(.*)\n```", section, re.MULTILINE)
    with psycopg.connect(database_url) as connection:
        secured = connection.execute(
            "select relname::text, relforcerowsecurity from pg_class "
            "where relnamespace = 'mindia'::regnamespace and relrowsecurity"
        ).fetchall()
        policies = connection.execute(
            "select tablename::text, policyname::text, roles::text, cmd, qual, with_check from pg_policies "
            "where schemaname = 'mindia' and policyname <> 'across_tenants'"
        ).fetchall()

    of_tenants = {column.split(".")[0] for column in real.columns if column.endswith(".tenant_id")} | {"tenants"}
    assert dict(secured) == dict.fromkeys(of_tenants, False)  # the owner is not held
    without = section.split("\nWithout row security are ")[1].split(":")[0]
    assert set(re.findall(r"`(\w+)`", without)) == real.tables() - of_tenants
    for table, name, roles, command, using, check in policies:
        wanted = words(expression if table != "tenants" else expression.removeprefix("tenant_"))
        assert (name, roles, command, words(using)) == ("tenant_isolation", "{public}", "ALL", wanted), table
        assert check is None or words(check) == wanted
        assert (check is None) == (table == "tenants")
    assert {table for table, *_ in policies} == of_tenants
