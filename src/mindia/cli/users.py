"""`mindia users`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from mindia.cli._command import Cli, command
from mindia.cli._values import secret_of, uuid_of

if TYPE_CHECKING:
    from mindia import User

group = typer.Typer(help="Keep the users of a tenant.", no_args_is_help=True, rich_markup_mode=None)

_User = Annotated[str, typer.Argument(metavar="USER", help="E-mail address or id.")]
_Role = Annotated[str, typer.Option("--role", metavar="admin|member|viewer", help="What the user may do.")]


@command(group, "list")
def list_(cli: Cli) -> None:
    """List users."""
    cli.out.items(
        cli.library.users.list(),
        columns=("id", "email", "role", "active", "log-in"),
        row=lambda each: (each.id, each.email, each.role, each.is_active, each.last_login_at),
    )


@command(group, "show")
def show(cli: Cli, user: _User) -> None:
    """Show a user."""
    _tell(cli, cli.library.users.get(_id(cli, user)))


@command(group, "create")
def create(
    cli: Cli,
    email: Annotated[str, typer.Argument(metavar="EMAIL")],
    *,
    role: _Role = "member",
    no_password: Annotated[bool, typer.Option("--no-password", help="Who logs in elsewhere.")] = False,
) -> None:
    """Add a user. The password is asked for, or read from standard input or MINDIA_PASSWORD."""
    password = None if no_password else secret_of("Password", variable="MINDIA_PASSWORD", twice=True)
    _tell(cli, cli.library.users.create(email, password=password, role=role))


@command(group, "set-role")
def set_role(cli: Cli, user: _User, role: Annotated[str, typer.Argument(metavar="admin|member|viewer")]) -> None:
    """Change what a user may do."""
    _tell(cli, cli.library.users.set_role(_id(cli, user), role))


@command(group, "set-password")
def set_password(cli: Cli, user: _User) -> None:
    """Change a password. It is asked for, or read from standard input or MINDIA_PASSWORD."""
    user_id = _id(cli, user)
    password = secret_of("New password", variable="MINDIA_PASSWORD", twice=True)
    _tell(cli, cli.library.users.set_password(user_id, password))


@command(group, "deactivate")
def deactivate(cli: Cli, user: _User) -> None:
    """Refuse a user."""
    _tell(cli, cli.library.users.deactivate(_id(cli, user)))


@command(group, "activate")
def activate(cli: Cli, user: _User) -> None:
    """Admit a user again."""
    _tell(cli, cli.library.users.activate(_id(cli, user)))


def _id(cli: Cli, user: str) -> UUID:
    return cli.library.users.by_email(user).id if "@" in user else uuid_of(user)


def _tell(cli: Cli, user: User) -> None:
    cli.out.item(user, shown=(("id", user.id), ("email", user.email), ("role", user.role), ("active", user.is_active)))
