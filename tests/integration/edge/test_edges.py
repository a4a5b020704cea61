"""The corners: what is full, slow, broken or gone answers by a code, and the gateway goes on."""

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import msgspec
import pytest

from edge.authority import authority_certificate, open_authority, read_csr, server_context
from edge.config import Config, LimitsConfig, ListenConfig
from edge.errors import DaemonSilent, FileUnreadable, GatewayUnreachable, PairingRefused
from edge.folder import Folder
from edge.gateway import Gateway
from edge.health import gateway_answer
from edge.http.octets import to_text
from edge.http.types import GatewayAnswer
from edge.local_client import LocalClient
from edge.main import run_daemon
from edge.pos.client import Client, refused
from edge.pos.load import send_all
from edge.pos.purse import DeviceKey
from edge.schedule import Schedule
from edge.store_key import read_store_key
from edge.wishes import KIND as WISH_KIND
from edge.wishes import WISHES_MAX, Wish
from hsm.api import SealBroken, TokenGone
from hsm.memory import Secret
from tests.integration.edge.conftest import Template
from tests.integration.edge.test_hosted import hosted_wallet, payment
from tests.support.branch_local import PASSPHRASE, Branch, Http, config_of, copied
from wallet.clock import SystemClock
from wallet.journal import Event, Mode
from wallet.store.connection import Connection
from wallet.store.errors import StoreFailed

Keys = dict[str, DeviceKey]
WAIT_S = 20


async def test_more_requests_than_the_bound_are_refused_with_busy(
    template: Template, tmp_path: Path
) -> None:
    limits = LimitsConfig(requests_max=1, event_streams_max=1)
    async with (
        copied(template.folder, tmp_path / "g", template.issuer, limits=limits) as branch,
        Client(await branch.terminal(), connections=8) as client,
    ):
        http = Http(client)
        session = client._session
        assert session is not None
        async with session.get("/v1/events"):
            status, problem = await http.get("/v1/reports/x")
            assert (status, problem["code"]) == (503, "busy")
    limits = LimitsConfig(event_streams_max=1)
    async with (
        copied(template.folder, tmp_path / "h", template.issuer, limits=limits) as branch,
        Client(await branch.terminal(), connections=8) as client,
    ):
        session = client._session
        assert session is not None
        async with session.get("/v1/events"):
            status, problem = await Http(client).get("/v1/events")
            assert (status, problem["code"]) == (503, "busy")


async def test_a_fault_inside_shows_no_trace(branch: Branch, http: Http) -> None:
    class Broken(Exception):
        """Something nobody expected."""

    async def fail() -> None:
        raise Broken("the inside of the gateway")

    branch.opened.journal.find_reference = fail  # type: ignore[method-assign,assignment]  # a fault is needed
    status, problem = await http.get("/v1/payments?reference=x")
    assert (status, problem["code"]) == (500, "internal-fault")
    assert "inside" not in json.dumps(problem)


async def test_a_failing_store_is_a_fault_and_is_logged(branch: Branch, http: Http) -> None:
    async def fail(work: object) -> None:
        raise StoreFailed("the disk is gone")

    branch.opened.database.read = fail  # type: ignore[method-assign,assignment]  # a fault is needed
    status, problem = await http.get(f"/v1/payments/{'0' * 64}")
    assert (status, problem["code"]) == (500, "internal-fault")
    await branch.opened.probe_store()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/payments", "parameter-invalid"),
        ("/v1/payments/xyz", "parameter-invalid"),
        (f"/v1/payments?reference={'x' * 65}", "parameter-invalid"),
        ("/v1/wallets/wal1x/statement", "parameter-invalid"),
    ],
)
async def test_parameters_are_checked(http: Http, path: str, code: str) -> None:
    status, problem = await http.get(path)
    assert (status, problem["code"]) == (422, code)


async def test_ids_of_a_body_are_checked_to_their_checksum(
    branch: Branch, http: Http, keys: Keys
) -> None:
    wallet = await hosted_wallet(branch, http)
    wrong = "wal1" + "q" * 38
    for body in (payment(wrong, keys["shop"].text), payment(wallet, wrong)):
        status, problem = await http.post("/v1/payments", body, key=True)
        assert (status, problem["code"]) == (422, "parameter-invalid")
    body = payment(wallet, keys["shop"].text, journal="jnl1" + "q" * 38)
    status, problem = await http.post("/v1/payments", body, key=True)
    assert (status, problem["code"]) == (422, "parameter-invalid")


