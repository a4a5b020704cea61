"""The box is opened: it refuses at once, drops its keys, loses nothing, and stays frozen."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from edge.config import TamperConfig
from edge.errors import SwitchFailed
from edge.folder import Folder
from edge.gateway import Opened
from edge.http.octets import from_text, to_text
from edge.pos.client import Client
from edge.pos.purse import DeviceKey, Purse
from edge.pos.terminal import Terminal
from edge.store_key import STORE_KEY_LABEL
from edge.tamper import read_mark
from hsm import software
from hsm.api import Token, TokenGone
from tests.integration.edge.conftest import Template
from tests.support.branch import Command, Daemon, provisioned
from tests.support.branch_local import Branch, Http, config_of, copied, running
from tests.support.live_issuer import funded
from tests.support.programs import ROOT
from wallet.clock import SystemClock
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import parse_journal
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.store.audit import page_audit, verify_audit
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreClosed
from wallet.store.events import events_after
from wallet.store.journal import entry_count, read_entries
from wallet.store.meta import get_meta

WAIT_S = 30
PASSPHRASE = b"correct horse"
PAYERS = 8
# Two files that are there; the command does not get to look into them.
FILES = ("--cloud-ca", f"{ROOT}/README.md", "--token-file", f"{ROOT}/Makefile")
PROVISION = ("--cloud", "https://cloud.example", *FILES)


class Stored(msgspec.Struct):
    """What a frozen folder holds, read with the keys by somebody who may."""

    orders: dict[bytes, bytes]
    actions: list[str]
    events: list[str]
    marked: bool


async def read_store(folder: Folder) -> Stored:
    """Open the store as an auditor does who has the passphrase."""
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    sealed = folder.store_key.read_bytes()
    key = await token.sealer.unseal(sealed, label=STORE_KEY_LABEL)
    await token.close()

    def read(connection: Connection) -> Stored:
        verify_audit(connection)
        orders = {}
        for raw in read_entries(connection, 0, entry_count(connection)):
            body = decode_entry(raw).body
            if isinstance(body, Payment):
                orders[body.order.signed.raw] = leaf_hash(raw)
        return Stored(
            orders=orders,
            actions=[row.action for row in page_audit(connection, 0, 10_000)],
            events=[event.name for event in events_after(connection, 0, 10_000)],
            marked=get_meta(connection, "tamper") is not None,
        )

    database = await Database.open(folder.store, key=key)
    try:
        return await database.read(read)
    finally:
        await database.close()


class Paid(msgspec.Struct):
    """What became of orders: receipts that were given, codes of refusals."""

    receipts: dict[bytes, tuple[bytes, bytes, bytes]] = {}
    refused: dict[bytes, str] = {}


def order_of(gateway: str, payer: DeviceKey, payee: bytes, *, sequence: int) -> bytes:
    """An order of one minor unit."""
    journal, now = parse_journal(gateway), SystemClock().now_ms()
    return payer.sign_order(
        sequence=sequence,
        payee=payee,
        payee_journal=journal,
        amount_minor=1,
        currency="EUR",
        created_ms=now,
        expires_ms=now + 86_400_000,
        kind=0,
        authorisation=0,
        payer_journal=journal,
        payer_epoch=1,
    )


async def pay_until_refused(
    client: Client, terminal: Terminal, payer: DeviceKey, payee: bytes, paid: Paid
) -> None:
    """One payer after another payment, until the gateway says no."""
    for sequence in range(100_000):
        order = order_of(terminal.gateway, payer, payee, sequence=sequence)
        body = json.dumps({"order": to_text(order)}).encode()
        status, raw = await client.raw("POST", "/v1/payments", body)
        answer = json.loads(raw)
        if status != 201:
            paid.refused[order] = answer["code"]
            return
        made = (from_text(answer["entry"]), from_text(answer["receipt"]))
        paid.receipts[order] = (bytes.fromhex(answer["id"]), *made)


async def test_at_the_trip_a_payment_is_durable_with_its_receipt_or_refused_and_it_stays_so(
    tmp_path: Path,
) -> None:
    purse = Purse.open(tmp_path / "till")
    payers = purse.create(*[f"payer{number}" for number in range(PAYERS)])
    (shop,) = purse.create("shop")
    lid = tmp_path / "lid"
    settings = ("tamper.source=file", f"tamper.file={lid}")
    async with provisioned(tmp_path, objects=funded([*payers, shop]), settings=settings) as (
        daemon,
        cloud,
    ):
        await daemon.start()
        terminal = await daemon.pair(tmp_path / "till")
        paid = Paid()
        async with Client(terminal, connections=PAYERS) as client:
            tasks = [
                asyncio.create_task(
                    pay_until_refused(client, terminal, payer, shop.public.id, paid)
                )
                for payer in payers
            ]
            async with asyncio.timeout(WAIT_S):
                while len(paid.receipts) < 50 * PAYERS:
                    await asyncio.sleep(0.01)
            lid.touch()
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*tasks)
            assert set(paid.refused.values()) == {"frozen-tamper"}
            status = await daemon.wait_for(lambda status: status.mode == "frozen-tamper")
            assert "tamper switch tripped" in (status.cause or "")
            assert (await Http(client).get("/v1/gateway"))[1]["mode"] == "frozen-tamper"
        for arguments, words in (
            (("status",), "tamper switch tripped"),
            (("tamper",), "Tell the issuer"),
            (("wallet", "list"), "frozen-tamper"),
            (("key", "show"), "edge-tampered"),
        ):
            code, out, errors = await daemon.command.edge(*arguments)
            assert (code, words in out + errors) == (4, True), (arguments, out, errors)
        code, out, _ = await daemon.command.edge("doctor", "--offline")
        assert (code, out.count("tamper switch tripped") >= 1) == (1, True)
        assert await daemon.stop() == 0
        lid.unlink()
        stored = await read_store(daemon.folder)
        assert {order: made[0] for order, made in paid.receipts.items()} == stored.orders
        assert not stored.orders.keys() & paid.refused.keys()
        anchor = TrustAnchor(cloud.issuer.root)
        for _, entry, receipt in paid.receipts.values():
            verify_receipt(receipt, entry, root=anchor, grace_s=0, revoked=NOTHING_REVOKED)
        assert "tamper.tripped" in stored.actions and stored.marked
        assert "gateway.frozen" in stored.events
        await stays_frozen(daemon)


async def stays_frozen(daemon: Daemon) -> None:
    """Whatever is taken away, a start opens nothing."""
    await daemon.start()
    await daemon.wait_for(lambda status: status.mode == "frozen-tamper")
    assert await daemon.stop() == 0
    # Without the mark's file the store remembers, and sets the mark again.
    mark = read_mark(daemon.folder)
    daemon.folder.tamper.unlink()
    await daemon.start()
    await daemon.wait_for(lambda status: status.mode == "frozen-tamper")
    assert read_mark(daemon.folder) == mark
    assert await daemon.stop() == 0


async def test_a_box_that_was_opened_while_it_was_off_opens_no_key(
    template: Template, tmp_path: Path
) -> None:
    folder, lid = tmp_path / "gateway", tmp_path / "lid"
    shutil.copytree(template.folder, folder)
    lid.touch()
    daemon = Daemon(folder)
    daemon.settings = ["tamper.source=file", f"tamper.file={lid}"]
    # No passphrase would do: nobody asks for the keys.
    daemon.command.environment["CBDC_EDGE_PASSPHRASE"] = "wrong"
    await daemon.start()
    status = await daemon.wait_for(lambda status: status.mode == "frozen-tamper")
    assert str(lid) in (status.cause or "")
    assert await daemon.stop() == 0


@pytest.fixture
async def boxed(template: Template, tmp_path: Path) -> AsyncIterator[tuple[Branch, Path]]:
    """A gateway in this process, and its lid."""
    lid = tmp_path / "lid"
    switch = TamperConfig(source="file", file=lid)
    async with copied(
        template.folder, tmp_path / "gateway", template.issuer, tamper=switch
    ) as branch:
        yield branch, lid


async def dropped(opened: Opened) -> None:
    """Wait until its keys are dropped, the store's last of all."""
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(StoreClosed):
            while True:
                await opened.database.read(entry_count)
                await asyncio.sleep(0.01)


