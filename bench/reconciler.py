"""The reconciler on two cores: reports verified, applied and posted to PostgreSQL with fsync."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.branch import FUNDED_MINOR, WALLETS, Bench, bench_journal
from bench.engine import CALLERS, rate_of
from bench.figures import Figure, figure, verify_pair
from cloud.config import Config, DatabaseConfig
from cloud.database import Database, open_database
from cloud.funding import FundingRequest, hold, set_granted
from cloud.ledger.accounts import ensure_accounts, issuance
from cloud.ledger.conservation import conservation
from cloud.ledger.identities import derived
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.reconciler.reconciler import Reconciler
from cloud.wallets import find_wallet, open_wallet
from tests.support.live_issuer import LiveIssuer
from wallet.memory import collect_seldom
from wallet.protocol.cose import assemble
from wallet.protocol.envelope import UP_TYPE, Up, up_payload, verify_up
from wallet.protocol.messages import to_sign

SEGMENT = 1_000
# Short rounds, each with its own ceiling: a machine that changes its pace does so for both.
ROUNDS = 7
ROUND_SEGMENTS = 16
IN_FLIGHT = 6
EURO = "EUR"


class Signing:
    """Settlements of the bench's issuer."""

    def __init__(self, issuer: LiveIssuer) -> None:
        self._issuer = issuer

    async def sign(self, type_: str, claims: dict[int, Any]) -> bytes:
        """See `Signing` of the reconciler."""
        return self._issuer.issue(type_, claims)


async def report(bench: Bench, first: int) -> tuple[bytes, int]:
    """A signed envelope with the entries from `first` on, and the size that it reaches."""
    journal = bench.journal
    end = await journal.segment_end(entries_max=10 * SEGMENT)
    if end is None:
        raise RuntimeError("nothing is signed yet")
    size, checkpoint = end
    claims = Up(
        journal=journal.state.journal,
        epoch=1,
        exchange=bytes(16),
        acknowledged_size=first,
        entries=tuple(await journal.entries(first, size - first)),
        checkpoint=checkpoint,
        newest={},
    )
    payload = up_payload(claims)
    protected, message = to_sign(journal._engine.head.key, UP_TYPE, payload)
    signature = await bench.token.signer.sign(message)
    return assemble(protected, payload, signature, journal.chain), size


async def reports(
    bench: Bench, segments: int = ROUNDS * ROUND_SEGMENTS, *, payee: int | None = None
) -> tuple[list[bytes], int]:
    """Envelopes of a journal's whole life, and its size: the funding, one to warm up, segments.

    `payee`: the number of the one wallet that is paid; otherwise all are.
    """
    made, size = await report(bench, 0)
    envelopes = [made]
    await bench.journal.acknowledge(size)
    for _ in range(1 + segments):
        await rate_of(bench, bench.orders(SEGMENT, payee=payee), callers=CALLERS)
        made, reached = await report(bench, size)
        envelopes.append(made)
        size = reached
        await bench.journal.acknowledge(size)
    return envelopes, size


async def open_bank(database: Database, bench: Bench) -> None:
    """Issue what the journal was funded with, hold it and grant it."""
    now_ms, journal = time.time_ns() // 1_000_000, bench.journal.state.journal
    name = f"bank-{journal.hex()}"
    async with database.transaction() as connection:
        await open_wallet(connection, name, holder=name, currency=EURO, now_ms=now_ms)
        bank = await find_wallet(connection, name)
        numbers = await ensure_accounts(connection, [issuance(EURO)])
        issue = Transfer(
            identity=derived("bench-issue", journal),
            debit=numbers[issuance(EURO).name],
            credit=bank.account_id,
            amount=WALLETS * FUNDED_MINOR,
            currency=EURO,
            kind=TransferKind.ISSUE,
            created_ms=now_ms,
        )
        await post(connection, [issue])
        for sequence, (wallet, grant) in enumerate(bench.grants):
            request = FundingRequest(
                funding_id=derived("bench-funding", journal, sequence.to_bytes(4, "big")),
                wallet=name,
                journal=journal,
                epoch=1,
                offline_wallet=wallet,
                amount=FUNDED_MINOR,
            )
            await hold(connection, request, now_ms=now_ms)
            await set_granted(connection, request.funding_id, sequence=sequence, grant_cose=grant)


