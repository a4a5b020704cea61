"""The reconciler's rate as its database grows from 10^4 to 10^7 entries of other journals.

The other journals' rows are written straight into the tables, as many, as long and indexed as those
that the reconciler writes; what is measured then is one journal's reports, in rounds.
"""

from __future__ import annotations

import secrets

import asyncpg
import uvloop

from bench.branch import bench_journal
from bench.figures import Figure, figure, verify_pair
from bench.reconciler import (
    ROUND_SEGMENTS,
    SEGMENT,
    Reconciling,
    agree,
    bench_database,
    middle,
    open_bank,
    reports,
    rounds_of,
)
from cloud.database import Database
from wallet.memory import collect_seldom
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import verify_up

LEVELS = (10_000, 100_000, 1_000_000, 10_000_000)
ROUNDS = 5
# Entries of one of the other journals, and what one statement writes of it.
JOURNAL_ENTRIES = 100_000
STEP = 50_000
_EPOCH = """
    INSERT INTO journal_epoch (journal, epoch, currency, opened_ms, changed_ms)
    VALUES ($1, 1, 'EUR', 0, 0) RETURNING epoch_id
"""
_ACCOUNTS = """
    INSERT INTO ledger_account (name, kind, currency, floor)
    SELECT 'offline/bench/' || encode($1, 'hex') || '/' || number, 'offline', 'EUR', 0
    FROM generate_series(1, 200) AS number RETURNING account_id
"""
_SEGMENTS = """
    INSERT INTO journal_segment (epoch_id, first, size, entries, leaves, checkpoint, received_ms)
    SELECT $1, first, first + cardinality($4::bytea[]), $4, $5, $6, 0
    FROM generate_series($2::bigint, $3::bigint - 1, cardinality($4::bytea[])) AS first
"""
_TRANSFERS = """
    INSERT INTO ledger_transfer (identity, debit, credit, amount, kind, currency, created_ms)
    SELECT $1 || decode('00000001' || lpad(to_hex(index), 16, '0'), 'hex'),
        $4 + index % 200, $4 + (index + 1) % 200, 100, 101, 'EUR', 0
    FROM generate_series($2::bigint, $3::bigint - 1) AS index
"""
_LEAVES = """
    INSERT INTO journal_leaf (epoch_id, lead, index)
    SELECT $1, substring(sha256(int8send($1) || int8send(index)) FOR 8), index
    FROM generate_series($2::bigint, $3::bigint - 1) AS index
"""


class Others:
    """Journals beside the one that is measured; their entries are copies of its own."""

    def __init__(self, database: Database, envelope: bytes, anchor: TrustAnchor) -> None:
        claims = verify_up(envelope, root=anchor, held_chains={}).claims
        self._database = database
        self._entries = list(claims.entries)[:SEGMENT]
        self._checkpoint = claims.checkpoint
        self.count = 0

    async def fill(self, count: int) -> None:
        """Have so many entries in the database, with nothing of them left to do for PostgreSQL."""
        while self.count < count:
            await self._add(min(JOURNAL_ENTRIES, count - self.count))
        connection = await asyncpg.connect(self._database.dsn)
        try:
            await connection.execute("VACUUM (ANALYZE)")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def _add(self, count: int) -> None:
        journal = secrets.token_bytes(20)
        async with self._database.transaction() as connection:
            epoch_id = await connection.fetchval(_EPOCH, journal)
            account = min(row[0] for row in await connection.fetch(_ACCOUNTS, journal))
        leaves = secrets.token_bytes(32 * len(self._entries))
        for first in range(0, count, STEP):
            end = min(first + STEP, count)
            async with self._database.transaction() as connection:
                stored = (self._entries, leaves, self._checkpoint)
                await connection.execute(_SEGMENTS, epoch_id, first, end, *stored)
                await connection.execute(_TRANSFERS, journal, first, end, account)
                await connection.execute(_LEAVES, epoch_id, first, end)
        self.count += count


async def measure() -> list[Figure]:
    """Some rounds at every level; the round of the median ratio counts."""
    per_level = ROUNDS * ROUND_SEGMENTS
    figures: list[Figure] = []
    async with bench_journal() as bench, bench_database() as database:
        envelopes, _ = await reports(bench, per_level * len(LEVELS))
        await open_bank(database, bench)
        reconciling = Reconciling(bench, database)
        try:
            for envelope in envelopes[:2]:
                await reconciling.take(envelope)
            others = Others(database, envelopes[1], bench.anchor)
            collect_seldom()
            with verify_pair() as ceiling:
                for place, level in enumerate(LEVELS):
                    await others.fill(level)
                    first = 2 + place * per_level
                    part = envelopes[first : first + per_level]
                    rate, beside = middle(await rounds_of(reconciling, part, ceiling))
                    figures.append(_figure(level, rate, beside, figures))
        finally:
            await reconciling.close()
        await agree(database, bench.journal.state.balance_total())
    return figures


def _figure(level: int, rate: float, ceiling: float, before: list[Figure]) -> Figure:
    return figure(
        f"reconciler beside {level:,} entries of other journals",
        rate,
        "entries/s",
        beside="libsodium verify, two processes",
        beside_value=ceiling,
        goal=f">= {0.85 * before[0].ratio:.2f}" if before else "",
    )


def run() -> list[Figure]:
    """Measure on all the cores that there are: two. It takes some minutes and 10 GB of disk."""
    return uvloop.run(measure())
