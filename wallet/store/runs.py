"""Lookup projections as sorted runs: a cheap index for keys that arrive in random order.

One random key dirties one page of a B-tree, and with an encrypted page, its checksum, its copy in
the log and in the file that costs 20 to 60 us a key however large the transaction is. So each
flush writes its records sorted, one after the other, into blocks of about a page; a lookup looks
into every run by its fences (the first record of each block) and then into one block or two.

A record is a key of fixed width and an 8-byte index, big-endian, so that bytes sort as they should.
Small runs are folded into the next flush, so that there are about `records / RECORDS_MIN` runs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from wallet.store.connection import Connection
from wallet.store.errors import Tampered

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
        first = max(_count_up_to(fences, lowest, width=width) - 1, 0)
        for block in range(_count_up_to(fences, highest, width=width) - 1, first - 1, -1):
            yield from _within(_body(conn, first_block + block), lowest, highest, width=width)


def _within(body: bytes, lowest: bytes, highest: bytes, *, width: int) -> Iterator[bytes]:
    """The records of a block within the bounds, the highest first."""
    for number in range(_count_up_to(body, highest, width=width) - 1, -1, -1):
        record = body[number * width : (number + 1) * width]
        if record < lowest:
            return
        yield record


def _count_up_to(records: bytes, bound: bytes, *, width: int) -> int:
    """How many of the joined records are not above the bound; only those compared are cut out."""
    return bisect_right(
        range(len(records) // width),
        bound,
        key=lambda number: records[number * width : (number + 1) * width],
    )


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
    bodies = [_body(conn, block) for block in range(first_block, first_block + blocks)]
    records = [body[at : at + width] for body in bodies for at in range(0, len(body), width)]
    conn.execute(
        "DELETE FROM run_blocks WHERE block >= ? AND block < ?", (first_block, first_block + blocks)
    )
    return records


def _next_block(conn: Connection) -> int:
    row = conn.execute("SELECT coalesce(max(block), 0) + 1 FROM run_blocks").fetchone()
    return int(row[0]) if row else 1


def _body(conn: Connection, block: int) -> bytes:
    row = conn.execute("SELECT body FROM run_blocks WHERE block = ?", (block,)).fetchone()
    if row is None:
        raise Tampered(f"block {block} of a lookup projection is missing")
    return bytes(row[0])
