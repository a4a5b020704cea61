"""Finds changes to a write-ahead log that the engine would take for the torn end of a crash.

SQLite ends its log at the first frame whose checksum fails, which is right after a power cut and
wrong after a change in the middle: commits that were acknowledged would vanish without a word.
The format is https://sqlite.org/fileformat2.html#walformat. A commit is synced before the next
one is written, so a broken frame that a later transaction follows was whole once.

What this cannot see: a change in the last transaction of the log, which looks like a crash just
before its acknowledgement, and frames forged with right checksums, which fail their page's HMAC.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wallet.store.errors import Tampered

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC_LITTLE = 0x377F0682
MAGIC_BIG = 0x377F0683
WORD_MASK = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    commits: bool
    salt: bytes
    sums: Sums
    checked: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    order: str
    page_bytes: int
    salt: bytes
    sums: Sums
    content: bytes

    @property
    def frames(self) -> int:
        return (len(self.content) - HEADER_BYTES) // self.frame_bytes

    @property
    def frame_bytes(self) -> int:
        return FRAME_HEADER_BYTES + self.page_bytes


def check_wal(path: Path) -> None:
    """Refuse a log in which a frame before the last transaction does not check.

    To be called while nobody has the database open. A log that is missing or empty is well.
    Raises: Tampered, naming the frame; OSError when the file cannot be read.
    """
    content = path.read_bytes() if path.exists() else b""
    if not content[:HEADER_BYTES].strip(b"\0") or len(content) < HEADER_BYTES:
        return
    log = _opened(content)
    broken = _first_broken(log)
    for index in range(broken, log.frames - 1):
        if _is_followed(log, index):
            raise Tampered(f"frame {broken + 1} of the write-ahead log was changed")


def _opened(content: bytes) -> _Log:
    magic, _version, page_bytes, _sequence = struct.unpack(">4I", content[:16])
    order = {MAGIC_LITTLE: "<", MAGIC_BIG: ">"}.get(magic)
    sums = struct.unpack(">2I", content[24:HEADER_BYTES])
    # The header lies within one sector and is synced before the first frame: no crash splits it.
    if order is None or _summed(content[:24], (0, 0), order) != sums:
        raise Tampered("the header of the write-ahead log was changed")
    return _Log(
        order=order,
        page_bytes=page_bytes,
        salt=content[16:24],
        sums=(sums[0], sums[1]),
        content=content,
    )


def _first_broken(log: _Log) -> int:
    sums = log.sums
    for index in range(log.frames):
        frame = _frame(log, index)
        if frame.salt != log.salt or _summed(frame.checked, sums, log.order) != frame.sums:
            return index
        sums = frame.sums
    return log.frames


def _is_followed(log: _Log, index: int) -> bool:
    """Whether the frame ends a transaction and the next frame was written right after it.

    The remains of a rolled-back transaction carry the same salt, but continue another frame.
    """
    frame = _frame(log, index)
    if frame.salt != log.salt or not frame.commits:
        return False
    follower = _frame(log, index + 1)
    return (
        follower.salt == log.salt
        and _summed(follower.checked, frame.sums, log.order) == follower.sums
    )


def _frame(log: _Log, index: int) -> _Frame:
    start = HEADER_BYTES + index * log.frame_bytes
    frame = log.content[start : start + log.frame_bytes]
    _page, database_pages, first, second = struct.unpack(">2I8x2I", frame[:FRAME_HEADER_BYTES])
    return _Frame(
        commits=database_pages != 0,
        salt=frame[8:16],
        sums=(first, second),
        checked=frame[:8] + frame[FRAME_HEADER_BYTES:],
    )


def _summed(content: bytes, sums: Sums, order: str) -> Sums:
    words: Sequence[int] = struct.unpack(f"{order}{len(content) // 4}I", content)
    first, second = sums
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & WORD_MASK
        second = (second + odd + first) & WORD_MASK
    return first, second
