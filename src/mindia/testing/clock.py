"""A clock that a test can move."""

from __future__ import annotations

from datetime import timedelta

from mindia.app import Mindia
from mindia.db.session import ACROSS_TENANTS
from mindia.errors import InvalidError
from mindia.repositories import time_shift


class Clock:
    """Lets time pass for an application, as far as it waits for something.

    The clock of the server is not touched: what waits is made to have waited for longer. Tasks come due, periodic ones
    too, items and keys expire, log-ins are admitted again, events are tried again, and what was deleted or never added
    is swept. Times that only tell when something happened stay as they are.

    Args:
        app: The application, on a database that nobody else uses.
    """

    def __init__(self, app: Mindia) -> None:
        self._app = app

    def advance(self, by: timedelta) -> None:
        """Let so much time pass.

        Raises:
            InvalidError: It is negative: what has come due cannot be undone.
        """
        if by < timedelta():
            raise InvalidError(f"time does not go back: {by!r}")
        with self._app._database.transaction(ACROSS_TENANTS) as session:
            time_shift.shift(session, by)
