"""What a disk does to what it holds, and what the gateway may make of it: go on, or say so.

Whatever is found ends in a refusal with a name. A gateway that opens has every receipt that it
gave, but for one thing that no log can tell from a power cut: damage to the last transaction of the
log, of a machine that was not shut down. That hides no more than the status said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from hsm.api import HsmError
from tests.sim.disk import PowerCut
from tests.sim.journey import Journey, journey
from tests.sim.ledger import check_journal, check_receipts
from wallet.journal import JournalError, Mode
from wallet.store.errors import StoreError

TAMPERED = ("store-tampered", "journal-tampered", "seal-broken", "token-refused", "wrong-key")
REFUSED = (*TAMPERED, "counter-replaced", "entry-missing")
FAULTS = ("rest", "rest", "cut", "cut", "live", "astray", "astray", "counter")
Named = (StoreError, JournalError, HsmError)


class Damage:
    """One fault in one life, and how it ended."""

    def __init__(self, made: Journey) -> None:
        self.made = made
        self.box = made.box
        self.chance = made.chance
        self.kind = self.chance.choice(FAULTS)
        if self.kind == "counter" and self.box.token.path is None:
            self.kind = "astray"
        self.found: list[str] = []
        self.ended = ""
        self.hidden_minor = 0
        # What the last step that recorded anything began with: older entries are not the log's end.
        self.old_size = 0

    async def live(self) -> None:
        """A life, the fault, some more life if the machine goes on, an end and a start."""
        before = None if self.box.token.path is None else self.box.token.path.read_bytes()
        for _ in range(self.chance.randint(1, 8)):
            await self._step()
        if self.kind == "astray":
            self.box.disk.astray_at = self.chance.randint(1, 40)
            await self._go_on()
        elif self.kind == "live":
            self._rot()
            await self._go_on()
        self.hidden_minor = self.box.journal.status().window_exposure
        if self.kind != "rest" and self.chance.random() < 0.7:
            self.box.disk.cut()
        await self._stop()
        self.box.disk.restart()
        if self.kind in ("rest", "cut"):
            self._rot()
        elif self.kind == "counter":
            self._harm_counter(before)
        await self._open()

    async def _step(self) -> None:
        made, size = self.made, self.box.journal.state.size
        steps = (made.pay, made.flush, made.restart, made.settle, made.issue)
        await self.chance.choices(steps, weights=(9, 3, 1, 1, 1))[0]()
        made.wait()
        if self.box.journal.state.size > size:
            self.old_size = size

    async def _go_on(self) -> None:
        """Until it is noticed, or for a while."""
        for _ in range(self.chance.randint(1, 8)):
            if await self._noticed(self._step()) or not self.box.running:
                return
            if self.box.journal.mode is not Mode.OPEN:
                self.found.append(str(self.box.journal.mode))
                return

    async def _noticed(self, work: Awaitable[object]) -> bool:
        try:
            await work
        except Named as error:
            assert error.code in REFUSED, error
            self.found.append(error.code)
            return True
        return False

    async def _stop(self) -> None:
        box = self.box
        if not box.running:
            return
        if not box.disk.off:
            await self._noticed(_closed(box.journal.close))
        await box.halt()

    def _harm_counter(self, before: bytes | None) -> None:
        """Its file rots, is emptied or lost, or an older one is put back."""
        path = self.box.token.path
        assert path is not None
        assert before is not None
        kind = self.chance.choice(("rot", "rot", "empty", "lost", "older"))
        if kind == "rot":
            self.box.disk.rot(path)
        elif kind == "lost":
            path.unlink()
        else:
            path.write_bytes(b"" if kind == "empty" else before)

    def _rot(self) -> None:
        files = [self.box.folder / "store.db", self.box.folder / "store.db-wal"]
        there = [path for path in files if path.exists() and path.stat().st_size]
        self.box.disk.rot(self.chance.choice(there))

    async def _open(self) -> None:
        """It refuses by name, or has all that it gave out; so does whoever tries again.

        The second try may find what the first one mended: a bad page that the log has whole.
        """
        if await self._noticed(self.box.open()):
            self.ended = self.found[-1]
            if await self._noticed(self.box.open()):
                return
        await self._judge()

    async def _judge(self) -> None:
        box = self.box
        self.ended = self.ended or str(box.journal.mode)
        if box.journal.mode is Mode.FROZEN_ROLLBACK:
            return
        assert box.journal.mode is Mode.OPEN
        box.replica = box.new_replica()
        if await self._noticed(self._look()):
            # A genuine page of another time may fit until it is read; from then on nothing is
            # written any more.
            self.ended = self.found[-1]
            assert await self._noticed(box.database.write(lambda _: None))

    async def _look(self) -> None:
        """Everything that was given out is there, but for what the log's end may cost."""
        box = self.box
        raws = await check_journal(box)
        lost = self.made.holders.lost(raws)
        if not lost:
            await check_receipts(box, self.made.holders, raws)
            return
        self.ended = "lost the end of the log"
        assert self.kind not in ("rest", "counter")
        assert min(index for index, _ in lost) >= self.old_size
        assert sum(amount for _, amount in lost) <= self.hidden_minor


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except PowerCut:
        return


async def damaged(folder: Path, seed: int) -> Damage:
    """A whole life with one fault."""
    async with journey(folder, seed) as made:
        damage = Damage(made)
        await damage.live()
    return damage
