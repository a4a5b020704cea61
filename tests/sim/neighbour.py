"""Another journal of the same issuer: the real rules in memory, real entries and receipts.

It never fails: what is tried is the gateway that it sends notes to and takes notes from.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge.pos.purse import DeviceKey
from tests.sim.naive import Sheet
from tests.support.issuer import Key
from tests.support.live_issuer import LiveIssuer
from wallet.journal.trust import TrustContext
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.checkpoint import (
    assemble_receipt,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.entry import Clock, Entry, Open, Payment, decode_entry, decode_note
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.issued import decode_enrolment, decode_grant, decode_policy
from wallet.protocol.merkle import Batch, Frontier, leaf_hash
from wallet.protocol.messages import decode_order, decode_request
from wallet.protocol.refusals import Code, Refusal
from wallet.protocol.rules import Proposal, decide, entry_bytes
from wallet.protocol.snapshot import read_snapshot, write_snapshot
from wallet.protocol.state import State

FUNDED_MINOR = 1_000_000
KEY = Key("the journal next door")
JOURNAL = JournalId(KEY.public.id)


class Beginning(msgspec.Struct, frozen=True):
    """A neighbour that is open and funded, as all seeds begin."""

    snapshot: bytes
    entries: tuple[bytes, ...]
    chain: Chain


class Neighbour:
    """The journal next door, in which the same people have wallets too."""

    def __init__(self, made: Beginning, anchor: TrustAnchor) -> None:
        self.state, self._frontier = read_snapshot(made.snapshot)
        self.entries = list(made.entries)
        self.sheet = Sheet([decode_entry(raw) for raw in made.entries])
        # Entries of ours that it has redeemed, by their index.
        self.taken: dict[int, bytes] = {}
        self._chain = made.chain
        self._context = TrustContext(anchor)

    def send(
        self, payer: DeviceKey, *, now_ms: int, request: bytes | None = None, **claims: Any
    ) -> tuple[bytes, bytes] | Refusal:
        """A note: entry and receipt of a transfer-out."""
        wallet = self.state.wallets[WalletId(payer.public.id)]
        if request is not None:
            claims["request"] = decode_request(request).identity
        order = payer.sign_order(
            sequence=wallet.next_sequence,
            currency="EUR",
            authorisation=0,
            payer_journal=JOURNAL,
            payer_epoch=1,
            **claims,
        )
        payment = Payment(
            order=decode_order(order), request=None if request is None else decode_request(request)
        )
        made = self._submit(payment, now_ms=now_ms)
        return made if isinstance(made, Refusal) else (made.raw, self._receipt(made))

    def redeem(self, entry: bytes, receipt: bytes, *, now_ms: int) -> Code | None:
        """Takes a note of ours; None when it came in, or the code of the refusal."""
        note = decode_note(entry, receipt)
        made = self._submit(note, now_ms=now_ms)
        if isinstance(made, Refusal):
            return made.code
        self.taken[note.index] = entry
        return None

    def _submit(self, proposal: Proposal, *, now_ms: int) -> Entry | Refusal:
        state, now_ms = self.state, max(now_ms, self.state.time_ms)
        outcome = decide(state, proposal, self._context, now_ms=now_ms, clock=Clock.SURE)
        if isinstance(outcome, Refusal):
            return outcome
        raw = entry_bytes(state, outcome, time_ms=now_ms, clock=Clock.SURE)
        state.advance(outcome, time_ms=now_ms)
        self._before, self._frontier = self._frontier, self._frontier.append(leaf_hash(raw))[0]
        entry = decode_entry(raw)
        self.entries.append(raw)
        self.sheet.take(entry)
        return entry

    def _receipt(self, entry: Entry) -> bytes:
        """Of the newest entry."""
        tree = Batch(self._before, [leaf_hash(entry.raw)])
        size = entry.index + 1
        protected = checkpoint_protected(
            KEY.public,
            journal=JOURNAL,
            epoch=1,
            size=size,
            counter=size,
            issued_s=-(-entry.time_ms // 1000),
        )
        return assemble_receipt(
            protected,
            self._chain,
            size=size,
            index=entry.index,
            path=tree.paths()[0],
            signature=KEY.sign(checkpoint_signed_bytes(protected, tree.root)),
        )


def beginning(issuer: LiveIssuer, keys: list[DeviceKey]) -> Beginning:
    """Open it and fund a wallet of each key."""
    chain = (issuer.leaf(KEY.private.public_key(), JOURNAL), issuer.sub)
    empty = Beginning(write_snapshot(State(JOURNAL, 1), Frontier()), (), chain)
    made = Neighbour(empty, TrustAnchor(issuer.root))
    policy = decode_policy(issuer.policy({1: {}}))
    opening = Open(journal=JOURNAL, epoch=1, currency="EUR", policy=policy)
    proposals: list[Proposal] = [opening]
    for number, key in enumerate(keys):
        grant = issuer.grant(JOURNAL, key.public.id, FUNDED_MINOR, sequence=number)
        proposals += [
            decode_enrolment(issuer.enrolment(JOURNAL, key.public)),
            decode_grant(grant),
        ]
    for proposal in proposals:
        outcome = made._submit(proposal, now_ms=issuer.now_s * 1000)
        assert isinstance(outcome, Entry), outcome
    return Beginning(write_snapshot(made.state, made._frontier), tuple(made.entries), chain)