async def test_listeners_hear_that_the_gateway_is_frozen(boxed: tuple[Branch, Path]) -> None:
    branch, lid = boxed
    async with Client(await branch.terminal()) as client:
        heard = asyncio.create_task(client.raw("GET", "/v1/events", None))
        async with asyncio.timeout(WAIT_S):
            while branch.daemon.context.streams == 0:
                await asyncio.sleep(0.01)
            lid.touch()
            status, raw = await heard
    assert status == 200
    assert b"event: gateway.frozen" in raw and b"frozen-tamper" in raw


async def test_the_keys_are_closed_and_the_daemon_goes_on_to_say_why(
    boxed: tuple[Branch, Path],
) -> None:
    branch, lid = boxed
    opened = branch.opened
    lid.write_text("1\n")
    await dropped(opened)
    with pytest.raises(TokenGone):
        await opened.token.probe()
    with pytest.raises(StoreClosed):
        await opened.database.read(entry_count)
    assert branch.daemon.context.gateway._secret.wiped
    await branch.daemon.reload()
    assert branch.daemon.context.gateway.mode == "frozen-tamper"
    async with aiohttp.ClientSession() as session:
        port = branch.ports["metrics_port"]
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            assert (response.status, (await response.json())["code"]) == (503, "frozen-tamper")


