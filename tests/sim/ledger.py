"""What people know in a simulation: what they asked for, receipts they got; and the checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from tests.sim.world import SimulatedGateway
from wallet.journal import Journal, Receipted
from wallet.protocol.entry import EntryKind, Note, Payment, decode_entry
from wallet.protocol.messages import Order
from wallet.protocol.receipt import VerifiedReceipt
from wallet.protocol.refusals import Code, Refusal

# After these nobody knows, and the same is asked again.
_AGAIN = {Code.BUSY, Code.SEALED, Code.SEQUENCE_GAP, Code.FROZEN_ROLLBACK, Code.FROZEN_TAMPER}


# How many receipts are looked up at each check, beside the newest.
SOUGHT = 4
REPEATS_CHECKED = 0.2


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is asked for until it is known what became of it.

    `name` is its identity, by which it counts once; `holder` waits with all else until then.
    `done_code` is the refusal that says that it was done before.
    """

    name: bytes
    holder: bytes
    ask: Callable[[Journal], Awaitable[Receipted | Refusal]]
    done_code: Code | None = None


class Holders:
    """Errands by who waits for them, and receipts by the errand's name."""

    def __init__(self) -> None:
        self.sent: list[Errand] = []
        self.open: dict[bytes, list[Errand]] = {}
        self.receipts: dict[bytes, tuple[Receipted, VerifiedReceipt]] = {}
        # What was paid to somebody here, and notes that were sent from here.
        self.payments: list[tuple[bytes, Order]] = []
        self.notes: list[Receipted] = []
        # A second root of one size is a fork that anybody can prove.
        self.heads: dict[int, bytes] = {}

    def send(self, errand: Errand) -> None:
        """It is on its way."""
        self.sent.append(errand)
        self.open.setdefault(errand.holder, []).append(errand)

    def waiting(self) -> list[Errand]:
        """All that nobody knows the outcome of, oldest first for each who waits."""
        return [errand for errands in self.open.values() for errand in errands]

    def hear(self, box: SimulatedGateway, errand: Errand, outcome: Receipted | Refusal) -> None:
        """What came back."""
        waiting = self.open.get(errand.holder, [])
        if isinstance(outcome, Receipted):
            self.keep(box, errand.name, outcome)
            if errand in waiting:
                waiting.remove(errand)
            return
        if outcome.code in _AGAIN:
            return
        verdict = box.verdicts.last.get(errand.name)
        if verdict is not None and verdict.outcome == outcome:
            box.replica.refused(verdict)
        if errand in waiting:
            # It will never be taken, so neither will those behind it.
            waiting.clear()

    def keep(self, box: SimulatedGateway, name: bytes, made: Receipted) -> None:
        """A receipt was released: it stands for ever. One of several that repeat it is checked."""
        if name in self.receipts:
            assert made.entry == self.receipts[name][0].entry
            if box.chance.random() > REPEATS_CHECKED:
                return
        elif made.kind in (EntryKind.PAY, EntryKind.TRANSFER_IN):
            body = decode_entry(made.entry).body
            assert isinstance(body, Payment | Note)
            self.payments.append((made.leaf, body.order))
        elif made.kind == EntryKind.TRANSFER_OUT:
            self.notes.append(made)
        verified = box.verified(made)
        self.receipts[name] = made, verified
        assert self.heads.setdefault(verified.size, verified.root) == verified.root

    def lost(self, raws: list[bytes]) -> list[tuple[int, int]]:
        """(index, amount) of what was receipted and is not in the journal."""
        return [
            (made.index, _amount(made))
            for made, _ in self.receipts.values()
            if made.index >= len(raws) or raws[made.index] != made.entry
        ]


def _amount(made: Receipted) -> int:
    body = decode_entry(made.entry).body
    return body.order.amount_minor if isinstance(body, Payment | Note) else 0


async def check_books(box: SimulatedGateway) -> list[bytes]:
    """The journal holds, and so does what is known of it next door and of PINs; the entries."""
    raws = await check_journal(box)
    _check_neighbour(box, raws)
    await box.hosted.see()
    return raws


async def check_journal(box: SimulatedGateway) -> list[bytes]:
    """The chain is whole, nothing counts twice, value is conserved, the issuer agrees.

    Returns the entries.
    """
    journal, state = box.journal, box.journal.state
    raws = await journal.entries(0, state.size)
    box.replica.follow(raws)
    assert len(raws) == state.size
    assert box.replica.frontier.root() == journal._engine.frontier.root()
    box.replica.agree(state)
    return raws


def _check_neighbour(box: SimulatedGateway, raws: list[bytes]) -> None:
    """What came from next door left there, and what came in there left here; all is there."""
    ours, theirs = box.replica.sheet, box.neighbour.sheet
    came = {index for journal, _, index in ours.redeemed if journal == box.neighbour.state.journal}
    assert len(came) == len(ours.redeemed)
    assert came <= theirs.sent.keys()
    assert ours.arrived == sum(theirs.sent[index] for index in came)
    assert all(raws[index] == entry for index, entry in box.neighbour.taken.items())
    assert theirs.arrived == sum(ours.sent[index] for index in box.neighbour.taken)
    under_way = sum(ours.sent.values()) + sum(theirs.sent.values()) - ours.arrived - theirs.arrived
    issued = ours.granted + theirs.granted
    assert issued == ours.supply + theirs.supply + under_way + ours.defunded + theirs.defunded


async def check_receipts(box: SimulatedGateway, holders: Holders, raws: list[bytes]) -> None:
    """Every receipt that was released stands, and some of them are looked up, the newest too."""
    assert holders.lost(raws) == []
    assert all(verified.counter <= box.token.count for _, verified in holders.receipts.values())
    for size, root in holders.heads.items():
        assert size > len(raws) or box.replica.roots[size] == root
    names = list(holders.receipts)
    sought = box.chance.sample(names, min(SOUGHT, len(names)))
    for name in dict.fromkeys((*names[-2:], *sought)):
        made, verified = holders.receipts[name]
        assert await box.journal.find(name) == made.index
        if verified.size <= len(raws):
            assert await box.journal.root_at(verified.size) == verified.root
