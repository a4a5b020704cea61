"""How rows become values, and how a table is kept to its bound."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from wallet.store.connection import Connection, Row

V = TypeVar("V", bound=msgspec.Struct)


def values_of(kind: type[V], rows: Iterable[Row]) -> list[V]:
    """One value for each row, whose columns are the fields in their order."""
    names = kind.__struct_fields__
    return [kind(**dict(zip(names, row, strict=True))) for row in rows]


def value_of(kind: type[V], row: Row | None) -> V | None:
    """The value of a single row, if there is one."""
    return None if row is None else values_of(kind, [row])[0]


def is_full(conn: Connection, table: str, *, rows_max: int) -> bool:
    """Whether a table with the key `seq` holds as many rows as it may.

    The span of the keys bounds the count and is read at once; only a wide span makes it count.
    """
    row = conn.execute(f"SELECT max(seq), min(seq) FROM {table}").fetchone()
    if row is None or row[0] is None or row[0] - row[1] + 1 < rows_max:
        return False
    counted = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
    return counted is not None and int(counted[0]) >= rows_max