async def test_calls_under_one_key_at_once_are_told_apart(
    branch: Branch, http: Http, keys: Keys
) -> None:
    wallet = await hosted_wallet(branch, http)
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/json", "Idempotency-Key": "twice"}
    body = json.dumps(payment(wallet, keys["shop"].text))

    async def post() -> int:
        async with session.post("/v1/payments", data=body, headers=headers) as response:
            return response.status

    statuses = sorted(await asyncio.gather(post(), post()))
    assert statuses in ([201, 409], [201, 201])
    assert (await http.get(f"/v1/wallets/{wallet}"))[1]["balance"] == 9_900


async def test_too_many_wishes_are_refused(branch: Branch, http: Http) -> None:
    def fill(connection: Connection) -> None:
        for number in range(WISHES_MAX):
            key = b"%d" % number
            wish = msgspec.msgpack.encode(Wish(key=key, tier=1, label=None, hosted=False))
            connection.execute("INSERT INTO objects VALUES (?, ?, ?)", (WISH_KIND, number, wish))

    await branch.opened.database.write(fill)
    wish = {"device": {"key": to_text(DeviceKey(b"\x66" * 32).public.cose_key)}}
    status, problem = await http.post("/v1/wallets", wish)
    assert (status, problem["code"]) == (503, "busy")


async def test_frozen_and_expired_wallets_say_so(branch: Branch, http: Http, keys: Keys) -> None:
    journal = branch.opened.journal.state.journal
    old = branch.issuer.enrolment(journal, DeviceKey(b"\x44" * 32).public, days=0)
    await branch.take(branch.issuer.list(5, [keys["bob"].public.id], sequence=1))
    assert (await http.get(f"/v1/wallets/{keys['bob'].text}"))[1]["state"] == "frozen"
    assert (await branch.take(old)).refused == ["enrolment-expired"]
    wallet = branch.opened.journal.state.wallets[keys["alice"].public.id]  # type: ignore[index]  # a wallet's id
    wallet.enrolment_expires_ms = 1
    assert (await http.get(f"/v1/wallets/{keys['alice'].text}"))[1]["state"] == "expired"


async def test_receipts_of_another_journal_are_kept_for_the_issuer(
    template: Template, branch: Branch, http: Http, keys: Keys, tmp_path: Path
) -> None:
    # The other gateway is one of the same issuer: here its receipt, given by this very journal's
    # twin under another name, cannot exist; what is checked is that our own are known already.
    order = branch.order(keys["alice"], keys["shop"].public.id, 3)
    _, paid = await http.pay(order)
    note = {"entry": paid["entry"], "receipt": paid["receipt"]}
    status, kept = await http.post("/v1/receipts", {"receipts": [note, note]}, key=True)
    assert (status, [item["kept"] for item in kept["answers"]]) == (200, ["known", "known"])


async def test_events_wait_while_the_store_refuses_and_are_pruned(branch: Branch) -> None:
    events = branch.opened.events

    async def fail(work: object) -> None:
        raise StoreFailed("full")

    write = branch.opened.database.write
    branch.opened.database.write = fail  # type: ignore[method-assign,assignment]  # a fault is needed
    events.take(Event(name="limit.soft", data={"index": 1}))
    assert not await events.flush()
    branch.opened.database.write = write  # type: ignore[method-assign]  # as it was
    assert await events.flush()
    assert [event.name for event in await events.after(0)][-1] == "limit.soft"
    await branch.opened.prune(branch.opened.journal.now()[0])
    assert await events.flush()


async def test_the_schedule_wakes_and_prunes_until_it_is_stopped() -> None:
    woken, pruned = asyncio.Event(), asyncio.Event()

    async def prune() -> None:
        pruned.set()
        raise StoreFailed("full")

    schedule = Schedule(Config())
    schedule.start(wake=woken.set, prune=prune)
    for job in list(schedule.jobs()):
        await job()
    assert woken.is_set() and pruned.is_set()
    schedule.stop()
    schedule.stop()


