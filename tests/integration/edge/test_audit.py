"""Every act of a technician, use of a key and change of state is in the audit log, and it holds."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.config import SyncConfig
from edge.errors import DaemonRefused
from edge.http.types import GatewayAnswer
from edge.local_client import LocalClient
from edge.observing import Observing
from sync.machine import State
from tests.integration.edge.conftest import Template
from tests.support.branch import Command
from tests.support.branch_local import Branch, Http, config_of, copied, running
from tests.support.live_issuer import public_key
from wallet.journal import Journal
from wallet.store.audit import page_audit
from wallet.store.connection import Connection

WAIT_S = 20


async def rows(branch: Branch) -> list[tuple[str, dict[str, Any]]]:
    """Actions with their details."""
    found = await branch.opened.database.read(lambda c: page_audit(c, 0, 10_000))
    return [(row.action, json.loads(row.details)) for row in found]


async def wait_for(branch: Branch, action: str, check: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for a row."""
    async with asyncio.timeout(WAIT_S):
        while not any(name == action and check(told) for name, told in await rows(branch)):
            await asyncio.sleep(0.05)


ACTS = [
    ("POST", "/pairing", {}, "done"),
    ("POST", "/pairing/confirm", {"sas": "AAAA-AAAA"}, "pairing-refused"),
    ("DELETE", "/pairing", None, "done"),
    ("DELETE", "/terminals/nobody", None, "terminal-unknown"),
    ("POST", "/sync", {}, "done"),
    ("POST", "/reload", {}, "done"),
    ("POST", "/wallets", {"pin": "2580", "tier": 1}, "done"),
    ("POST", "/wallets", {"pin": "x"}, "body-invalid"),
]


@pytest.mark.parametrize(("method", "path", "body", "outcome"), ACTS)
async def test_an_act_on_the_local_socket_leaves_a_row_also_when_it_was_refused(
    branch: Branch, method: str, path: str, body: dict[str, Any] | None, outcome: str
) -> None:
    client = LocalClient(branch.folder)
    try:
        await client.call(method, path, msgspec.Raw, body=body)
    except DaemonRefused as refused:
        assert refused.problem == outcome
    acts = [told for action, told in await rows(branch) if action.startswith("technician ")]
    assert [told["outcome"] for told in acts] == [outcome]
    assert acts[0]["user"] == branch.folder.socket.stat().st_uid


async def test_looking_leaves_no_row(branch: Branch) -> None:
    await LocalClient(branch.folder).call("GET", "/status", GatewayAnswer)
    assert not [action for action, _ in await rows(branch) if action.startswith("technician ")]


