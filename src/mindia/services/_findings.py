"""What a step of maintenance has come upon, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mindia.domain.maintenance import FoundObject, MaintenanceReport

_MAX_EXAMPLES = 100


class Tally:
    """Counts, and tells those who want to know how far it is."""

    def __init__(self, progress: Callable[[MaintenanceReport], object] | None, *, is_dry_run: bool) -> None:
        self.room = _MAX_EXAMPLES
        self._progress = progress
        self._is_dry_run = is_dry_run
        self._found = self._removed = self._failed = 0
        self._examples: list[FoundObject] = []
        self._error: Exception | None = None

    def found(self, seen: Sequence[FoundObject], *, count: int | None = None) -> None:
        """Count what was found; the first of it are kept as examples."""
        self._found += len(seen) if count is None else count
        self._examples += seen[: self.room - len(self._examples)]

    def ended(self, count: int, error: Exception | None) -> None:
        """Count what was removed, or could not be because of an error."""
        if error is None:
            self._removed += count
        else:
            self._failed += count
            self._error = error

    def tell(self) -> None:
        """Tell how far it is, if there was anything."""
        if self._progress is not None and self._found:
            self._progress(self.report())

    def report(self) -> MaintenanceReport:
        """Return what was found and done so far."""
        return MaintenanceReport(
            found=self._found,
            removed=self._removed,
            failed=self._failed,
            is_dry_run=self._is_dry_run,
            examples=tuple(self._examples),
            error=self._error,
        )
