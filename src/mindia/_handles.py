"""What handles have in common."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from mindia.errors import NotPicklableError


class Handle:
    """Something that leads to open connections, and so stays in its process."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise NotPicklableError(
            f"a {type(self).__name__} holds connections and cannot be pickled: send ids or media, which are plain "
            "values, and make a handle of its own in the other process"
        )
