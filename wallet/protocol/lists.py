"""Signed lists: revocations, categories, the sanctioned and the frozen; full ones and deltas."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence, Set
from itertools import pairwise
from typing import Any, cast

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import array_head, decode, encode
from wallet.protocol.cose import Sign1
from wallet.protocol.packed import HEAD, ROW_BYTES, PackedIds, split_rows
from wallet.protocol.refusals import Code, ProtocolError

LIST_BYTES_MAX = 64 * 1024 * 1024


class ListId(enum.IntEnum):
    """list-id of wire.cddl."""

    JOURNALS = 1
    WALLETS = 2
    CATEGORIES = 3
    SANCTIONED = 4
    FROZEN = 5
    CERTIFICATES = 6


class SignedList(msgspec.Struct, frozen=True, kw_only=True):
    """A list as the issuer signed it. `base` is the hash of the list that a delta builds on."""

    signed: Sign1
    list_id: int
    sequence: int
    issued_ms: int
    next_update_ms: int
    base: bytes | None
    content: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256 of the whole signed list, as journal entries and deltas name it."""
        return hashlib.sha256(self.signed.raw).digest()


class Held(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """One list as a journal holds it: its newest form, materialised.

    `items` by list: journals `(id, epoch)`, wallets and frozen `id`, certificates `serial`,
    sanctioned `text id`, categories `(set, category)`.
    """

    list_id: int
    sequence: int
    hash: bytes
    issued_ms: int
    next_update_ms: int
    items: Set[Any]
    names: dict[str, tuple[str, ...]] = {}


# Of two members: what a delta adds and what it removes.
_PAIR = b"\x82"
_OF_IDS = (ListId.WALLETS, ListId.FROZEN)
_identified = shapes.listed(shapes.identifier)
_CONTENT = {
    ListId.JOURNALS: shapes.listed(shapes.fixed(shapes.identifier, shapes.count)),
    ListId.WALLETS: _identified,
    ListId.CATEGORIES: shapes.mapping(shapes.count, shapes.listed(shapes.category)),
    ListId.SANCTIONED: shapes.listed(shapes.fixed(shapes.text, shapes.listed(shapes.text))),
    ListId.FROZEN: _identified,
    ListId.CERTIFICATES: shapes.listed(shapes.binary),
}
LIST_CLAIMS = {
    1: shapes.count,
    2: shapes.choice(*ListId),
    3: shapes.count,
    4: shapes.count,
    5: shapes.count,
    6: shapes.optional(shapes.digest),
    7: shapes.binary,
}


def list_of(signed: Sign1, claims: Any) -> SignedList:
    """The list of decoded claims, its content checked. Raises: `malformed`, `not-canonical`."""
    fields = shapes.record(claims, LIST_CLAIMS)
    made = SignedList(
        signed=signed,
        list_id=fields[2],
        sequence=fields[3],
        issued_ms=fields[4],
        next_update_ms=fields[5],
        base=fields[6],
        content=fields[7],
    )
    parts(made)
    return made


def parts(given: SignedList) -> tuple[Any, Any]:
    """(added, removed) of a list; a full list removes nothing. Raises: as `list_of`.

    Ids of wallets are rows of `wallet.protocol.packed`, in one piece.
    """
    if given.list_id in _OF_IDS and (found := _rows(given)) is not None:
        return found
    check = _CONTENT[ListId(given.list_id)]
    value = decode(given.content, bytes_max=LIST_BYTES_MAX)
    if given.base is None:
        return check(value), None
    added, removed = shapes.fixed(check, check)(value)
    return added, removed


def content(value: Any) -> bytes:
    """Encoded content of a list, or [added, removed] of a delta."""
    return encode(value)


def _rows(given: SignedList) -> tuple[bytes, bytes | None] | None:
    """As `parts`, without a look at each item; None where `decode` has to say what is wrong."""
    data = given.content
    if len(data) > LIST_BYTES_MAX:
        return None
    if given.base is None:
        only = _rows_at(data, 0)
        return None if only is None or only[1] != len(data) else (only[0], None)
    added = _rows_at(data, 1) if data[:1] == _PAIR else None
    removed = None if added is None else _rows_at(data, added[1])
    if added is None or removed is None or removed[1] != len(data):
        return None
    return added[0], removed[0]


def _rows_at(data: bytes, at: int) -> tuple[bytes, int] | None:
    """An array of ids, as rows, and where it ends."""
    head = array_head(data, at)
    if head is None:
        return None
    count, begin = head
    end = begin + count * ROW_BYTES
    # The length first: a few bytes may claim any number of items.
    if end > len(data) or data[begin:end:ROW_BYTES] != HEAD * count:
        return None
    return data[begin:end], end


def hold(given: SignedList, held: Held | None) -> Held:
    """The list held after `given`.

    Raises: ProtocolError `sequence-used` for one that is not newer, `parent-missing` for a delta
    whose base is not the list held.
    """
    if held is not None and given.sequence <= held.sequence:
        raise ProtocolError(Code.SEQUENCE_USED, f"list {given.list_id} is held already")
    added, removed = parts(given)
    if given.base is not None and (held is None or held.hash != given.base):
        raise ProtocolError(Code.PARENT_MISSING, "the base of this delta is not held")
    return _held(
        given, *_after(given.list_id, added, removed, None if given.base is None else held)
    )


def _held(given: SignedList, items: Set[Any], names: dict[str, tuple[str, ...]]) -> Held:
    return Held(
        list_id=given.list_id,
        sequence=given.sequence,
        hash=given.hash,
        issued_ms=given.issued_ms,
        next_update_ms=given.next_update_ms,
        items=items,
        names=names,
    )


def hold_chain(chain: Sequence[SignedList]) -> Held:
    """As `hold` of a full list and of each delta after it, at once.

    Raises: ProtocolError `parent-missing` where one is not the base of the next.
    """
    first, last = chain[0], chain[-1]
    if first.base is not None:
        raise ProtocolError(Code.PARENT_MISSING, "the first one is no full list")
    for before, given in pairwise(chain):
        if given.base != before.hash:
            raise ProtocolError(Code.PARENT_MISSING, "not the base of the next")
    if last.list_id not in _OF_IDS:
        held = hold(first, None)
        for given in chain[1:]:
            held = hold(given, held)
        return held
    items = set(split_rows(parts(first)[0]))
    for given in chain[1:]:
        added, removed = parts(given)
        items.difference_update(split_rows(removed))
        items.update(split_rows(added))
    return _held(last, PackedIds.of(items), {})


def _after(
    list_id: int, added: Any, removed: Any, base: Held | None
) -> tuple[Set[Any], dict[str, tuple[str, ...]]]:
    if list_id in _OF_IDS:
        if base is None:
            return PackedIds.of_rows(added), {}
        more, less = frozenset(split_rows(added)), frozenset(split_rows(removed))
        # Lists of ids are packed from their first one on.
        return cast(PackedIds, base.items).changed(added=more, removed=less), {}
    items, names = _flat(list_id, added)
    if base is None:
        return items, names
    gone, _ = _flat(list_id, removed)
    names = {name: base.names[name] for name in base.names.keys() - gone} | names
    return (base.items - gone) | items, names


def _flat(list_id: int, value: Any) -> tuple[Set[Any], dict[str, tuple[str, ...]]]:
    if list_id == ListId.CATEGORIES:
        return frozenset((key, item) for key, items in value.items() for item in items), {}
    if list_id == ListId.SANCTIONED:
        return frozenset(name for name, _ in value), dict(value)
    return frozenset(value), {}
