"""Workers as processes behind a stream: killed at will, and every entry counts once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from cloud.ingest.handed import partition_of
from cloud.ingest.members import owner_of
from cloud.ledger.conservation import conservation, discrepancies
from cloud.ledger.posting import TransferKind
from tests.support.cloud_branch import (
    ISSUED,
    Funded,
    Report,
    funded_branch,
)
from tests.support.cloud_process import CloudProcess, WorkerProcess, running_cloud
from tests.support.nats import leader_of, nats_cluster, nats_server, stream_config, write_config
from tests.support.postgres import Server
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.envelope import Down

WAIT_S = 60
PARTITIONS = 8
HELD_UP = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
NOTES_KEPT = "SELECT leaf, state FROM note"
BRANCHES, ROUNDS, PAYMENTS, NOTES = 3, 5, 20, 4


@pytest.fixture
async def dsns(dsn: str) -> list[str]:
    """The databases of the cloud: every entry and every account is in exactly one of them."""
    return [dsn]


@contextlib.asynccontextmanager
async def opened(dsns: Sequence[str]) -> AsyncIterator[list[Any]]:
    """A session of each database."""
    found = [await asyncpg.connect(dsn, timeout=20) for dsn in dsns]
    try:
        yield found
    finally:
        for connection in found:
            connection.terminate()


@contextlib.asynccontextmanager
async def held_up(
    dsns: Sequence[str], table: str
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Nobody writes to a table while the block runs; gives a wait for so many who are held up.

    Reports with notes share accounts: one waits for the table, and others for it.
    """
    async with opened(dsns) as holding, opened(dsns) as watching:
        for connection in holding:
            await connection.execute(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")

        async def waiting(sessions: int) -> None:
            async with asyncio.timeout(WAIT_S):
                while sessions > sum([await one.fetchval(HELD_UP) for one in watching]):
                    await asyncio.sleep(0.005)

        yield waiting


async def check_books(dsns: Sequence[str], branches: Sequence[Funded]) -> None:
    """Over all databases: each entry of each branch once, each with one effect, to the cent."""
    async with opened(dsns) as connections:
        held: Counter[tuple[bytes, int, bytes]] = Counter()
        moved = 0
        for connection in connections:
            assert await discrepancies(connection) == []
            assert await connection.fetchval("SELECT count(*) FROM journal_evidence") == 0
            for row in await connection.fetch("SELECT journal, index, entry FROM journal_entry"):
                held[row["journal"], row["index"], row["entry"]] += 1
            moved += await connection.fetchval(
                "SELECT count(*) FROM ledger_transfer WHERE kind = ANY ($1)",
                [TransferKind.FUND, TransferKind.PAY],
            )
        accounts = [line for one in connections for line in await conservation(one)]
    written: Counter[tuple[bytes, int, bytes]] = Counter()
    kinds: Counter[int] = Counter()
    for made in branches:
        state = made.journal.state
        entries = await made.journal.entries(0, made.journal.acknowledged)
        kinds.update(decode_entry(raw).kind for raw in entries)
        written.update((state.journal, index, raw) for index, raw in enumerate(entries))
    assert held == written
    assert moved == kinds[EntryKind.FUND] + kinds[EntryKind.PAY]
    assert sum(line.issued for line in accounts) == ISSUED * len(branches)
    assert sum(line.difference for line in accounts) == 0
    assert sum(line.loss + line.suspense + line.in_transit for line in accounts) == 0
    own = sum(sum(made.balances().values()) for made in branches)
    assert sum(line.offline for line in accounts) == own


async def nothing_between(dsns: Sequence[str]) -> None:
    """Wait until all that the databases tell each other is taken."""
    async with opened(dsns) as connections, asyncio.timeout(WAIT_S):
        waiting = "SELECT count(*) FROM shard_message WHERE taken_ms IS NULL"
        while sum([await one.fetchval(waiting) for one in connections]):
            await asyncio.sleep(0.05)


async def send(made: Funded, report: Report, *, until_size: int) -> Down:
    """Send a report as a gateway does: again until it is told that it is held."""
    async with asyncio.timeout(WAIT_S):
        while True:
            down = await made.send(report)
            if down.problem is None and down.acknowledged_size >= until_size:
                return down


async def told_all(made: Funded) -> None:
    """Synchronise until the cloud holds the whole journal."""
    async with asyncio.timeout(WAIT_S):
        while made.journal.acknowledged < made.journal.state.size:
            await made.branch.daemon.sync_now()
            await asyncio.sleep(0.05)


async def metrics(cloud: CloudProcess) -> dict[str, float]:
    """The stream's figures, as Prometheus reads them."""
    connector = aiohttp.TCPConnector(ssl=False)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"https://127.0.0.1:{cloud.ports['api_port']}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("cbdc_stream")
    }


