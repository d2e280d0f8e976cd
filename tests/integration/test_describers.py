"""Descriptions of pictures by models: what they are shown, what is kept of what they say, and what it changes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
import pytest
from PIL import Image as Pillow
from tests.integration.model_server import Answer, Request, model_server

import mindia
from mindia import (
    FunctionDescriber,
    FunctionEmbedder,
    Library,
    LocalStorage,
    Mindia,
    OpenAICompatibleDescriber,
    Picture,
    Settings,
    Video,
    _http,
)
from mindia.describing.base import Describer, PictureDescriber
from mindia.embedding.base import Embedder
from mindia.errors import InvalidError, ProviderError, ProviderUnavailableError
from mindia.services.pictures import times_of
from mindia.testing import samples

Open = Callable[..., Any]

_NO_ITEM: Any = None


@pytest.fixture
def open_app(queue_url: str, queue_settings: Settings, storage: LocalStorage) -> Open:
    """What opens an application with a describer or an embedder of the test's."""

    @contextmanager
    def opened(**how: Any) -> Iterator[Mindia]:
        settings = attrs.evolve(queue_settings, isolate_parsers=how.pop("isolate_parsers", False))
        with mindia.connect(queue_url, storage=storage, settings=settings, **how) as app:
            yield app

    return opened


def library_of(app: Mindia) -> Library:
    return app.library(app.tenants.create("Acme"))


def says(text: str) -> Answer:
    return Answer.of({"choices": [{"message": {"role": "assistant", "content": text}}]})


def picture_of(request: Request) -> Any:
    (message,) = request.body["messages"]
    url: str = message["content"][1]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    return Pillow.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_a_picture_is_shown_small_and_found_by_what_the_model_says(open_app: Open) -> None:
    with (
        model_server(says("A lighthouse above a stormy sea.")) as server,
        open_app(describer=OpenAICompatibleDescriber("eye", base_url=server.url, max_side=100)) as app,
    ):
        library = library_of(app)
        item = library.media.add(
            samples.image(width=800, height=400), filename="DSC_0001.jpg", description="My own words"
        )
        assert not [each for each in library.search("lighthouse") if each.text_rank is not None]
        app.run_until_idle()
        (found,) = [each for each in library.search("lighthouse") if each.text_rank is not None]
        assert found.media == item
        assert library.media.get(item.id).description == "My own words"
        assert picture_of(server.requests[0]).size == (100, 50)
        assert "DSC_0001" not in str(server.bodies)
        assert "own words" not in str(server.bodies)


def test_it_is_not_asked_again_for_the_same_picture(open_app: Open) -> None:
    with (
        model_server(says("A lighthouse.")) as server,
        open_app(describer=OpenAICompatibleDescriber("eye", base_url=server.url)) as app,
    ):
        library = library_of(app)
        item = library.media.add(samples.image(), filename="a.jpg")
        app.run_until_idle()
        library.media.update(item, description="Said by a person", metadata={"place": "Lisbon"})
        library.media.copy(item, filename="b.jpg", metadata={})
        app.run_until_idle()
        library.index.embed(item.id)
        assert len(server.requests) == 1
        assert {each.media.filename for each in library.search("lighthouse") if each.text_rank} == {"a.jpg", "b.jpg"}
        assert {each.media.filename for each in library.search("Lisbon") if each.text_rank} == {"a.jpg"}
        library.index.reindex("all")
        app.run_until_idle()
        assert len(server.requests) == 3


def test_frames_of_a_video_are_passages_with_their_second(open_app: Open) -> None:
    shown: list[Picture] = []

    def look(picture: Picture) -> str:
        shown.append(picture)
        return f"scene number {len(shown)}"

    describer = FunctionDescriber(look, model_name="look", frame_interval=timedelta(seconds=0.2), max_frames=4)
    with open_app(describer=describer) as app:
        library = library_of(app)
        video = library.media.add(samples.video(), filename="clip.mp4")
        assert isinstance(video, Video)
        app.run_until_idle()
        passages = library.index.passages(video)
        assert [each.start_s for each in passages] == times_of(video.duration, describer)
        assert [each.text for each in passages] == [f"scene number {n + 1}" for n in range(len(passages))]
        assert [each.at for each in shown] == [timedelta(seconds=each.start_s or 0) for each in passages]
        assert all(each.media == video for each in shown)
        assert [each.media for each in library.search("scene") if each.text_rank is not None] == [video]


@pytest.mark.parametrize(("duration", "count"), [(None, 1), (0.0, 1), (4.0, 1), (35.0, 4), (10_000.0, 12)])
def test_frames_are_spread_over_the_whole_video(duration: float | None, count: int) -> None:
    describer = FunctionDescriber(lambda _: "", model_name="look")
    times = times_of(duration, describer)
    assert len(times) == count
    assert times == sorted(times)
    assert all(0 <= each <= (duration or 0) for each in times)


