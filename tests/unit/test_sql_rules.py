"""Every statement names its tables in full and its tenant, and no value is ever written into its text.

The source is read, not run: a statement is put together from the literals and module constants that it is made of.
Whatever else it is made of stands as `…`.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import mindia
from mindia.db.migrator import migrations

SOURCE = Path(mindia.__file__).parent
REPOSITORIES = sorted((SOURCE / "repositories").glob("*.py"))

ACROSS_TENANTS = {
    "login_failures._REMOVE_EXPIRED": "what is held against nobody any more goes, of whichever tenant",
    "media_change._COUNT_EXPIRED": "counts what has expired, of whichever tenant",
    "media_change._EXPIRED": "finds what has expired, of whichever tenant",
    "objects._COUNT_DUE": "counts what is to be removed, of whichever tenant",
    "objects._COUNT_STAGED": "counts what the sweep would go over",
    "objects._LOOK_AT_DUE": "says what is to be removed, of whichever tenant",
    "objects._LOOK_AT_STAGED": "says what the sweep would go over",
    "objects._TAKE_STAGED": "the sweep goes over what all tenants have left behind",
    "objects._DUE": "the bytes of all tenants are removed in one go",
    "request_log._COUNT_DAYS_OF_ALL": "admins of the host look at the requests of all tenants",
    "request_log._COUNT_HOURS_OF_ALL": "admins of the host look at the requests of all tenants",
    "request_log._LIST_ALL": "admins of the host look at the requests of all tenants",
    "request_log._OF_ALL": "admins of the host look at the requests of all tenants",
    "request_log._PRUNE": "what was logged long ago goes, of whichever tenant",
    "request_log._SUMMARIES_OF_ALL": "admins of the host look at the requests of all tenants",
    "spaces._RETIRED": "finds which spaces are left over, of whichever tenant",
    "statistics._STORAGE_OF_ALL": "admins of the host look at what all tenants have stored",
    "statistics._TASKS_OF_ALL": "admins of the host look at the tasks of all tenants",
    "task_claims.FAILED": "takes the tasks that the statement around it has found",
    "task_claims._CLAIM_LANES": "a worker works for all tenants",
    "task_claims._CLAIM_TENANTS": "a worker works for all tenants, in turns",
    "task_claims._COMPLETE": "fenced by worker and attempt, which the claim gave out",
    "task_claims._FAIL": "fenced by worker and attempt, which the claim gave out",
    "task_claims._PROGRESS": "fenced by worker and attempt, which the claim gave out",
    "task_claims._RELEASE_DEPENDENTS": "goes on from tasks that have ended, of all tenants in a worker's round; a "
    "tenant's call that cancels one has found it to be its own before, and dependencies do not leave a tenant",
    "task_claims._SNOOZE": "fenced by worker and attempt, which the claim gave out",
    "task_claims._TAKEN": "takes the tasks that the statement around it has found",
    "task_claims._WAITING_TENANTS": "finds which tenants wait",
    "task_control._LOST_DEPENDENCIES": "looks through what waits, of whichever tenant",
    "task_control._PRUNE": "what has ended long ago goes, of whichever tenant",
    "task_control._RECONCILE": "looks through what waits, of whichever tenant",
    "time_shift._TASKS": "for tests of hosts: time passes for all tenants",
    "time_shift._IMAGES": "for tests of hosts: time passes for all tenants",
    "time_shift._VIDEOS": "for tests of hosts: time passes for all tenants",
    "time_shift._AUDIOS": "for tests of hosts: time passes for all tenants",
    "time_shift._DOCUMENTS": "for tests of hosts: time passes for all tenants",
    "time_shift._API_KEYS": "for tests of hosts: time passes for all tenants",
    "time_shift._LOGIN_FAILURES": "for tests of hosts: time passes for all tenants",
    "time_shift._STAGED": "for tests of hosts: time passes for all tenants",
    "time_shift._DELETED": "for tests of hosts: time passes for all tenants",
    "time_shift._EVENTS": "for tests of hosts: time passes for all tenants",
    "time_shift._UPLOADS": "for tests of hosts: time passes for all tenants",
    "time_shift._ENDPOINTS": "for tests of hosts: time passes for all tenants",
    "webhook_ends._ENDED": "fenced by the token, which the claim gave out",
    "webhook_log._PRUNE": "what has ended long ago goes, of whichever tenant",
    "webhook_log._PRUNE_LEASES": "leases that nobody renewed go, of whichever tenant",
    "webhook_log._PRUNE_STATES": "how endpoints did that are gone, of whichever tenant",
    "webhook_log._PRUNE_WAITING": "what waits in vain goes, of whichever tenant",
    "webhook_outbox._CLAIM": "a sender works for all tenants, in turns",
    "webhook_outbox._GIVE_BACK": "fenced by the token, which the claim gave out",
    "webhook_outbox._RENEW": "fenced by the token, which the claim gave out",
    "webhooks._SEALED_OTHERWISE": "secrets of all tenants are encrypted anew in one go",
    "uploads._COUNT_ABANDONED": "counts what clients of all tenants have left behind",
    "uploads._LOCK_ABANDONED": "the sweep goes over what clients of all tenants have left behind",
    "uploads._LOOK_AT_ABANDONED": "says what the sweep would go over",
    "videos._PROCESSING": "finds which videos are being encoded, of whichever tenant",
    "vector_indexes._LARGE": "indexes are kept for the tenants with the most vectors",
    "vector_indexes._ON_RECORD": "indexes are kept for the tenants with the most vectors",
    "workers._CANCELLED": "reads what a worker has claimed, for whichever tenant",
    "workers._GIVE_BACK": "fenced by worker and attempt, which the claim gave out",
    "workers._RELEASE": "a worker puts back what it has claimed, for whichever tenant",
    "workers._RESCUE": "a dead worker leaves tasks of all tenants",
    "tenant_transfer._TAKEN_MEDIA": "an item whose id an import keeps must be in no tenant",
    "tenant_transfer._TAKEN_USERS": "a user whose id an import keeps must be in no tenant",
}

OWNED = {
    match[1] or match[3]
    for migration in migrations()
    for match in re.finditer(
        r"^create table mindia\.(\w+) \((.*?)^\)|^alter table mindia\.(\w+) add column tenant_id uuid",
        migration.source,
        re.MULTILINE | re.DOTALL,
    )
    if match[3] or re.search(r"^\s+tenant_id uuid", match[2], re.MULTILINE)
} | {"media", "all_media"}

BUILT_IN_TYPES = {
    "bigint", "bit", "boolean", "bytea", "date", "float8", "int", "integer", "interval", "jsonb", "numeric", "real",
    "regconfig", "smallint", "text", "timestamptz", "tsquery", "tsvector", "uuid", "varchar",
}  # fmt: skip

UNKNOWN = "…"


@attrs.frozen
class Sql:
    """A string that is SQL, or a part of it."""

    name: str
    text: str
    node: ast.expr = attrs.field(repr=False, eq=False)


@attrs.frozen
class Module:
    """A module that is looked at: its text, and its names with their values."""

    name: str
    tree: ast.Module
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Module:
        relative = path.relative_to(SOURCE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(part for part in relative if part != "__init__"))
        return cls(path.stem, ast.parse(path.read_text("utf-8")), vars(module))

    @classmethod
    def of(cls, source: str) -> Module:
        """Take a snippet, whose parts of the repositories' own are at hand."""
        values: dict[str, Any] = {}
        exec("from typing import LiteralString\nfrom mindia.repositories.events import fan_out\n" + source, values)
        return cls("snippet", ast.parse(source), values)

    def texts(self) -> Iterator[Sql]:
        """Yield the strings of the module, docstrings left out."""
        yield from self._texts(self.tree, "")

    def sql(self) -> list[Sql]:
        return [sql for sql in self.texts() if is_sql(sql.text)]

    def ctes(self) -> set[str]:
        return {name for sql in self.sql() for name in re.findall(r"(\w+) as (?:not )?(?:materialized )?\(", sql.text)}

    def fold(self, node: ast.expr) -> str:
        """Return the string that an expression makes, as far as it can be known."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr():
                return "".join(self.fold(part) for part in node.values)
            case ast.FormattedValue():
                return self.fold(node.value)
            case ast.BinOp(op=ast.Add()):
                return self.fold(node.left) + self.fold(node.right)
        try:
            value = eval(compile(ast.Expression(node), self.name, "eval"), self.values)  # our own source
        except Exception:  # noqa: BLE001 - it needs what is known only when it runs
            return UNKNOWN
        return value if isinstance(value, str) else UNKNOWN

    def _texts(self, node: ast.AST, owner: str) -> Iterator[Sql]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.FunctionDef() | ast.ClassDef():
                    yield from self._texts(child, child.name)
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    yield from self._texts(child, owner or name)
                case ast.Constant(value=str()) | ast.JoinedStr():
                    yield Sql(f"{self.name}.{owner}", self.fold(child), child)
                case ast.BinOp(op=ast.Add()) if re.sub(UNKNOWN, "", self.fold(child)):
                    yield Sql(f"{self.name}.{owner}", self.fold(child), child)
                case _:
                    yield from self._texts(child, owner)


def is_sql(text: str) -> bool:
    verbs = r"\s*[(),]?\s*(with|select|insert|update|delete|from|join|where|and|or|order by|returning|values|limit)\b"
    cte = r"\s*, \w+ as (?:materialized )?\("
    return bool(re.match(verbs, text) or re.match(cte, text) or re.search(r"\bmindia\.\w", text))


def scopes(text: str) -> Iterator[str]:
    """Yield each query of a statement by itself, with `(…)` in place of the queries inside it."""
    flat = " ".join(re.sub(r"'(?:[^']|'')*'", "''", text).split())
    open_ones = [""]
    for piece in re.split(r"([()])", flat):
        if piece == "(":
            open_ones.append("")
        elif piece != ")":
            open_ones[-1] += piece
        elif len(open_ones) == 1:  # opened in another part of the statement
            yield open_ones.pop()
            open_ones.append("")
        else:
            inner = open_ones.pop()
            is_query = re.match(r"\s*(with|select|insert|update|delete)\b", inner)
            open_ones[-1] += f"({UNKNOWN})" if is_query else f"({inner})"
            if is_query:
                yield inner
    yield from open_ones


def sources(scope: str) -> Iterator[tuple[str, str]]:
    """Yield what a query reads from and writes to: the word before, and the name with its alias."""
    end = r"\b(?:where|group|order|limit|returning|for|on|set|values|select|join|using|left|full|cross|inner)\b"
    words = r"\b(?<!distinct )(?<!for )(?<!for no key )(?<!do )(from|join|into|using|update)\s+(?!set\b)"
    for match in re.finditer(words, scope):
        depth, item = 0, ""
        for character in re.split(end, scope[match.end() :], maxsplit=1)[0]:
            depth += (character == "(") - (character == ")")
            if character == "," and not depth:
                yield match[1], item.strip().removeprefix("lateral ")
                item = ""
            else:
                item += character
        yield match[1], item.strip().removeprefix("lateral ")


Rule = Callable[[Module], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


@rule
def tables_are_qualified(module: Module) -> Iterator[str]:
    ctes = module.ctes()
    for sql in module.sql():
        for scope in scopes(sql.text):
            for word, source in sources(scope):
                name = re.match(r"[\w.\"]+", source)
                is_function = word in ("from", "join") and re.match(r"[\w.]+ ?\(", source)
                if name is None or is_function or re.match(r"(mindia|pg_catalog)\.\w", source) or name[0] in ctes:
                    continue
                yield f"{sql.name}: {source!r} is not qualified with mindia. or pg_catalog."


@rule
def types_and_operators_are_qualified(module: Module) -> Iterator[str]:
    for sql in module.sql():
        for named in re.findall(r"::\s*([\w.{}\"]+)", sql.text):
            if named not in BUILT_IN_TYPES and not named.startswith(("mindia.", "{vector}.")):
                yield f"{sql.name}: the type {named} is not qualified"
        for operator in re.findall(r"[^\s(]*<(?:=|#|-|\+|~|%)>", sql.text):
            if not operator.startswith("{vector}."):
                yield f"{sql.name}: the operator {operator} is not qualified: write operator({{vector}}.{operator})"


@rule
def statements_name_their_tenant(module: Module) -> Iterator[str]:
    for name, complaint in without_tenant(module):
        if name not in ACROSS_TENANTS:
            yield f"{name}: {complaint}"


def without_tenant(module: Module) -> Iterator[tuple[str, str]]:
    for sql in module.sql():
        for scope in scopes(sql.text):
            for word, source in sources(scope):
                match = re.match(r"mindia\.(\w+)(?: (?:as )?(\w+))?", source)
                if match is None or match[1] not in OWNED:
                    continue
                if word == "into":
                    columns = re.search(rf"{re.escape(match[0])}\s*\(([^()]*)\)", scope)
                    if columns is None or "tenant_id" not in re.findall(r"\w+", columns[1]):
                        yield sql.name, f"a row of {match[1]} without its tenant"
                    continue
                column = rf"{match[2]}\.tenant_id" if match[2] else r"(?<![.\w])tenant_id"
                held = re.search(rf"{column} (?:=|is not distinct from) |= {column}\b", scope)
                if not held or not re.search(r"\btenant_id (?:=|is not distinct from) %", sql.text):
                    yield sql.name, f"{match[0]} is not held to a tenant"


@rule
def what_is_locked_up_to_a_limit_is_chosen_once(module: Module) -> Iterator[str]:
    """A plan may run a subquery once for each row outside: an array and what is materialized are made once."""
    for sql in module.sql():
        for lock in re.finditer(r"\blimit\b[^()]*(?:\([^()]*\)[^()]*)*\bfor (?:no key )?update", sql.text):
            before = opened_around(sql.text, lock.start())
            if before and not any(re.search(r"(?:\barray|\bas materialized) ?$", text) for text in before):
                yield f"{sql.name}: {lock[0]!r} may be run again and again"


def opened_around(text: str, position: int) -> list[str]:
    """Return what stands before each parenthesis that is open at a position, the innermost last."""
    opened: list[int] = []
    for at, character in enumerate(text[:position]):
        if character == "(":
            opened.append(at)
        elif character == ")":
            opened.pop()
    return [text[:at].rstrip() for at in opened]


@rule
def values_stay_out_of_the_text(module: Module) -> Iterator[str]:
    """Parts may be joined that stand in the source themselves; all else is a parameter."""
    literal_parameters = {
        argument.arg
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef)
        for argument in [*node.args.args, *node.args.kwonlyargs]
        if argument.annotation is not None and ast.unparse(argument.annotation) == "LiteralString"
    }
    literal_names = set(names_of_literals(module))
    for sql in module.sql():
        for part in parts(sql.node):
            if module.fold(part) != UNKNOWN or (isinstance(part, ast.Name) and part.id in literal_parameters):
                continue
            if isinstance(part, ast.Name) and (sql.name, part.id) in literal_names:
                continue
            if isinstance(part, ast.Subscript) and is_constant(module, part.value):
                continue
            yield f"{sql.name}: {ast.unparse(part)} is written into the text"
    for node in ast.walk(module.tree):
        match node:
            case ast.BinOp(op=ast.Mod(), left=left) if is_sql(module.fold(left)):
                yield f"{ast.unparse(node)[:80]}: values are parameters"
            case ast.Call(func=ast.Attribute(value=value, attr="format" | "format_map" | "replace" | "join")):
                if is_sql(module.fold(value)):
                    yield f"{ast.unparse(node)[:80]}: values are parameters"
            case ast.Call(func=ast.Name(id="fan_out"), args=arguments):
                if not all(isinstance(argument, ast.Constant) for argument in arguments):
                    yield f"{ast.unparse(node)[:80]}: wants a literal"


@rule
def a_session_is_given_nothing_but_literals(module: Module) -> Iterator[str]:
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case (
                    ast.Call(
                        func=ast.Attribute(value=ast.Name(id="session"), attr="all" | "one" | "execute"),
                        args=[query, *_],
                    )
                    | ast.Call(func=ast.Name(id="Statement"), args=[query, *_])
                ):
                    for made in made_of(function, query):
                        if not is_literal(module, made):
                            yield f"{module.name}.{function.name}: {ast.unparse(made)} is not a literal"
                case ast.Return(value=ast.expr() as text) if returns_literal(function):
                    parameters = [argument.arg for argument in function.args.args]
                    for made in made_of(function, text):
                        if not is_literal(module, made) and not (isinstance(made, ast.Name) and made.id in parameters):
                            yield f"{module.name}.{function.name}: {ast.unparse(made)} is not a literal"


def names_of_literals(module: Module) -> Iterator[tuple[str, str]]:
    """Yield the functions of a module with the names in them that stand for literals, and say so."""
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.AnnAssign(target=ast.Name() as name, annotation=ast.Name(id="LiteralString")):
                    if all(is_literal(module, made) for made in made_of(function, name)):
                        yield f"{module.name}.{function.name}", name.id


def made_of(function: ast.FunctionDef, text: ast.expr) -> list[ast.expr]:
    """Return what a text is: itself or, where it has a name in its function, all that the name is given."""
    if not isinstance(text, ast.Name):
        return [text]
    given: list[ast.expr] = []
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=text.id)], value=value):
                given.append(value)
            case ast.AnnAssign(target=ast.Name(id=text.id), value=ast.expr() as value):
                given.append(value)
            case ast.AnnAssign(target=ast.Name(id=text.id), value=ast.expr() as value):
                given.append(value)
            case ast.AugAssign(target=ast.Name(id=text.id), value=value):
                given.append(value)
    return given or [text]


def is_literal(module: Module, text: ast.expr) -> bool:
    """Tell whether a text is a literal, or put together from parts, which another rule looks at."""
    match text:
        case ast.Constant() | ast.JoinedStr() | ast.BinOp():
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_literal(module, body) and is_literal(module, orelse)
        case ast.Call(func=ast.Name(id=name)):
            return any(
                isinstance(node, ast.FunctionDef) and node.name == name and returns_literal(node)
                for node in ast.walk(module.tree)
            )
    return is_constant(module, text)


def returns_literal(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns) == "LiteralString"


def parts(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what an expression is put together from."""
    match node:
        case ast.JoinedStr():
            for value in node.values:
                yield from parts(value)
        case ast.FormattedValue():
            yield node.value
        case ast.BinOp(op=ast.Add()):
            yield from parts(node.left)
            yield from parts(node.right)
        case _:
            yield node


