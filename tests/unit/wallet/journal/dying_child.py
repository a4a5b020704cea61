"""A process whose children each live one life of a journal, and kill themselves at a named point.

A line `[folder, point, passing]` of JSON comes in, the child's exit code goes out. The child tells
in a file what it sent and what was released to it, so that this is known however it ends. Without
a point it lives to its end, and tells how often it passed each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from hsm import software
from tests.support.gateway import PASSPHRASE, STORE_KEY, FragileToken, Gateway, taken
from wallet.faults import Faults
from wallet.journal import JournalUnopened
from wallet.journal.names import FLUSH_ENTRIES
from wallet.store.database import Database

TOLD, PASSED = "told", "passed"
WINDOW_ENTRIES = 3
PAYMENTS = 6
# A leaf of the tree that is stored by itself comes every 256 entries.
MANY = 260


class KillAt(Faults):
    """Counts what is passed, and kills the process at one of the passings."""

    def __init__(self, point: str, passing: int) -> None:
        self.passed: Counter[str] = Counter()
        self._point, self._passing = point, passing

    def at(self, point: str) -> None:
        """The end, if it is this one."""
        self.passed[point] += 1
        if point == self._point and self.passed[point] == self._passing:
            os.kill(os.getpid(), signal.SIGKILL)


class Life:
    """One gateway in a folder that holds a token, and perhaps a store."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.box = Gateway(folder)
        self.faults = faults
        # Unbuffered: what was told must outlive a kill.
        self._told = (folder / TOLD).open("ab", buffering=0)

    def tell(self, word: str, *rest: object) -> None:
        """One line in one write."""
        self._told.write(json.dumps([word, *rest]).encode() + b"\n")

    async def open_store(self) -> None:
        """Token and store, before the journal looks at them."""
        box = self.box
        opened = await software.open_token(box.folder / "token", passphrase=PASSPHRASE)
        box.token = FragileToken(opened)
        box.database = await Database.open(box.folder / "store.db", key=STORE_KEY)

    async def begin(self) -> None:
        """Open what is there; provision where nothing is, as an operator would try again."""
        box = self.box
        try:
            await box.open(database=False, faults=self.faults)
        except JournalUnopened:
            await box.begin(limits={105: WINDOW_ENTRIES}, faults=self.faults)

    async def send(self, orders: list[bytes]) -> None:
        """Orders that arrive together."""
        await asyncio.gather(*[self._send(order) for order in orders])

    async def _send(self, order: bytes) -> None:
        self.tell("sent", order.hex())
        made = taken(await self.box.journal.pay(order))
        self.tell("released", made.entry.hex(), made.receipt.hex())

    async def live(self) -> None:
        """Everything that passes a point, most of it several times."""
        box = self.box
        await self.open_store()
        await self.begin()
        await box.fund()
        for _ in range(PAYMENTS):
            await self.send([box.order(0, 1, amount_minor=3), box.order(1, 2, amount_minor=2)])
        await self.flush()
        await box.take_list(5, [], sequence=0)
        await box.journal.acknowledge(box.journal.state.size - 1)
        await box.journal.renew(box.chain(days=20))
        await self.send([box.order(2, 0, amount_minor=1) for _ in range(MANY)])
        box.clock.wall_ms += 1_000
        taken(await box.journal.settle(await box.settlement(4)))
        await box.reopen(faults=self.faults)
        await self.send([box.order(1, 0)])
        await self.flush()
        await box.journal.acknowledge(box.journal.state.size)
        await box.journal.renew(box.chain(days=21))
        await self.close()

    async def close(self) -> None:
        """In good order."""
        await self.box.close()
        self._told.close()

    async def flush(self) -> None:
        """What 20,000 entries would bring about; a payment goes on beside it."""
        engine = self.box.journal._engine
        engine.names.recent.entries = FLUSH_ENTRIES
        await self.send([self.box.order(0, 2, amount_minor=5)])
        await self.send([self.box.order(0, 2, amount_minor=5)])
        assert engine._moving is not None
        await engine._moving


def _child(folder: Path, point: str, passing: int) -> None:
    faults = KillAt(point, passing)
    life = Life(folder, faults)
    asyncio.run(life.live())
    (folder / PASSED).write_text(json.dumps(faults.passed))


def main() -> None:
    """One child for each line."""
    for line in sys.stdin:
        folder, point, passing = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(Path(folder), point, passing)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