@pytest.mark.parametrize("isolate", [True, False], ids=["in a child", "in the process"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_pictures_of_all_formats_are_shown_upright(open_app: Open, image_format: str, *, isolate: bool) -> None:
    sizes: list[tuple[int, int]] = []

    def look(picture: Picture) -> str:
        with Pillow.open(io.BytesIO(picture.content)) as image:
            assert image.format == "JPEG"
            sizes.append(image.size)
        return "seen"

    with open_app(describer=FunctionDescriber(look, model_name="look", max_side=32), isolate_parsers=isolate) as app:
        library = library_of(app)
        turned = 6 if image_format in ("JPEG", "PNG", "WEBP") else 1
        library.media.add(samples.image(image_format, width=128, height=64, orientation=turned), filename="x")
        app.run_until_idle()
    assert sizes == [(16, 32) if turned == 6 else (32, 16)]


@pytest.mark.parametrize(
    "said",
    ["  two\nlines\t and\x00 more ", "<think>what is it?</think>two lines and more", "two lines and more" + "\ud800"],
)
def test_what_a_model_says_is_kept_to_one_line_that_can_be_stored(open_app: Open, said: str) -> None:
    with (
        model_server(says(said)) as server,
        open_app(describer=OpenAICompatibleDescriber("eye", base_url=server.url)) as app,
    ):
        library = library_of(app)
        library.media.add(samples.image(), filename="a.jpg")
        assert app.run_until_idle().failed == 0
        assert len([each for each in library.search('"two lines and more"') if each.text_rank is not None]) == 1


def test_a_very_long_answer_is_cut(open_app: Open) -> None:
    with open_app(describer=FunctionDescriber(lambda _: "word " * 1_000_000, model_name="look")) as app:
        library = library_of(app)
        library.media.add(samples.image(), filename="a.jpg")
        report = app.run_until_idle()
        assert (report.failed, report.completed) == (0, 1)


@pytest.mark.parametrize(
    "answer",
    [Answer(status=400), says(""), Answer.of({}), Answer.of([]), Answer.of({"choices": [{"message": {"content": 3}}]})],
    ids=["refused", "nothing", "no choices", "a list", "a number"],
)
def test_an_item_that_is_not_described_is_embedded_all_the_same(open_app: Open, answer: Answer) -> None:
    with (
        model_server(answer) as server,
        open_app(describer=OpenAICompatibleDescriber("eye", base_url=server.url, max_retries=0)) as app,
    ):
        library = library_of(app)
        library.media.add(samples.image(), filename="harbour.jpg")
        assert app.run_until_idle().failed == 0
        assert library.search("harbor")[0].similarity is not None
        assert library.index.stats().missing == 0


def test_while_its_server_is_away_the_task_waits(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_sleep", lambda _: None)
    away = Answer(status=429, headers={"Retry-After": "3600"})
    with (
        model_server(away) as server,
        open_app(describer=OpenAICompatibleDescriber("eye", base_url=server.url)) as app,
    ):
        library = library_of(app)
        for number in range(5):
            library.media.add(samples.image(), filename=f"{number}.jpg")
        report = app.run_until_idle()
        assert (report.completed, report.failed) == (0, 0)
        assert len(server.requests) == 1  # not once for each item
        assert library.index.stats().waiting == 5
        assert {task.retry_count for task in library.tasks.list()} == {0}


def test_a_host_without_pictures_may_describe_as_it_likes(open_app: Open) -> None:
    class Own:
        def describe(self, media: Any, *, text: str, open_media: Any) -> str:  # noqa: ARG002 - of the port
            with open_media() as file:
                return f"{len(file.read())} zebras {text}"

    assert isinstance(Own(), Describer)
    assert not isinstance(Own(), PictureDescriber)
    with open_app(describer=Own()) as app:
        library = library_of(app)
        library.media.add(samples.image(), filename="a.jpg")
        app.run_until_idle()
        assert library.search("zebra")[0].similarity is not None


def test_an_embedder_of_pictures_has_a_vector_of_the_picture_besides(open_app: Open) -> None:
    seen: list[int] = []

    class Clip(FunctionEmbedder):
        def embed_images(self, images: Any) -> Any:
            seen.extend(len(each) for each in images)
            return [[0.0, 1.0]] * len(images)

    embedder = Clip(lambda texts: [[1.0, 0.0]] * len(texts), model_name="clip", dimensions=2)
    assert isinstance(embedder, Embedder)
    with open_app(embedder=embedder) as app:
        library = library_of(app)
        item = library.media.add(samples.image(), filename="a.jpg")
        library.media.add(samples.wav(), filename="b.wav")
        app.run_until_idle()
        library.index.embed(item.id)
        searched = library.index.stats().searched
    assert len(seen) == 1
    assert searched is not None
    assert (searched.items, searched.vectors) == (2, 3)


@pytest.mark.parametrize(
    "wrong",
    [{"max_side": 8}, {"max_side": 100_000}, {"max_frames": 0}, {"frame_interval": timedelta()}, {"model_name": ""},
     {"function": "look"}],
    ids=repr,
)  # fmt: skip
def test_arguments_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"function": lambda _: "", "model_name": "look"}
    with pytest.raises(InvalidError):
        FunctionDescriber(**arguments | wrong)


def test_errors_of_the_server_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_sleep", lambda _: None)
    picture = Picture(content=samples.image(), media=_NO_ITEM)
    for answer, kind in ((Answer(status=503), ProviderUnavailableError), (Answer(status=422), ProviderError)):
        with model_server(answer) as server, pytest.raises(kind):
            OpenAICompatibleDescriber("eye", base_url=server.url).describe_picture(picture)
