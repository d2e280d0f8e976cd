"""Misspelt words, and those that they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from mindia.repositories.vocabulary import LookUp

_ALIKE = 0.75
"""Of `difflib`'s ratio: one letter wrong, missing, too many or out of place in a word of five."""


def corrected(query: str, lookups: Sequence[LookUp]) -> str | None:
    """Return a query with the likeliest word in place of each that is not known; None where nothing changes."""
    changed = query
    for look_up in lookups:
        if look_up.is_known:
            continue
        best = get_close_matches(look_up.word, look_up.similar, n=1, cutoff=_ALIKE)
        if best:
            changed = re.sub(rf"(?<!\w){re.escape(look_up.word)}(?!\w)", best[0], changed, flags=re.IGNORECASE)
    return changed if changed != query else None
