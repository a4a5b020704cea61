"""Around the stream: keys that others made, what is held without an outcome, commands."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nats.aio.msg import Msg

from cloud.cli import parser
from cloud.config import Config, DatabaseConfig
from cloud.database import Database
from cloud.errors import ConfigError
from cloud.ingest.front import Front
from cloud.ingest.held import held_of
from cloud.ingest.intake import Taken
from cloud.ingest.opening import DeskOpening
from cloud.ingest.worker import Worker
from cloud.issuer import sync_keys
from cloud.issuer.desk import Desk
from cloud.reconciler.reconciler import Reconciler
from cloud.service import open_desk
from cloud.stream.api import Message, StreamError
from cloud.stream.jetstream import JetStream
from cloud.stream.local import LocalStream
from cloud.streaming import handing_on, process_name, work
from hsm import software
from hsm.keyfile import LIGHT
from tests.integration.cloud.test_gateways import chain_of, token_for
from tests.support.cloud_local import DAY_MS, NOW_MS, NewGateway, StepClock, local_cloud
from tests.support.issuer import Key
from tests.support.nats import nats_server, stream_config
from tests.support.reporting import Branch, open_bank, reconciler, where
from tests.support.world import ANCHOR
from wallet.protocol.envelope import Up, VerifiedUp
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.sealed import seal, short_id

WAIT_S = 20


async def held(database: Database, up: Up) -> int:
    """What is held of a report."""
    async with database.transaction() as connection:
        return await held_of(connection, ANCHOR, up)


async def test_what_is_held_without_an_outcome_is_what_its_own_root_proves(
    database: Database,
) -> None:
    await open_bank(database)
    reconciling, branch = reconciler(database), Branch("north")
    branch.enrol()
    first = branch.report()
    assert await held(database, first.claims) == 0
    await branch.sync(reconciling)
    size = branch.size
    # The whole of it is there: its own checkpoint says so.
    assert await held(database, first.claims) == size
    # Another journal under the same name, of the same size: nothing of it is acknowledged.
    forged = branch.checkpoint(leaves=[hashlib.sha256(bytes([n])).digest() for n in range(size)])
    other = msgspec.structs.replace(first.claims, checkpoint=forged)
    assert await held(database, other) == 0
    known = msgspec.structs.replace(other, acknowledged_size=size)
    assert await held(database, known) == size
    # A later report of which nothing came yet, and one that nobody can read.
    branch.enrol(branch.book.identity.key)
    later = branch.report()
    assert await held(database, later.claims) == size
    broken = msgspec.structs.replace(first.claims, checkpoint=b"\x00")
    assert await held(database, broken) == 0
    await reconciling.close()


class Sealed:
    """Opens reports of the test's world by what stands for their sealed bytes."""

    def __init__(self, *reports: VerifiedUp) -> None:
        self._reports = {report.raw: report for report in reports}

    async def open(self, sealed: bytes) -> VerifiedUp:
        """See `Opening`."""
        return self._reports[sealed]


class Dying(JetStream):
    """What a worker does that is killed between the commit and the word that it is done."""

    async def acknowledge(self, raw: Msg) -> None:
        """Nobody hears it any more."""
        raise StreamError("stream-unavailable", "killed")


@contextlib.asynccontextmanager
async def at_work(
    stream: JetStream, reconciling: Reconciler, opening: Sealed
) -> AsyncIterator[None]:
    """A worker while the block runs."""
    worker = Worker(stream, reconciling, opening, clock=StepClock(), partitions=4)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_report_that_was_committed_and_comes_again_has_one_effect(
    database: Database, tmp_path: Path
) -> None:
    await open_bank(database)
    branch = Branch("north")
    anna, bert = Key("anna"), Key("bert")
    branch.enrol(anna, bert)
    await branch.fund(database, anna, 1_000)
    branch.book.accept(branch.book.pay(anna, bert, 300))
    report = branch.report()
    first, second = reconciler(database), reconciler(database)

    async def effects() -> tuple[int, int]:
        async with database.transaction() as connection:
            transfers = await connection.fetchval("SELECT count(*) FROM ledger_transfer")
            return transfers, await connection.fetchval("SELECT count(*) FROM journal_entry")

    async with nats_server(tmp_path / "nats") as server:
        config = stream_config(server, ack_wait_s=1)
        dying, living = await Dying.connect(config), await JetStream.connect(config)
        front = Front(living, second, name="front", partitions=4, wait_s=WAIT_S)
        async with front.listening():
            async with at_work(dying, first, Sealed(report)):
                taken = await front.take(report.raw, report, now_ms=NOW_MS)
            assert (taken.acknowledged, len(taken.settlements)) == (branch.size, 1)
            once = await effects()
            assert (await living.figures()).waiting == 1
            async with at_work(living, second, Sealed(report)):
                async with asyncio.timeout(WAIT_S):
                    while (await living.figures()).waiting:
                        await asyncio.sleep(0.02)
                # And once more, as a message of its own.
                again = await front.take(report.raw, report, now_ms=NOW_MS)
        await dying.close()
        await living.close()
    assert again == taken
    assert await effects() == once
    found = await where(database)
    assert (found.offline, found.suspense, found.loss) == (1_000, 0, 0)
    await first.close()
    await second.close()


