"""Many rows in few steps.

Each step of a statement hands the interpreter's lock over and waits to get it back while another
thread computes: rows are inserted in as few steps as their number has bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from wallet.store.connection import Connection

_ROWS_AT_ONCE = (128, 64, 32, 16, 8, 4, 2, 1)


def insert_rows(
    conn: Connection, table: str, columns: int, rows: Sequence[tuple[Any, ...]], clause: str = ""
) -> None:
    """Insert whole rows; `clause` follows the values."""
    row = f"({', '.join('?' * columns)})"
    at = 0
    for count in _ROWS_AT_ONCE:
        while len(rows) - at >= count:
            statement = f"INSERT INTO {table} VALUES {', '.join([row] * count)} {clause}"
            conn.execute(statement, list(itertools.chain.from_iterable(rows[at : at + count])))
            at += count
