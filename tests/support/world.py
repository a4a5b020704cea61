"""A small world for tests of the rules: an issuer, its roles, and what the rules ask of both.

Keys, certificates, signatures, receipts and trees are real. `tests.support.books` has the journals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tests.support.issuer import NOW_S, Issuer
from wallet.protocol import issued, lists
from wallet.protocol.certificates import TrustAnchor, check_role_chain
from wallet.protocol.context import Refundable, Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import (
    Entry,
    EntryKind,
    ListUpdate,
    Note,
    Payment,
)
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, ListId, SignedList
from wallet.protocol.merkle import EMPTY_ROOT, Frontier, leaf_hash
from wallet.protocol.policy import Policy
from wallet.protocol.receipt import Revocations, verify_receipt
from wallet.protocol.state import State

NOW_MS = NOW_S * 1000
DAY_MS = 86_400_000
EURO = "EUR"
ISSUER = Issuer("world")
ANCHOR = TrustAnchor(ISSUER.root)
ROLES = {
    role: ISSUER.role(role) for role in ("enrolment", "grants", "policy", "lists", "settlement")
}
Tiers = Mapping[int, Mapping[Any, int]]


def issue(type_: str, claims: dict[int, Any], *, role: str | None = None) -> bytes:
    """An object of the issuer, signed by its own role or by the one given."""
    key, chain = ROLES[role or issued.ROLES[type_]]
    return key.sign_object(type_, issued.payload(claims), chain)


def policy_of(
    tiers: Tiers | None = None,
    journal: Mapping[Any, int] | None = None,
    *,
    sequence: int = 0,
    valid_from_ms: int = NOW_MS,
    valid_until_ms: int = NOW_MS + 1000 * DAY_MS,
    currency: str = EURO,
    role: str | None = None,
) -> Policy:
    """A signed policy; without limits if none are given."""
    tiers = {tier: dict(limits) for tier, limits in (tiers or {}).items()}
    claims = {2: sequence, 3: valid_from_ms, 4: valid_until_ms, 5: currency}
    claims |= {6: tiers, 7: dict(journal or {})}
    return issued.decode_policy(issue(issued.POLICY_TYPE, claims, role=role))


def list_of(
    list_id: int,
    content: Any,
    *,
    sequence: int = 0,
    issued_ms: int = NOW_MS,
    base: bytes | None = None,
    role: str | None = None,
) -> SignedList:
    """A signed list; `base` makes it a delta of [added, removed]."""
    claims = {2: list_id, 3: sequence, 4: issued_ms, 5: issued_ms + DAY_MS, 6: base}
    claims[7] = lists.content(content)
    return issued.decode_list(issue(issued.LIST_TYPE, claims, role=role))


class Surroundings:
    """The `Context` of one journal: what it wrote, its lists, and the issuer's root."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.read: list[Entry] = []
        self.leaves: list[bytes] = []
        self.roots = [EMPTY_ROOT]
        self.frontier = Frontier()
        self.payments: dict[bytes, Refundable] = {}
        self.lists: dict[bytes, SignedList] = {}

    def append(self, entry: Entry) -> None:
        """One more entry that stands."""
        leaf = leaf_hash(entry.raw)
        self.entries.append(entry.raw)
        self.read.append(entry)
        self.leaves.append(leaf)
        self.frontier, _ = self.frontier.append(leaf)
        self.roots.append(self.frontier.root())
        if entry.kind in (EntryKind.PAY, EntryKind.TRANSFER_IN):
            assert isinstance(entry.body, Payment | Note)
            order = entry.body.order
            self.payments[leaf] = Refundable(
                payer=order.payer,
                payee=order.payee,
                amount_minor=order.amount_minor,
                time_ms=entry.time_ms,
            )

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """See `Context`."""
        signed.verify(key)

    def check_role(self, signed: Sign1, role: str) -> None:
        """See `Context`."""
        signed.verify(check_role_chain(signed.chain, ANCHOR, role).key)

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """See `Context`."""
        journals, certificates = lists.get(ListId.JOURNALS), lists.get(ListId.CERTIFICATES)
        verified = verify_receipt(
            note.receipt,
            note.entry,
            root=ANCHOR,
            grace_s=2**40 if certificate_grace_s is None else certificate_grace_s,
            revoked=Revocations(
                serials=frozenset() if certificates is None else certificates.items,
                epochs=frozenset() if journals is None else journals.items,
            ),
        )
        return Source(
            journal=verified.journal,
            epoch=verified.epoch,
            index=verified.index,
            not_after_s=verified.certificate.not_after_s,
        )

    def refundable(self, leaf: bytes) -> Refundable | None:
        """See `Context`."""
        return self.payments.get(leaf)

    def root_at(self, size: int) -> bytes | None:
        """See `Context`."""
        return self.roots[size] if size < len(self.roots) else None

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """See `Context`."""
        return self.lists.get(update.hash)


def picture(state: State) -> dict[str, Any]:
    """All that a state holds, so that two can be compared."""
    shown = {name: value for name, value in vars(state).items() if name != "_undo"}
    shown["policy"] = None if state.policy is None else state.policy.signed.raw
    shown["movements"] = [column.tolist() for column in state.movements.columns()]
    shown["wallets"] = {key: msgspec.structs.asdict(made) for key, made in state.wallets.items()}
    for name in ("lists", "requests", "redeemed", "refunds", "pairs", "held", "numbers"):
        shown[name] = dict(shown[name])
    return shown
