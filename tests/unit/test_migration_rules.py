"""Every migration keeps the rules that let the schema share a host's database and spread over a cluster.

Each rule is a function from the statements of one file to complaints, and has snippets that it must complain about: a
rule that cannot fail keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mindia.db
from mindia.db.migrator import Migration, migrations

FOLDER = Path(mindia.db.__file__).parent / "migrations"

Rule = Callable[[list[str]], Iterator[str]]
RULES: dict[str, Rule] = {}

MEDIA_TABLES = ("images", "videos", "audios", "documents")

# Their rows are claimed in one place and stay together on a cluster, so that keys and references need no tenant.
QUEUE_TABLES = ("tasks", "webhooks", "webhook_events", "webhook_attempts")

KEYS_WITHOUT_TENANT_FIRST = {
    **dict.fromkeys(
        (
            "users_pkey", "images_pkey", "videos_pkey", "audios_pkey", "documents_pkey", "embeddings_pkey",
            "request_logs_pkey", "webhooks_pkey", "webhook_events_pkey", "tasks_pkey",
        ),
        "the source document's own primary key",
    ),
    "task_dependencies_pkey": "of the queue: goes by its task, which is looked up by its id",
    "task_errors_pkey": "of the queue: goes by its task, which is looked up by its id",
    "webhook_events_event_key": "of a queue table: an event goes to each endpoint once",
    "api_keys_prefix_key": "a key is looked up before it is known whose it is; few rows, on one node of a cluster",
}  # fmt: skip

BUILT_IN_TYPES = {
    "bigint", "bigserial", "boolean", "bytea", "double", "integer", "jsonb", "real", "smallint", "text",
    "timestamptz", "tsvector", "uuid", "varchar",
}  # fmt: skip


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


# What a statement is taken apart with.


def split(source: str) -> list[str]:
    """Return the statements of a file: small letters, without comments, without what stands in quotes."""
    source = source.replace("{vector}", "vector_schema")
    pieces = re.split(r"(\$\$.*?\$\$)", re.sub(r"--[^\n]*", "", source), flags=re.DOTALL)
    plain = [piece if piece.startswith("$$") else re.sub(r"'(?:[^']|'')*'", "''", piece) for piece in pieces]
    found, current = [], ""
    for piece in plain:
        first, *rest = [piece] if piece.startswith("$$") else piece.split(";")
        current += first
        for following in rest:
            found.append(current)
            current = following
    return [" ".join(statement.lower().split()) for statement in [*found, current] if statement.strip()]


def top_level(text: str) -> list[str]:
    """Split at the commas that stand in no parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def inside(text: str) -> str:
    """Return what stands in the first parentheses."""
    start = text.index("(") + 1
    depth = 1
    for place, character in enumerate(text[start:], start):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[start:place]
    raise ValueError(text)