async def test_files_that_are_not_what_they_should_be_are_named(
    branch: Branch, tmp_path: Path
) -> None:
    folder, sealer = Folder(tmp_path / "gateway"), branch.opened.token.sealer
    (folder.tls / "authority.crt").write_text("nothing")
    with pytest.raises(FileUnreadable, match="no certificate"):
        authority_certificate(folder)
    (folder.tls / "server.key").write_text("nothing")
    with pytest.raises(FileUnreadable, match="certificates"):
        server_context(folder, clients=True)
    (folder.tls / "authority.key.sealed").write_bytes(b"\x01" + bytes(80))
    with pytest.raises(SealBroken):
        await open_authority(folder, sealer)
    folder.store_key.unlink()
    with pytest.raises(FileUnreadable):
        await read_store_key(folder, branch.opened.token)
    for text in (
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
    ):
        with pytest.raises(PairingRefused):
            read_csr(text)


async def test_a_gateway_that_is_not_open_tells_its_cause(tmp_path: Path) -> None:
    gateway = Gateway(config_of(tmp_path / "g"), secret=PASSPHRASE, clock=SystemClock())
    assert await gateway.open() is Mode.NOT_PROVISIONED
    answer = gateway_answer(gateway, online=False)
    assert (answer.state, answer.mode) == ("offline", "not-provisioned")
    assert answer.cause is not None and "provision" in answer.cause
    with pytest.raises(DaemonSilent):
        await LocalClient(gateway.folder).call("GET", "/status", GatewayAnswer)


def test_a_daemon_that_cannot_listen_ends_with_an_error(tmp_path: Path) -> None:
    listen = ListenConfig(host="192.0.2.1", port=0, pairing_port=0, metrics_port=0)
    config = Config(folder=tmp_path / "gateway", listen=listen)
    assert run_daemon(config, secret=Secret(PASSPHRASE)) == 1


async def test_a_client_says_what_a_gateway_did_not(branch: Branch) -> None:
    client = Client(await branch.terminal())
    with pytest.raises(GatewayUnreachable, match="not open"):
        await client.raw("GET", "/", None)
    assert refused(502, b"<html>").problem == "unknown"
    assert refused(402, b'{"code":"x","limit":5}').detail == "x (limit 5)"
    async with client:
        with pytest.raises(GatewayUnreachable, match="no gateway"):
            await client.call("GET", "/healthz", GatewayAnswer)


async def test_load_counts_what_cannot_be_reached(branch: Branch) -> None:
    terminal = msgspec.structs.replace(await branch.terminal(), url="https://127.0.0.1:1")
    async with Client(terminal) as client:
        result = await send_all(client, [[b"order"]], connections=2)
    assert (result.accepted, result.refusals, result.latency_us["p50"]) == (
        0,
        {"unreachable": 1},
        0,
    )


async def test_a_body_that_does_not_come_is_given_up(template: Template, tmp_path: Path) -> None:
    limits = LimitsConfig(request_timeout_s=1)
    async with copied(template.folder, tmp_path / "g", template.issuer, limits=limits) as branch:
        terminal = await branch.terminal()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", branch.ports["port"], ssl=terminal.tls(), server_hostname="localhost"
        )
        head = b"POST /v1/payments HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: 100\r\n\r\n{")
        async with asyncio.timeout(WAIT_S):
            line = await reader.readline()
        assert line.split()[1] == b"408"
        writer.close()


async def test_the_description_and_health_need_a_certificate_of_the_branch_alone(
    branch: Branch, http: Http
) -> None:
    assert await branch.opened.terminals.revoke("till")
    status, problem = await http.get("/v1/gateway")
    assert (status, problem["code"]) == (403, "terminal-revoked")
    assert (await http.get("/healthz"))[0] == 200
    context = ssl.create_default_context(cadata=http.client.terminal.authority)
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        async with (
            aiohttp.ClientSession() as session,
            session.get(http.client.terminal.url + "/healthz", ssl=context) as response,
        ):
            await response.read()


def test_errors_of_the_token_have_codes() -> None:
    assert TokenGone("x").code == "token-gone"
