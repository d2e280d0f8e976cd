"""Every public call of a library, for tests of what must hold for all of them."""

from __future__ import annotations

import inspect
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import attrs
import pytest

from mindia import (
    IssuedApiKey,
    Library,
    LibraryTransaction,
    Media,
    MediaKind,
    Preset,
    RequestCount,
    RequestGroup,
    RequestSummary,
    Resize,
    Settings,
    Staged,
    Task,
    User,
    Webhook,
    WebhookEvent,
)
from mindia._ids import uuid7
from mindia.domain.tasks import GenerateEmbedding
from mindia.domain.uploads import Upload
from mindia.errors import InvalidError, NotFoundError, StreamNotReadyError, TransactionError
from mindia.services.upload_urls import UploadTicket
from mindia.testing import samples

SETTINGS = Settings(
    public_url="https://example.org/media",
    secret_key="not so very secret",
    argon2_time_cost=1,
    argon2_memory_kib=8,
    argon2_parallelism=1,
    fetch_allow_private=("127.0.0.0/8",),
    transcode_on_add=False,
)
"""With which every call succeeds, passwords take no time, and no video is encoded unasked."""

FILM = samples.video(width=32, height=32, seconds=0.2, audio_codec=None)
"""A video."""

TRANSCRIPT = "WEBVTT\n\n00:01.000 --> 00:04.000\nthe ship leaves the harbour"

PASSWORD = "correct horse battery staple"
"""Of each user that is known."""


@attrs.frozen(kw_only=True)
class Known:
    """What a call may name: all of one tenant."""

    staged: Staged
    staged_too: Staged
    item: Media
    other: Media
    recording: Media
    film: Media
    task: Task
    waiting: Task
    cancelled: Task
    ended: Task
    user: User
    issued: IssuedApiKey
    webhook: Webhook
    delivery: WebhookEvent
    uploaded: Upload
    uploading: Upload
    preset: Preset

    @classmethod
    def of(cls, library: Library, *, filename: str = "harbour.jpg") -> Known:
        item = library.media.add(samples.image(), filename=filename)
        webhook = new_webhook(library)
        delivery = library.webhooks.test(webhook)
        return cls(
            staged=library.media.stage(samples.image(color="navy"), filename="staged.jpg"),
            staged_too=library.media.stage(samples.image(color="plum"), filename="staged_too.jpg"),
            item=item,
            other=library.media.add(samples.image(color="gold"), filename="other.jpg"),
            recording=library.media.add(samples.wav(), filename="talk.wav"),
            film=library.media.add(FILM, filename="film.mp4"),
            task=library.tasks.enqueue(_embedding_of(item)),
            waiting=task_of_nothing(library),
            cancelled=library.tasks.cancel(task_of_nothing(library)),
            ended=library.tasks.cancel(task_of_nothing(library)),
            user=new_user(library),
            issued=library.api_keys.issue("robot", role="viewer"),
            webhook=library.webhooks.pause(webhook),
            delivery=delivery,
            uploaded=uploaded(library),
            uploading=uploaded(library),
            preset=new_preset(library),
        )


def new_user(library: Library) -> User:
    """Make a user with an e-mail address that no other one has."""
    return library.users.create(f"{uuid4().hex}@example.org", password=PASSWORD)


def new_preset(library: Library) -> Preset:
    """Make a preset with a name that no other one has."""
    return library.presets.create(f"card-{uuid4().hex}", Resize(30))


def new_webhook(library: Library) -> Webhook:
    """Register an endpoint that is told of next to nothing, and whose name needs no look-up."""
    return library.webhooks.register("https://93.184.216.34/", events=["webhook.disabled"]).webhook


@attrs.frozen
class OrderShipped:
    """An event of the host's."""

    number: int


def _emit(library: Library, _: Known) -> object:
    if "order.shipped" not in library._context.events:
        library._context.events.declare("order.shipped", OrderShipped)
    return library.webhooks.emit(OrderShipped(7))


def _test(library: Library, known: Known) -> WebhookEvent:
    library.webhooks.resume(known.webhook)
    delivery = library.webhooks.test(known.webhook)
    library.webhooks.pause(known.webhook)  # nobody shall be sent anything
    return delivery


