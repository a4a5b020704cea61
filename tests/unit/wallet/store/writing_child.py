"""A process that appends batches and prints the journal's size after each one; it never stops."""

import asyncio
import sys
from pathlib import Path

from tests.unit.wallet.store.stores import KEY, append
from wallet.store.database import Database
from wallet.store.journal import entry_count


async def main(path: Path, *, batch: int) -> None:
    """Write until killed."""
    database = await Database.open(path, key=KEY)
    size = await database.read(entry_count)
    while True:
        await append(database, batch, batch=batch)
        size += batch
        print(size, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), batch=int(sys.argv[2])))
