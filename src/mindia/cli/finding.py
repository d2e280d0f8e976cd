"""`mindia search`, `list`, `show`, `usage` and `export`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindia.cli._command import Cli, command
from mindia.cli._output import size_of
from mindia.cli._values import metadata_of, time_of, uuid_of
from mindia.errors import AlreadyExistsError

if TYPE_CHECKING:
    from mindia.domain.bulk import Progress
    from mindia.domain.media import Media
    from mindia.domain.search import SearchResult

_Kind = Annotated[
    list[str] | None,
    typer.Option("--kind", "-k", metavar="image|video|audio|document", help="Only of this kind; repeatable."),
]
_Name = Annotated[str | None, typer.Option("--filename", metavar="PATTERN", help="With * and ?.")]
_ContentType = Annotated[str | None, typer.Option("--content-type", metavar="TYPE", help="image/png, or image/*.")]
_Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Added since: 2026-03-01, or 24h.")]
_Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="With this value; repeatable.")
]


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""

    @command(commands, "search")
    def search(
        cli: Cli,
        query: Annotated[str, typer.Argument(metavar="QUERY", help="Words, or what it is like.")],
        *,
        mode: Annotated[str, typer.Option(metavar="hybrid|semantic|text", help="What is searched by.")] = "hybrid",
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
        after: Annotated[str | None, typer.Option(metavar="PLACE", help="The `next` of an earlier page.")] = None,
        kind: _Kind = None,
        filename: _Name = None,
        content_type: _ContentType = None,
        since: _Since = None,
        metadata: _Metadata = None,
    ) -> None:
        """Find media by words and by meaning, the best first."""
        filters = _filters(kind, filename, content_type, since, metadata)
        results = cli.library.search(query, mode=mode, limit=limit, after=after, **filters)
        for warning in results.warnings:
            cli.out.warn(warning)
        if results.corrected is not None:
            cli.out.say(f"searched for {results.corrected!r}")
        cli.out.items(results, columns=("id", "filename", "type", "score", "similarity"), row=_result_row)
        if cli.out.as_json:
            summary = {
                "count": len(results),
                "next": results.next,
                "corrected": results.corrected,
                "plan": results.plan,
            }
            cli.out.item(summary, kind="search_page", shown=())
        elif not results:
            cli.out.say("nothing was found")

    @command(commands, "list")
    def list_(
        cli: Cli,
        *,
        order: Annotated[str, typer.Option(metavar="ORDER", help="uploaded_at, filename, file_size; -… turns it.")] = (
            "-uploaded_at"
        ),
        limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="How many; all by default.")] = None,
        kind: _Kind = None,
        filename: _Name = None,
        content_type: _ContentType = None,
        since: _Since = None,
        metadata: _Metadata = None,
    ) -> None:
        """List media, the newest first."""
        from itertools import islice

        filters = _filters(kind, filename, content_type, since, metadata)
        length = 500 if limit is None else min(500, limit)
        found = cli.library.media.iterate(order=order, page_length=length, **filters)
        cli.out.items(
            islice(found, limit),
            columns=("id", "filename", "type", "size", "added"),
            row=lambda media: (
                media.id,
                media.filename,
                media.content_type,
                size_of(media.file_size),
                media.uploaded_at,
            ),
        )

    @command(commands, "show")
    def show(
        cli: Cli,
        media_id: Annotated[str, typer.Argument(metavar="ID")],
        *,
        save_to: Annotated[str | None, typer.Option(metavar="FILE", help="Write its bytes there; - is stdout.")] = None,
    ) -> None:
        """Show an item, or save its bytes."""
        media = cli.library.media.get(uuid_of(media_id))
        if save_to == "-":
            with cli.library.media.open(media) as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
            return
        if save_to is not None:
            cli.library.media.save_to(media, Path(save_to))
        cli.out.item(media, shown=_facts(media))

    @command(commands, "usage")
    def usage(cli: Cli) -> None:
        """Show how much the tenant has, and how much it may have."""
        found = cli.library.usage()
        quota = found.quota
        if cli.out.as_json:
            cli.out.item(found, shown=())
            return
        cli.out.items(
            found.by_type,
            columns=("kind", "type", "items", "size"),
            row=lambda each: (each.kind, each.content_type, each.item_count, size_of(each.total_bytes)),
        )
        cli.out.item(
            found,
            shown=(
                ("items", f"{found.item_count} of {'any number' if quota.max_items is None else quota.max_items}"),
                (
                    "size",
                    size_of(found.total_bytes)
                    + (" of any" if quota.max_total_bytes is None else f" of {size_of(quota.max_total_bytes)}"),
                ),
            ),
        )

    @command(commands, "export")
    def export(
        cli: Cli,
        archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A file that is made.")],
        *,
        derived: Annotated[bool, typer.Option(help="With pictures that were made of items, and streams.")] = True,
    ) -> None:
        """Write all of the tenant into an archive, which `mindia tenants import` reads."""
        if Path(archive).exists():
            raise AlreadyExistsError(f"{archive!r} is there already")
        with cli.out.progress("export") as tell:

            def told(progress: Progress) -> None:
                tell(progress.done, "")

            report = cli.app.tenants.export(cli.tenant.id, archive, derived=derived, progress=told)
        cli.out.item(
            report,
            shown=(
                ("archive", archive),
                ("tenant", cli.tenant.name),
                ("items without bytes", len(report.missing) or None),
                ("derivatives without bytes", len(report.missing_derivatives) or None),
            ),
        )


def _filters(
    kind: list[str] | None,
    filename: str | None,
    content_type: str | None,
    since: str | None,
    metadata: list[str] | None,
) -> Any:
    given = {
        "kind": kind or None,
        "filename": filename,
        "content_type": content_type,
        "uploaded_since": time_of(since),
        "metadata": metadata_of(metadata) or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _result_row(result: SearchResult) -> tuple[object, ...]:
    media = result.media
    return media.id, media.filename, media.content_type, result.score, result.similarity


def _facts(media: Media) -> list[tuple[str, object]]:
    measured = ("width", "height", "duration", "bitrate", "channels", "page_count", "title", "taken_at", "camera")
    return [
        ("id", media.id),
        ("filename", media.filename),
        ("kind", media.kind),
        ("type", media.content_type),
        ("size", size_of(media.file_size)),
        ("sha256", media.sha256),
        *((name, getattr(media, name, None)) for name in measured),
        ("description", media.description),
        ("metadata", dict(media.metadata) or None),
        ("added", media.uploaded_at),
        ("expires", media.expires_at),
    ]