def is_constant(module: Module, node: ast.expr) -> bool:
    """Tell whether an expression is a constant of the module: a string, or a dictionary of them."""
    if isinstance(node, ast.Subscript):
        return is_constant(module, node.value)
    return isinstance(node, ast.Name) and node.id.isupper() and isinstance(module.values.get(node.id), str | dict)


BAD = [
    ("tables_are_qualified", "_GET = 'select id from images where tenant_id = %s'"),
    ("tables_are_qualified", "_GET = 'select id from public.images where tenant_id = %s'"),
    ("tables_are_qualified", "_GET = 'select 1 from mindia.images i join videos v on v.tenant_id = i.tenant_id'"),
    ("tables_are_qualified", "_GET = 'select 1 from mindia.tenants t, images i'"),
    ("tables_are_qualified", "_GET = 'select 1 where exists (select from images)'"),
    ("tables_are_qualified", "_ADD = 'insert into images (tenant_id) values (%s)'"),
    ("tables_are_qualified", "_SET = 'update images set width = 1 where tenant_id = %s'"),
    ("tables_are_qualified", "_DEL = 'delete from mindia.images i using videos v where i.tenant_id = %s'"),
    ("tables_are_qualified", "_T = 'images'\n_GET = f'select id from {_T} where tenant_id = %s'"),
    ("types_and_operators_are_qualified", "_GET = 'select %s::entity_type'"),
    ("types_and_operators_are_qualified", "_GET = 'select %s::vector'"),
    ("types_and_operators_are_qualified", "_GET = 'select embedding <=> %s from mindia.embeddings'"),
    ("statements_name_their_tenant", "_GET = 'select id from mindia.images where id = %s'"),
    ("statements_name_their_tenant", "_GET = 'select tenant_id from mindia.images where id = %s'"),
    ("statements_name_their_tenant", "_GET = 'select id from mindia.media m where m.id = %s'"),
    ("statements_name_their_tenant", "_SET = 'update mindia.tasks set priority = 1 where id = %s'"),
    ("statements_name_their_tenant", "_DEL = 'delete from mindia.embeddings where entity_id = %s'"),
    ("statements_name_their_tenant", "_ADD = 'insert into mindia.images (id, filename) values (%s, %s)'"),
    (
        "statements_name_their_tenant",
        "_GET = 'select 1 from mindia.images i join mindia.tasks t on t.id = i.id where i.tenant_id = %s'",
    ),
    (
        "statements_name_their_tenant",
        "_GET = 'select 1 from mindia.images i join mindia.tasks t on t.tenant_id = i.tenant_id where i.id = %s'",
    ),
    (
        "statements_name_their_tenant",
        "_GET = 'select 1 from mindia.tenants where id in (select tenant_id from mindia.users) and tenant_id = %s'",
    ),
    (
        "statements_name_their_tenant",
        "_A = 'with old as (select id from mindia.images) '\n_B = _A + 'delete from mindia.users where tenant_id = %s'",
    ),
    (
        "what_is_locked_up_to_a_limit_is_chosen_once",
        "_DEL = '''delete from mindia.users where tenant_id = %(t)s and id in (\n"
        "select id from mindia.users where tenant_id = %(t)s limit 9 for update skip locked)'''",
    ),
    ("values_stay_out_of_the_text", "def f(name):\n    return f'select id from mindia.tenants where name = {name}'"),
    ("values_stay_out_of_the_text", "def f(name):\n    return 'select id from mindia.tenants where name = ' + name"),
    ("values_stay_out_of_the_text", "def f(name):\n    return 'select id from mindia.tenants where id = %s' % name"),
    ("values_stay_out_of_the_text", "def f(name):\n    return 'select id from mindia.tenants {}'.format(name)"),
    (
        "values_stay_out_of_the_text",
        "_GET = 'select 1 from mindia.tenants {}'\ndef f(name):\n    return _GET.format(name)",
    ),
    ("values_stay_out_of_the_text", "def f(name):\n    return fan_out(name)"),
    (
        "values_stay_out_of_the_text",
        "def f(name):\n    part: LiteralString = name\n    return 'select id from mindia.tenants where ' + part",
    ),
    (
        "values_stay_out_of_the_text",
        "def f(name):\n    part: LiteralString = 'id '\n    part += name\n"
        "    return 'select id from mindia.tenants where ' + part",
    ),
    ("values_stay_out_of_the_text", "def f(name: str):\n    return f'insert into mindia.tenants select from {name}'"),
    ("a_session_is_given_nothing_but_literals", "def f(session, query):\n    session.execute(query)"),
    ("a_session_is_given_nothing_but_literals", "def f(session):\n    query = input()\n    session.execute(query)"),
    (
        "a_session_is_given_nothing_but_literals",
        "_A = 'select 1'\ndef f(session, more):\n    query = _A\n    query += more\n    session.all(query)",
    ),
    (
        "a_session_is_given_nothing_but_literals",
        "def f(query) -> LiteralString:\n    query += input()\n    return query",
    ),
    ("a_session_is_given_nothing_but_literals", "def f(query):\n    return Statement(query, (), str)"),
    ("a_session_is_given_nothing_but_literals", "def f(session, a):\n    session.all('select 1' if a else a)"),
    ("a_session_is_given_nothing_but_literals", "def f(session, table):\n    session.all(statement_for(table), ())"),
]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", REPOSITORIES, ids=lambda path: path.stem)
def test_the_repositories_keep_the_rules(path: Path, name: str) -> None:
    assert list(RULES[name](Module.read(path))) == []


