"""Ids of wallets by the million in little memory: an exact set, as sorted rows of bytes.

A row is what CBOR has for an id, its head and its 20 bytes, so that a list's content is taken as it
came and given back as it stands. What a delta changes lies beside the rows until it is a part of
them that is worth a copy (ADR 17 has the measurements).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Set
from itertools import pairwise
from operator import lt
from typing import Any

from wallet.protocol.ids import ID_BYTES

HEAD = bytes((0x40 | ID_BYTES,))
ROW_BYTES = 1 + ID_BYTES
# Rows between two marks are searched by halves until they are this few, then in one sweep.
_NEAR_BYTES = 64 * ROW_BYTES
_PREFIXES = 1 << 16
# Changes are merged when they are more than this, and more than this part of the rows.
_CHANGES_MIN, _CHANGES_PART = 2_048, 256
# From this part of the rows on, all of them are merged and not each one searched.
_MANY_PART = 8
_CHECKED_AT_ONCE = 4_096
_NONE: frozenset[bytes] = frozenset()
_NO_MARKS = array("I", bytes(4 * (_PREFIXES + 1)))


class PackedIds(Set[bytes]):
    """A set of ids that does not change; `changed` gives another one that shares the rows.

    `rows`: ids with their heads, sorted, none twice. `added` are not among them, `removed` are.
    """

    __slots__ = ("_added", "_marks", "_removed", "_rows")

    def __init__(
        self,
        rows: bytes = b"",
        *,
        marks: array[int] | None = None,
        added: frozenset[bytes] = _NONE,
        removed: frozenset[bytes] = _NONE,
    ) -> None:
        self._rows = rows
        # Where rows with each first two bytes begin, and where the last ones end.
        self._marks = _marks(rows) if marks is None else marks
        self._added = added
        self._removed = removed

    @classmethod
    def of(cls, items: Iterable[bytes]) -> PackedIds:
        """Any ids, in any order."""
        found = items if isinstance(items, Set) else frozenset(items)
        if len(found) <= _CHANGES_MIN:
            return cls(added=frozenset(found))
        return cls(b"".join([HEAD + item for item in sorted(found)]))

    @classmethod
    def of_rows(cls, rows: bytes) -> PackedIds:
        """Ids with their heads, as a list's content has them, in whatever order."""
        if len(rows) > _CHANGES_MIN * ROW_BYTES and is_sorted(rows):
            return cls(rows)
        return cls.of(split_rows(rows))

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> PackedIds:  # type: ignore[override]  # ids alone
        return cls.of(it)

    def __contains__(self, item: object) -> bool:
        if item in self._added:
            return True
        if not self._rows or type(item) is not bytes or len(item) != ID_BYTES:
            return False
        return self._place(item) is not None and item not in self._removed

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES + len(self._added) - len(self._removed)

    def __iter__(self) -> Iterator[bytes]:
        """In rising order."""
        rows = self._merged() if self._added or self._removed else self._rows
        for at in range(0, len(rows), ROW_BYTES):
            yield rows[at + 1 : at + ROW_BYTES]

    def changed(self, *, added: Set[bytes], removed: Set[bytes]) -> PackedIds:
        """Without `removed`, and then with `added`."""
        gone = removed - added
        more = (self._added - gone) | {item for item in added if self._place(item) is None}
        less = (self._removed | {item for item in gone if self._place(item) is not None}) - added
        made = PackedIds(self._rows, marks=self._marks, added=more, removed=less)
        few = max(_CHANGES_MIN, len(self._rows) // ROW_BYTES // _CHANGES_PART)
        return made if len(more) + len(less) <= few else PackedIds(made._merged())

    def _place(self, item: bytes) -> int | None:
        """Where its row begins."""
        rows, marks = self._rows, self._marks
        prefix = item[0] << 8 | item[1]
        low, high = marks[prefix], marks[prefix + 1]
        # Ids are hashes: few begin alike, unless somebody made them so.
        if high - low > _NEAR_BYTES:
            low, high = self._near(item, low, high)
        at = rows.find(item, low, high)
        while at >= 0 and at % ROW_BYTES != 1:
            # The end of one row and the beginning of the next.
            at = rows.find(item, at + 1, high)
        return at - 1 if at >= 0 else None

    def _near(self, item: bytes, low: int, high: int) -> tuple[int, int]:
        """Some rows, among which it is if it is between `low` and `high`."""
        rows = self._rows
        while high - low > _NEAR_BYTES:
            middle = (low + high) // 2 // ROW_BYTES * ROW_BYTES
            if rows[middle + 1 : middle + ROW_BYTES] <= item:
                low = middle
            else:
                high = middle
        return low, high

    def _merged(self) -> bytes:
        """The rows with what changed."""
        if (len(self._added) + len(self._removed)) * _MANY_PART * ROW_BYTES > len(self._rows):
            kept = [item for item in split_rows(self._rows) if item not in self._removed]
            return b"".join([HEAD + item for item in sorted([*kept, *sorted(self._added)])])
        rows, parts, done = memoryview(self._rows), list[bytes | memoryview](), 0
        for item in sorted(self._added | self._removed):
            at = self._begin(item)
            parts.append(rows[done:at])
            done = at
            if item in self._added:
                parts.append(HEAD + item)
            else:
                done += ROW_BYTES
        parts.append(rows[done:])
        return b"".join(parts)

    def _begin(self, item: bytes) -> int:
        """Where its row begins, or would."""
        prefix = item[0] << 8 | item[1]
        low, high = self._near(item, self._marks[prefix], self._marks[prefix + 1])
        places = range(low, high, ROW_BYTES)
        place = bisect_left(places, item, key=lambda at: self._rows[at + 1 : at + ROW_BYTES])
        return low + place * ROW_BYTES


def is_sorted(rows: bytes) -> bool:
    """Whether each row is above the one before it."""
    for first in range(0, len(rows), _CHECKED_AT_ONCE * ROW_BYTES):
        # One more than so many: the last one here is the first one of what follows.
        part = rows[first : first + (_CHECKED_AT_ONCE + 1) * ROW_BYTES]
        items = [part[at : at + ROW_BYTES] for at in range(0, len(part), ROW_BYTES)]
        if not all(map(lt, items, items[1:])):
            return False
    return True


def split_rows(rows: bytes) -> list[bytes]:
    """The ids of rows, in their order."""
    return [rows[at + 1 : at + ROW_BYTES] for at in range(0, len(rows), ROW_BYTES)]


def _marks(rows: bytes) -> array[int]:
    if not rows:
        return _NO_MARKS
    marks = array("I", bytes(4 * (_PREFIXES + 1)))
    first, second = rows[1::ROW_BYTES], rows[2::ROW_BYTES]
    ends = [bisect_left(first, byte) for byte in range(257)]
    for byte, (begin, end) in enumerate(pairwise(ends)):
        for next_byte in range(256):
            begin = bisect_left(second, next_byte, begin, end)
            marks[byte << 8 | next_byte] = begin * ROW_BYTES
    marks[_PREFIXES] = len(rows)
    return marks