class Reconciling:
    """A reconciler at work. A few reports are on their way at once, as several links would have
    it.
    """

    def __init__(self, bench: Bench, database: Database) -> None:
        self._anchor = bench.anchor
        self._reconciler = Reconciler(
            database, anchor=bench.anchor, signing=Signing(bench.issuer), workers=2
        )
        self._turns = asyncio.Semaphore(IN_FLIGHT)

    async def take(self, envelope: bytes) -> int:
        """Verify and reconcile a report; gives its entries."""
        async with self._turns:
            verified = verify_up(envelope, root=self._anchor, held_chains={})
            now_ms = time.time_ns() // 1_000_000
            answer = await self._reconciler.ingest(verified, now_ms=now_ms)
            if answer.problem is not None:
                raise RuntimeError(f"the reconciler answered {answer.problem}")
            return len(verified.claims.entries)

    async def rate(self, envelopes: list[bytes]) -> float:
        """Entries a second of these reports."""
        start = time.perf_counter()
        taken = await asyncio.gather(*[self.take(envelope) for envelope in envelopes])
        return sum(taken) / (time.perf_counter() - start)

    async def close(self) -> None:
        """End its processes."""
        await self._reconciler.close()


async def rounds_of(
    reconciling: Reconciling, envelopes: list[bytes], ceiling: Callable[[], float]
) -> list[tuple[float, float]]:
    """Rounds of (entries a second, the ceiling meanwhile)."""
    rounds = []
    for at in range(0, len(envelopes), ROUND_SEGMENTS):
        before = await asyncio.to_thread(ceiling)
        rate = await reconciling.rate(envelopes[at : at + ROUND_SEGMENTS])
        rounds.append((rate, (before + await asyncio.to_thread(ceiling)) / 2))
    return rounds


def middle(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    """The round of the median ratio."""
    return sorted(rounds, key=lambda pair: pair[0] / pair[1])[len(rounds) // 2]


@contextlib.asynccontextmanager
async def bench_database() -> AsyncIterator[Database]:
    """An empty cloud's database on an embedded server, which goes at the end."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        Path(name).chmod(0o755)
        config = Config(folder=Path(name), database=DatabaseConfig())
        now_ms = time.time_ns() // 1_000_000
        async with open_database(config, now_ms=now_ms) as database:
            yield database


async def agree(database: Database, balance_minor: int) -> None:
    """Raises: RuntimeError unless the ledger adds up and has what the journals have."""
    async with database.transaction() as connection:
        (account,) = await conservation(connection)
    if account.difference or account.offline != balance_minor:
        raise RuntimeError("the ledger and the journals do not agree")


async def measure() -> list[Figure]:
    """One journal's payments in rounds; the round of the median ratio counts."""
    async with bench_journal() as bench, bench_database() as database:
        envelopes, size = await reports(bench)
        await open_bank(database, bench)
        reconciling = Reconciling(bench, database)
        try:
            for envelope in envelopes[:2]:
                await reconciling.take(envelope)  # processes and statements are warm
            collect_seldom()
            with verify_pair() as ceiling:
                rounds = await rounds_of(reconciling, envelopes[2:], ceiling)
        finally:
            await reconciling.close()
        await agree(database, bench.journal.state.balance_total())
    rate, beside = middle(rounds)
    return [
        figure(
            f"reconciler, one journal of {size:,} entries",
            rate,
            "entries/s",
            beside="libsodium verify, two processes",
            beside_value=beside,
            goal=">= 0.40",
        )
    ]


def run() -> list[Figure]:
    """Measure on all the cores that there are: two."""
    return uvloop.run(measure())
