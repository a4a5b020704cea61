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
from wallet.store.many import insert_rows

INDEX_BYTES = 8
BLOCK_BYTES = 3800
RECORDS_MIN = 32_768

Place = tuple[int, int, int]
"""(run, first block, blocks)."""


class Run:
    """A run on its way into the store; nobody sees its blocks before `finish_run`."""

    def __init__(self, projection: int, records: Sequence[bytes], replaced: Place | None) -> None:
        self.projection = projection
        self.records = records
        # The small run whose records are among these: (run, first block, blocks).
        self.replaced = replaced
        self.written = 0
        self.first_block = 0

    @property
    def width(self) -> int:
        """Bytes of one record."""
        return len(self.records[0])

    @property
    def per_block(self) -> int:
        """Records of one block."""
        return BLOCK_BYTES // self.width

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return -(-len(self.records) // self.per_block)


def add_records(conn: Connection, projection: int, records: Sequence[bytes]) -> None:
    """Store records of one width, all at once; those of the last run too when it is small."""
    run = prepare_run(conn, projection, records)
    if run is not None:
        write_blocks(conn, run, run.blocks)
        finish_run(conn, run)


def prepare_run(conn: Connection, projection: int, records: Sequence[bytes]) -> Run | None:
    """The run that stores records of one width; it only reads. None when there are none."""
    if not records:
        return None
    width = len(records[0])
    if set(map(len, records)) != {width}:
        raise ValueError("the records of a projection have one width")
    last = conn.execute(
        "SELECT run, records, first_block, length(fences) FROM runs WHERE projection = ?"
        " ORDER BY run DESC LIMIT 1",
        (projection,),
    ).fetchone()
    if last is None or last[1] >= RECORDS_MIN:
        return Run(projection, sorted(set(records)), None)
    place = (int(last[0]), int(last[2]), int(last[3]) // width)
    kept = _records_of(conn, place, width=width)
    return Run(projection, sorted({*kept, *records}), place)


def write_blocks(conn: Connection, run: Run, limit: int) -> bool:
    """Store up to `limit` more blocks; true when all are stored."""
    if run.written == 0:
        run.first_block = next_block(conn)
    end = min(run.written + limit, run.blocks)
    rows = []
    for number in range(run.written, end):
        start = number * run.per_block
        body = b"".join(run.records[start : start + run.per_block])
        rows.append((run.first_block + number, body))
    insert_rows(conn, "run_blocks", 2, rows)
    run.written = end
    return end == run.blocks


def finish_run(conn: Connection, run: Run) -> None:
    """Let lookups see the run, all of whose blocks are stored, and forget what it replaces."""
    if run.replaced is not None:
        old, first_block, blocks = run.replaced
        conn.execute("DELETE FROM runs WHERE projection = ? AND run = ?", (run.projection, old))
        drop_blocks(conn, first=first_block, end=first_block + blocks)
    fences = b"".join(run.records[:: run.per_block])
    conn.execute(
        "INSERT INTO runs SELECT ?1, coalesce(max(run), -1) + 1, ?2, ?3, ?4 FROM runs"
        " WHERE projection = ?1",
        (run.projection, len(run.records), run.first_block, fences),
    )


def next_block(conn: Connection) -> int:
    """The number of the next block."""
    row = conn.execute("SELECT coalesce(max(block), 0) + 1 FROM run_blocks").fetchone()
    return int(row[0]) if row else 1


def drop_blocks(conn: Connection, *, first: int, end: int | None = None) -> None:
    """Forget the blocks from one number on, up to another."""
    conn.execute(
        "DELETE FROM run_blocks WHERE block >= ? AND (? IS NULL OR block < ?)", (first, end, end)
    )


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


def _records_of(conn: Connection, place: Place, *, width: int) -> list[bytes]:
    _, first_block, blocks = place
    bodies = [_body(conn, block) for block in range(first_block, first_block + blocks)]
    return [body[at : at + width] for body in bodies for at in range(0, len(body), width)]


def _body(conn: Connection, block: int) -> bytes:
    row = conn.execute("SELECT body FROM run_blocks WHERE block = ?", (block,)).fetchone()
    if row is None:
        raise Tampered(f"block {block} of a lookup projection is missing")
    return bytes(row[0])
