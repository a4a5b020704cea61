"""What claims move, and what a closed epoch comes to: nothing here writes.

protocol.md, "A gateway is lost": last acknowledged state + claims in - claims out. A claim counts
like the entry that it is: out of the payer's wallet, and to where the entry would have taken it. An
issuer's own grant that was signed is a claim that nobody need hand in. Where a payer's claims go
beyond what the payer had, the payees kept to the policy: the loss account bears the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence, Set

from cloud.funding import Funding
from cloud.ledger.accounts import Account, loss, transit_notes
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.recovery.arrivals import HIDDEN, Parents, origin_of, parents_of, source_of
from cloud.recovery.balances import Balances
from cloud.recovery.claims import Claim
from cloud.recovery.hidden import check_payee, told_among
from cloud.recovery.total import Judged, Move, NoteChange, NoteKey, Place
from cloud.shards.homes import ALONE, Here, Site, homes_of
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind, Note, Payment
from wallet.protocol.ids import WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order, OrderKind
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.state import State

# Pairs of claims at one index that are kept: one convicts.
FORKS_MAX = 20
# The code of a claim that officers refuse.
REFUSED = "claim-refused"
Sources = Mapping[bytes, NoteKey | ProtocolError]
"""Where the notes among claims come from, by the claims' leaves, or why that cannot be said."""


def grant_identity(grant: Funding) -> bytes:
    """Of the transfer by which a grant counts in a closed epoch."""
    return derived("claim-grant", grant.funding_id)


