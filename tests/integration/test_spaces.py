"""Spaces of vectors: a model that takes over from another one, whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.model_server import Answer, model_server, vectors_of
from tests.integration.queue_jobs import Owner

import mindia
from mindia import (
    FunctionEmbedder,
    IndexStats,
    Library,
    LocalStorage,
    Mindia,
    OpenAICompatibleEmbedder,
    Settings,
    TaskStatus,
    _http,
)
from mindia.domain.search import SpaceStatus
from mindia.errors import EmbeddingError, InvalidError, SpaceMismatchError
from mindia.services import reindexing
from mindia.services.spaces import SearchSpace
from mindia.testing import samples

Open = Callable[..., Any]


def model(name: str, *, dimensions: int = 3, fails: Callable[[str], bool] = lambda _: False) -> FunctionEmbedder:
    def embed(texts: list[str]) -> list[list[float]]:
        if any(fails(text) for text in texts):
            raise ValueError("this text cannot be embedded")
        return [[len(text), *([1.0] * (dimensions - 1))] for text in texts]

    return FunctionEmbedder(embed, model_name=name, dimensions=dimensions)


@pytest.fixture
def open_app(queue_url: str, queue_settings: Settings, storage: LocalStorage) -> Open:
    @contextmanager
    def opened(embedder: Any, *former: Any) -> Iterator[Mindia]:
        with mindia.connect(
            queue_url, storage=storage, settings=queue_settings, embedder=embedder, former_embedders=former
        ) as app:
            yield app

    return opened


@pytest.fixture
def filled(open_app: Open) -> Library:
    """A library of three items that the model `old` has embedded; its application is closed."""
    with open_app(model("old")) as app:
        library: Library = app.library(app.tenants.create("Acme"))
        for name in ("cat", "tram", "horn"):
            library.media.add(samples.image(), filename=f"{name}.jpg")
        app.run_until_idle()
        assert named(library.index.stats()) == {"old": (SpaceStatus.ACTIVE, 3)}
        return library


def named(stats: IndexStats) -> dict[str, tuple[SpaceStatus, int]]:
    return {space.model_name: (space.status, space.items) for space in stats.spaces}


def searched(app: Mindia, library: Library) -> SearchSpace:
    context = app.library(library.tenant_id)._context
    return context.spaces.for_search(context.tenant_id, context.as_viewer)


def test_searches_go_on_in_the_old_space_until_the_new_one_is_complete(filled: Library, open_app: Open) -> None:
    with open_app(model("new", dimensions=5), model("old")) as app:
        library = app.library(filled.tenant_id)
        before = searched(app, library)
        assert before.embedder is not None
        assert before.embedder.model_name == "old"
        assert before.warning is not None
        assert "'new'" in before.warning
        assert "reindex()" in before.warning
        library.media.add(samples.image(), filename="added.jpg")
        app.run_until_idle()
        assert named(library.index.stats()) == {"old": (SpaceStatus.ACTIVE, 4), "new": (SpaceStatus.BUILDING, 1)}
        assert searched(app, library).space_id == before.space_id

        task = library.index.reindex()
        assert task.kind == "mindia.reindex"
        app.run_until_idle()
        done = library.tasks.get(task.id)
        assert (done.status, done.result) == (
            TaskStatus.COMPLETED,
            {"embedded": 3, "failed": [], "missing": 0},
        )
        stats = library.index.stats()
        assert named(stats) == {"old": (SpaceStatus.RETIRED, 4), "new": (SpaceStatus.ACTIVE, 4)}
        assert (stats.missing, stats.warning, stats.model_name) == (0, None, "new")
        after = searched(app, library)
        assert after.embedder is not None
        assert after.embedder.model_name == "new"
        assert after.warning is None


def test_what_is_replaced_is_removed_after_a_while(filled: Library, open_app: Open) -> None:
    with open_app(model("new")) as app:
        library = app.library(filled.tenant_id)
        library.index.reindex()
        app.run_until_idle()
        app.maintenance.remove_retired_spaces()
        assert set(named(library.index.stats())) == {"old", "new"}
        assert app.maintenance.remove_retired_spaces(older_than=timedelta()) >= 3
        assert named(library.index.stats()) == {"new": (SpaceStatus.ACTIVE, 3)}
        with pytest.raises(InvalidError, match="older_than"):
            app.maintenance.remove_retired_spaces(older_than=timedelta(seconds=-1))


def test_without_the_old_embedder_only_words_are_searched_and_the_warning_says_so(
    filled: Library, open_app: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with open_app(model("new")) as app:
        library = app.library(filled.tenant_id)
        space = searched(app, library)
        assert space.embedder is None
        assert space.warning is not None
        assert all(word in space.warning for word in ("'old'", "'new'", "reindex()", "former_embedders"))
        assert library.index.stats().warning == space.warning
        assert space.warning in caplog.text


def test_an_embedder_of_another_length_under_the_same_name_is_refused(filled: Library, open_app: Open) -> None:
    with open_app(model("old", dimensions=4)) as app:
        library = app.library(filled.tenant_id)
        for call in (
            lambda: searched(app, library),
            lambda: library.index.reindex(),
            lambda: library.index.embed(next(iter(library.media.find())).id),
        ):
            with pytest.raises(SpaceMismatchError, match=r"'old' have 3 dimensions.* makes 4: give it another name"):
                call()


def test_two_embedders_of_one_name_are_refused(open_app: Open) -> None:
    with pytest.raises(InvalidError, match="names of their own"), open_app(model("same"), model("same")):
        pass


def test_an_embedder_that_was_replaced_writes_nothing_any_more(filled: Library, open_app: Open) -> None:
    with open_app(model("new")) as app:
        app.library(filled.tenant_id).index.reindex()
        app.run_until_idle()
    with open_app(model("old")) as app:
        library = app.library(filled.tenant_id)
        item = library.media.add(samples.image(), filename="late.jpg")
        app.run_until_idle()
        assert library.index.stats().waiting == 1  # for a worker that has the other embedder
        with pytest.raises(SpaceMismatchError, match="replaced by those of 'new'"):
            library.index.embed(item.id)


def test_one_can_go_back_to_an_embedder_that_was_replaced(filled: Library, open_app: Open) -> None:
    with open_app(model("new")) as app:
        app.library(filled.tenant_id).index.reindex()
        app.run_until_idle()
    with open_app(model("old")) as app:
        library = app.library(filled.tenant_id)
        library.index.reindex()
        app.run_until_idle()
        assert named(library.index.stats()) == {"old": (SpaceStatus.ACTIVE, 3), "new": (SpaceStatus.RETIRED, 3)}


def test_missing_embeds_what_has_no_vector_and_nothing_else(open_app: Open, owner: Owner) -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> list[list[float]]:
        seen.extend(texts)
        return [[1.0, 2.0]] * len(texts)

    with open_app(FunctionEmbedder(embed, model_name="counting", dimensions=2)) as app:
        library: Library = app.library(app.tenants.create("Acme"))
        items = [library.media.add(samples.image(), filename=f"picture_{number}.jpg") for number in range(40)]
        app.run_until_idle()
        assert len(seen) == 40
        owner.execute(
            "delete from mindia.embeddings where tenant_id = %s and entity_id = any(%s)",
            (library.tenant_id, [item.id for item in items[:3]]),
        )
        assert library.index.stats().missing == 3
        seen.clear()
        library.index.reindex()
        app.run_until_idle()
        assert library.index.stats().missing == 0
        assert sorted(seen) == []  # remembered by their content
        library.index.reindex("all")
        app.run_until_idle()
        assert len(seen) == 40


def test_only_one_task_of_a_model_is_written_at_a_time(filled: Library, open_app: Open) -> None:
    with open_app(model("new")) as app:
        library = app.library(filled.tenant_id)
        assert library.index.reindex().id == library.index.reindex("all").id


@pytest.mark.parametrize("wrong", [{"only": "some"}, {"max_failures": -1}, {"max_failures": "3"}], ids=repr)
def test_arguments_out_of_range_are_refused(library: Library, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        library.index.reindex(**wrong)


def test_searches_stay_where_they_are_while_too_many_items_fail(filled: Library, open_app: Open) -> None:
    with open_app(model("new", fails=lambda text: "tram" in text), model("old")) as app:
        library = app.library(filled.tenant_id)
        task = library.index.reindex()
        app.run_until_idle()
        (error,) = library.tasks.errors(task)
        assert error.error_type == EmbeddingError.__name__
        assert "1 items have no vector of 'new'" in error.error_message
        assert "this text cannot be embedded" in error.error_message
        assert named(library.index.stats()) == {"old": (SpaceStatus.ACTIVE, 3), "new": (SpaceStatus.BUILDING, 2)}
        library.tasks.cancel(task)
        again = library.index.reindex(max_failures=1)
        app.run_until_idle()
        assert library.tasks.get(again.id).status is TaskStatus.COMPLETED
        stats = library.index.stats()
        assert named(stats) == {"old": (SpaceStatus.RETIRED, 3), "new": (SpaceStatus.ACTIVE, 2)}
        assert stats.missing == 1


def test_an_outage_in_the_middle_is_gone_on_from(
    filled: Library, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "_sleep", lambda _: None)
    monkeypatch.setattr("mindia.services.reindexing._BATCH", 1)
    away = Answer(status=429, headers={"Retry-After": "3600"})
    with model_server(vectors_of, away) as server, open_app(
        OpenAICompatibleEmbedder("far", base_url=server.url, dimensions=4)
    ) as app:  # fmt: skip
        library = app.library(filled.tenant_id)
        task = library.index.reindex()
        app.run_until_idle()
        waiting = library.tasks.get(task.id)
        assert (waiting.status, waiting.retry_count) == (TaskStatus.PENDING, 0)
        assert named(library.index.stats())["far"] == (SpaceStatus.BUILDING, 1)
        server.answers[:] = [vectors_of]
        asked = len(server.requests)
        library.tasks.reschedule(task, waiting.created_at)
        app.run_until_idle()
        assert named(library.index.stats())["far"] == (SpaceStatus.ACTIVE, 3)
        assert len(server.requests) == asked + 2


def test_it_says_how_far_it_is(filled: Library, open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindia.services.reindexing._BATCH", 1)
    with open_app(model("new")) as app:
        context = app.library(filled.tenant_id)._context
        said: list[tuple[float, str]] = []
        library = app.library(filled.tenant_id)
        payload = app._registry.of_kind("mindia.reindex").decode(library.index.reindex().payload)
        library.index._run_reindex(payload, lambda fraction, note: said.append((round(fraction, 2), note)))
        assert said == [(0.33, "1 of 3 items"), (0.67, "2 of 3 items"), (1.0, "3 of 3 items")]
        assert context.spaces.embedder.model_name == "new"


def test_a_task_of_another_embedder_waits_for_its_worker(filled: Library, open_app: Open) -> None:
    with open_app(model("new")) as app:
        task = app.library(filled.tenant_id).index.reindex()
    with open_app(model("other")) as app:
        app.run_until_idle()
        assert app.library(filled.tenant_id).tasks.get(task.id).status is TaskStatus.PENDING


def test_items_that_are_added_changed_and_deleted_while_it_runs_are_right_afterwards(
    filled: Library, open_app: Open, owner: Owner
) -> None:
    with open_app(model("new"), model("old")) as app:
        library = app.library(filled.tenant_id)
        stop = threading.Event()

        def change() -> None:
            number = 0
            while not stop.is_set() and number < 60:
                item = library.media.add(samples.image(), filename=f"meanwhile_{number}.jpg")
                if number % 3 == 0:
                    library.media.update(item, description=f"changed {number}")
                if number % 3 == 1:
                    library.media.delete(item)
                number += 1

        thread = threading.Thread(target=change)
        thread.start()
        for only in ("missing", "all", "missing"):
            library.index.reindex(only)
            app.run_until_idle()
        stop.set()
        thread.join()
        app.run_until_idle()
        stats = library.index.stats()
        assert (stats.missing, stats.warning) == (0, None)
        stale = owner.execute(
            """
                select count(*) from mindia.embeddings e join mindia.all_media m on m.id = e.entity_id
                where e.tenant_id = %s and e.model_name = 'new' and strpos(e.description, m.description) = 0
                """,
            (library.tenant_id,),
        ).fetchone()
        assert stale == (0,)


def before_each_switch(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen each time when searches are about to go to another space."""
    switch = reindexing._Run._switch

    def acting(run: reindexing._Run, space_id: int) -> Any:
        act()
        return switch(run, space_id)

    monkeypatch.setattr(reindexing._Run, "_switch", acting)


