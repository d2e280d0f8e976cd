"""Plots of a library, and the example notebook that shows them."""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mindia import Library, Mindia, plots
from mindia.errors import InvalidError, MissingExtraError
from mindia.plots import Plot
from mindia.testing import samples

_EXAMPLE = Path(__file__).parents[2] / "examples" / "explore.ipynb"

ALL: dict[str, Callable[[Library], Plot]] = {
    "storage": plots.storage,
    "storage_over_time": plots.storage_over_time,
    "tasks": plots.tasks,
    "requests": plots.requests,
    "embedding_map": plots.embedding_map,
}


@pytest.fixture
def busy(app: Mindia, library: Library) -> Library:
    for color in ("teal", "gold", "navy"):
        library.media.add(samples.image(color=color), filename=f"{color}.jpg", description=f"a {color} wall")
    library.media.add(samples.wav(), filename="talk.wav")
    library.request_log.record("GET", "/media", 200, response_time_ms=12)
    library.request_log.record("GET", "/media", 500, response_time_ms=90)
    app.request_log.flush()
    app.run_until_idle()
    return library


def _pixels(plot: Plot) -> tuple[int, int, int]:
    """Return width, height and how many colours there are."""
    with PIL.Image.open(io.BytesIO(plot._repr_png_())) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None
    return *picture.size, len(colours)


def _bars(axes: Axes) -> list[Rectangle]:
    return [each for each in axes.patches if isinstance(each, Rectangle)]


@pytest.mark.parametrize("name", ALL)
def test_each_plot_is_a_picture(busy: Library, name: str) -> None:
    plot = ALL[name](busy)

    width, height, colours = _pixels(plot)
    assert (width, height) == (800, 400)
    assert colours > 10
    assert repr(plot).startswith("<Plot: ")


@pytest.mark.parametrize("name", ALL)
def test_an_empty_library_has_plots_too(library: Library, name: str) -> None:
    assert _pixels(ALL[name](library))[:2] == (800, 400)


def test_storage_has_a_bar_for_each_kind_with_its_count(busy: Library) -> None:
    (axes,) = plots.storage(busy).figure.axes

    assert sorted(label.get_text() for label in axes.get_yticklabels()) == ["audio", "image"]
    assert sorted(text.get_text() for text in axes.texts) == ["1 item(s)", "3 item(s)"]


def test_failed_requests_stand_on_those_that_were_served(busy: Library) -> None:
    upper, lower = plots.requests(busy).figure.axes

    assert [(bar.get_y(), bar.get_height()) for bar in _bars(upper)] == [(0, 1), (1, 1)]
    assert [np.asarray(line.get_ydata())[-1] for line in lower.lines] == [12, 90, 90]


def test_tasks_tell_how_many_were_done(busy: Library) -> None:
    upper, lower = plots.tasks(busy).figure.axes

    assert upper.get_legend_handles_labels()[1] == ["generate_embedding"]
    assert sum(bar.get_height() for bar in _bars(upper)) == 4
    assert np.asarray(lower.lines[0].get_ydata())[0] >= 0


def test_the_map_has_a_point_for_each_item_and_pictures_of_some(busy: Library) -> None:
    (axes,) = plots.embedding_map(busy, thumbnails=3).figure.axes

    points = np.concatenate([np.asarray(each.get_offsets()) for each in axes.collections])
    assert len(points) == 4
    assert len(np.unique(points.round(6), axis=0)) > 1
    assert 0 < len(axes.artists) <= 3
    (axes,) = plots.embedding_map(busy, list(busy.media.find(kind="image")), thumbnails=0).figure.axes
    assert len(np.asarray(axes.collections[0].get_offsets())) == 3
    assert len(axes.artists) == 0


def test_a_plot_is_saved_as_its_name_says(busy: Library, tmp_path: Path) -> None:
    plot = plots.storage(busy)
    plot.save(tmp_path / "storage.svg")
    plot.save(tmp_path / "storage.png")

    assert "<svg" in (tmp_path / "storage.svg").read_text()
    assert (tmp_path / "storage.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_out_of_range_is_refused(busy: Library) -> None:
    with pytest.raises(InvalidError, match="thumbnails"):
        plots.embedding_map(busy, thumbnails=1_000)
    for plot in (plots.storage_over_time, plots.tasks, plots.requests):
        with pytest.raises(InvalidError, match="week"):
            plot(busy, "week")
    with pytest.raises(InvalidError, match="later than since"):
        plots.tasks(busy, since=datetime.now(UTC), until=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.parametrize("name", ALL)
def test_without_matplotlib_the_extra_is_named(library: Library, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(MissingExtraError, match=r"mindia\[notebook\]"):
        ALL[name](library)


@given(st.integers(2, 30), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_plane_is_that_of_the_singular_value_decomposition(rows: int, columns: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)

    places = plots.plane_of(matrix)

    centred = matrix.astype(np.float64) - matrix.mean(axis=0)
    lengths = np.linalg.svd(centred, compute_uv=False)[:2]
    assert places.shape == (rows, 2)
    np.testing.assert_allclose(np.sort(np.linalg.norm(places, axis=0))[::-1][: len(lengths)], lengths, atol=1e-3)


def test_the_example_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = 0
    scope: dict[str, object] = {}
    for cell in json.loads(_EXAMPLE.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        *statements, last = ast.parse("".join(cell["source"])).body
        is_shown = isinstance(last, ast.Expr)
        exec(compile(ast.Module([*statements, *([] if is_shown else [last])], []), _EXAMPLE, "exec"), scope)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), _EXAMPLE, "eval"), scope)
            picture = getattr(value, "_repr_html_", None) or getattr(value, "_repr_png_", None)
            if picture is not None:
                assert len(picture()) > 100
                shown += 1
    assert shown >= 6
