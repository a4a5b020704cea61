"""Faults: a killed process, a full disk, a token that is gone, a changed store, a wrong key."""

import asyncio
import json
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edge.config import TokenConfig
from edge.folder import Folder
from edge.http.octets import from_text, to_text
from edge.main import Daemon as LocalDaemon
from edge.pos.client import Client
from edge.pos.purse import DeviceKey, Purse
from edge.pos.terminal import Terminal
from hsm.files import replace_durably
from tests.integration.edge.conftest import Template
from tests.support.branch import Daemon, provisioned
from tests.support.branch_local import Branch, Http, config_of, copied, running
from tests.support.disk import small_disk
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer, funded
from tests.support.softhsm import SoftHsm
from wallet.clock import SystemClock
from wallet.journal import Receipted
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId, parse_journal
from wallet.protocol.messages import decode_order
from wallet.protocol.refusals import Code, InvariantBroken, Refusal
from wallet.store.connection import Connection

WAIT_S = 30
MIB = 1024 * 1024


async def wait_until(check: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(WAIT_S):
        while not check():
            await asyncio.sleep(0.02)


def order_of(gateway: str, payer: DeviceKey, payee: bytes, *, sequence: int) -> bytes:
    """An order for a gateway in another process."""
    journal, now = parse_journal(gateway), SystemClock().now_ms()
    return payer.sign_order(
        sequence=sequence,
        payee=payee,
        payee_journal=journal,
        amount_minor=10,
        currency="EUR",
        created_ms=now,
        expires_ms=now + 86_400_000,
        kind=0,
        authorisation=0,
        payer_journal=journal,
        payer_epoch=1,
    )


async def test_receipts_that_left_a_killed_gateway_are_in_its_journal_and_nothing_counts_twice(
    tmp_path: Path,
) -> None:
    purse = Purse.open(tmp_path / "till")
    payers = purse.create(*[f"payer{number}" for number in range(8)])
    (shop,) = purse.create("shop")
    async with provisioned(tmp_path, objects=funded([*payers, shop])) as (daemon, _):
        await daemon.start()
        terminal = await daemon.pair(tmp_path / "till")
        given: dict[bytes, str] = {}
        sent: list[bytes] = []

        async def pay(client: Client, payer: DeviceKey) -> None:
            for sequence in range(500):
                order = order_of(terminal.gateway, payer, shop.public.id, sequence=sequence)
                sent.append(order)
                body = json.dumps({"order": to_text(order)}).encode()
                status, raw = await client.raw("POST", "/v1/payments", body)
                assert status == 201
                given[order] = json.loads(raw)["id"]

        async with Client(terminal, connections=8) as client:
            tasks = [asyncio.create_task(pay(client, payer)) for payer in payers]
            await wait_until(lambda: len(given) >= 100)
            await daemon.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
        await daemon.start()
        moved = Terminal(
            url=f"https://127.0.0.1:{daemon.ports['port']}",
            gateway=terminal.gateway,
            terminal=terminal.terminal,
            authority=terminal.authority,
            certificate=terminal.certificate,
            key=terminal.key,
        )
        async with Client(moved) as client:
            http = Http(client)
            ids = {}
            for order in sent:
                status, paid = await http.pay(order)
                assert status in (200, 201), paid
                ids[order] = paid["id"]
            assert all(ids[order] == known for order, known in given.items())
            _, wallet = await http.get(f"/v1/wallets/{shop.text}")
            assert wallet["balance"] == 100_000 + 10 * len(sent)
        assert await daemon.stop() == 0


async def test_a_full_disk_refuses_with_busy_and_recovers_by_itself(
    template: Template, tmp_path: Path
) -> None:
    disk_folder = tmp_path / "disk"
    disk_folder.mkdir()
    shop = template.keys["shop"].public.id
    alice = template.keys["alice"]

    def balance(branch: Branch) -> int:
        wallet = WalletId(alice.public.id)
        return branch.opened.journal.state.wallets[wallet].balance

    with small_disk(disk_folder, size_bytes=16 * MIB) as disk:
        async with (
            copied(template.folder, disk_folder / "gateway", template.issuer) as branch,
            Client(await branch.terminal()) as client,
        ):
            http = Http(client)
            assert (await http.pay(branch.order(alice, shop, 10)))[0] == 201
            disk.fill()
            status, problem = await _pay_until_refused(branch, http, alice, shop)
            assert (status, problem["code"]) == (503, "busy")
            assert problem["retry_after"] >= 1
            before = balance(branch)
            disk.free()
            assert (await http.pay(branch.order(alice, shop, 10)))[0] == 201
            assert balance(branch) == before - 10


async def _pay_until_refused(
    branch: Branch, http: Http, payer: DeviceKey, payee: bytes
) -> tuple[int, dict[str, Any]]:
    """The log has room that was there before; a few thousand payments use it up."""
    for _ in range(5_000):
        status, problem = await http.pay(branch.order(payer, payee, 1))
        if status != 201:
            return status, problem
    raise AssertionError("the disk is not full")


class TokenBranch:
    """A gateway whose keys are in a SoftHSM2 token."""

    def __init__(self, folder: Path, hsm: SoftHsm) -> None:
        self.folder = folder
        self.hsm = hsm
        self.issuer = LiveIssuer()
        self.purse = Purse.open(folder / "till")
        self.alice, self.shop = self.purse.create("alice", "shop")

    def settings(self) -> tuple[str, ...]:
        """What the commands need to know of the token."""
        pin = self.folder / "pin.txt"
        pin.write_text("4711\n")
        return (
            "token.driver=pkcs11",
            f"token.module={self.hsm.module_path}",
            "token.label=gateway",
            f"token.pin_file={pin}",
        )


async def test_a_gateway_without_its_token_is_sealed_and_opens_when_it_is_back(
    tmp_path: Path,
) -> None:
    hsm = SoftHsm(tmp_path / "hsm")
    hsm.init_token()
    made = TokenBranch(tmp_path, hsm)
    with hsm.in_this_process():
        async with provisioned(
            tmp_path, objects=funded([made.alice, made.shop]), settings=made.settings()
        ) as (daemon, _):
            await daemon.start()
            terminal = await daemon.pair(tmp_path / "till")
            async with Client(terminal) as client:
                http = Http(client)
                shop = made.shop.public.id
                order = order_of(terminal.gateway, made.alice, shop, sequence=0)
                assert (await http.pay(order))[0] == 201
                hsm.vanish()
                await daemon.wait_for(lambda status: status.mode == "sealed")
                order = order_of(terminal.gateway, made.alice, shop, sequence=1)
                status, problem = await http.pay(order)
                assert (status, problem["code"]) == (503, "sealed")
                assert (await http.get("/v1/gateway"))[1]["mode"] == "sealed"
                assert (await http.get("/readyz"))[0] == 503
                code, out, _ = await daemon.command.edge("status")
                assert (code, "sealed" in out) == (4, True)
                hsm.come_back()
                await daemon.wait_for(lambda status: status.mode == "open")
                assert (await http.pay(order))[0] in (200, 201)
            await daemon.stop()
            await _sealed_from_the_start(daemon, hsm, terminal, made)


async def _sealed_from_the_start(
    daemon: Daemon, hsm: SoftHsm, terminal: Terminal, made: TokenBranch
) -> None:
    hsm.vanish()
    await daemon.start()
    status = await daemon.wait_for(lambda status: status.mode == "sealed")
    assert status.cause is not None
    moved = Terminal(
        url=f"https://127.0.0.1:{daemon.ports['port']}",
        gateway=terminal.gateway,
        terminal=terminal.terminal,
        authority=terminal.authority,
        certificate=terminal.certificate,
        key=terminal.key,
    )
    async with Client(moved) as client:
        http = Http(client)
        assert (await http.get("/v1/gateway"))[1]["mode"] == "sealed"
        order = order_of(terminal.gateway, made.alice, made.shop.public.id, sequence=2)
        status_code, problem = await http.pay(order)
        assert (status_code, problem["code"]) == (503, "sealed")
        code, _, errors = await daemon.command.edge("device", "list")
        assert (code, "sealed" in errors) == (4, True)
        hsm.come_back()
        await daemon.wait_for(lambda status: status.mode == "open")
        assert (await http.pay(order))[0] == 201
    assert await daemon.stop() == 0


async def test_a_changed_store_does_not_start_and_says_so(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    store = Folder(folder).store
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 1
    store.write_bytes(content)
    daemon = Daemon(folder)
    await daemon.start(wait=False)
    assert daemon.process is not None
    async with asyncio.timeout(WAIT_S):
        assert await daemon.process.wait() == 1
    assert "store-tampered" in daemon.log.read_text()


async def test_a_wrong_passphrase_or_store_key_does_not_start_and_says_which(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    daemon = Daemon(folder)
    daemon.command.environment["CBDC_EDGE_PASSPHRASE"] = "wrong"
    await daemon.start(wait=False)
    assert daemon.process is not None
    async with asyncio.timeout(WAIT_S):
        assert await daemon.process.wait() == 1
    assert "token-pin-wrong" in daemon.log.read_text()
    replace_durably(Folder(folder).store_key, b"\x01" + bytes(100))
    daemon = Daemon(folder)
    await daemon.start(wait=False)
    assert daemon.process is not None
    async with asyncio.timeout(WAIT_S):
        assert await daemon.process.wait() == 1
    assert "seal-broken" in daemon.log.read_text()


async def test_a_gateway_that_is_not_provisioned_says_so_and_opens_once_it_is(
    template: Template, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path / "gateway")
    await daemon.start()
    status = await daemon.wait_for(lambda status: True)
    assert (status.mode, status.id) == ("not-provisioned", None)
    code, out, _ = await daemon.command.edge("status")
    assert (code, "not-provisioned" in out) == (4, True)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://127.0.0.1:{daemon.ports['port']}/v1/payments"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=b"{}", ssl=context) as response,
    ):
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (503, "not-provisioned")
    cloud = EnrolmentCloud(template.issuer, tmp_path)
    await cloud.start()
    arguments = ("--cloud", cloud.url, "--cloud-ca", str(cloud.ca))
    token = ("--token-file", str(tmp_path / "token.txt"))
    code, out, errors = await daemon.command.edge("provision", *arguments, *token)
    assert code == 0, errors
    await daemon.wait_for(lambda status: status.mode == "open")
    code, _, errors = await daemon.command.edge("provision", *arguments, *token)
    assert (code, "store-in-use" in errors) == (1, True)
    await daemon.stop()
    code, _, errors = await daemon.command.edge("provision", *arguments, *token)
    assert (code, "edge-already-provisioned" in errors) == (1, True)
    await cloud.stop()


async def test_two_daemons_do_not_share_a_folder(template: Template, tmp_path: Path) -> None:
    async with copied(template.folder, tmp_path / "gateway", template.issuer) as branch:
        second = LocalDaemon(config_of(branch.folder.root), secret=b"correct horse")
        with pytest.raises(ExceptionGroup, match="unhandled"):
            await second.run()


async def test_a_broken_journal_ends_the_daemon_and_a_start_mends_it(
    template: Template, tmp_path: Path
) -> None:
    def broken(connection: Connection) -> None:
        raise InvariantBroken("an invariant")

    folder = tmp_path / "gateway"
    async with copied(template.folder, folder, template.issuer) as branch:
        order = branch.order(template.keys["alice"], template.keys["shop"].public.id, 100)
        payment = Payment(order=decode_order(order), request=None)
        journal = branch.opened.journal
        outcome = await journal.pay_decoded(payment, with_commit=broken)
        assert isinstance(outcome, Refusal) and outcome.code is Code.BUSY
        assert isinstance(journal.failure, InvariantBroken)
        async with asyncio.timeout(30):
            await asyncio.wait([branch.task])
        failure = branch.task.exception()
        assert isinstance(failure, ExceptionGroup)
        assert [str(error) for error in failure.exceptions] == [
            "edge-journal-broken: InvariantBroken: an invariant"
        ]
    async with running(branch.config, template.issuer) as again:
        taken = await again.opened.journal.pay(order)
        assert isinstance(taken, Receipted) and not taken.repeated


async def test_the_token_may_sign_with_p256(template: Template, tmp_path: Path) -> None:
    token = TokenConfig(algorithm="es256")
    cloud = EnrolmentCloud(template.issuer, tmp_path)
    cloud.objects = lambda journal: funded([template.keys["alice"], template.keys["shop"]])(
        template.issuer, journal
    )
    await cloud.start()
    daemon = Daemon(tmp_path / "gateway")
    code, _, errors = await daemon.command.edge(
        "--set",
        "token.algorithm=es256",
        "provision",
        "--cloud",
        cloud.url,
        "--cloud-ca",
        str(cloud.ca),
        "--token-file",
        str(tmp_path / "token.txt"),
    )
    assert code == 0, errors
    config = config_of(tmp_path / "gateway", token=token)
    async with (
        running(config, template.issuer) as branch,
        Client(await branch.terminal()) as client,
    ):
        order = branch.order(template.keys["alice"], template.keys["shop"].public.id, 5)
        status, paid = await Http(client).pay(order)
    assert status == 201
    assert decode_entry(from_text(paid["entry"])).index == paid["index"]
    await cloud.stop()
