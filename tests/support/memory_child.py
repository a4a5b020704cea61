"""Opens a token and a store and lets both go, stopping on its way to be looked at from outside."""

import asyncio
import sys
from pathlib import Path

from hsm import software
from hsm.memory import wipe
from wallet.store.database import Database


def stop(stage: str) -> None:
    """Say where we are, and wait for a line."""
    print(stage, flush=True)
    sys.stdin.readline()


async def main(folder: Path) -> None:
    """The life of a store's key."""
    token = await software.open_token(folder / "token", passphrase=b"correct horse")
    key = await token.sealer.unseal((folder / "sealed").read_bytes(), label="store-key")
    database = await Database.open(folder / "store.db", key=key)
    stop("held")
    wipe(key)
    stop("open")
    await database.close()
    stop("store closed")
    await token.close()
    stop("closed")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
