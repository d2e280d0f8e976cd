"""Pictures of a library: what is stored, what workers do, what is asked for, what lies near what.

Each function returns a `Plot`, which notebooks show; its `figure` is matplotlib's, to be changed at will. Nothing
global is touched: neither `pyplot` nor its settings.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import attrs

from mindia.domain.analytics import RequestGroup, TimeStep
from mindia.errors import InvalidError, MissingExtraError
from mindia.services._named import named
from mindia.services.previews import MediaPreviews

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import float32
    from numpy.typing import NDArray

    from mindia.domain.media import Media
    from mindia.library import Library

_SIZE = (8.0, 4.0)
_MAX_POINTS = 5_000
_MAX_THUMBNAILS = 200
_DPI = 100
_MIB = 1024 * 1024

K = TypeVar("K")


@attrs.frozen(eq=False, repr=False)
class Plot:
    """A picture, as notebooks show it.

    Attributes:
        figure: The figure of matplotlib.
        title: What it shows.
    """

    figure: Figure
    title: str

    def __repr__(self) -> str:
        return f"<Plot: {self.title}>"

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=_DPI)
        return content.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whose name says as what: `.png`, `.svg`, `.pdf`."""
        self.figure.savefig(path, dpi=_DPI)


def storage(library: Library) -> Plot:
    """Show how many bytes there are of each kind.

    Raises:
        MissingExtraError: matplotlib is not installed.
        PermissionDeniedError: The user is a viewer.
    """
    figure, axes = _figure("Storage by kind")
    sizes: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for each in library.usage().by_type:
        sizes[str(each.kind)] += each.total_bytes
        counts[str(each.kind)] += each.item_count
    kinds = sorted(sizes, key=sizes.__getitem__)
    bars = axes.barh(kinds, [sizes[kind] / _MIB for kind in kinds])
    axes.bar_label(bars, [f"{counts[kind]:,} item(s)" for kind in kinds], padding=4)
    axes.margins(x=0.2)
    axes.set_xlabel("MiB")
    return Plot(figure, "storage by kind")


