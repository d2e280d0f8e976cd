"""`mindia init`, `migrate` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import attrs
import typer

from mindia.cli._command import Cli, command
from mindia.cli._exit_codes import ExitCode
from mindia.cli._settings import CONFIG_FILE, Configuration, redacted
from mindia.errors import AlreadyExistsError, InvalidError


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""

    @command(commands, "init")
    def init(
        cli: Cli,
        *,
        name: Annotated[str, typer.Option("--name", help="Name of the first tenant.")] = "default",
    ) -> None:
        """Make a library and mindia.toml, which names it: in .mindia here, or on the --database that is named.

        The tables are brought up to date. Run again, it changes nothing that is there.
        """
        _init(cli, name)

    @command(commands, "migrate")
    def migrate(
        cli: Cli,
        *,
        plan: Annotated[bool, typer.Option("--plan", help="Only list what would be applied.")] = False,
        sql: Annotated[bool, typer.Option("--sql", help="Only print the statements, for a DBA.")] = False,
    ) -> None:
        """Bring the tables of the database up to date."""
        if plan and sql:
            raise InvalidError("--plan and --sql exclude each other")
        if sql:
            script = cli.app.migration_script()
            if cli.out.as_json:
                cli.out.item({"sql": script}, kind="migration_script", shown=())
            else:
                cli.out.text(script)
            return
        found = cli.app.pending_migrations() if plan else cli.app.migrate()
        cli.out.items(
            [{"version": each.version, "name": each.name, "applied": not plan} for each in found],
            kind="migration",
            columns=("version", "name"),
            row=lambda each: (each["version"], each["name"]),
        )
        cli.out.say(f"{len(found)} migrations {'would be' if plan else 'were'} applied")

    @command(commands, "doctor")
    def doctor(cli: Cli) -> ExitCode:
        """Look whether all that a library needs is there, and say what to do where it is not."""
        from mindia.cli._doctor import checks

        failed = False
        for check in checks(cli):
            failed |= check.status == "error"
            way_out = f"\n{'':9}to do: {check.advice}" if check.advice else ""
            if cli.out.as_json:
                cli.out.item(check, shown=())
            else:
                from mindia.cli._output import text_of

                head = f"{check.status:8} {check.name}: {text_of(check.detail)}"
                cli.out.text(head + (f"\n{'':9}to do: {text_of(check.advice)}" if way_out else ""))
        return ExitCode.ERROR if failed else ExitCode.OK


def _init(cli: Cli, name: str) -> None:
    from mindia.domain.tenants import TenantStatus

    configuration = cli.configuration
    is_named = configuration.home is not None or configuration.database_url is not None or configuration.app is not None
    if not is_named:
        configuration = attrs.evolve(configuration, home=Path(".mindia"))
        cli.__dict__["configuration"] = configuration
    file = Path(cli.flags.config or CONFIG_FILE).expanduser().absolute()
    text = None if configuration.file == file else _toml(configuration)
    if text is not None and file.exists():
        raise AlreadyExistsError(f"{file} is there already")
    cli.app.migrate()
    there = [each for each in cli.app.tenants.list() if each.status is not TenantStatus.DELETED]
    tenant = there[0] if there else cli.app.tenants.create(name)
    if text is not None:
        file.write_text(text, "utf-8")
    cli.out.item(
        {"config": str(file), "tenant_id": tenant.id, "tenant_name": tenant.name, "was_made": not there},
        kind="library",
        shown=(("configuration", file), ("tenant", f"{tenant.name} ({tenant.id})")),
    )


def _toml(configuration: Configuration) -> str:
    """Return the configuration as a file has it, without secrets."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    lines = []
    if configuration.app is not None:
        lines.append(f"app = {json.dumps(configuration.app)}")
    elif configuration.home is not None:
        lines.append(f"home = {json.dumps(str(configuration.home))}")
    elif (url := configuration.database_url) is not None:
        parts = {key: value for key, value in conninfo_to_dict(url).items() if "password" not in key}
        lines.append(
            f"database_url = {json.dumps(make_conninfo('', **parts))}  # the password: PGPASSWORD or ~/.pgpass"
        )
        lines.append(f"# that is {redacted(url)}")
    if configuration.storage is not None:
        lines.append(f"storage = {json.dumps(configuration.storage)}")
    if configuration.old_storage is not None:
        lines.append(f"old_storage = {json.dumps(configuration.old_storage)}")
    return "\n".join(lines) + "\n"