def owner(made: Funded, workers: dict[str, WorkerProcess]) -> WorkerProcess:
    """Who takes this branch's reports."""
    place = partition_of(made.journal.state.journal, partitions=PARTITIONS)
    return workers[owner_of(place, workers)]


async def test_a_worker_that_is_killed_at_work_leaves_one_effect_of_everything(
    dsns: list[str], tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(nats_server(tmp_path / "nats"))
        stream = stream_config(server, partitions=PARTITIONS, outcome_wait_s=2)
        config = write_config(tmp_path / "cloud.toml", stream, dsns)
        cloud = await enter(running_cloud(tmp_path / "cloud", config=config))
        first = await enter(cloud.worker("one"))
        await first.ready()
        made = await enter(funded_branch(cloud, tmp_path / "branch"))
        for number, table in enumerate(("ledger_transfer", "settlement")):
            await made.pay(*range(number * 10 + 1, number * 10 + 11))
            report = await made.report()
            async with held_up(dsns, table) as waiting:
                sending = asyncio.create_task(made.send(report))
                await waiting(1)
                await first.kill()
            # Nobody is there to say anything: the gateway is told what is held, and no more.
            down = await sending
            assert (down.problem, down.acknowledged_size) == (None, made.journal.acknowledged)
            assert (await metrics(cloud))['cbdc_stream_messages{state="waiting"}'] >= 1
            first = await enter(cloud.worker(f"next-{number}"))
            down = await send(made, report, until_size=report.size)
            await made.port.take(down)
            assert made.journal.acknowledged == report.size
            await check_books(dsns, [made])
        await made.synchronise()
        async with asyncio.timeout(WAIT_S):
            while (await metrics(cloud))['cbdc_stream_messages{state="waiting"}']:
                await asyncio.sleep(0.05)
        found = await metrics(cloud)
        assert found["cbdc_stream_up"] == 1
        assert found['cbdc_stream_messages{state="parked"}'] == 0
        # SIGTERM is no failure, and costs nobody anything.
        assert await first.stop() == 0
        await check_books(dsns, [made])


@pytest.fixture
async def two_clusters(dsn: str, second: Server) -> AsyncIterator[list[str]]:
    """A head, and a shard in another cluster."""
    name = await second.create()
    yield [dsn, second.dsn(name)]
    await second.drop(name)


async def test_three_nodes_two_clusters_and_two_workers_lose_a_node_and_a_worker_and_nothing_else(
    two_clusters: list[str], tmp_path: Path
) -> None:
    dsns = two_clusters
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nodes = await enter(nats_cluster(tmp_path / "nats"))
        stream = stream_config(*nodes, partitions=PARTITIONS, outcome_wait_s=4)
        config = write_config(tmp_path / "cloud.toml", stream, dsns)
        cloud = await enter(running_cloud(tmp_path / "cloud", config=config))
        started = [await enter(cloud.worker(name)) for name in ("one", "two")]
        workers = {await worker.ready(): worker for worker in started}
        branches = [
            await enter(funded_branch(cloud, tmp_path / f"b{number}", bank=f"bank-{number}"))
            for number in range(BRANCHES)
        ]
        passed = asyncio.Barrier(BRANCHES + 1)

        async def work(made: Funded, neighbours: Sequence[Funded]) -> None:
            for number in range(ROUNDS):
                if number == 2:
                    await passed.wait()
                await made.pay(*range(number * PAYMENTS + 1, (number + 1) * PAYMENTS + 1))
                for note in range(NOTES):
                    await made.hand_over(note + 1, to=neighbours[note % len(neighbours)])
                # What fails now is sent again, as a gateway does by itself.
                await made.branch.daemon.sync_now()
            await told_all(made)

        async def kill() -> None:
            victim = owner(branches[0], workers)
            node = await leader_of(nodes, "CBDC_INGEST")
            await passed.wait()
            async with held_up(dsns, "settlement") as waiting:
                # Every branch's report is in a worker's hands, and next to be committed.
                await waiting(BRANCHES)
                node.kill()
                await victim.kill()

        async with asyncio.TaskGroup() as group:
            for made in branches:
                group.create_task(work(made, [other for other in branches if other is not made]))
            group.create_task(kill())
        for made in branches:
            # A neighbour's last note may have come after the last report.
            await told_all(made)
            assert made.journal.state.size >= ROUNDS * PAYMENTS
        await nothing_between(dsns)
        await check_books(dsns, branches)
        async with opened(dsns) as connections:
            lived = [
                await one.fetchval("SELECT count(*) FROM journal_epoch") for one in connections
            ]
            rows = [row for one in connections for row in await one.fetch(NOTES_KEPT)]
        assert sorted(lived) == [1, 2]
        # Payer and payee live in one database or in two, and then both know the note.
        assert len({row["leaf"] for row in rows}) == BRANCHES * ROUNDS * NOTES < len(rows)
        assert {row["state"] for row in rows} == {"redeemed"}, rows
        assert sum(worker.process.returncode is None for worker in started) == 1