class Books(Balances):
    """The closed epoch, to which claims are added one by one."""

    def __init__(
        self,
        anchor: TrustAnchor,
        state: State,
        *,
        place: Place,
        currency: str,
        keys: Mapping[bytes, PublicKey],
        refused: Set[bytes] = frozenset(),
        told: Set[bytes] = frozenset(),
        here: Here = ALONE,
    ) -> None:
        """`told`: orders that are judged already, besides those that the state has carried out."""
        super().__init__(state, place=place, currency=currency)
        self._anchor = anchor
        self._here = here
        self._state = state
        self._keys = keys
        self._refused = refused
        self._orders: set[bytes] = set()
        self._told: set[bytes] = set(told)
        self._left: set[int] = set()
        self.redeemed: set[NoteKey] = set(state.redeemed)
        self.notes: list[NoteChange] = []
        self.judged: list[Judged] = []
        self.forks: list[tuple[Claim, Claim]] = []
        self._last: Claim | None = None

    # ---- claims ---------------------------------------------------------------------------
    def add_grants(self, grants: Iterable[Funding], *, source: Account) -> None:
        """Signed grants: whether or not they came into the journal, their value is the holder's.

        `source`: where it waits, or the way there.
        """
        for grant in grants:
            self._balances[grant.offline_wallet] += grant.amount
            self.moves.append(
                Move(
                    identity=grant_identity(grant),
                    debit=source,
                    credit=self.account(grant.offline_wallet),
                    amount=grant.amount,
                    kind=TransferKind.FUND,
                )
            )

    async def add(self, site: Site, claims: Sequence[Claim]) -> None:
        """Judge claims in their order, and count those that hold.

        Signatures take time: others are served meanwhile.
        """
        sources = await asyncio.to_thread(self._sources, claims)
        keys = {key for key in sources.values() if isinstance(key, tuple)}
        self._here.homes.hear(await homes_of(site.head, {key[0] for key in keys}))
        parents = await parents_of(site.home, keys)
        self._told |= await told_among(site.home, (self._journal, self._epoch), self._spent(claims))
        await asyncio.to_thread(self._judge, claims, sources, parents)

    def _spent(self, claims: Sequence[Claim]) -> set[bytes]:
        """Claimed orders whose sequences the journal has spent: by them, or by others?"""
        bodies = [claim.entry.body for claim in claims]
        orders = [body.order for body in bodies if isinstance(body, Payment)]
        return {order.identity for order in orders if self._is_spent(order)}

    def _is_spent(self, order: Order) -> bool:
        known = self._state.wallets.get(order.payer)
        return known is not None and order.sequence < known.next_sequence

    def _sources(self, claims: Sequence[Claim]) -> Sources:
        found: dict[bytes, NoteKey | ProtocolError] = {}
        for claim in claims:
            if isinstance(claim.entry.body, Note):
                try:
                    found[claim.leaf] = origin_of(
                        self._anchor,
                        claim.entry.body,
                        journal=self._journal,
                        currency=self._currency,
                    )
                except ProtocolError as error:
                    found[claim.leaf] = error
        return found

    def _judge(self, claims: Sequence[Claim], sources: Sources, parents: Parents) -> None:
        for claim in claims:
            code = self._judged(claim, sources, parents)
            if code is not None:
                self._bear_note(claim)
            self._note(claim, code)

    def _judged(self, claim: Claim, sources: Sources, parents: Parents) -> str | None:
        """Count a claim that holds; the code of one that does not."""
        if claim.leaf in self._refused:
            return REFUSED
        try:
            self._count(claim, sources, parents)
        except ProtocolError as error:
            return str(error.code)
        return None

    def _note(self, claim: Claim, code: str | None) -> None:
        """Keep the judgement; two claims at one index convict the journal."""
        last, self._last = self._last, claim
        if last is not None and last.convicts_with(claim) and len(self.forks) < FORKS_MAX:
            self.forks.append((last, claim))
        entry = claim.entry
        self.judged.append(
            Judged(
                index=claim.index,
                leaf=claim.leaf,
                kind=entry.kind,
                amount=entry.body.order.amount_minor
                if isinstance(entry.body, Payment | Note)
                else 0,
                code=code,
            )
        )

    def _count(self, claim: Claim, sources: Sources, parents: Parents) -> None:
        entry = claim.entry
        match entry.kind, entry.body:
            case EntryKind.PAY, Payment(order=order) as payment:
                self._check_order(order, leaves=False)
                self._require_wallet(order.payee)
                if order.payee == order.payer:
                    raise ProtocolError(Code.MALFORMED, "the payer is the payee")
                self._pay(claim, payment)
            case EntryKind.TRANSFER_OUT, Payment(order=order):
                # Whoever redeems the other one all the same is paid from the loss account.
                if claim.index in self._left or claim.index < self._state.size:
                    raise ProtocolError(Code.PROOF_INVALID, "another note counts at this index")
                self._check_order(order, leaves=True)
                self._leave(claim, order)
            case EntryKind.DEFUND, Payment(order=order):
                self._check_order(order, leaves=False)
                if order.kind != OrderKind.REDEEM:
                    raise ProtocolError(Code.MALFORMED, "no order to redeem")
                self._move(claim, order, to_online=order.payer, kind=TransferKind.DEFUND)
            case EntryKind.TRANSFER_IN, Note() as note:
                self._arrive(claim, note, sources[claim.leaf], parents)
            case _:
                raise ProtocolError(Code.MALFORMED, "an entry that moves no value of a holder")

    def _check_order(self, order: Order, *, leaves: bool) -> None:
        """What the journal had to check, as far as it can be known without it. Raises."""
        if order.currency != self._currency:
            raise ProtocolError(Code.WRONG_CURRENCY)
        if (order.payer_journal, order.payer_epoch) != (self._journal, self._epoch):
            raise ProtocolError(Code.WRONG_JOURNAL)
        if (order.payee_journal != self._journal) != leaves:
            raise ProtocolError(Code.MALFORMED, "an entry of another kind than its order's")
        order.signed.verify(self._require_wallet(order.payer))
        if order.identity in self._told:
            raise ProtocolError(Code.SEQUENCE_USED, "the journal told of this order itself")
        if self._is_spent(order) and (leaves or order.payee == order.payer):
            raise ProtocolError(Code.SEQUENCE_USED, "the journal told of another order before")
        if order.identity in self._orders:
            raise ProtocolError(Code.SEQUENCE_USED, "the order is claimed at another index")
        self._orders.add(order.identity)

    def _pay(self, claim: Claim, payment: Payment) -> None:
        """Inside the journal: out of the payer's wallet, if the order's sequence was not spent.

        Where it was spent by another order, the payer has signed twice, and the issuer pays.
        """
        order, spent = payment.order, self._is_spent(payment.order)
        if spent or claim.index < self._state.size:
            check_payee(self._state, order)
        self._balances[order.payee] += order.amount_minor
        payee = self.account(order.payee)
        if not spent:
            self._move(claim, order, credit=payee, kind=TransferKind.PAY)
            return
        self.borne += order.amount_minor
        self.moves.append(
            Move(
                identity=self._identity(claim),
                debit=loss(self._currency),
                credit=payee,
                amount=order.amount_minor,
                kind=TransferKind.COMPENSATION,
            )
        )

    def _require_wallet(self, wallet: bytes) -> PublicKey:
        known = self._state.wallets.get(WalletId(wallet))
        key = self._keys.get(wallet) if known is None or known.key is None else known.key
        if key is None:
            raise ProtocolError(Code.UNKNOWN_WALLET)
        return key

    def _move(
        self,
        claim: Claim,
        order: Order,
        *,
        credit: Account | None = None,
        to_online: bytes | None = None,
        kind: TransferKind,
    ) -> None:
        """Out of the payer's wallet."""
        self._balances[order.payer] -= order.amount_minor
        self.moves.append(
            Move(
                identity=self._identity(claim),
                debit=self.account(order.payer),
                credit=credit,
                to_online=to_online,
                amount=order.amount_minor,
                kind=kind,
            )
        )

    def _identity(self, claim: Claim) -> bytes:
        entry = of_entry(self._journal, epoch=self._epoch, index=claim.index)
        return derived("claim", entry, claim.leaf)

    def _leave(self, claim: Claim, order: Order) -> None:
        """A note: on its way from now on, or redeemed already and waiting for its parent."""
        row = claim.redeemed
        if row is None:
            credit = transit_notes(self._text, currency=self._currency)
            kind, state = TransferKind.NOTE_OUT, "out"
        else:
            credit = row.waiting(self._text)
            kind, state = TransferKind.NOTE_MATCHED, "redeemed"
        self._move(claim, order, credit=credit, kind=kind)
        self._left.add(claim.index)
        key = (self._journal, self._epoch, claim.index)
        self.notes.append(NoteChange(key=key, leaf=claim.leaf, state=state, order=order, known=row))

    def _arrive(
        self, claim: Claim, note: Note, key: NoteKey | ProtocolError, parents: Parents
    ) -> None:
        """A note of another journal that came into this one."""
        if isinstance(key, ProtocolError):
            raise key
        order, leaf = note.order, leaf_hash(note.entry)
        self._require_wallet(order.payee)
        if key in self.redeemed:
            raise ProtocolError(Code.NOTE_REDEEMED)
        source, state = source_of(
            *(key, leaf, parents),
            journal=self._text,
            currency=self._currency,
            is_here=self._here.has(key[0]),
        )
        self.redeemed.add(key)
        self._balances[order.payee] += order.amount_minor
        if state in ("compensated", HIDDEN):
            self.borne += order.amount_minor
        kind = {
            "redeemed": TransferKind.NOTE_IN,
            "early": TransferKind.NOTE_IN_EARLY,
            "compensated": TransferKind.COMPENSATION,
            HIDDEN: TransferKind.COMPENSATION,
        }[state]
        self.moves.append(
            Move(
                identity=self._identity(claim),
                debit=source,
                credit=self.account(order.payee),
                amount=order.amount_minor,
                kind=kind,
            )
        )
        self.notes.append(
            NoteChange(
                key=key,
                leaf=leaf,
                state=state,
                order=order,
                note=note,
                in_index=claim.index,
            )
        )

    def _bear_note(self, claim: Claim) -> None:
        """Redeemed elsewhere, and no order stands behind it: the payee kept to the policy."""
        row, body = claim.redeemed, claim.entry.body
        if row is None or not isinstance(body, Payment):
            return
        self.borne += row.amount
        if row.in_shard is None:
            self.moves.append(
                Move(
                    identity=self._identity(claim),
                    debit=loss(row.currency),
                    credit=row.waiting(self._text),
                    amount=row.amount,
                    kind=TransferKind.COMPENSATION,
                )
            )
        key = (self._journal, self._epoch, claim.index)
        self.notes.append(
            NoteChange(key=key, leaf=claim.leaf, state="compensated", order=body.order, known=row)
        )
