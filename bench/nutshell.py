"""A Cashu mint's swaps a second, by Nutshell's own wallet: run by the peer's interpreter.

Arguments: the mint's address, a folder for the wallet, how many swaps.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from typing import Any

VALUE = 64


async def swaps(url: str, folder: str, count: int) -> float:
    """Swaps a second of one wallet: its proofs against new ones, blindly signed."""
    wallets: Any = importlib.import_module("cashu.wallet.wallet")
    wallet = await wallets.Wallet.with_db(url, folder, "bench")
    await wallet.load_mint()
    quote = await wallet.request_mint(VALUE)
    await wallet.mint(VALUE, quote_id=quote.quote)
    start = time.perf_counter()
    for _ in range(count):
        await wallet.split(list(wallet.proofs), VALUE // 2)
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    print(f"swaps/s {asyncio.run(swaps(sys.argv[1], sys.argv[2], int(sys.argv[3])))}")