@pytest.mark.parametrize("only", ["missing", "all"])
@pytest.mark.parametrize("has_former", [True, False])
def test_what_is_added_to_the_last_does_not_keep_searches_from_the_new_space(
    filled: Library, open_app: Open, monkeypatch: pytest.MonkeyPatch, only: str, has_former: bool
) -> None:
    with open_app(model("new"), *[model("old")] * has_former) as app:
        library = app.library(filled.tenant_id)
        before_each_switch(monkeypatch, lambda: library.media.add(samples.image(), filename="late.jpg"))
        task = library.index.reindex(only)

        app.run_until_idle()

        done = library.tasks.get(task.id)
        assert (done.status, done.retry_count) == (TaskStatus.COMPLETED, 0)
        assert named(library.index.stats()) == {"old": (SpaceStatus.RETIRED, 3), "new": (SpaceStatus.ACTIVE, 4)}
        assert library.index.stats().missing == 0


def test_what_the_former_embedder_makes_to_the_last_is_in_the_new_space_before_searches_go_there(
    filled: Library, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_app(model("new")) as app, open_app(model("old")) as former:
        library, other = app.library(filled.tenant_id), former.library(filled.tenant_id)
        left = ["a", "b", "c"]

        def add() -> None:
            if left:
                item = other.media.add(samples.image(), filename=f"{left.pop()}.jpg")
                other.index.embed(item.id)

        before_each_switch(monkeypatch, add)
        payload = app._registry.of_kind("mindia.reindex").decode(library.index.reindex().payload)

        library.index._run_reindex(payload, lambda *_: None)

        assert named(library.index.stats()) == {"old": (SpaceStatus.RETIRED, 6), "new": (SpaceStatus.ACTIVE, 6)}
        assert not left


def test_a_former_embedder_that_makes_ever_more_keeps_searches_where_they_are(
    filled: Library, open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_app(model("new")) as app, open_app(model("old")) as former:
        library, other = app.library(filled.tenant_id), former.library(filled.tenant_id)
        before_each_switch(
            monkeypatch, lambda: other.index.embed(other.media.add(samples.image(), filename="more.jpg").id)
        )
        task = library.index.reindex(max_failures=1000)

        app.run_until_idle()

        (error,) = library.tasks.errors(task)
        assert "workers with another embedder go on making vectors: 1 item" in error.error_message
        assert named(library.index.stats())["old"][0] is SpaceStatus.ACTIVE
        monkeypatch.undo()
        library.tasks.reschedule(task, library.tasks.get(task.id).created_at)
        app.run_until_idle()
        stats = library.index.stats()
        assert (stats.missing, named(stats)["new"][0]) == (0, SpaceStatus.ACTIVE)


def test_the_first_embedders_of_a_tenant_make_one_space_that_is_searched(open_app: Open) -> None:
    with open_app(model("one")) as one, open_app(model("two")) as two:
        tenant = one.tenants.create("Acme")
        items = [one.library(tenant).media.add(samples.image(), filename=f"{number}.jpg") for number in range(8)]
        barrier = threading.Barrier(8)

        def embed(number: int) -> None:
            barrier.wait()
            (one, two)[number % 2].library(tenant).index.embed(items[number].id)

        threads = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = one.library(tenant).index.stats()
    assert sorted(space.status for space in stats.spaces) == [SpaceStatus.ACTIVE, SpaceStatus.BUILDING]
    assert [space.items for space in stats.spaces] == [4, 4]


def test_nothing_was_embedded_yet(library: Library, app: Mindia) -> None:
    space = searched(app, library)
    assert (space.space_id, space.warning) == (None, None)
    library.media.add(samples.image(), filename="a.jpg")
    stats = library.index.stats()
    assert (stats.items, stats.missing, stats.waiting, stats.searched) == (1, 1, 1, None)
