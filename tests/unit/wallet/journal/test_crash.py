"""kill -9 in the middle of payments: every receipt that was given stands, no order counts twice."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.support.gateway import FUNDED_MINOR, Gateway
from wallet.journal import Mode
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId

CHILD = "tests.unit.wallet.journal.paying_child"
PROJECT = Path(__file__).parents[4]
ROUNDS = 4


def pay_until_killed(folder: Path, *, payments: int) -> list[bytes]:
    """The ids of the payments that the child had receipts for."""
    with subprocess.Popen(
        [sys.executable, "-m", CHILD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(payments)]
        child.kill()
        lines += child.stdout.readlines()
    assert lines[0], "the child did not start"
    return [bytes.fromhex(line) for line in lines if line.endswith("\n")]


async def test_every_receipted_payment_survives_kill_9(tmp_path: Path) -> None:
    box = Gateway(tmp_path)
    await box.create()
    await box.journal.close()
    await box.crash()
    chance, receipted = random.Random(9), []
    for _ in range(ROUNDS):
        receipted += pay_until_killed(tmp_path, payments=chance.randrange(1, 150))
        # The child used the same counter file: the token is read anew.
        journal = await box.open()
        assert journal.mode is Mode.OPEN
        for leaf in receipted:
            index = await journal.find(leaf)
            assert index is not None
            assert box.verified(await journal.receipted(index)).leaf == leaf
        await _no_order_counts_twice(box)
        await box.crash()
    await box.open()
    await box.close()


async def _no_order_counts_twice(box: Gateway) -> None:
    state = box.journal.state
    entries = [decode_entry(raw) for raw in await box.journal.entries(0, state.size)]
    orders = [entry.body.order for entry in entries if isinstance(entry.body, Payment)]
    assert max(Counter(order.identity for order in orders).values()) == 1
    assert max(Counter((order.payer, order.sequence) for order in orders).values()) == 1
    assert state.balance_total() == 3 * FUNDED_MINOR
    for key in box.keys:
        spent = sum(order.amount_minor for order in orders if order.payer == key.public.id)
        came = sum(order.amount_minor for order in orders if order.payee == key.public.id)
        assert state.wallets[WalletId(key.public.id)].balance == FUNDED_MINOR - spent + came