class Liar:
    """Whoever reaches the stream can say what is held, in a worker's name."""

    async def take(self, sealed: bytes, up: VerifiedUp, *, now_ms: int) -> Taken:
        """More than there is."""
        return Taken(acknowledged=999, problem=None, settlements=[], heard=True)


async def test_no_gateway_is_told_that_something_is_held_which_is_not_stored(
    database: Database, tmp_path: Path
) -> None:
    async with local_cloud(database, tmp_path) as cloud:
        gateway = NewGateway("one")
        await gateway.enrol(cloud, await token_for(cloud, 0))
        cloud.cloud.exchange.intake = Liar()
        sealed, _ = gateway.report(cloud, chain=chain_of(gateway))
        answer = await cloud.cloud.exchange.answer(
            sealed, caller=gateway.journal, now_ms=cloud.clock.now_ms()
        )
        assert gateway.open(cloud, answer).acknowledged_size == 0


async def test_a_worker_opens_what_is_sealed_to_a_key_that_another_process_made(
    database: Database, tmp_path: Path
) -> None:
    config = Config(folder=tmp_path, database=DatabaseConfig())
    token = await software.create(tmp_path / "token", passphrase=b"words", cost=LIGHT)
    front = await open_desk(config, database, token, now_ms=NOW_MS)
    worker: Desk = await open_desk(config, database, token, now_ms=NOW_MS)
    opening = DeskOpening(database, worker)
    async with database.transaction() as connection:
        assert await sync_keys.refresh(connection, front, now_ms=NOW_MS + 400 * DAY_MS)
        await front.learn_keys(connection)
    (kid,) = front.hpke.keys() - worker.hpke.keys()
    recipient = front.hpke[kid].public_key().public_bytes_raw()
    with pytest.raises(ProtocolError) as raised:
        await opening.open(seal(b"no envelope", recipient=recipient))
    # It was opened; what is inside is another matter.
    assert raised.value.code == Code.MALFORMED
    assert kid in worker.hpke
    stranger = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert short_id(stranger) not in worker.hpke
    with pytest.raises(ProtocolError) as raised:
        await opening.open(seal(b"no envelope", recipient=stranger))
    assert raised.value.code == Code.UNKNOWN_KEY
    await token.close()


async def test_a_cloud_without_servers_has_its_queue_inside(
    database: Database, tmp_path: Path
) -> None:
    async with local_cloud(database, tmp_path) as local:
        directly = local.cloud.exchange.intake

        async def is_up() -> str:
            async with local.api() as api, api.session.get("/metrics") as response:
                text = await response.text()
            assert 'state="parked"' in text or local.cloud.stream is None
            return next(line for line in text.splitlines() if line.startswith("cbdc_stream_up"))

        assert await is_up() == "cbdc_stream_up 0.0"
        async with handing_on(local.cloud) as stream:
            assert isinstance(stream, LocalStream)
            assert local.cloud.exchange.intake is not directly
            assert await is_up() == "cbdc_stream_up 1.0"
        assert local.cloud.exchange.intake is directly


async def typed(config: Config, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    options = parser().parse_args(arguments)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code: int = await options.run(config, options)
    return code, out.getvalue()


async def test_commands_show_what_waits_and_bring_back_what_is_parked(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server:
        config = Config(
            folder=tmp_path,
            database=DatabaseConfig(dsn="postgresql://elsewhere"),
            stream=stream_config(server, attempts_max=2),
        )
        assert await typed(config, "stream", "status") == (
            0,
            "waiting 0, of these delivered again 0\n",
        )
        stream = await JetStream.connect(config.stream)
        identity = hashlib.sha256(b"one").digest()
        await stream.publish(Message(subject="ingest.1", identity=identity, body=b"one"))
        client = await nats.connect(server.url)
        await client.jetstream().publish("cbdc.ingest.1", b"stranger")
        await client.close()
        async with contextlib.aclosing(stream.deliveries("ingest.1")) as deliveries:
            async with asyncio.timeout(WAIT_S):
                for _ in range(2):
                    await (await anext(deliveries)).again(after_s=0)
                coming = asyncio.ensure_future(anext(deliveries))
                while (await stream.figures()).parked < 2:
                    await asyncio.sleep(0.02)
            coming.cancel()
            await asyncio.wait([coming])
        await stream.close()
        code, out = await typed(config, "stream", "status")
        assert (code, out.count("parked: ingest.1")) == (3, 2)
        assert f"{identity.hex()} after 3 deliveries, 3 bytes" in out
        code, out = await typed(config, "stream", "retry")
        assert (code, out.splitlines()) == (
            3,
            [
                f"ingest.1 {identity.hex()}: was published a moment ago: try it in two minutes",
                "ingest.1 2: stays: it is no message of a front or relay, or was too large to keep",
            ],
        )


async def test_without_servers_there_is_no_worker_and_nothing_to_show(tmp_path: Path) -> None:
    config = Config(folder=tmp_path)
    for action in ("status", "retry"):
        with pytest.raises(ConfigError, match="config-invalid"):
            await typed(config, "stream", action)
    with pytest.raises(ConfigError, match=r"config-invalid.*stream\.servers"):
        await work(config)


def test_names_of_processes_fit_into_subjects() -> None:
    names = {process_name() for _ in range(5)}
    assert len(names) == 5
    assert all(name.replace("-", "").isalnum() and name.isascii() for name in names)
