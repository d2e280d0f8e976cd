"""`mindia index`."""

from __future__ import annotations

from typing import Annotated

import typer

from mindia.cli._command import Cli, command
from mindia.cli.tasks import tell_task

group = typer.Typer(help="Look after the vectors of a tenant.", no_args_is_help=True, rich_markup_mode=None)


@command(group, "stats")
def stats(cli: Cli) -> None:
    """Show how far the vectors are."""
    found = cli.library.index.stats()
    cli.out.item(
        found,
        shown=(
            ("items", found.items),
            ("without a vector", found.missing),
            ("waiting", found.waiting),
            ("embedder", found.model_name),
            ("warning", found.warning),
        ),
    )
    if not cli.out.as_json:
        cli.out.items(
            found.spaces,
            columns=("space", "model", "values", "status", "items", "vectors"),
            row=lambda each: (
                each.id,
                each.model_name,
                each.native_dimensions,
                each.status,
                each.items,
                each.vectors,
            ),
        )


@command(group, "reindex")
def reindex(
    cli: Cli,
    *,
    all_items: Annotated[bool, typer.Option("--all", help="All items, not only those without a vector.")] = False,
    max_failures: Annotated[int, typer.Option(min=0, help="How many items may have no vector in the end.")] = 0,
) -> None:
    """Enqueue the task that embeds items with the embedder in force; a worker runs it."""
    tell_task(cli, cli.library.index.reindex("all" if all_items else "missing", max_failures=max_failures))
