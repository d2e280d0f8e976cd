"""What all benchmarks print and write."""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import attrs


@attrs.frozen
class Goal:
    """A limit that the ratio to the peer must keep; without a peer, the value itself."""

    limit: float
    at_least: bool = attrs.field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def is_met_by(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


@attrs.frozen(kw_only=True)
class Figure:
    """One line of a report.

    Attributes:
        name: What was measured, with its unit.
        value: Ours.
        peer: That of the peer, measured in the same run, or None.
        goal: The limit, or None where the figure only stands beside others.
        ratio: Of value to peer; another one where it is the median of the ratios of several rounds.
    """

    name: str
    value: float
    peer: float | None = None
    goal: Goal | None = None
    ratio: float | None = attrs.field()

    @ratio.default
    def _(self) -> float | None:
        return self.value / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.goal.is_met_by(self.value if self.ratio is None else self.ratio)


@attrs.frozen
class Options:
    """How a benchmark was called.

    Attributes:
        quick: With few repeats, to see that it runs.
        json: The file that the figures are written to as well.
    """

    quick: bool
    json: Path | None


def options(description: str | None) -> Options:
    """Read the command line."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few repeats, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return Options(**vars(parser.parse_args()))


def report(
    figures: list[Figure], options: Options, *, packages: tuple[str, ...] = (), others: Mapping[str, str] | None = None
) -> None:
    """Print the figures as a table, with the machine and the versions, and write them where that was asked for.

    Args:
        figures: The lines.
        options: Where they are written to.
        packages: What is installed here and belongs to the measurement.
        others: Versions of what is installed or runs elsewhere.
    """
    versions = {name: version(name) for name in ("mindia", *packages)} | dict(others or {})
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores;",
        end=" ",
    )
    print(", ".join(f"{name} {number}" for name, number in versions.items()), end="\n\n")
    rows = [("name", "value", "peer", "ratio", "goal", "met"), *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        print("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]))
    if options.json is not None:
        options.json.write_text(json.dumps([_plain(figure) for figure in figures], indent=2) + "\n")
    sys.stdout.flush()


def _row(figure: Figure) -> tuple[str, ...]:
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    goal = "" if figure.goal is None else str(figure.goal)
    return (figure.name, _short(figure.value), _short(figure.peer), _short(figure.ratio), goal, met)


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _plain(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name,
        "value": figure.value,
        "peer": figure.peer,
        "ratio": figure.ratio,
        "goal": None if figure.goal is None else str(figure.goal),
        "met": figure.met,
    }
