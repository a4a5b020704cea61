"""The ledger's hot account: one merchant who is paid by all, beside payments spread over all."""

from __future__ import annotations

import asyncio
import statistics
import time

import uvloop

from bench.branch import Bench, bench_journal
from bench.figures import Figure, figure
from bench.reconciler import EURO, Reconciling, agree, bench_database, open_bank, reports
from cloud.database import Database
from cloud.ledger.accounts import ensure_accounts, issuance, online
from cloud.ledger.identities import derived
from cloud.ledger.posting import Transfer, TransferKind, post
from wallet.memory import collect_seldom

ROUNDS = 7
ROUND_SEGMENTS = 10
# Straight to the ledger: posters at once, each batch a transaction of its own.
POSTERS = 4
BATCHES = 12
BATCH = 1_000
PAYERS = 400
FUNDED_MINOR = 10**12


async def reconciled(database: Database, bench: Bench, other: Bench) -> list[tuple[float, float]]:
    """Rounds of (entries a second to one merchant, the same spread), in turn."""
    sides = []
    for each, payee in ((bench, 0), (other, None)):
        envelopes, _ = await reports(each, ROUNDS * ROUND_SEGMENTS, payee=payee)
        sides.append((Reconciling(each, database), envelopes))
    rounds = []
    try:
        for reconciling, envelopes in sides:
            for envelope in envelopes[:2]:
                await reconciling.take(envelope)
        collect_seldom()
        for at in range(2, 2 + ROUNDS * ROUND_SEGMENTS, ROUND_SEGMENTS):
            hot, spread = [
                await reconciling.rate(envelopes[at : at + ROUND_SEGMENTS])
                for reconciling, envelopes in sides
            ]
            rounds.append((hot, spread))
    finally:
        for reconciling, _ in sides:
            await reconciling.close()
    return rounds


class Posters:
    """Transfers between online accounts, from several connections at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: list[int] = []
        self._batches = 0

    async def open(self) -> None:
        """Issue to all payers."""
        names = [online(f"payer-{number}", currency=EURO) for number in range(PAYERS)]
        async with self._database.transaction() as connection:
            made = await ensure_accounts(connection, [issuance(EURO), *names])
            self._numbers = [made[account.name] for account in names]
            issued = [
                self._transfer(derived("bench", number.to_bytes(8, "big")), source, number)
                for number in self._numbers
                for source in [made[issuance(EURO).name]]
            ]
            await post(connection, issued)

    def _transfer(self, identity: bytes, debit: int, credit: int) -> Transfer:
        issuing = debit not in self._numbers
        return Transfer(
            identity=identity,
            debit=debit,
            credit=credit,
            amount=FUNDED_MINOR if issuing else 1,
            currency=EURO,
            kind=TransferKind.ISSUE if issuing else TransferKind.ONLINE,
            created_ms=1,
        )

    def _batch(self, poster: int, *, hot: bool) -> list[Transfer]:
        """Each poster's payers are its own, and without a merchant its payees are too."""
        self._batches += 1
        own = self._numbers[1 + poster :: POSTERS]
        made = []
        for place in range(BATCH):
            identity = self._batches.to_bytes(16, "big") + place.to_bytes(16, "big")
            payer, payee = own[place % len(own)], own[(place * 7 + 3) % len(own)]
            if hot or payee == payer:
                payee = self._numbers[0] if hot else own[(place + 1) % len(own)]
            made.append(self._transfer(identity, payer, payee))
        return made

    async def rate(self, *, hot: bool) -> float:
        """Transfers a second."""
        work = [[self._batch(p, hot=hot) for _ in range(BATCHES)] for p in range(POSTERS)]

        async def run(batches: list[list[Transfer]]) -> None:
            for batch in batches:
                async with self._database.transaction() as connection:
                    await post(connection, batch)

        start = time.perf_counter()
        await asyncio.gather(*[run(batches) for batches in work])
        return POSTERS * BATCHES * BATCH / (time.perf_counter() - start)


async def measure() -> list[Figure]:
    """Rounds in turn; the round of the median ratio counts."""
    async with bench_journal() as bench, bench_journal() as other, bench_database() as database:
        await open_bank(database, bench)
        await open_bank(database, other)
        rounds = await reconciled(database, bench, other)
        balance = bench.journal.state.balance_total() + other.journal.state.balance_total()
        await agree(database, balance)
    async with bench_database() as database:
        posters = Posters(database)
        await posters.open()
        posted = [
            (await posters.rate(hot=True), await posters.rate(hot=False)) for _ in range(1 + ROUNDS)
        ]
    return [
        _figure("reconciler, all pay one merchant", "entries/s", rounds),
        _figure(f"ledger, {POSTERS} posters, all pay one merchant", "transfers/s", posted[1:]),
    ]


def _figure(name: str, unit: str, rounds: list[tuple[float, float]]) -> Figure:
    ratio = statistics.median(hot / spread for hot, spread in rounds)
    hot, spread = min(rounds, key=lambda pair: abs(pair[0] / pair[1] - ratio))
    return figure(
        name, hot, unit, beside="the same, spread over all", beside_value=spread, goal=">= 0.70"
    )


def run() -> list[Figure]:
    """Measure on all the cores that there are: two."""
    return uvloop.run(measure())