async def test_a_start_tells_which_keys_came_into_use_and_what_was_configured(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    async with copied(template.folder, folder, template.issuer) as branch:
        told = dict(await rows(branch))
        assert told["gateway.opened"]["token"] == "opened"
        assert told["gateway.opened"]["store_key"] == "unsealed"
        assert told["settings.used"]["changed"] is None
    config = config_of(folder, sync=SyncConfig(interval_s=7))
    async with running(config, template.issuer) as branch:
        actions = [action for action, _ in await rows(branch)]
        assert actions[-3:] == ["gateway.closed", "settings.used", "gateway.opened"]
        assert (await rows(branch))[-2][1]["changed"] == "sync.interval_s: 86400 -> 7"


async def test_a_token_that_goes_and_comes_back_leaves_rows(branch: Branch) -> None:
    path = branch.folder.token / "token.sealed"
    aside = path.with_name("aside")
    path.rename(aside)
    await wait_for(branch, "gateway.mode", lambda told: told["token"] == "gone")
    aside.rename(path)
    await wait_for(branch, "gateway.mode", lambda told: told["token"] == "answers")


async def test_a_gateway_that_does_not_open_tells_it_once_it_does(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    command = Command(folder)
    command.environment["CBDC_EDGE_PASSPHRASE"] = "wrong"
    assert (await command.edge("run"))[0] == 1
    command.environment["CBDC_EDGE_PASSPHRASE"] = "correct horse"
    assert (await command.edge("key", "show"))[0] == 0
    async with running(config_of(folder), template.issuer) as branch:
        actions = [action for action, told in await rows(branch) if told.get("waited")]
        assert actions == ["token.refused", "technician key show"]


async def test_clock_certificate_and_suspension_leave_rows_when_they_change(
    branch: Branch,
) -> None:
    opened, now = branch.opened, branch.daemon.context.gateway.clock.now_ms()
    observing = Observing(opened.journal, opened.hosted, opened.audit)
    observing.look(State.IDLE)
    opened.journal._clock.raise_floor(now + 3_600_000)
    await renew(branch, opened.journal)
    observing.look(State.SUSPENDED)
    observing.look(State.SUSPENDED)
    opened.journal._clock.floor_ms = 0
    observing.look(State.OFFLINE)
    await opened.audit.record("end")
    told = [action for action, _ in await rows(branch)]
    wanted = ["clock.uncertain", "key.certified", "connectivity.suspended"]
    assert [action for action in wanted if told.count(action) >= 1] == wanted
    assert told[-3:] == ["clock.sure", "connectivity.resumed", "end"]


async def renew(branch: Branch, journal: Journal) -> None:
    """A certificate of the same key, good for longer."""
    signer, state = branch.opened.token.signer, journal.state
    public = public_key(int(signer.algorithm), signer.public_key)
    leaf = branch.issuer.leaf(public, state.journal, state.epoch, days=28)
    await journal.renew((leaf, branch.issuer.sub))


async def test_uses_of_hosted_keys_are_counted_and_no_payment_has_a_row(
    branch: Branch, http: Http
) -> None:
    status, made = await http.post("/v1/wallets", {"hosted": {"pin": "2580", "tier": 1}}, key=True)
    assert status == 202
    await branch.opened.audit.record("before")
    before = len(await rows(branch))
    body = {"hosted": {"wallet": made["wallet"], "amount": 5, "currency": "EUR"}}
    assert (await http.post("/v1/requests", body, key=True))[0] == 201
    assert len(await rows(branch)) == before
    await branch.opened.prune(branch.daemon.context.gateway.clock.now_ms())
    await branch.opened.audit.record("after")
    assert ("hosted.keys-used", {"requests": 1}) in await rows(branch)
    assert ("wallet.wished", {"hosted": True, "tier": 1, "wallet": made["wallet"]}) in await rows(
        branch
    )


async def test_the_command_prints_the_log_and_says_which_row_was_changed(branch: Branch) -> None:
    command = Command(branch.folder.root)
    assert (await command.edge("device", "revoke", "nobody"))[0] == 1
    code, out, _ = await command.edge("audit")
    assert (code, "technician DELETE /terminals/{terminal}" in out) == (0, True)
    code, out, _ = await command.edge("audit", "--json", "--after", "1")
    printed = json.loads(out)["rows"]
    assert (printed[0]["seq"], printed[-1]["details"]["terminal"]) == (2, "nobody")
    code, out, _ = await command.edge("audit", "--verify")
    head = f"{printed[-1]['seq']}:{printed[-1]['hash']}"
    assert (code, head in out) == (0, True)
    assert (await command.edge("audit", "--head", head))[0] == 0
    code, _, errors = await command.edge("audit", "--head", "1:" + "00" * 32)
    assert (code, "row 1 " in errors) == (1, True)
    assert (await command.edge("audit", "--head", "nonsense"))[0] == 2

    def change(connection: Connection) -> None:
        connection.execute("UPDATE audit SET action = 'nothing' WHERE seq = 2")

    await branch.opened.database.write(change)
    code, _, errors = await command.edge("audit", "--verify")
    assert (code, "row 2 of the audit log was changed" in errors) == (1, True)
    code, out, _ = await command.edge("audit", "--verify", "--json")
    assert (code, "row 2" in json.loads(out)["finding"]) == (1, True)


async def test_odd_questions_to_the_log_are_refused(branch: Branch) -> None:
    client = LocalClient(branch.folder)
    for path in ("/audit?after=x", "/audit/check?head=x"):
        with pytest.raises(DaemonRefused) as refused:
            await client.call("GET", path, msgspec.Raw)
        assert refused.value.problem == "parameter-invalid"