@pytest.mark.parametrize(("name", "source"), BAD)
def test_a_rule_notices_what_breaks_it(name: str, source: str) -> None:
    assert list(RULES[name](Module.of(source)))


def test_every_rule_can_fail() -> None:
    assert {name for name, _ in BAD} == set(RULES)


@pytest.mark.parametrize(
    "source",
    [
        "_GET = 'select id from mindia.images where tenant_id = %s and id is distinct from created_by for update'",
        "_GET = 'select 1 from mindia.media m, unnest(%s::uuid[]) as wanted (id) where m.tenant_id = %s'",
        "_ADD = '''insert into mindia.images as i (id, tenant_id) values (%s, %s)\n"
        "on conflict on constraint images_pkey do update set id = excluded.id'''",
        "_OLD = 'with old as (select id from mindia.images where tenant_id = %s) '\n"
        "def f(session):\n    return session.all(_OLD + 'select id from old', ('Taken from the shelf',), row=str)",
        "_Q = {1: 'select 1', 2: 'select 2'}\n"
        "def f(session, kind):\n    query = 'with a as (' + _Q[kind] + ') select * from a'\n    session.one(query)",
        "def f(part: LiteralString) -> LiteralString:\n    return 'select id from mindia.tenants ' + part",
        "_DEL = '''with old as materialized (select id from mindia.users where tenant_id = %s limit 9 for update)\n"
        "delete from mindia.users u using old where u.tenant_id = %s and u.id = old.id'''",
        "_NEAR = 'select embedding operator({vector}.<=>) %s::{vector}.vector from mindia.embeddings "
        "where tenant_id = %s'",
    ],
)
def test_the_rules_leave_what_is_right_alone(source: str) -> None:
    assert [complaint for check in RULES.values() for complaint in check(Module.of(source))] == []


