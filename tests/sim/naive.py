"""What the entries of a journal add up to, worked out from the first one on: slow and plain."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from wallet.protocol.entry import Entry, EntryKind, Note, Open, Payment, Void
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import Enrolment, Grant, Settlement
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order, Request
from wallet.protocol.state import DAY_HOURS, HOUR_MS

NoteKey = tuple[JournalId, int, int]


@dataclasses.dataclass
class Purse:
    """One wallet."""

    settled: int = 0
    unsettled: int = 0
    hop: int = 0
    orders: int = 0

    def spend(self, amount: int) -> tuple[int, int]:
        """Takes the settled part first. Returns the unsettled part and its hop."""
        assert self.settled + self.unsettled >= amount, "a balance below zero"
        unsettled = max(0, amount - self.settled)
        hop = self.hop if unsettled else 0
        self.settled -= amount - unsettled
        self.unsettled -= unsettled
        self.calm()
        return unsettled, hop

    def calm(self) -> None:
        """The hop lasts as long as something is unsettled."""
        if self.unsettled == 0:
            self.hop = 0


@dataclasses.dataclass(frozen=True)
class Row:
    """One payment: who paid, who received here, how much."""

    index: int
    hour: int
    payer: bytes | None
    payee: bytes | None
    amount: int
    to: bytes


class Sheet:
    """Balances, counters and facts of one journal."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.purses: dict[bytes, Purse] = {}
        self.rows: list[Row] = []
        self.requests: dict[bytes, tuple[str, int]] = {}
        self.refunds: Counter[bytes] = Counter()
        self.redeemed: set[NoteKey] = set()
        self.sent: dict[int, int] = {}
        self.settled_size = 0
        self.granted = self.defunded = self.arrived = self.carried = 0
        self._waiting: dict[int, tuple[bytes, int]] = {}
        for entry in entries:
            self.take(entry)

    def take(self, entry: Entry) -> None:
        """One more entry."""
        body = entry.body
        if isinstance(body, Open) and body.statement is not None:
            self.redeemed |= set(body.statement.redeemed)
            for wallet, balance in body.statement.carried:
                self.purses[wallet] = Purse(settled=balance)
                self.carried += balance
        elif isinstance(body, Enrolment):
            self.purses.setdefault(body.wallet, Purse())
        elif isinstance(body, Grant):
            self.purses[body.wallet].settled += body.amount_minor
            self.granted += body.amount_minor
        elif isinstance(body, Payment):
            self._pay(entry, body)
        elif isinstance(body, Note):
            self._redeem(entry, body)
        elif isinstance(body, Void):
            self._fact("void", body.request)
        elif isinstance(body, Settlement):
            self._settle(body)

    def _pay(self, entry: Entry, payment: Payment) -> None:
        order = payment.order
        payer = self.purses[order.payer]
        payer.orders += 1
        part, hop = payer.spend(order.amount_minor)
        assert entry.hop in (None, hop)
        here = entry.kind == EntryKind.PAY
        if here:
            payee = self.purses[order.payee]
            payee.settled += order.amount_minor - part
            self._arrive(entry.index, order.payee, part, hop)
        elif entry.kind == EntryKind.DEFUND:
            self.defunded += order.amount_minor
        else:
            self.sent[entry.index] = order.amount_minor
        if here and payment.request is not None:
            self._fact("paid", payment.request)
        if order.refunded is not None:
            self.refunds[order.refunded] += order.amount_minor
        self._row(entry, order, payer=order.payer, payee=order.payee if here else None)

    def _redeem(self, entry: Entry, note: Note) -> None:
        order = note.order
        key = (order.payer_journal, order.payer_epoch, note.index)
        assert key not in self.redeemed, "a note was redeemed twice"
        self.redeemed.add(key)
        self.arrived += order.amount_minor
        self._arrive(entry.index, order.payee, order.amount_minor, note.hop + 1)
        if note.request is not None:
            self._fact("paid", note.request)
        self._row(entry, order, payer=None, payee=order.payee)

    def _row(self, entry: Entry, order: Order, *, payer: bytes | None, payee: bytes | None) -> None:
        hour = entry.time_ms // HOUR_MS
        row = Row(entry.index, hour, payer, payee, order.amount_minor, order.payee)
        self.rows.append(row)

    def _arrive(self, index: int, wallet: bytes, part: int, hop: int) -> None:
        if part:
            purse = self.purses[wallet]
            purse.unsettled += part
            purse.hop = max(purse.hop, hop)
            self._waiting[index] = (wallet, part)

    def _fact(self, fact: str, request: Request) -> None:
        assert request.identity not in self.requests, "a request was paid or voided twice"
        self.requests[request.identity] = (fact, request.expires_ms)

    def _settle(self, settlement: Settlement) -> None:
        named = {verdict.index for verdict in settlement.verdicts}
        for index in sorted(self._waiting):
            if index >= settlement.size or index in named:
                continue
            wallet, part = self._waiting.pop(index)
            purse = self.purses[wallet]
            final = min(part, purse.unsettled)
            purse.settled += final
            purse.unsettled -= final
            purse.calm()
        self.settled_size = max(self.settled_size, settlement.size)

    # ---- sums -------------------------------------------------------------------------------
    @property
    def supply(self) -> int:
        """All value here."""
        return sum(purse.settled + purse.unsettled for purse in self.purses.values())

    @property
    def unsettled_total(self) -> int:
        """All unsettled value here."""
        return sum(purse.unsettled for purse in self.purses.values())

    def since(self, wallet: bytes) -> tuple[int, int, int]:
        """(spent, payments, received) since the last settlement."""
        rows = [row for row in self.rows if row.index >= self.settled_size]
        spent = [row.amount for row in rows if row.payer == wallet]
        return sum(spent), len(spent), sum(row.amount for row in rows if row.payee == wallet)

    def day(self, wallet: bytes, hour: int) -> tuple[int, int]:
        """(spent, payments) of the 24 hours up to this one."""
        spent = [
            row.amount for row in self.rows if row.payer == wallet and row.hour > hour - DAY_HOURS
        ]
        return sum(spent), len(spent)

    def pairs(self, hour: int) -> dict[tuple[bytes, bytes], int]:
        """What one wallet paid another in the 24 hours up to this one."""
        paid: dict[tuple[bytes, bytes], int] = defaultdict(int)
        for row in self.rows:
            if row.payer is not None and row.payer != row.to and row.hour > hour - DAY_HOURS:
                paid[(row.payer, row.to)] += row.amount
        return dict(paid)

    def open_rows(self) -> list[int]:
        """Indexes of payments that no settlement covers."""
        return [row.index for row in self.rows if row.index >= self.settled_size]


def leaves(entries: Sequence[Entry]) -> list[bytes]:
    """Leaf hashes of payments that came to a wallet here."""
    kinds = (EntryKind.PAY, EntryKind.TRANSFER_IN)
    return [leaf_hash(entry.raw) for entry in entries if entry.kind in kinds]