def tables(statements: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the tables that are created: name without schema, and columns and constraints."""
    for statement in statements:
        if match := re.match(r"create table (?:if not exists )?(?:\w+\.)?(\w+)", statement):
            yield match[1], top_level(inside(statement))


def column_definitions(statements: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the columns that are made: table, name, and the rest of the definition."""
    for table, items in tables(statements):
        for item in items:
            if not re.match(r"(constraint|primary|unique|foreign|check|exclude|like)\b", item):
                name, _, definition = item.partition(" ")
                yield table, name, definition
    for statement in statements:
        if match := re.match(r"alter table (?:only )?(?:\w+\.)?(\w+) ", statement):
            for column in re.finditer(r"add column (?:if not exists )?(\w+) ([^,]+)", statement):
                yield match[1], column[1], column[2]


def constraint_definitions(statements: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what makes a constraint: the table, and the definition from `constraint` on where it is named."""
    word = r"\b(?:primary key|unique|references|foreign key|check|exclude)\b"
    for table, items in tables(statements):
        for item in items:
            if re.search(word, item):
                named = item.find("constraint ")
                yield table, item[named:] if named >= 0 else item
    for statement in statements:
        if match := re.match(r"alter table (?:only )?(?:\w+\.)?(\w+) ", statement):
            for action in top_level(statement[match.end() :]):
                if re.match("add ", action) and re.search(word, action):
                    named = action.find("constraint ")
                    yield match[1], action[named:] if named >= 0 else action


def unique_indexes(statements: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield unique indexes: table, name, key."""
    pattern = r"create unique index (?:concurrently )?(?:if not exists )?(\w+) on (?:only )?(?:\w+\.)?(\w+)"
    for statement in statements:
        if match := re.match(pattern, statement):
            yield match[2], match[1], top_level(inside(statement))


def keys_of_tenants_rows(statements: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield name and columns of what is unique in tables whose rows belong to a tenant."""
    keys = list(unique_indexes(statements))
    for table, definition in constraint_definitions(statements):
        if match := re.match(r"constraint (\w+) (?:primary key|unique)(?: nulls not distinct)? \(", definition):
            keys.append((table, match[1], top_level(inside(definition))))
        elif re.search(r"\b(primary key|unique)\b(?! \()", definition):
            keys.append((table, definition[:60], ["one column"]))
    of_tenants = owned(statements)
    for table, name, key in keys:
        if table in of_tenants:
            yield name, key


def owned(statements: list[str]) -> set[str]:
    """Return the tables whose rows belong to a tenant: of all migrations, and of these statements."""
    history = [statement for migration in migrations() for statement in split(migration.source)]
    return {table for table, column, _ in column_definitions(history + statements) if column == "tenant_id"}


# The rules.


@rule
def names_are_qualified(statements: list[str]) -> Iterator[str]:
    """A host's search_path is not ours to rely on, nor to change."""
    made = (
        r"(?:create|alter|drop) (?:or replace )?(?:unique )?"
        r"(?P<what>table|type|view|materialized view|function|sequence|index|policy)\s"
        r"(?:concurrently )?(?:if (?:not )?exists )?(?:only )?(?P<name>[\w.\"]+)(?P<rest>.*)"
    )
    for statement in statements:
        match = re.match(made, statement, re.DOTALL)
        if match and match["what"] in ("index", "policy") and not statement.startswith(("drop index", "alter index")):
            target = re.search(r"\bon (?:only )?([\w.\"]+)", match["rest"])
            named = target[1] if target else ""
        elif match:
            named = match["name"]
        elif re.match(r"(insert into|update|delete from|select|with|grant|revoke|comment on|do|reindex) ?", statement):
            named = "mindia."  # what they name is looked at below
        else:
            yield f"this test cannot judge: {statement[:80]}"
            continue
        if not named.startswith("mindia."):
            yield f"{named or 'a name'} is not qualified with mindia.: {statement[:80]}"
        ctes = set(re.findall(r"(\w+) as (?:not )?(?:materialized )?\(", statement))
        for word, name in re.findall(
            r"\b(?<!for )(?<!do )(?<!on )(references|insert into|from|join|update|grant [\w, ]+ on(?: table)?)"
            r"\s+(?:only )?(?!select\b|set\b|schema mindia\b|all \w+ in schema mindia\b)([\w.\"]+)(?!\s*\(\))",
            statement,
        ):
            is_function = word in ("from", "join") and re.search(rf"\b{word}\s+{re.escape(name)}\(", statement)
            if not name.startswith(("mindia.", "pg_catalog.")) and name not in ctes and not is_function:
                yield f"{word} {name} is not qualified with mindia.: {statement[:80]}"


@rule
def types_are_built_in_or_qualified(statements: list[str]) -> Iterator[str]:
    for table, column, definition in column_definitions(statements):
        named = re.split(r"[\s(\[]", definition)[0]
        if named not in BUILT_IN_TYPES and not named.startswith(("mindia.", "vector_schema.")):
            yield f"{table}.{column} has the type {named}"


@rule
def there_is_no_trigger(statements: list[str]) -> Iterator[str]:
    """A distributed table refuses triggers, and nothing may depend on them for being right."""
    for statement in statements:
        if re.match(r"create (or replace )?(constraint |event )?(trigger|rule)\b|.*\breturns trigger\b", statement):
            yield statement[:80]


@rule
def there_is_no_regconfig_column(statements: list[str]) -> Iterator[str]:
    """Its values are object ids, which differ from one database to the next."""
    for table, column, definition in column_definitions(statements):
        if definition.split(" ")[0].removeprefix("pg_catalog.").startswith("reg"):
            yield f"{table}.{column} {definition}"


@rule
def an_alter_adds_one_constraint(statements: list[str]) -> Iterator[str]:
    for statement in statements:
        if statement.startswith("alter table") and len(re.findall(r"\badd constraint\b", statement)) > 1:
            yield statement[:80]


@rule
def nothing_references_a_media_table(statements: list[str]) -> Iterator[str]:
    """Rows of four tables share one kind of id; on a cluster the tables are distributed by another key than `id`."""
    for table, definition in constraint_definitions(statements):
        if match := re.search(rf"references (?:\w+\.)?({'|'.join(MEDIA_TABLES)})\b", definition):
            yield f"{table} references {match[1]}"


@rule
def a_label_is_added_alone_in_its_file(statements: list[str]) -> Iterator[str]:
    """A label cannot be used in the transaction that adds it."""
    if len(statements) > 1:
        for statement in statements:
            if re.match(r"alter type .* add value\b", statement):
                yield statement


@rule
def constraints_are_named(statements: list[str]) -> Iterator[str]:
    """By a name of ours a violation is recognised, conflict targets are found, and later migrations change it."""
    suffixes = {"primary key": "_pkey", "unique": "_key", "foreign key": "_fkey", "references": "_fkey"}
    for table, definition in constraint_definitions(statements):
        match = re.match(r"constraint (\w+) (primary key|unique|foreign key|references|check|exclude)\b", definition)
        if not match:
            yield f"{table}: {definition[:80]} has no name"
            continue
        suffix = suffixes.get(match[2], f"_{match[2]}")
        if not (match[1].startswith(f"{table}_") and match[1].endswith(suffix)):
            yield f"{match[1]} should be named {table}_…{suffix}"


@rule
def indexes_are_named(statements: list[str]) -> Iterator[str]:
    for statement in statements:
        pattern = r"create (unique )?index (?:concurrently )?(?:if not exists )?(\w+) on (?:only )?(?:\w+\.)?(\w+)"
        match = re.match(pattern, statement)
        if not match:
            if re.match(r"create (unique )?index", statement):
                yield f"an index has no name: {statement[:80]}"
            continue
        unique, name, table = match.groups()
        if not (name.startswith(f"{table}_") and name.endswith("_key") if unique else name.startswith(f"idx_{table}_")):
            yield f"{name} should be named {table + '_…_key' if unique else 'idx_' + table + '_…'}"


@rule
def keys_begin_with_the_tenant(statements: list[str]) -> Iterator[str]:
    """A distributed table's unique values are unique within a tenant."""
    for name, key in keys_of_tenants_rows(statements):
        if key[0] != "tenant_id" and name not in KEYS_WITHOUT_TENANT_FIRST:
            yield f"{name} ({', '.join(key)})"


@rule
def references_between_tenants_rows_carry_the_tenant(statements: list[str]) -> Iterator[str]:
    of_tenants = owned(statements)
    for table, definition in constraint_definitions(statements):
        match = re.search(r"references (?:\w+\.)?(\w+)", definition)
        if not match or match[1] not in of_tenants or match[1] in QUEUE_TABLES:
            continue
        if "foreign key (tenant_id" not in definition:
            yield f"{table}: {definition[:80]}"


@rule
def vectors_are_stored_plain(statements: list[str]) -> Iterator[str]:
    """Out of line an exact search takes twice the time; changed later, old rows stay where they are."""
    for table, column, definition in column_definitions(statements):
        if re.match(r"(\w+\.)?(vector|halfvec|sparsevec)\b", definition) and "storage plain" not in definition:
            yield f"{table}.{column} {definition}"


@rule
def numbers_do_not_run_out(statements: list[str]) -> Iterator[str]:
    for table, column, definition in column_definitions(statements):
        if re.match(r"(smallserial|serial|serial[24])\b", definition):
            yield f"{table}.{column} {definition}: use bigserial"


@rule
def times_have_a_zone(statements: list[str]) -> Iterator[str]:
    for table, column, definition in column_definitions(statements):
        if re.match(r"timestamp\b|time\b|date\b", definition):
            yield f"{table}.{column} {definition}: use timestamptz"


@rule
def policies_compare_directly(statements: list[str]) -> Iterator[str]:
    """A distributed table refuses a policy with a subquery, and the plain form plans better."""
    for statement in statements:
        if re.match(r"(create|alter) policy\b.*\bselect\b", statement):
            yield statement[:80]


@rule
def transactions_are_the_runners(statements: list[str]) -> Iterator[str]:
    for statement in statements:
        if re.match(r"(begin|start transaction|commit|end|rollback|savepoint)\b", statement):
            yield statement


BAD: list[tuple[str, str]] = [
    ("names_are_qualified", "create table things (a integer);"),
    ("names_are_qualified", "create table public.things (a integer);"),
    ("names_are_qualified", "create type mood as enum ('good');"),
    ("names_are_qualified", "create index idx_images_a on images (a);"),
    ("names_are_qualified", "alter table if exists images add column a integer;"),
    ("names_are_qualified", "drop index concurrently if exists idx_images_a;"),
    ("names_are_qualified", "create view mindia.few as select 1 from images;"),
    ("names_are_qualified", "create view mindia.few as select 1 from mindia.images join videos using (id);"),
    ("names_are_qualified", "update images set filename = 'a' where filename = 'mindia.';"),
    ("names_are_qualified", "insert into images select * from mindia.images;"),
    ("names_are_qualified", "grant select on images to somebody;"),
    ("names_are_qualified", "grant select on all tables in schema public to somebody;"),
    ("names_are_qualified", "grant usage on schema public to somebody;"),
    ("names_are_qualified", "create view mindia.few as select 1 from pg_roles;"),
    ("names_are_qualified", "create table mindia.a (b uuid constraint a_b_fkey references tenants (id));"),
    (
        "names_are_qualified",
        "create function mindia.f() returns void language sql as $$ delete from images; select 1 $$;",
    ),
    ("names_are_qualified", "create extension pg_trgm;"),
    ("types_are_built_in_or_qualified", "create table mindia.a (b tenant_status);"),
    ("types_are_built_in_or_qualified", "create table mindia.a (b vector(768) storage plain);"),
    ("types_are_built_in_or_qualified", "alter table mindia.images add column b citext;"),
    ("there_is_no_trigger", "create trigger t before insert on mindia.images execute function mindia.f();"),
    ("there_is_no_trigger", "create function mindia.f() returns trigger language plpgsql as $$ begin end $$;"),
    ("there_is_no_regconfig_column", "create table mindia.a (language regconfig not null);"),
    ("there_is_no_regconfig_column", "alter table mindia.images add column language regconfig;"),
    (
        "an_alter_adds_one_constraint",
        "alter table mindia.a add constraint a_b_check check (b > 0), add constraint a_c_check check (c > 0);",
    ),
    *(
        ("nothing_references_a_media_table", f"create table mindia.a (b uuid references mindia.{table} (id));")
        for table in MEDIA_TABLES
    ),
    (
        "nothing_references_a_media_table",
        "alter table mindia.a add constraint a_b_fkey foreign key (tenant_id, b) references mindia.images (id);",
    ),
    (
        "a_label_is_added_alone_in_its_file",
        "alter type mindia.task_type add value 'other'; update mindia.tasks set task_type = 'other';",
    ),
    ("constraints_are_named", "create table mindia.a (b uuid primary key);"),
    ("constraints_are_named", "create table mindia.a (b uuid, primary key (b));"),
    ("constraints_are_named", "create table mindia.a (b text unique);"),
    ("constraints_are_named", "create table mindia.a (b uuid references mindia.tenants (id));"),
    ("constraints_are_named", "create table mindia.a (b integer, check (b > 0));"),
    ("constraints_are_named", "alter table mindia.a add primary key (b);"),
    ("constraints_are_named", "alter table mindia.a add column b integer check (b > 0);"),
    ("constraints_are_named", "create table mindia.a (b uuid, constraint key_of_a primary key (b));"),
    ("constraints_are_named", "create table mindia.a (b uuid, constraint a_b_unique unique (b));"),
    ("indexes_are_named", "create index on mindia.images (filename);"),
    ("indexes_are_named", "create index images_filename on mindia.images (filename);"),
    ("indexes_are_named", "create unique index concurrently idx_images_filename on mindia.images (filename);"),
    (
        "keys_begin_with_the_tenant",
        "create table mindia.a (tenant_id uuid, b uuid, constraint a_pkey primary key (b));",
    ),
    ("keys_begin_with_the_tenant", "create table mindia.a (tenant_id uuid, b uuid constraint a_pkey primary key);"),
    (
        "keys_begin_with_the_tenant",
        "create table mindia.a (tenant_id uuid, b uuid, constraint a_b_key unique (b, tenant_id));",
    ),
    ("keys_begin_with_the_tenant", "alter table mindia.images add constraint images_b_key unique (s3_key);"),
    ("keys_begin_with_the_tenant", "create unique index images_s3_key_key on mindia.images (s3_key);"),
    (
        "references_between_tenants_rows_carry_the_tenant",
        "create table mindia.a (tenant_id uuid, b uuid constraint a_b_fkey references mindia.users (id));",
    ),
    (
        "references_between_tenants_rows_carry_the_tenant",
        "alter table mindia.a add constraint a_b_fkey foreign key (b) references mindia.search_documents (entity_id);",
    ),
    ("vectors_are_stored_plain", "create table mindia.a (b {vector}.vector(768) not null);"),
    ("vectors_are_stored_plain", "alter table mindia.embeddings add column b {vector}.halfvec(768);"),
    ("numbers_do_not_run_out", "create table mindia.a (id serial);"),
    ("numbers_do_not_run_out", "create table mindia.a (id smallserial not null);"),
    ("times_have_a_zone", "create table mindia.a (made_at timestamp not null);"),
    ("times_have_a_zone", "alter table mindia.images add column taken_on date;"),
    ("policies_compare_directly", "create policy p on mindia.images using (tenant_id = (select mindia.tenant()));"),
    ("transactions_are_the_runners", "begin; create table mindia.a (b integer); commit;"),
]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("migration", migrations(), ids=str)
def test_a_migration_keeps_the_rules(migration: Migration, name: str) -> None:
    assert list(RULES[name](split(migration.source))) == []


@pytest.mark.parametrize(("name", "snippet"), BAD)
def test_a_rule_notices_what_breaks_it(name: str, snippet: str) -> None:
    assert list(RULES[name](split(snippet)))


def test_every_rule_can_fail() -> None:
    assert {name for name, _ in BAD} == set(RULES)


@pytest.mark.parametrize(
    "statement",
    [
        "create table mindia.a (tenant_id uuid not null, id uuid not null, amount double precision default (1 + 2), "
        "constraint a_pkey primary key (tenant_id, id), constraint a_amount_check check (amount in (1, 2)))",
        "create index concurrently idx_images_a on mindia.images (a) where a = 'create trigger; begin'",
        "update mindia.images set updated_at = now() where id in (select id from mindia.images for update skip locked)",
        "with old as (select id from mindia.images) select count(*) from old, generate_series(1, 2)",
        "create function mindia.f() returns void language plpgsql as $$ begin perform 1 from mindia.tenants; end $$",
        "create policy a on mindia.images using (tenant_id = nullif(current_setting('a', true), '')::uuid)",
        "alter type mindia.task_type add value 'other'",
    ],
)
def test_the_rules_leave_what_is_right_alone(statement: str) -> None:
    assert [complaint for check in RULES.values() for complaint in check(split(statement))] == []


def test_the_exceptions_to_the_keys_are_all_needed() -> None:
    statements = [statement for migration in migrations() for statement in split(migration.source)]

    exceptions = {name for name, key in keys_of_tenants_rows(statements) if key[0] != "tenant_id"}
    assert exceptions == set(KEYS_WITHOUT_TENANT_FIRST)


def test_nothing_of_a_migration_escapes_the_reading() -> None:
    source = "\n".join(migration.source for migration in migrations())
    statements = split(source)

    assert len(list(tables(statements))) == len(re.findall(r"^create table ", source, re.MULTILINE))
    assert len(list(unique_indexes(statements))) == len(re.findall(r"^create unique index ", source, re.MULTILINE))
    assert len(list(constraint_definitions(statements))) == len(
        re.findall(r"^\s+constraint |\badd constraint ", source, re.MULTILINE)
    )
    assert {"images", "tasks", "webhook_attempts"} <= owned([])


LANDED = (
    "ce0ddf071a5c30e8",
    "94e0d1b2cd290e21",
    "e1e5276ffd70ae8e",
    "4636bf87ca6b4cfd",
    "9f07d4416409b191",
    "f40df1b31487041e",
    "1d32c9162382fb03",
    "185c9ebab8d5920f",
    "640938d6b4decebc",
    "d7fbabe41a11cd20",
    "051208b65717ca76",
    "596b8160478154cc",
    "18bc257045c5f189",
    "6aabccd039005f2a",
    "d14b6b69cec8c943",
)
"""The checksums of the files that are in databases already, in their order; a new file is added when it lands."""


def test_a_file_that_is_in_databases_already_stays_as_it_is() -> None:
    """Databases that have it would be refused as those of another version."""
    found = [migration.checksum[:16] for migration in migrations()]
    assert found[: len(LANDED)] == list(LANDED)


def test_files_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__")

    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name)] == []
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert [f"{migration}.sql" for migration in migrations()] == names


@pytest.mark.parametrize("migration", migrations(), ids=str)
def test_only_a_file_without_a_transaction_works_concurrently_and_it_can_be_run_again(migration: Migration) -> None:
    assert not list(_run_again(migration))


@pytest.mark.parametrize(
    "source",
    [
        "create index concurrently idx_images_a on mindia.images (a);",
        "-- mindia: no transaction\ncreate index concurrently idx_images_a on mindia.images (a);",
        "-- mindia: no transaction\ncreate index concurrently if not exists idx_images_a on mindia.images (a);",
        "-- mindia: no transaction\ncreate table mindia.a (b integer);",
        "-- mindia: no transaction\ncreate function mindia.f() returns void language sql as $$ select 1;\n$$;",
        "-- mindia: no transaction\nselect 1; select 2;",
    ],
)
def test_a_file_that_could_not_be_run_again_is_noticed(source: str) -> None:
    assert list(_run_again(Migration(2, "bad", source)))


def test_an_index_that_is_built_concurrently_is_dropped_first_since_a_failed_one_stays() -> None:
    source = (
        "-- mindia: no transaction\n"
        "drop index concurrently if exists mindia.idx_images_a;\n"
        "create index concurrently idx_images_a on mindia.images (a);\n"
    )

    assert not list(_run_again(Migration(2, "good", source)))


def _run_again(migration: Migration) -> Iterator[str]:
    statements = split(migration.source)
    if migration.in_transaction:
        yield from (statement for statement in statements if re.match(r"\w+ (unique )?index concurrently\b", statement))
        return
    if "$$" in migration.source or len(re.findall(r";[ \t]*(?:\n|$)", migration.source)) != len(statements):
        yield "the runner takes it apart at semicolons that end a line"
    dropped = set()
    for statement in statements:
        if match := re.match(r"drop index concurrently if exists mindia\.(\w+)$", statement):
            dropped.add(match[1])
        elif match := re.match(r"create (?:unique )?index concurrently (\w+) on ", statement):
            if match[1] not in dropped:
                yield f"{match[1]} is not dropped first"
        elif not re.match(r"(reindex|vacuum|analyze|update|delete from)\b", statement):
            yield statement
