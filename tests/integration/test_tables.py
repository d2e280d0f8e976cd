"""Pages, results and vectors as tables; bars of progress."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import tqdm.auto

from mindia import Library, Location, Media, Mindia
from mindia.errors import InvalidError, MissingExtraError
from mindia.testing import samples


@pytest.fixture
def items(library: Library) -> list[Media]:
    return [
        library.media.add(
            samples.image(), filename="quay.jpg", description="a ship at the quay", metadata={"roll": 12, "by": "Ä"}
        ),
        library.media.add(samples.wav(), filename="talk.wav", description="a talk about ships"),
    ]


def test_a_page_is_a_data_frame_with_a_column_for_each_field_of_any_kind(library: Library, items: list[Media]) -> None:
    frame = library.media.find().to_pandas().set_index("filename")

    assert len(frame) == 2
    quay, talk = frame.loc["quay.jpg"], frame.loc["talk.wav"]
    assert (quay["kind"], talk["kind"]) == ("image", "audio")
    assert quay["id"] == str(items[0].id)
    assert quay["width"] == 64
    assert np.isnan(talk["width"])
    assert talk["duration"] > 0
    assert quay["metadata"] == {"roll": 12, "by": "Ä"}
    assert quay["uploaded_at"].to_pydatetime() == items[0].uploaded_at


@pytest.mark.usefixtures("items")
def test_results_are_an_arrow_table_with_the_parts_of_the_score_first(library: Library) -> None:
    results = library.search("quay ship")
    table = results.to_arrow()

    assert table.column_names[:5] == ["score", "text_rank", "text_score", "vector_rank", "similarity"]
    assert table.column("score").to_pylist() == [result.score for result in results]
    assert table.column("filename").to_pylist() == [result.media.filename for result in results]
    assert {"roll": 12, "by": "Ä"} in [json.loads(each) for each in table.column("metadata").to_pylist()]


def test_a_place_is_json_in_arrow(library: Library) -> None:
    place = Location(latitude=52.5, longitude=13.4)
    library.media.add(samples.image(location=place), filename="quay.jpg")

    (shown,) = library.media.find().to_arrow().column("location").to_pylist()

    assert shown is None or json.loads(shown)["latitude"] == 52.5


def test_an_empty_page_is_an_empty_table(library: Library) -> None:
    assert len(library.media.find().to_pandas()) == 0
    assert library.search("nothing").to_arrow().num_rows == 0


def test_vectors_are_those_that_are_searched(app: Mindia, library: Library, items: list[Media]) -> None:
    assert library.index.vectors().model_name is None
    app.run_until_idle()

    vectors = library.index.vectors()

    assert set(vectors.ids) == {item.id for item in items}
    assert vectors.model_name == app._spaces.embedder.model_name
    matrix = vectors.to_numpy()
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(vectors), app._spaces.embedder.native_dimensions)
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, rtol=1e-5)
    (nearest, *_) = library.index.similar_to_vector(matrix[0], min_similarity=-1)
    assert nearest.media.id == vectors.ids[0]
    assert nearest.similarity == pytest.approx(1, abs=1e-5)
    assert "2 of" in repr(vectors)


def test_vectors_of_some_items_are_theirs_alone(app: Mindia, library: Library, items: list[Media]) -> None:
    app.run_until_idle()
    everything = library.index.vectors()

    some = library.index.vectors([items[1], uuid4()])

    assert some.ids == (items[1].id,)
    np.testing.assert_array_equal(some.matrix[0], everything.matrix[everything.ids.index(items[1].id)])
    assert library.index.vectors([]).ids == ()
    assert list(some.to_pandas()["id"]) == [str(items[1].id)]
    assert some.to_arrow().column("vector").to_pylist()[0] == pytest.approx(list(some.matrix[0]))
    with pytest.raises(InvalidError, match="items or ids"):
        library.index.vectors(["quay.jpg"])  # type: ignore[list-item]  # refused for that


def test_vectors_come_page_by_page(
    app: Mindia, library: Library, items: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run_until_idle()
    whole = library.index.vectors()
    monkeypatch.setattr("mindia.services.embedding_index._VECTORS_PAGE", 1)

    paged = library.index.vectors()

    assert paged.ids == whole.ids
    assert len(paged) == len(items)
    np.testing.assert_array_equal(paged.matrix, whole.matrix)


def test_vectors_of_what_has_expired_are_not_there(app: Mindia, library: Library, items: list[Media]) -> None:
    app.run_until_idle()
    library.media.update(items[0], expires_at=datetime.now(UTC) + timedelta(milliseconds=1))
    while library.media.exists(ids=[items[0].id]):
        pass

    assert library.index.vectors().ids == (items[1].id,)


def test_what_is_missing_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    page = library.media.find()
    for module, call in (("pandas", page.to_pandas), ("pyarrow", page.to_arrow)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r"mindia\[notebook\]"):
            call()
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingExtraError, match=r"mindia\[notebook\]"):
        library.media.add_many([samples.image()], progress=True)
    assert library.media.count() == 0


Seen = list[list[tuple[int, int | None]]]


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """For each bar, how far it came, and of how much."""
    bars: Seen = []
    begin, update = tqdm.auto.tqdm.__init__, tqdm.auto.tqdm.update

    def noting_begin(bar: Any, *arguments: object, **options: object) -> None:
        begin(bar, *arguments, **options)
        bar.seen = []
        bars.append(bar.seen)

    def noting_update(bar: Any, n: float) -> object:
        updated = update(bar, n)
        bar.seen.append((int(bar.n), bar.total))
        return updated

    monkeypatch.setattr(tqdm.auto.tqdm, "__init__", noting_begin)
    monkeypatch.setattr(tqdm.auto.tqdm, "update", noting_update)
    return bars


def test_adding_many_shows_a_bar(library: Library, bars: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    report = library.media.add_many([samples.image(), b"no picture", samples.wav()], progress=True)

    assert len(report.added) == 2
    (bar,) = bars
    assert bar[-1] == (3, 3)
    assert "failed=1" in capsys.readouterr().err


def test_no_bar_is_shown_unasked(library: Library, bars: Seen) -> None:
    library.media.add_many([samples.image()], progress=False)
    library.media.add_many([samples.image()])

    assert bars == []


def test_export_and_import_show_bars(
    app: Mindia, library: Library, items: list[Media], bars: Seen, tmp_path: Path
) -> None:
    app.tenants.export(library.tenant_id, tmp_path / "acme.zip", progress=True)
    app.tenants.import_archive(tmp_path / "acme.zip", name="Again", keep_ids=False, progress=True)

    assert [bar[-1] for bar in bars] == [(len(items), len(items))] * 2


def test_what_was_added_before_ctrl_c_stays_and_nothing_else(app: Mindia, library: Library) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.media.add_many([samples.image(width=8 + n) for n in range(40)], progress=interrupt)

    there = list(library.media.iterate())
    assert 0 < len(there) < 40
    assert all(library.media.read(item) for item in there)
    app.maintenance.sweep_staged(older_than=timedelta())
    assert not [each for each in app.maintenance.verify().findings if each.tenant_id == library.tenant_id]
