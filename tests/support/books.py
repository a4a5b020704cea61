"""Journals for tests of the rules: a gateway's state, and the issuer's replica beside it.

What the gateway accepts, the issuer must accept, and both must hold the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.issuer import Journal, Key
from tests.support.world import (
    DAY_MS,
    EURO,
    ISSUER,
    NOW_MS,
    Surroundings,
    Tiers,
    issue,
    picture,
    policy_of,
)
from wallet.protocol import issued, messages, rules
from wallet.protocol.checkpoint import (
    assemble_receipt,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE
from wallet.protocol.entry import Clock, Entry, Note, Open, Payment, decode_entry, decode_note
from wallet.protocol.ids import WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import SignedList
from wallet.protocol.merkle import Batch, Frontier
from wallet.protocol.messages import Order, OrderKind, Request
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Refusal
from wallet.protocol.state import Decision, State


@dataclasses.dataclass
class Book:
    """One journal: what its gateway decides, checked by the issuer's replica at every entry."""

    name: str
    epoch: int = 1
    now_ms: int = NOW_MS
    clock: int = Clock.SURE

    def __post_init__(self) -> None:
        self.identity = Journal(ISSUER, self.name, epoch=self.epoch)
        self.journal = self.identity.journal
        self.state = State(self.journal, self.epoch)
        self.replica = State(self.journal, self.epoch)
        self.context, self.at_issuer = Surroundings(), Surroundings()

    # ---- proposals --------------------------------------------------------------------------
    def decide(self, proposal: rules.Proposal) -> Decision | Refusal:
        """What the rules say, with nothing done; a refusal leaves no trace."""
        return rules.decide(
            self.state, proposal, self.context, now_ms=self.now_ms, clock=self.clock
        )

    def refused(self, proposal: rules.Proposal) -> Refusal:
        """The refusal of what must be refused."""
        before = picture(self.state)
        outcome = self.decide(proposal)
        assert isinstance(outcome, Refusal), "accepted, though it must be refused"
        assert picture(self.state) == before
        return outcome

    def accept(self, proposal: rules.Proposal) -> Entry:
        """The entry of what must be accepted, here and by the issuer."""
        outcome = self.submit(proposal)
        assert isinstance(outcome, Entry), f"refused: {outcome}"
        return outcome

    def submit(self, proposal: rules.Proposal) -> Entry | Refusal:
        """Decide, write, and have the issuer apply what was written."""
        outcome = self.write(proposal)
        if isinstance(outcome, Entry):
            self.replicate(outcome)
        return outcome

    def write(self, proposal: rules.Proposal) -> Entry | Refusal:
        """Decide and write on the gateway alone; its lists are told to the issuer."""
        outcome = self.decide(proposal)
        if isinstance(outcome, Refusal):
            return outcome
        if isinstance(proposal, SignedList):
            self.at_issuer.lists[proposal.hash] = proposal
        raw = rules.entry_bytes(self.state, outcome, time_ms=self.now_ms, clock=self.clock)
        self.state.advance(outcome, time_ms=self.now_ms)
        return decode_entry(raw)

    def replicate(self, entry: Entry) -> None:
        """An entry is durable here and reaches the issuer, who must come to the same state."""
        self.context.append(entry)
        applied = rules.apply(self.replica, entry, self.at_issuer)
        assert isinstance(applied, rules.Accepted), f"the issuer refuses: {applied}"
        self.at_issuer.append(entry)

    def agree(self) -> None:
        """Gateway and issuer hold the same."""
        assert picture(self.state) == picture(self.replica)

    # ---- what the issuer gives ----------------------------------------------------------------
    def opening(self, policy: Policy, statement: issued.Statement | None = None) -> Open:
        """The first proposal of the epoch."""
        return Open(
            journal=self.journal,
            epoch=self.epoch,
            currency=policy.currency,
            policy=policy,
            statement=statement,
        )

    def enrolment(self, key: Key, *, role: str | None = None, **changed: Any) -> issued.Enrolment:
        """`changed`: journal, tier, expires_ms."""
        claims = {
            2: key.public.id,
            3: changed.get("journal", self.journal),
            4: _cose_map(key.public),
            5: changed.get("tier", 0),
            6: changed.get("expires_ms", NOW_MS + 365 * DAY_MS),
        }
        return issued.decode_enrolment(issue(issued.ENROLMENT_TYPE, claims, role=role))

    def grant(
        self, key: Key, amount: int, *, role: str | None = None, **changed: Any
    ) -> issued.Grant:
        """`changed`: journal, epoch, sequence, currency, expires_ms."""
        claims = {
            2: changed.get("journal", self.journal),
            3: changed.get("epoch", self.epoch),
            4: changed.get("sequence", self.state.grants_next),
            5: key.public.id,
            6: amount,
            7: changed.get("currency", EURO),
            8: changed.get("expires_ms", self.now_ms + DAY_MS),
        }
        return issued.decode_grant(issue(issued.GRANT_TYPE, claims, role=role))

    def settlement(
        self,
        size: int | None = None,
        *,
        verdicts: Sequence[tuple[int, int, str]] = (),
        role: str | None = None,
        **changed: Any,
    ) -> issued.Settlement:
        """Of all durable entries, or of those below `size`. `changed`: journal, epoch, root, ..."""
        size = len(self.context.entries) if size is None else size
        claims = {
            2: changed.get("journal", self.journal),
            3: changed.get("epoch", self.epoch),
            4: size,
            5: changed.get("root") or self.context.roots[size],
            6: [list(verdict) for verdict in verdicts],
            7: changed.get("time_ms", self.now_ms),
        }
        return issued.decode_settlement(issue(issued.SETTLEMENT_TYPE, claims, role=role))

    def statement(
        self,
        carried: Sequence[tuple[bytes, int]],
        redeemed: Sequence[tuple[bytes, int, int]] = (),
        *,
        role: str | None = None,
        **changed: Any,
    ) -> issued.Statement:
        """What closes this epoch."""
        claims = {
            2: changed.get("journal", self.journal),
            3: changed.get("epoch", self.epoch),
            4: len(self.context.entries),
            5: self.context.roots[-1],
            6: [list(pair) for pair in carried],
            7: [list(note) for note in redeemed],
        }
        return issued.decode_statement(issue(issued.STATEMENT_TYPE, claims, role=role))

    # ---- what holders sign --------------------------------------------------------------------
    def order(
        self, payer: Key, payee: Key, amount: int, *, signer: Key | None = None, **changed: Any
    ) -> Order:
        """The payer's next order to a payee here. `changed`: claims by their names."""
        known = self.state.wallets.get(WalletId(payer.public.id))
        claims = {
            "payer": payer.public.id,
            "sequence": 0 if known is None else known.next_sequence,
            "payee": payee.public.id,
            "payee_journal": self.journal,
            "amount_minor": amount,
            "currency": EURO,
            "created_ms": self.now_ms,
            "expires_ms": self.now_ms + DAY_MS,
            "kind": OrderKind.PAY,
            "authorisation": 1,
            "payer_journal": self.journal,
            "payer_epoch": self.epoch,
            **changed,
        }
        payload = messages.order_payload(**claims)
        return messages.decode_order((signer or payer).sign_object(ORDER_TYPE, payload))

    def pay(
        self, payer: Key, payee: Key, amount: int, *, request: Request | None = None, **claims: Any
    ) -> Payment:
        """An order, and the request that it names."""
        if request is not None:
            claims.setdefault("request", request.identity)
        return Payment(order=self.order(payer, payee, amount, **claims), request=request)

    def request(
        self, payee: Key, amount: int, *, signer: Key | None = None, **changed: Any
    ) -> Request:
        """What a payee here asks for. `changed`: claims by their names."""
        claims = {
            "nonce": bytes(16),
            "payee": payee.public.id,
            "payee_journal": self.journal,
            "amount_minor": amount,
            "currency": EURO,
            "created_ms": self.now_ms,
            "expires_ms": self.now_ms + DAY_MS,
            **changed,
        }
        payload = messages.request_payload(**claims)
        return messages.decode_request((signer or payee).sign_object(REQUEST_TYPE, payload))

    # ---- receipts -----------------------------------------------------------------------------
    def receipt(self, index: int) -> bytes:
        """The receipt of an entry under the newest checkpoint."""
        tree = Batch(Frontier(), self.context.leaves)
        protected = checkpoint_protected(
            self.identity.key.public,
            journal=self.journal,
            epoch=self.epoch,
            size=tree.frontier.size,
            counter=0,
            issued_s=-(-self.state.time_ms // 1000),
        )
        return assemble_receipt(
            protected,
            self.identity.chain,
            size=tree.frontier.size,
            index=index,
            path=tree.paths()[index],
            signature=self.identity.key.sign(checkpoint_signed_bytes(protected, tree.root)),
        )

    def note(self, index: int) -> Note:
        """The note of a transfer-out."""
        return decode_note(self.context.entries[index], self.receipt(index))

    # ---- shortcuts ----------------------------------------------------------------------------
    def balance(self, key: Key) -> tuple[int, int, int]:
        """(settled, unsettled, hop)."""
        wallet = self.state.wallets[WalletId(key.public.id)]
        return wallet.settled, wallet.unsettled, wallet.hop

    def supply(self) -> int:
        """Value of all wallets here."""
        return self.state.balance_total()


def _cose_map(key: PublicKey) -> dict[int, Any]:
    if key.algorithm == -8:
        return {1: 1, -1: 6, -2: key.raw}
    return {1: 2, -1: 1, -2: key.raw[:32], -3: key.raw[32:]}


def opened(
    name: str = "a",
    *,
    tiers: Tiers | None = None,
    journal: Mapping[Any, int] | None = None,
    holders: Mapping[Key, int] | None = None,
    tier: int = 0,
    epoch: int = 1,
) -> Book:
    """An open journal whose holders are enrolled and funded."""
    book = Book(name, epoch=epoch)
    book.accept(book.opening(policy_of(tiers, journal)))
    for key, amount in (holders or {}).items():
        book.accept(book.enrolment(key, tier=tier))
        if amount:
            book.accept(book.grant(key, amount))
    return book
