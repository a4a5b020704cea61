"""A reconciler for each shard: a report goes to where its journal lives."""

from __future__ import annotations

from cloud.reconciler.reconciler import NICENESS, Reconciler
from cloud.reconciler.settling import Signing
from cloud.reconciler.values import Ingested
from cloud.shards.shards import Shards
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import VerifiedUp
from wallet.verifier import Verifier


class Reconcilers:
    """Reconcilers of all shards, which share the processes that check signatures."""

    def __init__(
        self, shards: Shards, *, anchor: TrustAnchor, signing: Signing, workers: int = 0
    ) -> None:
        self._shards = shards
        self._verifier = Verifier(processes=workers, niceness=NICENESS)
        self._each = [
            Reconciler(
                database,
                anchor=anchor,
                signing=signing,
                here=shards.here(number),
                verifier=self._verifier,
            )
            for number, database in shards
        ]

    async def close(self) -> None:
        """End the processes that check signatures."""
        await self._verifier.close()

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingested:
        """As `Reconciler.ingest`. Raises: also ShardError `shard-missing`."""
        return await (await self._of(up.claims.journal)).ingest(up, now_ms=now_ms)

    def settled(self, journal: bytes, epoch: int) -> tuple[int, int] | None:
        """As `Reconciler.settled`, of a journal that was ingested here."""
        return self._each[self._shards.homes.of(journal)].settled(journal, epoch)

    async def settlements_after(
        self, journal: bytes, epoch: int, size: int, *, settled: tuple[int, int] | None = None
    ) -> list[bytes]:
        """As `Reconciler.settlements_after`."""
        home = await self._of(journal)
        return await home.settlements_after(journal, epoch, size, settled=settled)

    async def _of(self, journal: bytes) -> Reconciler:
        number = await self._shards.home_of(journal)
        self._shards.database(number)
        return self._each[number]
