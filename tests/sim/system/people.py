"""Holders and tills: what they sign, what they hold in their hands, what they may expect to own."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

from tests.sim.system.box import Box
from tests.sim.system.issuer import CURRENCY
from tests.support.issuer import Key
from wallet.journal import Receipted
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.ids import WalletId
from wallet.protocol.messages import OrderKind, order_payload
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.protocol.refusals import Code, Refusal
from wallet.store.objects import CollectedReceipt, add_receipt

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ORDER_MS = 4 * DAY_MS
# A note that is refused so has no future; for other reasons its payee tries again.
_HOPELESS = {Code.NOTE_EXPIRED, Code.JOURNAL_REVOKED, Code.CERTIFICATE_INVALID}


@dataclasses.dataclass(eq=False)
class Holder:
    """One person, one key, a wallet in one journal. `expected`: what the receipts say."""

    name: str
    key: Key
    home: Box
    sequence: int = 0
    funded: int = 0
    received: int = 0
    sent: int = 0
    honest: bool = True
    # An order whose outcome is not known: it is sent again, and no other before.
    waiting: tuple[bytes, Holder, int] | None = None
    # The newest order that was paid, and its receipt.
    last: tuple[bytes, Receipted] | None = None
    notes: list[Note] = dataclasses.field(default_factory=list)

    @property
    def id(self) -> WalletId:
        """The wallet."""
        return WalletId(self.key.public.id)

    @property
    def expected(self) -> int:
        """What was granted and received, less what was paid."""
        return self.funded + self.received - self.sent


@dataclasses.dataclass(eq=False)
class Note:
    """A note on its way, and who gave it."""

    payer: Holder
    payee: Holder
    amount: int
    made: Receipted
    redeemed: bool = False


class People:
    """Everybody. `outcomes` counts what became of orders and notes."""

    def __init__(self, chance: random.Random, anchor: TrustAnchor) -> None:
        self.chance = chance
        self.anchor = anchor
        self.holders: list[Holder] = []
        self.notes: list[Note] = []
        self.tills: dict[str, list[Receipted]] = {}
        self.outcomes: Counter[str] = Counter()

    def check(self, made: Receipted) -> None:
        """What anybody who is handed a receipt does. Raises: ReceiptError."""
        verify_receipt(
            made.receipt, made.entry, root=self.anchor, grace_s=DAY_MS, revoked=NOTHING_REVOKED
        )

    # ---- paying ---------------------------------------------------------------------------
    def order(self, payer: Holder, payee: Holder, amount: int, *, now_ms: int) -> bytes:
        """The payer's next order."""
        kind = OrderKind.REDEEM if payer is payee else OrderKind.PAY
        payload = order_payload(
            payer=payer.id,
            sequence=payer.sequence,
            payee=payee.id,
            payee_journal=payee.home.id,
            amount_minor=amount,
            currency=CURRENCY,
            created_ms=now_ms,
            expires_ms=now_ms + ORDER_MS,
            kind=kind,
            authorisation=0,
            payer_journal=payer.home.id,
            payer_epoch=1,
        )
        return payer.key.sign_object(ORDER_TYPE, payload)

    async def pay(self, payer: Holder, payee: Holder, amount: int, *, now_ms: int) -> str:
        """Pay, or send again what is not answered yet. Returns what became of it."""
        if payer.waiting is None:
            payer.waiting = (self.order(payer, payee, amount, now_ms=now_ms), payee, amount)
        order, payee, amount = payer.waiting
        outcome = await payer.home.journal.pay(order)
        if await payer.home.revive():
            return self._count("unknown")
        payer.waiting = None
        if isinstance(outcome, Refusal):
            return self._count(outcome.code)
        payer.last = (order, outcome)
        self.take_receipt(payer, payee, amount, outcome)
        return self._count("paid")

    async def pay_again(self, payer: Holder, *, now_ms: int) -> None:
        """Send a paid order once more, and another one under its sequence: neither pays."""
        if payer.last is None or payer.waiting is not None:
            return
        order, made = payer.last
        outcome = await payer.home.journal.pay(order)
        if isinstance(outcome, Receipted):
            assert (outcome.repeated, outcome.leaf) == (True, made.leaf), "an order paid twice"
        payer.sequence -= 1
        other = self.order(payer, payer, 1, now_ms=now_ms)
        payer.sequence += 1
        refused = await payer.home.journal.pay(other)
        assert isinstance(refused, Refusal), "a sequence that was used paid again"
        await payer.home.revive()

    def take_receipt(self, payer: Holder, payee: Holder, amount: int, made: Receipted) -> None:
        """Both sides check it; a till keeps it; a note goes into the payee's hands."""
        self.check(made)
        payer.sequence += 1
        self.tills.setdefault(payer.home.name, []).append(made)
        if payer is payee:
            return
        payer.sent += amount
        if payer.home.id == payee.home.id:
            payee.received += amount
            return
        note = Note(payer, payee, amount, made)
        payee.notes.append(note)
        self.notes.append(note)

    async def redeem(self, note: Note, *, at: Box | None = None) -> str:
        """Bring a note to its journal, or to another one."""
        box = at or note.payee.home
        outcome = await box.journal.redeem(note.made.entry, note.made.receipt)
        if await box.revive():
            return self._count("unknown")
        if isinstance(outcome, Refusal):
            if outcome.code in _HOPELESS and at is None:
                note.payee.notes.remove(note)
                await self.hand_in(box, note.made)
            return self._count(outcome.code)
        self.check(outcome)
        self.tills.setdefault(box.name, []).append(outcome)
        if not note.redeemed:
            note.redeemed = True
            note.payee.received += note.amount
            note.payee.notes.remove(note)
            return self._count("redeemed")
        return self._count("repeated")

    # ---- tills ----------------------------------------------------------------------------
    async def hand_in(self, box: Box, made: Receipted) -> None:
        """A till brings a receipt of another journal to a gateway, which keeps it."""
        verified = verify_receipt(
            made.receipt, made.entry, root=self.anchor, grace_s=DAY_MS, revoked=NOTHING_REVOKED
        )
        if verified.journal == box.id:
            return
        collected = CollectedReceipt(
            hash=verified.leaf, entry=made.entry, receipt=made.receipt, state="new"
        )
        await box.database.write(lambda connection: add_receipt(connection, collected))

    def _count(self, outcome: str) -> str:
        self.outcomes[str(outcome)] += 1
        return str(outcome)
