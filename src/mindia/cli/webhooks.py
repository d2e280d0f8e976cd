"""`mindia webhooks`."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindia.cli._command import Cli, command
from mindia.cli._values import duration_of, time_of, uuid_of
from mindia.errors import InvalidError

if TYPE_CHECKING:
    from mindia.domain.webhooks import IssuedWebhook, Webhook, WebhookEvent

group = typer.Typer(help="Keep webhooks, and see what is delivered.", no_args_is_help=True, rich_markup_mode=None)

_Id = Annotated[str, typer.Argument(metavar="ID")]
_Delivery = Annotated[int, typer.Argument(metavar="DELIVERY", help="Its number.")]
_Events = Annotated[
    list[str] | None, typer.Option("--event", "-e", metavar="EVENT", help="image.uploaded, image.*, *; repeatable.")
]


@command(group, "list")
def list_(cli: Cli) -> None:
    """List endpoints."""
    cli.out.items(
        cli.library.webhooks.list(),
        columns=("id", "status", "url", "events", "description"),
        row=lambda each: (each.id, each.status, each.url, each.events, each.description),
    )


@command(group, "show")
def show(cli: Cli, webhook_id: _Id) -> None:
    """Show an endpoint, and how it does."""
    webhook = cli.library.webhooks.get(uuid_of(webhook_id))
    _tell(cli, webhook)
    health = cli.library.webhooks.health(webhook)
    cli.out.item(
        health,
        shown=(
            ("attempts", health.attempts),
            ("delivered", health.delivered),
            ("waiting", health.waiting),
            ("failed", health.failed),
            ("failures in row", health.failures_in_row),
        ),
    )


@command(group, "register")
def register(
    cli: Cli,
    url: Annotated[str, typer.Argument(metavar="URL")],
    *,
    event: _Events = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    ordered: Annotated[bool, typer.Option("--ordered", help="One event after the other.")] = False,
    max_in_flight: Annotated[int, typer.Option(min=1, help="How many at once.")] = 8,
    max_per_second: Annotated[float | None, typer.Option(help="How many in a second.")] = None,
    with_url: Annotated[bool, typer.Option("--with-url", help="Events have a signed URL of the bytes.")] = False,
) -> None:
    """Add an endpoint. Its signing secret is shown this once."""
    if not event:
        raise InvalidError("say of which events: --event 'image.*', or --event '*'")
    issued = cli.library.webhooks.register(
        url,
        events=event,
        description=description,
        is_ordered=ordered,
        max_in_flight=max_in_flight,
        max_per_second=max_per_second,
        includes_url=with_url,
    )
    _tell_issued(cli, issued)


@command(group, "update")
def update(
    cli: Cli,
    webhook_id: _Id,
    *,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where events are sent.")] = None,
    event: _Events = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    ordered: Annotated[bool | None, typer.Option("--ordered/--not-ordered", help="One after the other.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="How many at once.")] = None,
    max_per_second: Annotated[float | None, typer.Option(help="How many in a second; 0 is no limit.")] = None,
    with_url: Annotated[bool | None, typer.Option("--with-url/--without-url", help="Signed URLs in events.")] = None,
) -> None:
    """Change an endpoint; what is not given stays."""
    given: dict[str, Any] = {
        "url": url,
        "events": event or None,
        "description": description,
        "is_ordered": ordered,
        "max_in_flight": max_in_flight,
        "max_per_second": max_per_second,
        "includes_url": with_url,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if max_per_second == 0:
        changes["max_per_second"] = None
    _tell(cli, cli.library.webhooks.update(uuid_of(webhook_id), **changes))


@command(group, "pause")
def pause(cli: Cli, webhook_id: _Id) -> None:
    """Send nothing for now; events wait."""
    _tell(cli, cli.library.webhooks.pause(uuid_of(webhook_id)))


@command(group, "resume")
def resume(cli: Cli, webhook_id: _Id) -> None:
    """Send again, also where the endpoint was disabled for failing."""
    _tell(cli, cli.library.webhooks.resume(uuid_of(webhook_id)))


@command(group, "delete")
def delete(cli: Cli, webhook_id: _Id) -> None:
    """Delete an endpoint with all that waits for it."""
    cli.library.webhooks.delete(uuid_of(webhook_id))
    cli.out.say("deleted")


@command(group, "rotate")
def rotate(
    cli: Cli,
    webhook_id: _Id,
    *,
    overlap: Annotated[str, typer.Option(metavar="TIME", help="So long the former secret signs, too.")] = "24h",
) -> None:
    """Make another signing secret, which is shown this once."""
    _tell_issued(cli, cli.library.webhooks.rotate_secret(uuid_of(webhook_id), overlap=duration_of(overlap)))


@command(group, "test")
def test(cli: Cli, webhook_id: _Id) -> None:
    """Send a test event; a worker delivers it."""
    _tell_delivery(cli, cli.library.webhooks.test(uuid_of(webhook_id)))


@command(group, "deliveries")
def deliveries(
    cli: Cli,
    webhook_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Of this endpoint.")] = None,
    *,
    status: Annotated[str | None, typer.Option(metavar="pending|delivered|failed", help="Only these.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 100,
) -> None:
    """List what is delivered, the newest first."""
    wanted = None if webhook_id is None else uuid_of(webhook_id)
    cli.out.items(
        islice(cli.library.webhooks.deliveries(wanted, status=status), limit),
        columns=("number", "event", "status", "attempts", "written", "endpoint"),
        row=lambda each: (
            each.id,
            each.event_type,
            each.delivery_status,
            each.attempt_count,
            each.created_at,
            each.webhook_id,
        ),
    )


@command(group, "delivery")
def delivery(cli: Cli, delivery: _Delivery) -> None:
    """Show a delivery: what is sent, and the attempts."""
    found = cli.library.webhooks.delivery(delivery)
    cli.out.item(
        found,
        shown=(
            ("number", found.id),
            ("event", found.event_type),
            ("id", found.event_id),
            ("endpoint", found.webhook_id),
            ("status", found.delivery_status),
            ("attempts", found.attempt_count),
            ("written", found.created_at),
            ("next attempt", found.next_attempt_at if found.delivery_status == "pending" else None),
            ("delivered", found.delivered_at),
            ("payload", json.dumps(found.payload)),
        ),
    )
    _tell_attempts(cli, delivery)


@command(group, "attempts")
def attempts(cli: Cli, delivery: _Delivery) -> None:
    """List the attempts of a delivery."""
    _tell_attempts(cli, delivery)


def _tell_attempts(cli: Cli, delivery: int) -> None:
    cli.out.items(
        cli.library.webhooks.attempts(delivery),
        columns=("attempt", "began", "outcome", "status", "error", "took"),
        row=lambda each: (
            each.attempt,
            each.started_at,
            each.outcome,
            each.status_code,
            each.error_code,
            each.duration,
        ),
    )


@command(group, "resend")
def resend(cli: Cli, delivery: _Delivery) -> None:
    """Send an event again."""
    _tell_delivery(cli, cli.library.webhooks.resend(delivery))


@command(group, "recover")
def recover(
    cli: Cli,
    webhook_id: _Id,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="2026-03-01, or 24h.")] = "24h",
) -> None:
    """Send all again that has failed since a time."""
    when = time_of(since)
    assert when is not None
    count = cli.library.webhooks.recover(uuid_of(webhook_id), since=when)
    cli.out.item({"count": count}, kind="recovered", shown=(("sent again", count),))


def _tell(cli: Cli, webhook: Webhook) -> None:
    cli.out.item(webhook, shown=_facts(webhook))


def _facts(webhook: Webhook) -> list[tuple[str, object]]:
    return [
        ("id", webhook.id),
        ("url", webhook.url),
        ("status", webhook.status),
        ("why", webhook.disabled_reason),
        ("events", webhook.events),
        ("description", webhook.description),
        ("ordered", webhook.is_ordered),
        ("at once", webhook.max_in_flight),
        ("a second", webhook.max_per_second),
    ]


def _tell_issued(cli: Cli, issued: IssuedWebhook) -> None:
    cli.out.item(issued, shown=[*_facts(issued.webhook), ("secret", issued.secret)])
    cli.out.say("keep the secret: it is not shown again")


def _tell_delivery(cli: Cli, event: WebhookEvent) -> None:
    cli.out.item(
        event,
        shown=(
            ("number", event.id),
            ("event", event.event_type),
            ("status", event.delivery_status),
            ("attempts", event.attempt_count),
        ),
    )
