"""Other keys for the branch's network: terminals that are paired go on until their time is over."""

import shutil
from pathlib import Path

import msgspec
import pytest

from edge.authority import authority_bundle, server_certificate, server_context, spki
from edge.branch_keys import begin_authority
from edge.errors import DaemonRefused, GatewayUnreachable, RotationRefused
from edge.http.local import TerminalView
from edge.http.local_keys import ExchangedAnswer
from edge.local_client import LocalClient
from edge.pos.client import Client
from edge.pos.terminal import Terminal
from tests.integration.edge.test_terminals import Ceremony
from tests.support.branch import Command
from tests.support.branch_local import Branch, Http, config_of, running


async def paired(branch: Branch) -> Terminal:
    """A terminal that went through the whole ceremony."""
    ceremony = Ceremony(branch)
    task = ceremony.terminal(await ceremony.open())
    body = {"sas": await ceremony.shown}
    await ceremony.local.call("POST", "/pairing/confirm", TerminalView, body=body)
    return await task


async def goes_on(branch: Branch, terminal: Terminal) -> bool:
    """Whether a terminal is answered; its port is that of now."""
    there = msgspec.structs.replace(terminal, url=f"https://127.0.0.1:{branch.ports['port']}")
    async with Client(there) as client:
        try:
            status, _ = await Http(client).get("/v1/gateway")
        except GatewayUnreachable:
            return False
    return status == 200


async def rotate(branch: Branch, *words: str) -> str:
    """The command's output."""
    code, out, errors = await Command(branch.folder.root).edge("key", "rotate", *words)
    assert code == 0, errors
    return out


async def test_the_server_s_key_is_exchanged_while_terminals_go_on(branch: Branch) -> None:
    till = await paired(branch)
    before = server_certificate(branch.folder)
    for _ in range(2):
        await rotate(branch, "tls")
        assert await goes_on(branch, till)
    after = server_certificate(branch.folder)
    assert spki(after.public_key()) != spki(before.public_key())
    assert not (branch.folder.tls / "server.key").exists()
    assert await goes_on(branch, await paired(branch))


async def test_the_authority_of_terminals_is_exchanged_one_terminal_after_the_other(
    branch: Branch,
) -> None:
    old, local = await paired(branch), LocalClient(branch.folder)
    assert "pair the terminals again" in await rotate(branch, "terminals")
    new = await paired(branch)
    assert await goes_on(branch, old) and await goes_on(branch, new)
    for body, words in (
        ({"step": "begin"}, "goes on"),
        ({"step": "finish"}, old.terminal),
    ):
        with pytest.raises(DaemonRefused, match=words):
            await local.call("POST", "/keys/authority", ExchangedAnswer, body=body)
    with pytest.raises(DaemonRefused, match="finish the exchange"):
        await local.call("POST", "/keys/server", ExchangedAnswer, body={})
    await branch.opened.terminals.revoke(old.terminal)
    await rotate(branch, "terminals", "--finish")
    assert await goes_on(branch, new)
    assert not await goes_on(branch, old)
    assert len(list(branch.folder.tls.glob("authority*"))) == 2
    with pytest.raises(DaemonRefused, match="was begun"):
        await local.call("POST", "/keys/authority", ExchangedAnswer, body={"step": "finish"})


async def test_a_stolen_authority_is_ended_at_once_by_force(branch: Branch) -> None:
    old = await paired(branch)
    await rotate(branch, "terminals")
    code, _, errors = await Command(branch.folder.root).edge(
        "key", "rotate", "terminals", "--force"
    )
    assert (code, "--finish" in errors) == (2, True)
    await rotate(branch, "terminals", "--finish", "--force")
    assert not await goes_on(branch, old)
    assert await goes_on(branch, await paired(branch))


async def test_an_exchange_that_was_cut_off_anywhere_is_finished_by_asking_again(
    branch: Branch, tmp_path: Path
) -> None:
    folder, sealer = branch.folder, branch.opened.token.sealer
    await begin_authority(folder, sealer, branch.opened.database, now_ms=1)
    with pytest.raises(RotationRefused):
        await begin_authority(folder, sealer, branch.opened.database, now_ms=1)
    await rotate(branch, "terminals", "--finish", "--force")
    finished = sorted(folder.tls.iterdir())
    kept = {path.name: path.read_bytes() for path in finished}
    # As a crash leaves it after the server's file, and after each file of the authority.
    await begin_authority(folder, sealer, branch.opened.database, now_ms=2)
    (tmp_path / "tls").mkdir()
    for path in folder.tls.iterdir():
        shutil.copy2(path, tmp_path / "tls" / path.name)
    await rotate(branch, "terminals", "--finish", "--force")
    done = {path.name: path.read_bytes() for path in folder.tls.iterdir()}
    assert done.keys() == kept.keys()
    written: list[str] = []
    for name in ("server.pem", "authority.key.sealed", "authority.crt"):
        written.append(name)
        for path in (tmp_path / "tls").iterdir():
            shutil.copy2(path, folder.tls / path.name)
        for cut in written:
            (folder.tls / cut).write_bytes(done[cut])
        server_context(folder, clients=True)
        assert authority_bundle(folder).count(b"BEGIN CERTIFICATE") == 2
        await rotate(branch, "terminals", "--finish", "--force")
        assert await goes_on(branch, await paired(branch))


async def test_a_gateway_starts_again_on_exchanged_keys(branch: Branch) -> None:
    till = await paired(branch)
    await rotate(branch, "tls")
    branch.daemon.stop()
    await branch.ended()
    async with running(config_of(branch.folder.root), branch.issuer) as again:
        assert await goes_on(again, till)
    code, out, _ = await Command(branch.folder.root).edge("doctor", "--offline")
    assert (code, "the server's certificate is good until" in out) == (3, True)
