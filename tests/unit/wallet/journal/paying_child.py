"""A process that pays, many at once, and prints the id of each receipted payment."""

import asyncio
import sys
from pathlib import Path

from hsm import software
from tests.support.gateway import PASSPHRASE, FragileToken, Gateway, taken
from wallet.clock import SystemClock

AT_ONCE = 7


async def pay_on(box: Gateway, payer: int) -> None:
    """Pay until killed."""
    number = 0
    while True:
        payee = (payer + 1 + number % 2) % 3
        made = taken(await box.journal.pay(box.order(payer, payee, amount_minor=1)))
        print(made.leaf.hex(), flush=True)
        number += 1


async def main(folder: Path) -> None:
    """Open what is there and pay from all wallets."""
    box = Gateway(folder)
    box.clock.wall_ms = SystemClock().now_ms()
    opened = await software.open_token(folder / "token", passphrase=PASSPHRASE)
    box.token = FragileToken(opened)
    await box.open()
    state = box.journal.state
    ids = [box.wallet(number) for number in range(3)]
    box.sequences = {wallet: state.wallets[wallet].next_sequence for wallet in ids}
    await asyncio.gather(*[pay_on(box, number % 3) for number in range(AT_ONCE)])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
