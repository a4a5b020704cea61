"""Notes of other journals that are claimed to have come in: what is known of their origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.ledger.accounts import Account, loss, suspense, transit_notes
from cloud.recovery.total import NoteKey
from cloud.shards.homes import Site
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Note
from wallet.protocol.ids import journal_text
from wallet.protocol.receipt import NOTHING_REVOKED, ReceiptError, verify_receipt
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.trust import ENDLESS_S


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a note. `leaf` and `state` are None where nobody has told of it.

    `applied`: entries of its journal's epoch that the rules accepted; `is_stated`: that epoch has
    its statement. `borne`: leaves of other notes at its index, which came in before.
    """

    leaf: bytes | None = None
    state: str | None = None
    applied: int = 0
    is_stated: bool = False
    borne: frozenset[bytes] = frozenset()


_UNKNOWN = Parent()
# What becomes of a note whose journal tells of another entry in its place.
HIDDEN = "hidden"
Parents = Mapping[NoteKey, Parent]


async def parents_of(connection: Connection, keys: Collection[NoteKey]) -> Parents:
    """What is known of notes, which are locked for this transaction."""
    if not keys:
        return {}
    columns = [list(column) for column in zip(*keys, strict=True)]
    rows = await connection.fetch(
        "SELECT journal, epoch, index, leaf, state FROM note WHERE (journal, epoch, index) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]))"
        " ORDER BY journal, epoch, index FOR UPDATE",
        *columns,
    )
    told = await connection.fetch(
        "SELECT journal, epoch, applied, stated_ms IS NOT NULL AS is_stated FROM journal_epoch"
        " WHERE (journal, epoch) IN (SELECT * FROM unnest($1::bytea[], $2::bigint[]))",
        *columns[:2],
    )
    aside = await connection.fetch(
        "SELECT journal, epoch, index, leaf FROM hidden_note WHERE (journal, epoch, index) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]))",
        *columns,
    )
    found: defaultdict[NoteKey, dict[str, Any]] = defaultdict(dict)
    found |= {_key(row): {"leaf": row["leaf"], "state": row["state"]} for row in rows}
    for row in aside:
        known = found[_key(row)]
        known["borne"] = known.get("borne", frozenset()) | {row["leaf"]}
    epochs = {(row["journal"], row["epoch"]): row for row in told}
    return {key: _parent(found.get(key, {}), epochs.get(key[:2])) for key in keys}


def _key(row: Any) -> NoteKey:
    return (row["journal"], row["epoch"], row["index"])


def _parent(known: dict[str, Any], epoch: Any) -> Parent:
    if epoch is None:
        return Parent(**known)
    return Parent(**known, applied=epoch["applied"], is_stated=epoch["is_stated"])


def origin_of(anchor: TrustAnchor, note: Note, *, journal: bytes, currency: str) -> NoteKey:
    """Where a note comes from, its receipt checked. Raises: ProtocolError.

    `journal`: the one into which it came.
    """
    verified = verify_receipt(
        note.receipt, note.entry, root=anchor, grace_s=ENDLESS_S, revoked=NOTHING_REVOKED
    )
    order = note.order
    if (verified.journal, verified.epoch) != (order.payer_journal, order.payer_epoch):
        raise ReceiptError(5, Code.PROOF_INVALID, "its order is of another journal")
    if order.payee_journal != journal or verified.journal == journal:
        raise ProtocolError(Code.NOTE_NOT_FOR_US)
    if order.currency != currency:
        raise ProtocolError(Code.WRONG_CURRENCY)
    return (verified.journal, verified.epoch, verified.index)


def source_of(
    key: NoteKey, leaf: bytes, parents: Parents, *, journal: str, currency: str, is_here: bool
) -> tuple[Account, str]:
    """The account that a note comes from, and what becomes of it. Raises: ProtocolError.

    `journal`: the text of the one into which it came; `is_here`: does the one that it left live in
    this database?
    """
    parent = parents.get(key, _UNKNOWN)
    if leaf in parent.borne:
        raise ProtocolError(Code.NOTE_REDEEMED)
    if not is_here:
        # Whether it came in before is known here; all else is judged where its journal lives.
        if parent.leaf == leaf:
            raise ProtocolError(Code.NOTE_REDEEMED)
        return suspense(journal, currency=currency), "early"
    if parent.state is None:
        return _early(key, parent, journal=journal, currency=currency)
    if parent.leaf != leaf:
        # Its journal tells of another note: this one was taken in good faith.
        return loss(currency), HIDDEN
    if parent.state == "out":
        return transit_notes(journal_text(key[0]), currency=currency), "redeemed"
    if parent.state == "returned":
        # It came back to the payer, and the payee had redeemed it in time.
        return loss(currency), "compensated"
    raise ProtocolError(Code.NOTE_REDEEMED)


async def borne_elsewhere(site: Site, notes: Mapping[NoteKey, tuple[bytes, int]]) -> int:
    """What the issuer bears of claimed arrivals of notes whose journals live at other shards.

    Each is judged there once the statement is posted; what is known there now says how. `notes`:
    leaf and amount of each. Raises: DatabaseError where one of those shards is away.
    """
    borne = 0
    by_home: defaultdict[int, list[NoteKey]] = defaultdict(list)
    for key in notes:
        by_home[site.here.homes.of(key[0])].append(key)
    for home, keys in sorted(by_home.items()):
        assert site.others is not None  # there are other shards
        async with site.others(home) as there:
            parents = await parents_of(there, keys)
        for key in keys:
            leaf, amount = notes[key]
            parent = parents[key]
            is_early = parent.state is None and not parent.is_stated and parent.applied <= key[2]
            if not is_early and (parent.leaf, parent.state) != (leaf, "out"):
                borne += amount
    return borne


def _early(key: NoteKey, parent: Parent, *, journal: str, currency: str) -> tuple[Account, str]:
    if parent.is_stated:
        return loss(currency), "compensated"
    if parent.applied > key[2]:
        # Its journal tells of another entry, which is no note.
        return loss(currency), HIDDEN
    return suspense(journal, currency=currency), "early"