def storage_over_time(
    library: Library,
    by: TimeStep | str = TimeStep.DAY,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Plot:
    """Show how many bytes of each kind were stored in each hour or day, of those that are still there.

    Args:
        library: Of the tenant.
        by: As for `library.statistics.storage`.
        since: As for `library.statistics.storage`.
        until: As for `library.statistics.storage`.

    Raises:
        InvalidError: An argument is out of range.
        MissingExtraError: matplotlib is not installed.
        PermissionDeniedError: The user is a viewer.
    """
    figure, axes = _figure("Stored over time")
    found = library.statistics.storage(by, since=since, until=until)
    _stacked(axes, ((str(each.kind), each.begins_at, each.total_bytes / _MIB) for each in found))
    axes.set_ylabel(f"MiB per {TimeStep(by)}")
    return Plot(figure, "stored over time")


def tasks(
    library: Library,
    by: TimeStep | str = TimeStep.HOUR,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Plot:
    """Show how many tasks of each type were completed, and how long they waited and ran.

    Args:
        library: Of the tenant.
        by: As for `library.statistics.tasks`.
        since: As for `library.statistics.tasks`.
        until: As for `library.statistics.tasks`.

    Raises:
        InvalidError: An argument is out of range.
        MissingExtraError: matplotlib is not installed.
        PermissionDeniedError: The user is a viewer.
    """
    figure, axes = _figure("Tasks")
    axes.remove()
    upper, lower = figure.subplots(2, 1, sharex=True)
    found = library.statistics.tasks(by, since=since, until=until)
    _stacked(upper, ((each.kind, each.begins_at, each.completed) for each in found))
    upper.set_ylabel(f"completed per {TimeStep(by)}")
    for kind, points in _by_key((each.kind, each) for each in found if each.completed).items():
        times = [each.begins_at for each in points]
        lower.plot(times, [each.mean_wait_s + each.mean_run_s for each in points], marker=".", label=kind)
    lower.set_ylabel("seconds until done")
    lower.set_ylim(bottom=0)
    figure.autofmt_xdate()
    return Plot(figure, "tasks")


def requests(
    library: Library,
    by: TimeStep | str = TimeStep.HOUR,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Plot:
    """Show how many requests there were, how many of them failed, and how long they took.

    Args:
        library: Of the tenant.
        by: `"hour"` or `"day"`.
        since: As for `library.request_log.summary`.
        until: As for `library.request_log.summary`.

    Raises:
        InvalidError: An argument is out of range.
        MissingExtraError: matplotlib is not installed.
        PermissionDeniedError: The user is no admin.
    """
    figure, axes = _figure("Requests")
    axes.remove()
    upper, lower = figure.subplots(2, 1, sharex=True)
    step = named(by, TimeStep, argument="by")
    summary = library.request_log.summary(RequestGroup(step), order="key", since=since, until=until)
    found = [each for each in summary if isinstance(each.key, datetime)]
    kept = [(each.key, each) for each in found if isinstance(each.key, datetime)]
    counts = [("served", key, each.requests - each.errors) for key, each in kept]
    _stacked(upper, [*counts, *(("failed", key, each.errors) for key, each in kept)])
    upper.set_ylabel(f"requests per {step}")
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        lower.plot([key for key, _ in kept], [getattr(each, name) for _, each in kept], marker=".", label=name[:3])
    lower.set_ylabel("ms")
    lower.set_ylim(bottom=0)
    if kept:
        lower.legend(fontsize="small")
    figure.autofmt_xdate()
    return Plot(figure, "requests")


def embedding_map(library: Library, media: Iterable[Media] | None = None, *, thumbnails: int = 50) -> Plot:
    """Show items on a plane, those near each other whose vectors are alike.

    The plane is that of the first two principal components, which keeps as much of the distances as a plane can
    (Hotelling, "Analysis of a complex of statistical variables into principal components", 1933).

    Args:
        library: Of the tenant.
        media: Which items; by default the latest 5,000 that have vectors.
        thumbnails: How many are shown by their pictures, at most 200; the others are points.

    Raises:
        InvalidError: An argument is out of range.
        MissingExtraError: matplotlib is not installed.
    """
    if not isinstance(thumbnails, int) or not 0 <= thumbnails <= _MAX_THUMBNAILS:
        raise InvalidError(f"thumbnails must be 0 to {_MAX_THUMBNAILS}, not {thumbnails!r}")
    figure, axes = _figure("Items by meaning")
    listed = list(media) if media is not None else _latest(library)
    vectors = library.index.vectors(listed)
    by_id = {item.id: item for item in listed}
    items = [by_id[each] for each in vectors.ids]
    places = plane_of(vectors.matrix)
    for kind, rows in _by_key((str(item.kind), row) for row, item in enumerate(items)).items():
        axes.scatter(places[rows, 0], places[rows, 1], s=12, label=kind)
    previews = MediaPreviews(library._context)
    for row, item in list(enumerate(items))[:thumbnails]:
        picture = previews.of(item)
        if picture is not None:
            _put(axes, picture, (float(places[row, 0]), float(places[row, 1])))
    axes.margins(0.1)
    axes.set_xticks([])
    axes.set_yticks([])
    if items:
        axes.legend(fontsize="small")
    return Plot(figure, f"{len(items)} item(s) by meaning")


def plane_of(matrix: NDArray[float32]) -> NDArray[float32]:
    """Return the first two principal components of rows, of the shape (rows, 2)."""
    import numpy as np

    places: NDArray[float32] = np.zeros((len(matrix), 2), dtype=np.float32)
    if len(matrix) < 2:
        return places
    centred = matrix - matrix.mean(axis=0)
    # Of the smaller one of both products: the eigenvectors are those of the singular value decomposition.
    _, axes = np.linalg.eigh(centred.T @ centred)
    found = centred @ axes[:, ::-1][:, :2]
    places[:, : found.shape[1]] = found
    return places


def _latest(library: Library) -> list[Media]:
    latest: list[Media] = []
    for item in library.media.iterate():
        latest.append(item)
        if len(latest) == _MAX_POINTS:
            break
    return latest


def _figure(title: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("A plot", extra="notebook") from error
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots()


def _stacked(axes: Axes, points: Iterable[tuple[str, datetime, float]]) -> None:
    """Draw bars over time, the parts of each on top of each other."""
    listed = list(points)
    times = sorted({time for _, time, _ in listed})
    heights: Mapping[str, dict[datetime, float]] = defaultdict(dict)
    for name, time, value in listed:
        heights[name][time] = value
    width = min((after - before for before, after in pairwise(times)), default=None)
    below = [0.0] * len(times)
    for name, values in heights.items():
        parts = [values.get(time, 0.0) for time in times]
        axes.bar(
            [time.timestamp() / 86_400 for time in times],
            parts,
            bottom=below,
            width=0.9 * (1.0 if width is None else width.total_seconds() / 86_400),
            label=name,
        )
        below = [low + part for low, part in zip(below, parts, strict=True)]
    axes.xaxis_date()
    if heights:
        axes.legend(fontsize="small")


def _by_key(pairs: Iterable[tuple[str, K]]) -> Mapping[str, Sequence[K]]:
    grouped: dict[str, list[K]] = defaultdict(list)
    for key, value in pairs:
        grouped[key].append(value)
    return grouped


def _put(axes: Axes, picture: bytes, place: tuple[float, float]) -> None:
    import numpy as np
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from PIL import Image

    with Image.open(io.BytesIO(picture), formats=["JPEG"]) as opened:
        opened.thumbnail((48, 48))
        shown = OffsetImage(np.asarray(opened.convert("RGB")))
    axes.add_artist(AnnotationBbox(shown, place, frameon=False))
