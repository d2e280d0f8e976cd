"""What pages, results and sums look like as tables: data frames of pandas and Arrow tables."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, cast
from uuid import UUID

import attrs

from mindia.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mindia.domain.media import Media

Columns: TypeAlias = Mapping[str, Sequence[object]]


class Tabular:
    """Something that can be had as a table."""

    __slots__ = ()

    @abstractmethod
    def _columns(self) -> Columns:
        """Return the values of each column."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame of pandas, a row for each; ids and enums are text.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("A data frame", extra="notebook") from error
        return pd.DataFrame({name: [_plain(value) for value in values] for name, values in self._columns().items()})

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table, a row for each; ids and enums are text, what has fields of its own is JSON.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise MissingExtraError("An Arrow table", extra="notebook") from error
        return pa.table({name: [_as_json(value) for value in values] for name, values in self._columns().items()})


def columns_of_media(items: Sequence[Media]) -> Columns:
    """Return what is known of items, one column a field of any of their kinds; None where a kind has no such field."""
    names = dict.fromkeys(field.name for kind in dict.fromkeys(map(type, items)) for field in attrs.fields(kind))
    return {"kind": [item.kind for item in items]} | {
        name: [getattr(item, name, None) for item in items] for name in names
    }


def columns_of(rows: Iterable[attrs.AttrsInstance], kind: type[attrs.AttrsInstance]) -> Columns:
    """Return one column a field."""
    listed = list(rows)
    return {field.name: [getattr(row, field.name) for row in listed] for field in attrs.fields(kind)}


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Enum | UUID) else value


def _as_json(value: object) -> object:
    if attrs.has(type(value)):
        value = attrs.asdict(cast("attrs.AttrsInstance", value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else _plain(value)
