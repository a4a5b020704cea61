"""Lookup projections as sorted runs: a cheap index for keys that arrive in random order.

One random key dirties one page of a B-tree, and with an encrypted page, its checksum, its copy in
the log and in the file that costs 20 to 60 us a key however large the transaction is. So each
flush writes its records sorted, one after the other, into blocks of about a page; a lookup looks
into every run by its fences (the first record of each block) and then into one block or two.

A record is a key of fixed width and an 8-byte index, big-endian, so that bytes sort as they should.
Small runs are folded into the next flush, so that there are about `records / RECORDS_MIN` runs.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from wallet.store.connection import Connection

INDEX_BYTES = 8
BLOCK_BYTES = 3800
RECORDS_MIN = 32_768


def add_records(conn: Connection, projection: int, records: Sequence[bytes]) -> None:
    """Store records of one width; those of the last run too when it is small."""
    if not records:
        return
    last = conn.execute(
        "SELECT run, records, first_block, fences FROM runs WHERE projection = ?"
        " ORDER BY run DESC LIMIT 1",
        (projection,),
    ).fetchone()
    width = len(records[0])
    if set(map(len, records)) != {width}:
        raise ValueError("the records of a projection have one width")
    run = 0 if last is None else int(last[0]) + 1
    if last is None or last[1] >= RECORDS_MIN:
        _write_run(conn, projection, run, sorted(set(records)))
        return
    kept = _taken_run(conn, first_block=last[2], blocks=len(last[3]) // width, width=width)
    conn.execute("DELETE FROM runs WHERE projection = ? AND run = ?", (projection, last[0]))
    _write_run(conn, projection, run, sorted({*kept, *records}))


def find_records(
    conn: Connection, projection: int, *, lowest: bytes, highest: bytes
) -> Iterator[bytes]:
    """The records within the bounds, both included: the newest run first, highest record first."""
    width = len(lowest)
    runs = conn.execute(
        "SELECT first_block, fences FROM runs WHERE projection = ? ORDER BY run DESC",
        (projection,),
    )
    for first_block, fences in runs.fetchall():
        starts = [fences[at : at + width] for at in range(0, len(fences), width)]
        low = max(bisect_right(starts, lowest) - 1, 0)
        for block in range(bisect_right(starts, highest) - 1, low - 1, -1):
            found = _read_block(conn, first_block + block, width=width)
            yield from reversed(found[bisect_left(found, lowest) : bisect_right(found, highest)])


def _write_run(conn: Connection, projection: int, run: int, records: Sequence[bytes]) -> None:
    width = len(records[0])
    per_block = BLOCK_BYTES // width
    starts = range(0, len(records), per_block)
    first_block = _next_block(conn)
    conn.executemany(
        "INSERT INTO run_blocks VALUES (?, ?)",
        (
            (first_block + number, b"".join(records[start : start + per_block]))
            for number, start in enumerate(starts)
        ),
    )
    fences = b"".join(records[start] for start in starts)
    conn.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?)",
        (projection, run, len(records), first_block, fences),
    )


def _taken_run(conn: Connection, *, first_block: int, blocks: int, width: int) -> list[bytes]:
    """The records of a run, whose blocks are deleted."""
    numbers = range(first_block, first_block + blocks)
    records = [record for block in numbers for record in _read_block(conn, block, width=width)]
    conn.execute(
        "DELETE FROM run_blocks WHERE block >= ? AND block < ?", (first_block, first_block + blocks)
    )
    return records


def _next_block(conn: Connection) -> int:
    row = conn.execute("SELECT coalesce(max(block), 0) + 1 FROM run_blocks").fetchone()
    return int(row[0]) if row else 1


def _read_block(conn: Connection, block: int, *, width: int) -> list[bytes]:
    rows = conn.execute("SELECT body FROM run_blocks WHERE block = ?", (block,))
    return [
        body[at : at + width] for (body,) in rows.fetchall() for at in range(0, len(body), width)
    ]