async def test_a_daemon_that_is_stopped_at_the_trip_drops_its_keys_first(
    boxed: tuple[Branch, Path],
) -> None:
    branch, lid = boxed
    gateway = branch.daemon.context.gateway
    opened = branch.opened
    lid.touch()
    async with asyncio.timeout(WAIT_S):
        while gateway.opened is not None:
            await asyncio.sleep(0)
    branch.daemon.stop()
    await branch.ended()
    with pytest.raises(TokenGone):
        await opened.token.probe()
    stored = await read_store(branch.folder)
    assert stored.marked and "tamper.tripped" in stored.actions


async def test_a_box_that_is_not_provisioned_freezes_too(
    template: Template, tmp_path: Path
) -> None:
    lid = tmp_path / "lid"
    config = config_of(tmp_path / "new", tamper=TamperConfig(source="file", file=lid))
    async with running(config, template.issuer) as branch:
        gateway = branch.daemon.context.gateway
        assert gateway.mode == "not-provisioned"
        lid.touch()
        async with asyncio.timeout(WAIT_S):
            while gateway.mode != "frozen-tamper":
                await asyncio.sleep(0.01)
    code, _, errors = await Command(branch.folder.root).edge("provision", *PROVISION)
    assert (code, "edge-tampered" in errors) == (4, True)
    assert (await Command(tmp_path / "other").edge("tamper"))[:2] == (
        0,
        "not tripped; the switch: none\n",
    )
    code, out, _ = await Command(branch.folder.root).edge("tamper", "--json")
    assert (code, json.loads(out)["mark"]["source"]) == (4, "file")


class HangingToken:
    """A token whose driver does not answer when it is to let go."""

    def __init__(self, inner: Token) -> None:
        self.driver = inner.driver
        self.signer = inner.signer
        self.sealer = inner.sealer
        self.counter = inner.counter
        self.probe = inner.probe
        self._inner: Token | None = inner

    async def close(self) -> None:
        """At the first call for ever; the end of the test closes it."""
        inner, self._inner = self._inner, None
        if inner is not None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await inner.close()


async def test_a_token_that_hangs_does_not_keep_the_other_keys(boxed: tuple[Branch, Path]) -> None:
    branch, lid = boxed
    opened = branch.opened
    opened.token = HangingToken(opened.token)
    lid.touch()
    await branch.ended()
    with pytest.raises(StoreClosed):
        await opened.database.read(entry_count)
    assert read_mark(branch.folder) is not None


async def test_a_switch_that_cannot_be_had_does_not_start(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    switch = TamperConfig(source="gpio", chip=tmp_path / "none", line=1)
    with pytest.raises(ExceptionGroup) as failed:
        async with running(config_of(folder, tamper=switch), template.issuer):
            raise AssertionError("it runs")
    assert failed.group_contains(SwitchFailed)