def test_the_statements_that_go_across_tenants_are_those_on_the_list() -> None:
    found = {name for path in REPOSITORIES for name, _ in without_tenant(Module.read(path))}

    assert found == set(ACROSS_TENANTS)


def test_the_statements_are_seen() -> None:
    touched = {
        match[1]
        for path in REPOSITORIES
        for sql in Module.read(path).sql()
        for match in re.finditer(r"\bmindia\.(\w+)", sql.text)
    }

    assert {*OWNED} <= touched


def test_what_inserts_media_counts_it_against_the_quota() -> None:
    inserts = [
        sql
        for path in REPOSITORIES
        for sql in Module.read(path).sql()
        if re.search(r"insert into mindia\.(images|videos|audios|documents)\b", sql.text)
    ]

    assert inserts
    assert [sql.name for sql in inserts if "mindia.use_quota(" not in sql.text] == []


@pytest.mark.parametrize(
    "path",
    sorted({*SOURCE.rglob("*.py")} - {*REPOSITORIES} - {*(SOURCE / "db").rglob("*.py")}),
    ids=lambda path: path.relative_to(SOURCE).as_posix(),
)
def test_sql_stands_in_the_repositories_alone(path: Path) -> None:
    module = Module(path.stem, ast.parse(path.read_text("utf-8")), {})
    statement = r"\s*(with \w+ as (materialized )?\(|select .*\bfrom\b|insert into |update \w[\w.]* set |delete from )"

    assert [text for text in module.texts() if re.match(statement, text.text, re.DOTALL)] == []
