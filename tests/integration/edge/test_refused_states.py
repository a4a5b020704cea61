"""A gateway that takes nothing now says why and when to ask again, whatever a terminal brings."""

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest

from edge.folder import Folder
from edge.health import gateway_answer
from edge.log import JsonLines
from edge.pos.client import Client
from edge.wishes import KIND as WISH_KIND
from edge.wishes import WISHES_MAX, Wish
from hsm import software
from tests.integration.edge.conftest import Template
from tests.support.branch_local import PASSPHRASE, Branch, config_of, running
from tests.support.refusals import (
    AMOUNT,
    Call,
    Expected,
    answer_of,
    check_line,
    check_problem,
    logged,
    pay,
    taken,
)
from wallet.protocol.entry import Payment
from wallet.protocol.messages import decode_order
from wallet.protocol.refusals import Code, Refusal
from wallet.store.connection import Connection
from wallet.store.errors import Tampered

Spoil = Callable[[Template, Branch], Awaitable[None]]


async def revoke(template: Template, branch: Branch) -> None:
    """The issuer revokes this journal."""
    state = branch.opened.journal.state
    await taken(branch, template.issuer.list(1, [[state.journal, state.epoch]], sequence=1))


async def pull_the_token(template: Template, branch: Branch) -> None:
    """The key's file is gone, and the supervision has noticed."""
    (branch.folder.token / software.FILE_NAME).unlink()
    await branch.opened.journal.probe()


async def tamper(template: Template, branch: Branch) -> None:
    """A page of the store fails its check under a commit."""

    def fails(connection: Connection) -> None:
        raise Tampered("page 9")

    payment = Payment(order=decode_order(order_of(template, branch)), request=None)
    outcome = await branch.opened.journal.pay_decoded(payment, with_commit=fails)
    assert isinstance(outcome, Refusal)


def order_of(template: Template, branch: Branch) -> bytes:
    """An order that an open gateway would take."""
    return branch.order(template.keys["alice"], template.keys["shop"].public.id, AMOUNT)


SPOILT = [
    (Code.FROZEN_BY_ISSUER, revoke),
    (Code.SEALED, pull_the_token),
    (Code.FROZEN_TAMPER, tamper),
]


@pytest.mark.parametrize(("code", "spoil"), SPOILT)
async def test_a_gateway_that_stopped_refuses_by_its_mode(
    branch: Branch,
    template: Template,
    caplog: pytest.LogCaptureFixture,
    code: Code,
    spoil: Spoil,
) -> None:
    async with Client(await branch.terminal()) as client:
        await spoil(template, branch)
        assert str(branch.opened.journal.mode) == code
        await check_stopped(template, branch, client, caplog, code=code)


async def test_a_store_that_was_rolled_back_refuses_by_its_mode(
    template: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    token = await software.open_token(Folder(folder).token, passphrase=PASSPHRASE)
    for _ in range(2):
        await token.counter.increment()
    await token.close()
    async with (
        running(config_of(folder), template.issuer) as branch,
        Client(await branch.terminal()) as client,
    ):
        told = [json.loads(JsonLines().format(record)) for record in caplog.records]
        await check_stopped(template, branch, client, caplog, code=Code.FROZEN_ROLLBACK)
        status = gateway_answer(branch.daemon.context.gateway, online=False)
    assert (status.mode, status.counter_driver) == (Code.FROZEN_ROLLBACK, "software")
    assert "only a new epoch" in str(status.cause)
    (line,) = [line for line in told if line["action"] == "gateway.frozen"]
    said = (line["level"], line["mode"], line["cause"])
    assert said == ("warning", Code.FROZEN_ROLLBACK, status.cause)


async def check_stopped(
    template: Template,
    branch: Branch,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    *,
    code: Code,
) -> None:
    """An order is refused by the code; what stood before stands."""
    session, state = client._session, branch.opened.journal.state
    assert session is not None
    before = (state.size, state.balance_total())
    case = Expected(code=code, waits=True)
    call = pay(order_of(template, branch))
    answer, lines = await logged(caplog, answer_of(session, call))
    assert (state.size, state.balance_total()) == before
    check_problem(answer, case, inside=str(branch.folder.root))
    check_line(lines, action="request.refused", code=code)
    ready = await answer_of(session, Call(method="GET", path="/readyz"))
    assert (ready.status, json.loads(ready.text)["code"]) == (503, code)
    assert ready.retry_after is not None


async def test_a_gateway_that_is_not_provisioned_refuses_anybody(
    template: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = Expected(code=Code.NOT_PROVISIONED, waits=True)
    async with (
        running(config_of(tmp_path / "new"), template.issuer) as branch,
        aiohttp.ClientSession(f"https://127.0.0.1:{branch.ports['port']}") as session,
    ):
        call = Call(path="/v1/payments", body={})
        answer, lines = await logged(caplog, answer_of(session, call, ssl=False))
        check_problem(answer, case, inside=str(tmp_path))
        check_line(lines, action="request.refused", code=case.code, terminal=None)


async def test_a_gateway_with_too_many_wishes_is_busy(
    template: Template, branch: Branch, caplog: pytest.LogCaptureFixture
) -> None:
    def fill(connection: Connection) -> None:
        for number in range(WISHES_MAX):
            wish = Wish(key=b"%d" % number, tier=1, label=None, hosted=False)
            row = (WISH_KIND, number, msgspec.msgpack.encode(wish))
            connection.execute("INSERT INTO objects VALUES (?, ?, ?)", row)

    await branch.opened.database.write(fill)
    case = Expected(code=Code.BUSY, waits=True)
    call = Call(path="/v1/wallets", body={"hosted": {"pin": "2580"}}, keyed=True)
    async with Client(await branch.terminal()) as client:
        assert client._session is not None
        answer, lines = await logged(caplog, answer_of(client._session, call))
    check_problem(answer, case, inside=str(branch.folder.root))
    check_line(lines, action="request.refused", code=case.code)


CODES = {
    *[code for code, _ in SPOILT],
    Code.FROZEN_ROLLBACK,
    Code.NOT_PROVISIONED,
    Code.BUSY,
}