@contextmanager
def a_picture() -> Iterator[str]:
    """Serve a picture, and give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(samples.image(color="coral"))

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/coral.jpg"
        finally:
            server.shutdown()
            thread.join()


def _add_from_url(library: Library, _: Known) -> Media:
    with a_picture() as url:
        return library.media.add_from_url(url)


def _stage_from_url(library: Library, _: Known) -> Staged:
    with a_picture() as url:
        return library.media.stage_from_url(url)


def uploaded(library: Library) -> Upload:
    """Begin an upload that has arrived as a whole."""
    upload = library.media.begin_upload("uploaded.jpg")
    ticket = UploadTicket(tenant_id=library.tenant_id, upload_id=upload.id, part=None, expires_at=0)
    library.media._receive(ticket, io.BytesIO(samples.image(color="olive")), length=None)
    return upload


def _embedding_of(item: Media) -> GenerateEmbedding:
    return GenerateEmbedding(entity_id=item.id, entity_type=item.kind)


def task_of_nothing(library: Library) -> Task:
    """Enqueue a task whose item is not there."""
    return library.tasks.enqueue(GenerateEmbedding(entity_id=uuid7(), entity_type=MediaKind.IMAGE))


def _open(library: Library, known: Known) -> bytes:
    with library.media.open(known.item) as file:
        return file.read()


def _add_many(library: Library, known: Known) -> Media:
    (result,) = library.media.add_many([known.staged_too])
    if result.error is not None:
        raise result.error
    assert result.media is not None
    return result.media


def _delete_many(library: Library, known: Known) -> None:
    for result in library.media.delete_many([known.other]):
        if result.error is not None:
            raise result.error


def _save(library: Library, known: Known) -> bytes:
    with TemporaryDirectory() as folder:
        return library.media.save_to(known.item, folder).read_bytes()


def _wait(library: Library, known: Known) -> Task:
    if isinstance(library, LibraryTransaction):  # which would not see the end, and looks no further
        with pytest.raises(TransactionError, match="does not see what workers do"):
            library.tasks.wait(known.ended)
        return library.tasks.get(known.ended.id)
    return library.tasks.wait(known.ended)


def _summaries(library: Library, _: Known) -> list[RequestSummary]:
    groups = [group for group in RequestGroup if group is not RequestGroup.TENANT]
    return [library.request_log.summary(group) for group in groups]


def _request_counts(library: Library, _: Known) -> list[RequestCount]:
    return library.request_log.counts("hour") + library.request_log.counts("day")


def _hls_url(library: Library, known: Known) -> str:
    try:
        return library.media.hls_url(known.film.id)
    except StreamNotReadyError as error:  # that takes a task
        return str(error)


def _similar(library: Library, known: Known) -> None:
    try:
        library.index.similar(known.item)
    except NotFoundError as error:
        if "no vector yet" not in str(error):  # that takes a task
            raise


def _similar_to_image(library: Library, _: Known) -> None:
    with pytest.raises(InvalidError, match="embed_images"):  # which the embedder of the tests does not have
        library.index.similar_to_image(samples.image())


CALLS: dict[str, Callable[[Library, Known], object]] = {
    "api_keys.get": lambda library, known: library.api_keys.get(known.issued.key.id),
    "api_keys.issue": lambda library, _: library.api_keys.issue("robot", role="viewer"),
    "api_keys.list": lambda library, _: list(library.api_keys.list()),
    "api_keys.revoke": lambda library, known: library.api_keys.revoke(known.issued.key.id),
    "index.embed": lambda library, known: library.index.embed(known.item.id),
    "index.passages": lambda library, known: library.index.passages(known.item),
    "index.reindex": lambda library, _: library.index.reindex(),
    "index.set_transcript": lambda library, known: library.index.set_transcript(known.recording, TRANSCRIPT),
    "index.stats": lambda library, _: library.index.stats(),
    "index.near_duplicates": lambda library, known: library.index.near_duplicates(known.item.id),
    "index.similar": _similar,
    "index.vectors": lambda library, known: library.index.vectors([known.item]),
    "index.similar_to_image": _similar_to_image,
    "index.similar_to_vector": lambda library, _: library.index.similar_to_vector([1.0] * 768),
    "index.search": lambda library, _: library.index.search("harbour"),
    "media.abort_upload": lambda library, known: library.media.abort_upload(known.uploading),
    "media.add": lambda library, known: library.media.add(known.staged),
    "media.add_from_url": _add_from_url,
    "media.add_many": _add_many,
    "media.begin_upload": lambda library, _: library.media.begin_upload("quay.jpg"),
    "media.complete_upload": lambda library, known: library.media.complete_upload(known.uploaded),
    "media.copy": lambda library, known: library.media.copy(known.item),
    "media.count": lambda library, _: library.media.count(),
    "media.derive": lambda library, known: library.media.derive(known.item.id, Resize(20)),
    "media.derivatives": lambda library, known: library.media.derivatives(known.item),
    "media.exists": lambda library, _: library.media.exists(),
    "media.find": lambda library, _: library.media.find(),
    "media.get": lambda library, known: library.media.get(known.item.id),
    "media.get_many": lambda library, known: library.media.get_many([known.item.id]),
    "media.get_upload": lambda library, known: library.media.get_upload(known.uploaded),
    "media.hls_url": _hls_url,
    "media.iterate": lambda library, _: list(library.media.iterate()),
    "media.open": _open,
    "media.placeholder": lambda library, known: library.media.placeholder(known.item),
    "media.purge_derivatives": lambda library, known: library.media.purge_derivatives(known.item),
    "media.regenerate_derivatives": lambda library, known: library.media.regenerate_derivatives(known.item),
    "media.read": lambda library, known: library.media.read(known.item),
    "media.stage": lambda library, _: library.media.stage(samples.image(), filename="quay.jpg"),
    "media.stage_from_url": _stage_from_url,
    "media.save_to": _save,
    "media.storyboard": lambda library, known: library.media.storyboard(known.film.id, side=16),
    "media.thumbnail": lambda library, known: library.media.thumbnail(known.item),
    "media.transcode": lambda library, known: library.media.transcode(known.film.id),
    "media.update": lambda library, known: library.media.update(known.item, metadata={"place": "Lisbon"}),
    "media.url": lambda library, known: library.media.url(known.item),
    "presets.create": lambda library, _: new_preset(library),
    "presets.get": lambda library, known: library.presets.get(known.preset.name),
    "presets.list": lambda library, _: library.presets.list(),
    "presets.update": lambda library, known: library.presets.update(known.preset.name, Resize(40)),
    "request_log.counts": _request_counts,
    "request_log.list": lambda library, _: library.request_log.list(),
    "request_log.summary": _summaries,
    "request_log.total": lambda library, _: library.request_log.total(),
    "search": lambda library, _: library.search("harbour"),
    "show": lambda library, known: library.show(known.item),
    "statistics.storage": lambda library, _: library.statistics.storage(),
    "statistics.tasks": lambda library, _: library.statistics.tasks(),
    "tasks.cancel": lambda library, known: library.tasks.cancel(known.waiting),
    "tasks.counts": lambda library, _: library.tasks.counts(),
    "tasks.enqueue": lambda library, known: library.tasks.enqueue(_embedding_of(known.item)),
    "tasks.enqueue_many": lambda library, known: library.tasks.enqueue_many([_embedding_of(known.item)] * 2),
    "tasks.errors": lambda library, known: library.tasks.errors(known.task),
    "tasks.get": lambda library, known: library.tasks.get(known.task.id),
    "tasks.list": lambda library, _: list(library.tasks.list()),
    "tasks.reschedule": lambda library, known: library.tasks.reschedule(known.task, known.task.scheduled_for),
    "tasks.retry": lambda library, known: library.tasks.retry(known.cancelled),
    "tasks.wait": _wait,
    "usage": lambda library, _: library.usage(),
    "users.activate": lambda library, known: library.users.activate(known.user.id),
    "users.authenticate": lambda library, known: library.users.authenticate(known.user.email, PASSWORD),
    "users.by_email": lambda library, known: library.users.by_email(known.user.email),
    "users.create": lambda library, _: new_user(library),
    "users.deactivate": lambda library, known: library.users.deactivate(known.user.id),
    "users.get": lambda library, known: library.users.get(known.user.id),
    "users.list": lambda library, _: list(library.users.list()),
    "users.set_password": lambda library, known: library.users.set_password(known.user.id, PASSWORD),
    "users.set_role": lambda library, known: library.users.set_role(known.user.id, "admin"),
    "webhooks.attempts": lambda library, known: library.webhooks.attempts(known.delivery),
    "webhooks.deliveries": lambda library, _: list(library.webhooks.deliveries()),
    "webhooks.delivery": lambda library, known: library.webhooks.delivery(known.delivery.id),
    "webhooks.emit": _emit,
    "webhooks.get": lambda library, known: library.webhooks.get(known.webhook.id),
    "webhooks.health": lambda library, known: library.webhooks.health(known.webhook),
    "webhooks.list": lambda library, _: list(library.webhooks.list()),
    "webhooks.recover": lambda library, known: library.webhooks.recover(known.webhook, since=known.webhook.created_at),
    "webhooks.register": lambda library, _: new_webhook(library),
    "webhooks.resend": lambda library, known: library.webhooks.resend(known.delivery),
    "webhooks.resume": lambda library, known: library.webhooks.resume(known.webhook),
    "webhooks.rotate_secret": lambda library, known: library.webhooks.rotate_secret(known.webhook),
    "webhooks.test": _test,
    "webhooks.pause": lambda library, known: library.webhooks.pause(known.webhook),
    "webhooks.update": lambda library, known: library.webhooks.update(known.webhook, description="of the shop"),
    "webhooks.delete": lambda library, known: library.webhooks.delete(known.webhook),
    "presets.delete": lambda library, known: library.presets.delete(known.preset.name),
    "media.delete": lambda library, known: library.media.delete(known.item),
    "media.delete_many": _delete_many,
}
"""By the name of the method; each succeeds for the tenant of what is known, in this order."""


def public_calls(library: Library) -> set[str]:
    """Return the names of all methods of a library and of its services, but for those that are no calls.

    What is logged is kept in memory: that asks the database nothing, and has tests of its own.
    """
    services: dict[str, Any] = {
        name: value for name, value in vars(library).items() if type(value).__module__.startswith("mindia.services.")
    }
    own = {name for name, _ in inspect.getmembers(type(library), inspect.isfunction) if not name.startswith("_")}
    return (
        (own - {"transaction"})
        | {
            f"{name}.{method}"
            for name, service in services.items()
            if not name.startswith("_")
            for method, _ in inspect.getmembers(type(service), inspect.isfunction)
            if not method.startswith("_")
        }
    ) - {"request_log.record"}
