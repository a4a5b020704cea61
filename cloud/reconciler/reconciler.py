"""The reconciler: the nine checks of the protocol page, then everything in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloud.database import Connection, Database
from cloud.errors import DatabaseError
from cloud.reconciler import collected, elsewhere, restored, settling
from cloud.reconciler.collected import Received
from cloud.reconciler.compliance import Compliance, HoldNothing
from cloud.reconciler.context import Facts
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.facts import facts_for
from cloud.reconciler.keeping import apply_segment, keep
from cloud.reconciler.reading import Reading, Signatures, read
from cloud.reconciler.replica import SNAPSHOT_ENTRIES, Replica, load, open_epoch
from cloud.reconciler.segment import check_segment, next_segment
from cloud.reconciler.settling import Signing
from cloud.reconciler.successors import require_successor
from cloud.reconciler.values import Ingested, Segment
from cloud.shards.homes import ALONE, Here
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry
from wallet.protocol.envelope import Up, VerifiedUp
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import SignedList
from wallet.protocol.refusals import Code, InvariantBroken, ProtocolError
from wallet.verifier import Verifier

_TRIES = 5
# Reports of a journal that are applied and not committed: the database works on the first of them
# while the rules go on with the next.
AHEAD_MAX = 3
# Helpers fill what this process and PostgreSQL leave of the processors: what they do beforehand is
# of use only once the rules have come to it.
NICENESS = 5
_Place = tuple[bytes, int]


@dataclass(slots=True, kw_only=True)
class _Report:
    """A report, decoded; `received`: receipts in it, and `trusted`: signatures, that hold."""

    up: VerifiedUp
    reading: Reading
    received: list[Received] = field(default_factory=list)
    trusted: dict[int, PublicKey] = field(default_factory=dict)


class Reconciler:
    """Takes reports of any journals at once; those of one journal in the order in which they come.

    While one report commits, the next ones of the same journal are checked and applied.
    """

    def __init__(
        self,
        database: Database,
        *,
        anchor: TrustAnchor,
        signing: Signing,
        workers: int = 0,
        compliance: Compliance | None = None,
        snapshot_entries: int = SNAPSHOT_ENTRIES,
        here: Here = ALONE,
        verifier: Verifier | None = None,
    ) -> None:
        """`here`: the shard that the database is; `verifier`: one that is shared."""
        self._database = database
        self._here = here
        self._anchor = anchor
        self._signing = signing
        self._snapshot_entries = snapshot_entries
        self._compliance = compliance or HoldNothing()
        self._verifier = verifier or Verifier(processes=workers, niceness=NICENESS)
        self._replicas: dict[_Place, Replica] = {}
        self._applying: defaultdict[_Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._committing: defaultdict[_Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loading: defaultdict[_Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ahead: defaultdict[_Place, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AHEAD_MAX)
        )

    async def close(self) -> None:
        """End the processes that check signatures."""
        await self._verifier.close()

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
        await require_successor(self._here.head or self._database, place[0], reading.entries)
        signatures = Signatures()
        signatures.collect(reading.entries, replica.keys, replica.enrolling)
        report = _Report(up=up, reading=reading)
        checking = self._verifier.check(signatures.jobs)
        try:
            async with self._ahead[place]:
                async with self._applying[place]:
                    report.trusted = signatures.trusted(await checking)
                    report.received = await collected.check(self._anchor, up.claims.collected)
                    named = elsewhere.named(reading.entries, report.received)
                    await self._here.homes.learn(named)
                    prepared = await self._prepare(place, report, now_ms=now_ms)
                # Nothing is awaited in between, so they commit in the order of applying.
                async with self._committing[place]:
                    return await self._commit(place, report, prepared, now_ms=now_ms)
        finally:
            checking.cancel()

    async def _prepare(
        self, place: _Place, report: _Report, *, now_ms: int
    ) -> tuple[Replica, Segment] | None:
        """Apply a segment that simply follows; None of what has to wait and look first."""
        replica = await self._replica(place, now_ms=now_ms)
        if replica is None:
            return None
        up, reading = report.up.claims, report.reading
        new = next_segment(replica, up, reading)
        if new is None:
            return None
        return replica, apply_segment(
            self._anchor, replica, new, reading, up, facts=Facts(), trusted=report.trusted
        )

    async def _commit(
        self,
        place: _Place,
        report: _Report,
        prepared: tuple[Replica, Segment] | None,
        *,
        now_ms: int,
    ) -> Ingested:
        for attempt in range(_TRIES):
            try:
                if prepared is not None and self._replicas.get(place) is prepared[0]:
                    return await self._store(place, report, *prepared, now_ms=now_ms)
                return await self._look(place, report, now_ms=now_ms)
            except DatabaseError as error:
                prepared = None
                if error.code != "database-busy" or attempt == _TRIES - 1:
                    raise
        raise InvariantBroken("the last attempt neither answered nor raised")

    async def _store(
        self, place: _Place, report: _Report, replica: Replica, segment: Segment, *, now_ms: int
    ) -> Ingested:
        """Store a segment that was applied already."""
        async with self._changing(place), self._database.transaction() as connection:
            row = await self._row(connection, replica)
            if row["size"] != segment.first or row["state"] != "open":
                raise DatabaseError("database-busy", "it is not the next one any more")
            await self._finish(connection, replica, segment, report, now_ms=now_ms)
        return Ingested(acknowledged=segment.size)

    async def _look(self, place: _Place, report: _Report, *, now_ms: int) -> Ingested:
        """Check a report against what is stored; nothing of this journal is under way."""
        replica = await self._replica(place, now_ms=now_ms)
        if replica is None:
            return Ingested(acknowledged=0, problem=Code.WRONG_JOURNAL)
        up, reading = report.up.claims, report.reading
        new = reading.entries[max(0, replica.size - up.acknowledged_size) :]
        issued = await elsewhere.lists_of_head(self._here, self._anchor, up, new, now_ms=now_ms)
        async with self._changing(place), self._database.transaction() as connection:
            row = await self._row(connection, replica)
            if row["size"] != replica.size:
                raise DatabaseError("database-busy", "another process went on")
            if row["state"] != "open":
                suspended = row["state"] == "suspended"
                problem = Code.FROZEN_BY_ISSUER if suspended else Code.WRONG_JOURNAL
                return Ingested(acknowledged=row["size"], problem=problem)
            # 3. The root. 4. Counter, one root at one size.
            found = await check_segment(connection, self._anchor, replica, row, report.up, reading)
            if isinstance(found, Evidence):
                await suspend(connection, replica.epoch_id, found, now_ms=now_ms)
                return Ingested(acknowledged=row["size"], problem=found.code)
            if isinstance(found, Ingested):
                return found
            segment = None
            if len(reading.raws) > found.skipped:
                entries = reading.entries[found.skipped :]
                leaves = reading.leaves[found.skipped :]
                facts = await facts_for(connection, replica.epoch_id, entries, leaves=leaves)
                shown = await self._lists(connection, up, entries, facts, issued, now_ms=now_ms)
                if shown is None:
                    return Ingested(acknowledged=row["size"], problem=Code.PARENT_MISSING)
                facts = msgspec.structs.replace(facts, lists={**facts.lists, **shown})
                if row["size"] != replica.size:
                    raise DatabaseError("database-busy", "another report was applied meanwhile")
                segment = apply_segment(
                    self._anchor, replica, found, reading, up, facts=facts, trusted=report.trusted
                )
            await self._finish(connection, replica, segment, report, now_ms=now_ms)
        return Ingested(acknowledged=row["size"] if segment is None else segment.size)

    async def _lists(
        self,
        connection: Connection,
        up: Up,
        entries: Sequence[Entry],
        facts: Facts,
        issued: Mapping[bytes, SignedList] | None,
        *,
        now_ms: int,
    ) -> Mapping[bytes, SignedList] | None:
        """Lists that are not known here; `issued`: those that the head knows, elsewhere."""
        if self._here.is_head:
            return await restored.take_lists(
                connection, self._anchor, up, facts.lists, entries, now_ms=now_ms
            )
        await elsewhere.keep_lists(connection, issued or {}, now_ms=now_ms)
        return issued

    async def _row(self, connection: Connection, replica: Replica) -> Any:
        return await connection.fetchrow(
            "SELECT state, size, counter, checkpoint FROM journal_epoch"
            " WHERE epoch_id = $1 FOR UPDATE",
            replica.epoch_id,
        )

    async def _finish(
        self,
        connection: Connection,
        replica: Replica,
        segment: Segment | None,
        report: _Report,
        *,
        now_ms: int,
    ) -> None:
        """6. to 9., and the writing."""
        told = False
        if segment is not None:
            told = await keep(
                connection,
                segment,
                anchor=self._anchor,
                compliance=self._compliance,
                replica=replica,
                here=self._here,
                now_ms=now_ms,
            )
        # 7. Receipts that this one collected are in the journals that they name.
        await collected.take(connection, self._anchor, report.received, self._here, now_ms=now_ms)
        epoch_id = replica.epoch_id
        if replica.size and await settling.is_due(connection, epoch_id, told=told, now_ms=now_ms):
            await settling.settle(connection, self._signing, epoch_id, now_ms=now_ms)

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
                    replica = await load(
                        connection, self._anchor, epoch_id=epoch_id, journal=journal, epoch=epoch
                    )
                replica.snapshot_entries = self._snapshot_entries
                self._replicas[place] = replica
            return self._replicas[place]

    def settled(self, journal: bytes, epoch: int) -> tuple[int, int] | None:
        """Size and time of the last settlement that the journal entered, by the replica at hand."""
        replica = self._replicas.get((journal, epoch))
        return None if replica is None else (replica.state.settled_size, replica.state.settled_ms)

    async def settlements_after(
        self, journal: bytes, epoch: int, size: int, *, settled: tuple[int, int] | None = None
    ) -> list[bytes]:
        """The newest settlement, if the journal has not entered it: it says all that others said.

        `size`: what the journal settled last. A note that found its parent since is a reason too.
        `settled`: what a worker said of the replica that it has; without it, the one here counts.
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
        known = settled or self.settled(journal, epoch)
        held = known or (size, 0)
        entered = held >= (newest["size"], 0 if known is None else newest["time_ms"])
        return [] if entered else [newest["object"]]
