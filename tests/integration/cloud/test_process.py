"""The whole spine over real ports: two gateways, one issuer, value to the cent."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from edge.folder import Folder
from edge.http.octets import to_text
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from edge.provision import Wish, provision
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.branch_local import PASSPHRASE, WAIT_S, Branch, Http, config_of, running
from tests.support.cloud_process import CloudProcess, running_cloud
from tests.support.live_issuer import LiveIssuer
from wallet.clock import SystemClock
from wallet.protocol.ids import WalletId, journal_text

ISSUED = 10_000_000
FUNDS = 50_000


def identity() -> str:
    """A new one."""
    return secrets.token_hex(32)


async def add_gateway(cloud: CloudProcess, name: str) -> str:
    """A one-time token, by the command."""
    token = cloud.folder.parent / f"{name}.enrol"
    code, out, errors = await cloud.command(
        *("gateway", "add", "--name", name, "--token-file", str(token)),
        "--allow-software",
    )
    assert code == 0, (out, errors)
    return token.read_text()


async def enrol(cloud: CloudProcess, folder: Path, token: str) -> str:
    """A provisioned gateway folder; its journal."""
    Folder(folder).prepare()
    made = await software.create(Folder(folder).token, passphrase=PASSPHRASE, cost=LIGHT)
    await made.close()
    wish = Wish(cloud=cloud.gateway_url, cloud_ca=cloud.authority, enrolment_token=token)
    return await provision(
        config_of(folder), wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None
    )


async def synchronise(branch: Branch) -> None:
    """Two exchanges: what the first one brings becomes entries, which the second one carries."""
    for _ in range(2):
        async with asyncio.timeout(WAIT_S):
            result, detail = await branch.daemon.sync_now()
        assert result == "completed", (result, detail)


async def open_wallets(cloud: CloudProcess, *names: str) -> dict[str, str]:
    """Online wallets of holders; their tokens."""
    tokens = {}
    async with cloud.api(cloud.officer("first")) as officer:
        for name in names:
            body = {"holder": name, "wallet": f"{name}-eur", "currency": "EUR"}
            status, made = await officer.post("/v1/issuer/holders", body)
            assert status == 201, made
            tokens[name] = made["token"]
    return tokens


async def issue(cloud: CloudProcess, wallet: str, amount: int) -> None:
    """Two officers, by the commands."""
    first, second = (str(cloud.officer_file(name)) for name in ("first", "second"))
    code, out, errors = await cloud.command(
        *("issuer", "issue", "--wallet", wallet, "--amount", str(amount), "--reason", "test"),
        *("--officer-file", first),
    )
    assert code == 0, (out, errors)
    draft = out.split()[1].rstrip(":")
    code, out, errors = await cloud.command("issuer", "approve", draft, "--officer-file", first)
    assert code == 1 and "four-eyes" in errors
    code, out, errors = await cloud.command("issuer", "approve", draft, "--officer-file", second)
    assert code == 0, (out, errors)


async def fund(cloud: CloudProcess, token: str, branch: Branch, key: DeviceKey) -> None:
    """Value for a wallet in a journal, on its way."""
    body = {
        "funding_id": identity(),
        "journal": journal_text(branch.opened.journal.state.journal),
        "offline_wallet": key.text,
        "amount": FUNDS,
    }
    async with cloud.api(token) as holder:
        status, made = await holder.post("/v1/wallets/alice-eur/fundings", body)
        assert (status, made["state"]) == (201, "held"), made


async def account(cloud: CloudProcess) -> dict[str, Any]:
    """Where the euros are."""
    async with cloud.api(cloud.officer("second")) as officer:
        status, found = await officer.get("/v1/issuer/account")
        assert status == 200
        line: dict[str, Any] = found["currencies"][0]
        return line


def balance(branch: Branch, key: DeviceKey) -> tuple[int, int]:
    """(settled, unsettled)."""
    wallet = branch.opened.journal.state.wallets[WalletId(key.public.id)]
    return wallet.settled, wallet.unsettled


@pytest.mark.timeout(180)
async def test_value_goes_from_the_issuer_through_two_branches_and_settles(tmp_path: Path) -> None:
    issuer = LiveIssuer()
    alice, bob, shop = (DeviceKey(bytes([number]) * 32) for number in (1, 2, 3))
    async with running_cloud(tmp_path / "cloud") as cloud:
        for name in ("one", "two"):
            await enrol(cloud, tmp_path / name, await add_gateway(cloud, name))
        tokens = await open_wallets(cloud, "alice")
        await issue(cloud, "alice-eur", ISSUED)
        async with (
            running(config_of(tmp_path / "one"), issuer) as one,
            running(config_of(tmp_path / "two"), issuer) as two,
            Client(await one.terminal()) as first,
            Client(await two.terminal()) as second,
        ):
            for branch, http, key, tier in (
                (one, Http(first), alice, 1),
                (one, Http(first), bob, 1),
                (two, Http(second), shop, 2),
            ):
                body = {"device": {"key": to_text(key.public.cose_key), "tier": tier}}
                status, _ = await http.post("/v1/wallets", body)
                assert status == 202
                await synchronise(branch)
            await fund(cloud, tokens["alice"], one, alice)
            await synchronise(one)
            assert balance(one, alice) == (FUNDS, 0)

            # The cloud is gone: inside the branch, and to the other branch by a note.
            assert await cloud.stop() == 0
            result, _ = await one.daemon.sync_now()
            assert result == "failed"
            status, paid = await Http(first).pay(one.order(alice, bob.public.id, 1_250))
            assert status == 201, paid
            there = two.opened.journal.state.journal
            order = one.order(alice, shop.public.id, 4_200, payee_journal=there)
            status, paid = await Http(first).pay(order)
            assert status == 201, paid
            note = {"entry": paid["entry"], "receipt": paid["receipt"]}
            status, redeemed = await Http(second).post("/v1/notes", note)
            assert status == 201, redeemed
            assert balance(two, shop) == (0, 4_200)

            # It comes back on the ports that it had; the payee's branch is heard first.
            await cloud.start()
            for branch in (two, one, two):
                await synchronise(branch)
            assert balance(one, alice) == (FUNDS - 1_250 - 4_200, 0)
            assert balance(one, bob) == (1_250, 0)
            assert balance(two, shop) == (4_200, 0)
        line = await account(cloud)
        assert (line["issued"], line["difference"]) == (ISSUED, 0)
        assert (line["online"], line["offline"]) == (ISSUED - FUNDS, FUNDS)
        assert (line["in_transit"], line["suspense"], line["loss"]) == (0, 0, 0)
        code, out, errors = await cloud.command("status")
        assert (code, "adds up" in out) == (0, True), errors
