"""SIGKILL at every named point: what was released stands, nothing counts twice, on it goes.

The child is the real engine on a real store and token. Each point is tried at its first passing,
at one in the middle and at its last one.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm import software
from tests.sim.naive import Sheet
from tests.support.gateway import PASSPHRASE, Gateway, taken
from tests.support.tokens import FEEBLE
from tests.unit.wallet.journal.dying_child import PASSED, TOLD, Life
from wallet.faults import NO_FAULTS, POINTS
from wallet.journal import Mode
from wallet.journal.head import load_window
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId
from wallet.protocol.merkle import Frontier, leaf_hash
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt

NURSERY = "tests.unit.wallet.journal.dying_child"
PROJECT = Path(__file__).parents[4]


class Nursery:
    """The process that bears the children."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    def live(self, folder: Path, *, point: str = "", passing: int = 0) -> int:
        """The exit code of a life in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(folder), point, passing]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """No more lives."""
        self._process.communicate()


class Told:
    """What a child said before it ended."""

    def __init__(self, folder: Path) -> None:
        self.sent: list[bytes] = []
        self.released: list[tuple[bytes, bytes]] = []
        # What is behind the last end of a line was cut off in the saying: nobody heard it.
        for line in (folder / TOLD).read_text().split("\n")[:-1]:
            word, *rest = json.loads(line)
            given = [bytes.fromhex(text) for text in rest]
            if word == "sent":
                self.sent.append(given[0])
            else:
                self.released.append((given[0], given[1]))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module")
def newborn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a token alone."""
    folder = tmp_path_factory.mktemp("newborn")
    asyncio.run(software.create(folder / "token", passphrase=PASSPHRASE, cost=FEEBLE))
    return folder


@pytest.fixture(scope="module")
def passed(
    nursery: Nursery, newborn: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, int]:
    """How often a whole life passes each point."""
    folder = tmp_path_factory.mktemp("whole") / "life"
    shutil.copytree(newborn, folder)
    assert nursery.live(folder) == 0
    counted: dict[str, int] = json.loads((folder / PASSED).read_text())
    return counted


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_a_named_point_loses_nothing_and_counts_nothing_twice(
    point: str, nursery: Nursery, newborn: Path, passed: dict[str, int], tmp_path: Path
) -> None:
    last = passed[point]
    for passing in sorted({1, (last + 1) // 2, last}):
        folder = tmp_path / str(passing)
        shutil.copytree(newborn, folder)
        assert nursery.live(folder, point=point, passing=passing) == -signal.SIGKILL
        await check(folder)


async def check(folder: Path) -> None:
    """Start what the child left behind."""
    told, life = Told(folder), Life(folder, NO_FAULTS)
    await life.open_store()
    box = life.box
    await check_window(box)
    await life.begin()
    assert box.journal.mode is Mode.OPEN
    raws = await box.journal.entries(0, box.journal.state.size)
    for entry, receipt in told.released:
        verified = verify_receipt(
            receipt, entry, root=box.anchor, grace_s=0, revoked=NOTHING_REVOKED
        )
        assert raws[verified.index] == entry
        assert await box.journal.root_at(verified.size) == verified.root
        assert verified.counter <= box.journal.status().counter
    for order in told.sent:
        box.verified(taken(await box.journal.pay(order)))
    await check_books(box)
    await life.close()


async def check_window(box: Gateway) -> None:
    """The counter is where the store has it, or one on, and then the intent says so."""
    window = await box.database.read(load_window)
    hardware = await box.token.read()
    assert hardware == window.counter or (hardware, window.intent) == (window.counter + 1, hardware)


async def check_books(box: Gateway) -> None:
    """The chain is whole, each order is in it once, and value is what was granted."""
    state = box.journal.state
    raws = await box.journal.entries(0, state.size)
    frontier = Frontier()
    for raw in raws:
        frontier, _ = frontier.append(leaf_hash(raw))
    assert frontier.root() == await box.journal.root_at(len(raws))
    entries = [decode_entry(raw) for raw in raws]
    orders = [made.body.order for made in entries if isinstance(made.body, Payment)]
    assert len({order.identity for order in orders}) == len(orders)
    sheet = Sheet(entries)
    assert state.balance_total() == sheet.supply == sheet.granted
    for wallet, purse in sheet.purses.items():
        assert state.wallets[WalletId(wallet)].balance == purse.settled + purse.unsettled
