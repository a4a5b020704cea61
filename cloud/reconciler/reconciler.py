"""The reconciler: the nine checks of the protocol page, then everything in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

from cloud.database import Database
from cloud.errors import DatabaseError
from cloud.reconciler import settling
from cloud.reconciler.compliance import Compliance, HoldNothing
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.keeping import keep
from cloud.reconciler.reading import Reading, Signatures, read
from cloud.reconciler.replica import Replica, load, open_epoch
from cloud.reconciler.segment import check_segment
from cloud.reconciler.settling import Signing
from cloud.reconciler.values import Ingested, ReconcilerError
from cloud.reconciler.verifier import Verifier
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.keys import PublicKey
from wallet.protocol.refusals import Code, ProtocolError

_TRIES = 5
_Place = tuple[bytes, int]


class Reconciler:
    """Takes reports of any journals at once; those of one journal in the order in which they come.

    While one report commits, the signatures of the next one of the same journal are checked.
    """

    def __init__(
        self,
        database: Database,
        *,
        anchor: TrustAnchor,
        signing: Signing,
        workers: int = 0,
        compliance: Compliance | None = None,
    ) -> None:
        self._database = database
        self._anchor = anchor
        self._signing = signing
        self._compliance = compliance or HoldNothing()
        self._verifier = Verifier(workers=workers)
        self._replicas: dict[_Place, Replica] = {}
        self._turns: defaultdict[_Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loading: defaultdict[_Place, asyncio.Lock] = defaultdict(asyncio.Lock)

    def close(self) -> None:
        """End the processes that check signatures."""
        self._verifier.close()

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingested:
        """Check a report, and keep, post and settle what is new in it.

        The same report again gives the same answer. After `database-unavailable` the outcome is
        unknown: send it again. Raises: DatabaseError, LedgerError, ReconcilerError, HsmError.
        """
        place = (up.claims.journal, up.claims.epoch)
        replica = await self._replica(place, now_ms=now_ms)
        if replica is None:
            return Ingested(acknowledged=0, problem=Code.WRONG_JOURNAL)
        # 1. The envelope's signature and chain were checked; here certificate times and the epoch.
        # 2. Every entry is canonical.
        try:
            reading = read(up, self._anchor, grace_s=replica.grace_s)
        except ProtocolError as error:
            return Ingested(acknowledged=replica.size, problem=error.code)
        signatures = Signatures()
        signatures.collect(reading.entries, replica.keys, replica.enrolling)
        outcome = asyncio.ensure_future(self._verifier.check(signatures.jobs))
        try:
            async with self._turns[place]:
                trusted = signatures.trusted(await outcome)
                return await self._ingest(place, up, reading, trusted, now_ms=now_ms)
        finally:
            outcome.cancel()

    async def _ingest(
        self,
        place: _Place,
        up: VerifiedUp,
        reading: Reading,
        trusted: dict[int, PublicKey],
        *,
        now_ms: int,
    ) -> Ingested:
        for attempt in range(_TRIES):
            try:
                return await self._try(place, up, reading, trusted, now_ms=now_ms)
            except DatabaseError as error:
                if error.code != "database-busy" or attempt == _TRIES - 1:
                    raise
        raise ReconcilerError("replica-broken", "no attempt was made")

    async def _try(
        self,
        place: _Place,
        up: VerifiedUp,
        reading: Reading,
        trusted: dict[int, PublicKey],
        *,
        now_ms: int,
    ) -> Ingested:
        replica = await self._replica(place, now_ms=now_ms)
        if replica is None:
            return Ingested(acknowledged=0, problem=Code.WRONG_JOURNAL)
        async with self._changing(place), self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT state, size, counter, root, checkpoint, opened_ms FROM journal_epoch"
                " WHERE epoch_id = $1 FOR UPDATE",
                replica.epoch_id,
            )
            if row["size"] != replica.size:
                raise DatabaseError("database-busy", "another process went on")
            if row["state"] != "open":
                suspended = row["state"] == "suspended"
                problem = Code.FROZEN_BY_ISSUER if suspended else Code.WRONG_JOURNAL
                return Ingested(acknowledged=row["size"], problem=problem)
            # 3. The root. 4. Counter, one root at one size.
            found = await check_segment(connection, self._anchor, replica, row, up.claims, reading)
            if isinstance(found, Evidence):
                await suspend(connection, replica.epoch_id, found, now_ms=now_ms)
                return Ingested(acknowledged=row["size"], problem=found.code)
            if isinstance(found, Ingested):
                return found
            # 5. to 9., and the writing.
            told = await keep(
                connection,
                anchor=self._anchor,
                compliance=self._compliance,
                replica=replica,
                new=found,
                reading=reading,
                up=up.claims,
                trusted=trusted,
                now_ms=now_ms,
            )
            epoch_id, size = replica.epoch_id, replica.size
            if size and await settling.is_due(connection, epoch_id, told=told, now_ms=now_ms):
                await settling.settle(connection, self._signing, replica.epoch_id, now_ms=now_ms)
        return Ingested(acknowledged=replica.size)

    @contextlib.asynccontextmanager
    async def _changing(self, place: _Place) -> AsyncIterator[None]:
        """Forget the replica unless all of it goes well: what is stored is what counts."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._replicas.pop(place, None)

    async def _replica(self, place: _Place, *, now_ms: int) -> Replica | None:
        """The replica of an epoch, loaded where need be; None where another epoch is open."""
        async with self._loading[place]:
            if place not in self._replicas:
                journal, epoch = place
                async with self._database.transaction() as connection:
                    epoch_id = await open_epoch(
                        connection, journal=journal, epoch=epoch, now_ms=now_ms
                    )
                    if epoch_id is None:
                        return None
                    self._replicas[place] = await load(
                        connection, self._anchor, epoch_id=epoch_id, journal=journal, epoch=epoch
                    )
            return self._replicas[place]

    async def settlements_after(self, journal: bytes, epoch: int, size: int) -> list[bytes]:
        """The newest settlement, if the journal has not entered it: it says all that others said.

        `size`: what the journal settled last. A note that found its parent since is a reason too.
        """
        async with self._database.transaction() as connection:
            newest = await connection.fetchrow(
                "SELECT settlement.size, time_ms, object FROM settlement"
                " JOIN journal_epoch USING (epoch_id) WHERE journal = $1 AND epoch = $2"
                " ORDER BY settlement_id DESC LIMIT 1",
                *(journal, epoch),
            )
        if newest is None:
            return []
        replica = self._replicas.get((journal, epoch))
        held = (size, 0)
        if replica is not None:
            held = (replica.state.settled_size, replica.state.settled_ms)
        entered = held >= (newest["size"], 0 if replica is None else newest["time_ms"])
        return [] if entered else [newest["object"]]
