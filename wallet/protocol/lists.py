"""Signed lists: revocations, categories, the sanctioned and the frozen; full ones and deltas."""

from __future__ import annotations

import enum
import hashlib
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import Sign1
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


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One list as a journal holds it: its newest form, materialised.

    `items` by list: journals `(id, epoch)`, wallets and frozen `id`, certificates `serial`,
    sanctioned `text id`, categories `(set, category)`.
    """

    list_id: int
    sequence: int
    hash: bytes
    issued_ms: int
    next_update_ms: int
    items: frozenset[Any]
    names: dict[str, tuple[str, ...]] = {}


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
    """(added, removed) of a list; a full list removes nothing. Raises: as `list_of`."""
    check = _CONTENT[ListId(given.list_id)]
    value = decode(given.content, bytes_max=LIST_BYTES_MAX)
    if given.base is None:
        return check(value), None
    added, removed = shapes.fixed(check, check)(value)
    return added, removed


def content(value: Any) -> bytes:
    """Encoded content of a list, or [added, removed] of a delta."""
    return encode(value)


def hold(given: SignedList, held: Held | None) -> Held:
    """The list held after `given`.

    Raises: ProtocolError `sequence-used` for one that is not newer, `parent-missing` for a delta
    whose base is not the list held.
    """
    if held is not None and given.sequence <= held.sequence:
        raise ProtocolError(Code.SEQUENCE_USED, f"list {given.list_id} is held already")
    added, removed = parts(given)
    items, names = _flat(given.list_id, added)
    if given.base is not None:
        if held is None or held.hash != given.base:
            raise ProtocolError(Code.PARENT_MISSING, "the base of this delta is not held")
        gone, _ = _flat(given.list_id, removed)
        names = {name: held.names[name] for name in held.names.keys() - gone} | names
        items = (held.items - gone) | items
    return Held(
        list_id=given.list_id,
        sequence=given.sequence,
        hash=given.hash,
        issued_ms=given.issued_ms,
        next_update_ms=given.next_update_ms,
        items=items,
        names=names,
    )


def _flat(list_id: int, value: Any) -> tuple[frozenset[Any], dict[str, tuple[str, ...]]]:
    if list_id == ListId.CATEGORIES:
        return frozenset((key, item) for key, items in value.items() for item in items), {}
    if list_id == ListId.SANCTIONED:
        return frozenset(name for name, _ in value), dict(value)
    return frozenset(value), {}
