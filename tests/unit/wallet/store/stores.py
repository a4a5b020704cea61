"""What tests do to stores from the outside: fill, copy, bend."""

import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.journal import append_entries, entry_count, read_entries

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
WAL_HEADER_BYTES = 32


def entry(index: int) -> bytes:
    """An entry of 300 bytes that only this index has."""
    return index.to_bytes(8, "big") + bytes((index + place) % 251 for place in range(292))


async def append(database: Database, count: int, *, batch: int = 10) -> None:
    """Append entries, each batch in a transaction of its own."""
    for _ in range(0, count, batch):
        await database.write(lambda conn: _append_batch(conn, batch))


def _append_batch(conn: Connection, batch: int) -> None:
    first = entry_count(conn)
    append_entries(conn, first, [entry(first + place) for place in range(batch)])


async def all_entries(database: Database) -> Sequence[bytes]:
    """Everything in the journal."""
    return await database.read(lambda conn: read_entries(conn, 0, entry_count(conn)))


async def make_store(path: Path, *, entries: int) -> None:
    """A closed store with this many entries, all in the main file."""
    database = await Database.open(path, key=KEY)
    await append(database, entries)
    await database.close()


async def make_crashed_store(path: Path, *, entries: int) -> None:
    """A store as a killed process leaves it: what was committed is in the write-ahead log."""
    living = path.with_name("living.db")
    database = await Database.open(living, key=KEY)
    await append(database, entries)
    for suffix in ("", "-wal", ".keycheck"):
        shutil.copy(f"{living}{suffix}", f"{path}{suffix}")
    await database.close()


def flip(path: Path, offset: int) -> None:
    """Change one bit of the file; a negative offset counts from its end."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        place = file.tell()
        (value,) = file.read(1)
        file.seek(place)
        file.write(bytes([value ^ 1]))


def wal_of(path: Path) -> Path:
    """The store's write-ahead log."""
    return path.with_name(path.name + "-wal")


def frame_offset(frame: int, *, byte: int = 0) -> int:
    """Where a byte of a frame, counted from 0, lies in a write-ahead log."""
    return WAL_HEADER_BYTES + frame * FRAME_BYTES + byte


def seal_wal_again(path: Path) -> None:
    """Give every frame of a write-ahead log the checksum of what it holds now."""
    content = bytearray(path.read_bytes())
    sums = _summed(bytes(content[:24]), (0, 0))
    for start in range(WAL_HEADER_BYTES, len(content), FRAME_BYTES):
        frame = bytes(content[start : start + FRAME_BYTES])
        sums = _summed(frame[:8] + frame[24:], sums)
        content[start + 16 : start + 24] = struct.pack(">2I", *sums)
    path.write_bytes(content)


def _summed(content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    for even, odd in struct.iter_unpack("<2I", content):
        first = (first + even + second) % 2**32
        second = (second + odd + first) % 2**32
    return first, second
