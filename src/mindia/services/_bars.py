"""Progress as a bar, where a caller asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from mindia.domain.bulk import Progress
from mindia.errors import MissingExtraError

Report: TypeAlias = Callable[[Progress], object]


@contextmanager
def reporting(progress: Report | bool | None, *, unit: str) -> Iterator[Report | None]:  # noqa: FBT001 - of a keyword
    """Give what is to be called with how far it is: the caller's own, a bar of tqdm's for True, or nothing.

    Args:
        progress: What the caller asks for.
        unit: What is counted, in the singular.

    Raises:
        MissingExtraError: A bar is asked for, and tqdm is not installed.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingExtraError("A progress bar", extra="notebook") from error
    with tqdm(unit=unit) as bar:

        def show(so_far: Progress) -> None:
            bar.total = so_far.total
            if so_far.failed:
                bar.set_postfix(failed=so_far.failed, refresh=False)
            bar.update(so_far.done - bar.n)

        yield show
