"""What a write-ahead log may look like after a crash, and what only a change leaves behind."""

import os
import struct
from pathlib import Path

import pytest

from wallet.store.errors import Tampered
from wallet.store.wal import check_wal

PAGE_BYTES = 512
SALT = b"saltsalt"
OLD_SALT = b"SALTsalt"


class Log:
    """A write-ahead log that the test writes by itself, from the format's description."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        magic = 0x377F0682 if order == "<" else 0x377F0683
        head = struct.pack(">4I", magic, 3007000, PAGE_BYTES, 0) + SALT
        self.sums = self.summed(head, (0, 0))
        self.content = bytearray(head + struct.pack(">2I", *self.sums))

    def summed(self, content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
        first, second = sums
        for place in range(0, len(content), 8):
            even, odd = struct.unpack(f"{self.order}2I", content[place : place + 8])
            first = (first + even + second) % 2**32
            second = (second + odd + first) % 2**32
        return first, second

    def add(self, *, commits: bool = False, salt: bytes = SALT, whole: bool = True) -> "Log":
        page = os.urandom(PAGE_BYTES)
        head = struct.pack(">2I", 3, 9 if commits else 0)
        self.sums = self.summed(head + page, self.sums)
        if not whole:
            page = bytes(PAGE_BYTES)
        self.content += head + salt + struct.pack(">2I", *self.sums) + page
        return self

    def again(self, log: "Log") -> "Log":
        """Append what stood behind this point before it was written over."""
        self.content += log.content[len(self.content) :]
        return self


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db-wal"


def check(path: Path, log: Log) -> None:
    path.write_bytes(log.content)
    check_wal(path)


def test_a_log_that_is_missing_empty_or_never_begun_is_well(path: Path) -> None:
    check_wal(path)
    for content in (b"", b"\0" * 31, b"\x37\x7f", bytes(5000)):
        path.write_bytes(content)
        check_wal(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_whole_log_is_well_in_either_byte_order(path: Path, order: str) -> None:
    log = Log(order)
    for turn in range(9):
        log.add(commits=turn % 3 == 2)
    check(path, log)
    path.write_bytes(log.content[:-1])
    check_wal(path)


def test_a_torn_transaction_at_the_end_is_a_crash(path: Path) -> None:
    check(path, Log().add(commits=True).add().add(whole=False).add().add(commits=True))
    check(path, Log().add(commits=True).add(whole=False))
    check(path, Log().add(commits=True).add().add(commits=True, whole=False))


def test_frames_of_an_older_round_are_no_part_of_the_log(path: Path) -> None:
    log = Log().add(commits=True).add(commits=True)
    for _ in range(5):
        log.add(commits=True, salt=OLD_SALT)
    check(path, log)


def test_remains_of_a_rolled_back_transaction_are_well(path: Path) -> None:
    spilled = Log().add(commits=True)
    begun = Log()
    begun.content, begun.sums = bytearray(spilled.content), spilled.sums
    for _ in range(9):
        spilled.add()
    check(path, begun.add().add(commits=True).again(spilled))


def test_a_torn_transaction_before_such_remains_is_a_crash(path: Path) -> None:
    spilled = Log().add(commits=True)
    begun = Log()
    begun.content, begun.sums = bytearray(spilled.content), spilled.sums
    for _ in range(9):
        spilled.add()
    check(path, begun.add(whole=False).add(commits=True).again(spilled))


@pytest.mark.parametrize("broken", range(5))
def test_a_broken_frame_that_a_later_transaction_follows_was_changed(
    path: Path, broken: int
) -> None:
    log = Log()
    for turn in range(8):
        log.add(commits=turn in (2, 4, 7), whole=turn != broken)
    with pytest.raises(Tampered, match=f"frame {broken + 1} "):
        check(path, log)


@pytest.mark.parametrize("byte", range(32))
def test_a_changed_header_is_found(path: Path, byte: int) -> None:
    log = Log().add(commits=True)
    log.content[byte] ^= 0x10
    with pytest.raises(Tampered, match="header"):
        check(path, log)
