"""Where entries are found by name, and how names move from memory into the store.

Every 20,000 entries their names and a snapshot are written: some hundred blocks, in many short
transactions, so that the payments that arrive meanwhile wait for one of them and not for all.
"""

from __future__ import annotations

from collections.abc import Callable

from wallet.faults import NO_FAULTS, Faults, Point
from wallet.journal.index import Recent
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.journal import put_snapshot
from wallet.store.meta import delete_meta, get_meta, put_meta
from wallet.store.names import prepare_names, prepare_wallet_entries
from wallet.store.runs import Run, drop_blocks, finish_run, next_block, write_blocks

FLUSH_ENTRIES = 20_000
BLOCKS_AT_ONCE = 32
# The first block of a flush that was not finished, if there is one.
_UNFINISHED = "flush-first-block"

Work = Callable[[Connection], None]


class Names:
    """Names that are not in the store yet: `recent`, and `moving` while they are written."""

    def __init__(self, recent: Recent, *, faults: Faults = NO_FAULTS) -> None:
        self.recent = recent
        self._faults = faults
        self.moving: Recent | None = None

    @property
    def due(self) -> bool:
        """Whether it is time to move what is recent."""
        return self.moving is None and self.recent.entries >= FLUSH_ENTRIES

    def add(self, index: int, names: tuple[bytes, ...], wallets: tuple[bytes, ...]) -> None:
        """File one entry under its names and its wallets."""
        self.recent.add_payment(index, names, wallets)

    def find(self, name: bytes) -> tuple[int, ...]:
        """Entries that may bear this name, oldest first."""
        recent = self.recent.find(name)
        return recent if self.moving is None else (*self.moving.find(name), *recent)

    def of_wallet(self, wallet: bytes, *, before: int, limit: int) -> list[int]:
        """Newest entries of a wallet below `before`, newest first."""
        found = self.recent.of_wallet(wallet, before=before, limit=limit)
        if self.moving is not None and len(found) < limit:
            found += self.moving.of_wallet(wallet, before=before, limit=limit - len(found))
        return found

    def begin(self) -> None:
        """What is recent moves from here on; what comes is recent."""
        self.moving, self.recent = self.recent, Recent()

    async def move(self, database: Database, *, size: int, snapshot: bytes, last: Work) -> None:
        """Write what moves and the snapshot of the state behind it; `last` joins the last step.

        What fails leaves nothing that is seen, and everything in memory. Raises: StoreError.
        """
        moving, done = self.moving or Recent(), False
        at = self._faults.at
        try:
            at(Point.BEFORE_FLUSH)
            await database.write(_begin)
            at(Point.FLUSH_BEGUN)
            # Sorting keeps the thread that reads, never the one that commits payments.
            names = await database.read(lambda c: prepare_names(c, moving.name_records))
            wallets = await database.read(
                lambda c: prepare_wallet_entries(c, moving.wallet_records)
            )
            runs = [run for run in (names, wallets) if run is not None]
            for run in runs:
                await self._write(database, run)

            def finish(connection: Connection) -> None:
                for run in runs:
                    finish_run(connection, run)
                    at(Point.RUN_FINISHED)
                delete_meta(connection, _UNFINISHED)
                put_snapshot(connection, size, snapshot)
                at(Point.SNAPSHOT_WRITTEN)
                last(connection)

            await database.write(finish)
            at(Point.FLUSHED)
            done = True
        finally:
            if not done:
                moving.append(self.recent)
                self.recent = moving
            self.moving = None

    async def _write(self, database: Database, run: Run) -> None:
        """All blocks of a run, some in each transaction. Raises: StoreError."""

        def step(connection: Connection) -> bool:
            written = write_blocks(connection, run, BLOCKS_AT_ONCE)
            self._faults.at(Point.BLOCKS_WRITTEN)
            return written

        while not await database.write(step):
            self._faults.at(Point.BLOCKS_DURABLE)
        self._faults.at(Point.BLOCKS_DURABLE)


def _begin(connection: Connection) -> None:
    """Forget the blocks of a flush that was not finished, and mark where this one begins."""
    unfinished = get_meta(connection, _UNFINISHED)
    if unfinished is not None:
        drop_blocks(connection, first=int(unfinished))
    put_meta(connection, _UNFINISHED, str(next_block(connection)).encode())
