"""Grants that a restored issuer forgot are closed by two officers: nothing is created or lost."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.database import Database
from cloud.wallets import open_wallet
from tests.support.cloud_commands import Commands
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.cloud_process import Api
from tests.support.issuer import Key
from tests.support.postgres import CONFIG, Server
from tests.support.reporting import SUPPLY, Branch, open_bank, reconciler, where
from tests.support.world import NOW_MS
from wallet.protocol.ids import journal_text, wallet_text

ANNA = Key("anna")
GRANTED = 1_000
PATH = "/v1/issuer/lost-grants"


@pytest.fixture
async def north(postgres: Server) -> AsyncIterator[Branch]:
    """A journal with a grant that is in the books of another issuer's life."""
    name = await postgres.create()
    newer = await Database.connect(postgres.dsn(name), config=CONFIG)
    await open_bank(newer)
    branch = Branch("north")
    branch.enrol(ANNA)
    await branch.fund(newer, ANNA, GRANTED)
    yield branch
    await newer.close()
    await postgres.drop(name)


@pytest.fixture
async def cloud(database: Database, tmp_path: Path, north: Branch) -> AsyncIterator[LocalCloud]:
    """The issuer as the backup has it, once the journal has told it of the grant."""
    await open_bank(database)
    await north.sync(reconciler(database))
    assert (await where(database)).suspense == -GRANTED
    async with local_cloud(database, tmp_path) as opened:
        yield opened


@pytest.fixture
async def officers(cloud: LocalCloud) -> AsyncIterator[tuple[Api, Api]]:
    """Two of them."""
    async with (
        cloud.api(await cloud.officer("first")) as one,
        cloud.api(await cloud.officer("second")) as other,
    ):
        yield one, other


def body(branch: Branch, **changed: Any) -> dict[str, Any]:
    """What an officer proposes: all of it out of the bank's wallet."""
    given = {"journal": journal_text(branch.book.journal), "epoch": 1, "sequence": 0}
    given |= {"wallet": "bank", "taken": GRANTED, "reason": "paid by the bank"}
    return {"draft_id": secrets.token_hex(32), **given, **changed}


async def closed(officers: tuple[Api, Api], draft: dict[str, Any]) -> Any:
    """Two officers close it."""
    first, second = officers
    assert (await first.post(f"{PATH}/closings", draft))[0] == 201
    one = f"{PATH}/closings/{draft['draft_id']}/approve"
    assert (await first.post(one, {}))[1]["code"] == "four-eyes"
    for _ in range(2):
        status, made = await second.post(one, {})
        assert status == 201, made
    return made


@pytest.mark.parametrize(
    ("source", "online", "loss"),
    [
        ({}, SUPPLY - GRANTED, 0),
        ({"taken": 400}, SUPPLY - 400, -600),
        ({"wallet": None, "taken": 0}, SUPPLY, -GRANTED),
    ],
    ids=["wallet", "both", "loss"],
)
async def test_the_value_comes_out_of_the_wallet_that_paid_or_is_the_issuer_s_loss(
    database: Database,
    north: Branch,
    officers: tuple[Api, Api],
    source: dict[str, Any],
    online: int,
    loss: int,
) -> None:
    _, page = await officers[0].get(PATH)
    (line,) = page["grants"]
    assert (line["amount"], line["closed"]) == (GRANTED, False)
    assert line["offline_wallet"] == wallet_text(ANNA.public.id)
    assert (await officers[0].get(f"{PATH}?first=1"))[1] == {"grants": []}
    made = await closed(officers, body(north, **source))
    assert made["state"] == "approved"
    found = await where(database)
    assert (found.offline, found.suspense, found.in_transit) == (GRANTED, 0, 0)
    assert (found.online, found.loss) == (online, loss)
    _, page = await officers[0].get(PATH)
    assert [line["closed"] for line in page["grants"]] == [True]
    _, page = await officers[0].get("/v1/issuer/journals")
    assert [line["lost_grants"] for line in page["journals"]] == [0]
    # Once is enough: another draft cannot close it again.
    draft = body(north)
    await officers[0].post(f"{PATH}/closings", draft)
    status, problem = await officers[1].post(f"{PATH}/closings/{draft['draft_id']}/approve", {})
    assert (status, problem["code"]) == (409, "grant-closed-already")
    assert (await where(database)).suspense == 0


async def test_what_cannot_close_a_grant_is_named(
    database: Database, north: Branch, officers: tuple[Api, Api]
) -> None:
    async with database.transaction() as connection:
        for wallet, currency in (("poor", "EUR"), ("swiss", "CHF")):
            await open_wallet(connection, wallet, holder="x", currency=currency, now_ms=NOW_MS)
    first, second = officers
    for changed, code in (
        ({"taken": GRANTED + 1}, "closing-invalid"),
        ({"taken": 0}, "closing-invalid"),
        ({"wallet": None}, "closing-invalid"),
        ({"wallet": "swiss"}, "closing-invalid"),
        ({"wallet": "nobody"}, "unknown-wallet"),
        ({"sequence": 7}, "grant-unknown"),
    ):
        _, problem = await first.post(f"{PATH}/closings", body(north, **changed))
        assert problem["code"] == code, changed
    draft = body(north, wallet="poor")
    assert (await first.post(f"{PATH}/closings", draft))[0] == 201
    one = f"{PATH}/closings/{draft['draft_id']}"
    assert (await second.post(f"{one}/approve", {}))[1]["code"] == "insufficient-funds"
    assert (await second.post(f"{one}/reject", {}))[1]["state"] == "rejected"
    assert (await first.get(f"{PATH}/closings"))[1] == {"closings": []}
    async with database.transaction() as connection:
        assert await connection.fetchval(
            "SELECT array_agg(balance) FROM ledger_account WHERE kind = 'suspense'"
        ) == [-GRANTED]


async def test_two_officers_close_a_grant_by_commands(
    database: Database, cloud: LocalCloud, north: Branch
) -> None:
    commands = await Commands.by(cloud, "ada", "bob")
    text = journal_text(north.book.journal)
    grant = ("issuer", "close-grant", text, "1", "0", "--reason", "found")
    out = await commands.typed("ada", *grant, "--wallet", "bank", "--taken", "900")
    draft = out.split()[1].rstrip(":")
    await commands.typed("ada", *grant)
    out = await commands.typed("bob", "issuer", "lost-grants")
    lines = out.splitlines()
    assert lines[0] == f"{text}  epoch 1  grant 0  1000 EUR  to {wallet_text(ANNA.public.id)}  open"
    assert any(line.endswith("900 out of bank  found") for line in lines[1:])
    assert any(line.endswith("all of it the issuer's loss  found") for line in lines[1:])
    out = await commands.typed("bob", "issuer", "approve-grant", draft)
    assert out == f"{text}  epoch 1  grant 0  900 out of bank: closed\n"
    assert (await commands.typed("bob", "issuer", "lost-grants")).splitlines()[0].endswith("closed")
    found = await where(database)
    assert (found.suspense, found.loss, found.online) == (0, -100, SUPPLY - 900)
