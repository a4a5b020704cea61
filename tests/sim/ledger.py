"""What holders know in a simulation: orders they sent, receipts they got; and the checks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.sim.naive import Sheet
from tests.sim.world import SimulatedGateway
from wallet.journal import Receipted
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId
from wallet.protocol.merkle import Frontier, leaf_hash
from wallet.protocol.messages import decode_order
from wallet.protocol.receipt import VerifiedReceipt
from wallet.protocol.refusals import Code, Refusal

# After these the holder does not know, and sends the same order again.
_AGAIN = {Code.BUSY, Code.SEALED, Code.SEQUENCE_GAP, Code.FROZEN_ROLLBACK, Code.FROZEN_TAMPER}


class Holders:
    """Orders by their payer, and receipts by the order's identity."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.open: dict[bytes, list[bytes]] = {}
        self.receipts: dict[bytes, tuple[Receipted, VerifiedReceipt]] = {}
        self._heads: dict[int, tuple[bytes, int]] = {}

    def send(self, order: bytes) -> None:
        """An order is on its way."""
        self.sent.append(order)
        self.open.setdefault(decode_order(order).payer, []).append(order)

    def hear(self, box: SimulatedGateway, order: bytes, outcome: Receipted | Refusal) -> None:
        """What came back."""
        decoded = decode_order(order)
        waiting = self.open.get(decoded.payer, [])
        if isinstance(outcome, Receipted):
            self._keep(decoded.identity, outcome, box.verified(outcome))
            if order in waiting:
                waiting.remove(order)
        elif outcome.code not in _AGAIN and order in waiting:
            # It will never be taken, so neither will those behind it.
            waiting.clear()

    def _keep(self, identity: bytes, made: Receipted, verified: VerifiedReceipt) -> None:
        self.receipts[identity] = made, verified
        head = (verified.root, verified.counter)
        # A second root of one size is a fork that anybody can prove.
        assert self._heads.setdefault(verified.size, head)[0] == verified.root

    def lost(self, box: SimulatedGateway, raws: list[bytes]) -> list[tuple[int, int]]:
        """(index, amount) of what was receipted and is not in the journal."""
        return [
            (made.index, decode_entry(made.entry).body.order.amount_minor)  # type: ignore[union-attr]  # orders alone are receipted to holders
            for made, _ in self.receipts.values()
            if made.index >= len(raws) or raws[made.index] != made.entry
        ]

    def forget_lost(self, raws: list[bytes]) -> None:
        """What a lying disk lost is no news any more."""
        self.receipts = {
            identity: (made, verified)
            for identity, (made, verified) in self.receipts.items()
            if made.index < len(raws) and raws[made.index] == made.entry
        }


async def check_books(box: SimulatedGateway) -> list[bytes]:
    """The chain is whole, no order counts twice, value is conserved. Returns the entries."""
    journal, state = box.journal, box.journal.state
    raws = await journal.entries(0, state.size)
    frontier = Frontier()
    for raw in raws:
        frontier, _ = frontier.append(leaf_hash(raw))
    assert frontier.root() == journal._engine.frontier.root()
    entries = [decode_entry(raw) for raw in raws]
    assert [made.index for made in entries] == list(range(state.size))
    orders = [made.body.order for made in entries if isinstance(made.body, Payment)]
    assert all(count == 1 for count in Counter(order.identity for order in orders).values())
    times = [made.time_ms for made in entries]
    assert times == sorted(times)
    _check_value(state, Sheet(entries))
    return raws


def _check_value(state: Any, sheet: Sheet) -> None:
    assert state.balance_total() == sheet.supply
    assert sheet.supply == sheet.granted - sheet.defunded - sum(sheet.sent.values())
    for wallet, purse in sheet.purses.items():
        assert state.wallets[WalletId(wallet)].balance == purse.settled + purse.unsettled


async def check_receipts(box: SimulatedGateway, holders: Holders, raws: list[bytes]) -> None:
    """Every receipt that was released stands, and its order is found."""
    assert holders.lost(box, raws) == []
    for identity, (made, verified) in holders.receipts.items():
        assert await box.journal.find(identity) == made.index
        assert verified.counter <= box.token.count
        if verified.size <= box.journal.state.size:
            assert await box.journal.root_at(verified.size) == verified.root
