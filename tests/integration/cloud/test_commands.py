"""The commands of `cbdc-cloud`: exit codes, files and what they print."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.support.branch import Command
from tests.support.cloud_process import CloudProcess, running_cloud


async def test_a_cloud_that_was_not_made_or_does_not_run_says_so(tmp_path: Path) -> None:
    cloud = CloudProcess(tmp_path / "cloud")
    cloud.folder.mkdir()
    code, _, errors = await cloud.command("run")
    assert (code, "not-initialised" in errors) == (4, True)
    code, _, errors = await cloud.command("status")
    assert (code, "not-running" in errors) == (1, True)
    for arguments in ((), ("nothing",), ("gateway", "add")):
        assert (await cloud.command(*arguments))[0] == 2
    code, _, errors = await cloud.command("--set", "nonsense", "init")
    assert (code, "config-invalid" in errors) == (1, True)


@pytest.mark.timeout(300)
async def test_commands_work_beside_a_running_cloud(tmp_path: Path) -> None:
    async with running_cloud(tmp_path / "cloud") as cloud:
        before = cloud.officer("first")
        assert stat.S_IMODE(cloud.officer_file("first").stat().st_mode) == 0o600
        first, second = (str(cloud.officer_file(name)) for name in ("first", "second"))
        token = tmp_path / "bank.token"
        holder = ("issuer", "holder", "--name", "bank", "--wallet", "bank-eur")
        code, out, errors = await cloud.command(
            *holder, "--officer-file", first, "--token-file", str(token)
        )
        assert (code, "bank-eur" in out) == (0, True), errors
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        draft = ("--wallet", "bank-eur", "--amount", "1000", "--reason", "test")
        code, out, _ = await cloud.command("issuer", "issue", *draft, "--officer-file", first)
        number = out.split()[1].rstrip(":")
        code, out, _ = await cloud.command("issuer", "drafts", "--officer-file", second)
        assert (code, number in out) == (0, True)
        code, out, _ = await cloud.command("issuer", "approve", number, "--officer-file", second)
        assert (code, out) == (0, "issue of 10.00 EUR: posted\n")
        code, out, _ = await cloud.command("status")
        assert (code, out.startswith("EUR: issued 10.00 = online 10.00")) == (0, True)
        code, out, _ = await cloud.command("status", "--json")
        assert json.loads(out)["currencies"][0]["difference"] == 0
        enrol = tmp_path / "enrol.token"
        add = ("gateway", "add", "--name", "one", "--token-file", str(enrol))
        assert (await cloud.command(*add))[0] == 0
        # A token is never written over.
        assert (await cloud.command(*add))[0] == 1
        for command in (("gateway", "list"), ("reconcile",)):
            assert await cloud.command(*command) == (0, "", "")
            code, out, _ = await cloud.command(*command, "--json")
            assert list(json.loads(out).values()) == [[]]
        await _check_officers(cloud, tmp_path)
        # The folder's database is the running cloud's.
        code, _, errors = await cloud.command("migrate")
        assert (code, "database-in-use" in errors) == (1, True)
        assert await cloud.stop() == 0
        code, _, errors = await cloud.command("status")
        assert (code, "cloud-silent" in errors) == (1, True)
        assert (await cloud.command("migrate"))[0] == 0
        assert (await cloud.command("init"))[0] == 0
        assert cloud.officer("first") == before


async def _check_officers(cloud: CloudProcess, folder: Path) -> None:
    """A third person makes a token, and the first two admins let that person in."""
    first, second = (str(cloud.officer_file(name)) for name in ("first", "second"))
    own = folder / "third.token"
    code, out, _ = await cloud.command("issuer", "token", "--token-file", str(own))
    assert (code, stat.S_IMODE(own.stat().st_mode)) == (0, 0o600)
    hashed = out.splitlines()[-1]
    wanted = ("--name", "third", "--role", "auditor", "--token-hash", hashed)
    code, out, errors = await cloud.command("issuer", "officer", *wanted, "--officer-file", first)
    assert code == 0, errors
    draft = out.split()[1].rstrip(":")
    approve = ("issuer", "approve-officer", draft, "--officer-file")
    code, _, errors = await cloud.command(*approve, first)
    assert (code, "four-eyes" in errors) == (1, True)
    # Whoever approves sees the hash, and asks the third person for it.
    code, out, _ = await cloud.command("issuer", "officers", "--officer-file", second)
    assert f"draft {draft}: third: auditor, token {hashed}" in out.splitlines()
    assert (await cloud.command(*approve, second))[:2] == (0, "third: auditor\n")
    code, out, _ = await cloud.command("issuer", "officers", "--officer-file", second)
    assert [line.split(":")[0] for line in out.splitlines()] == ["first", "second", "third"]
    async with cloud.api(own.read_text()) as api:
        assert (await api.get("/v1/issuer/audit"))[0] == 200


@pytest.mark.timeout(300)
async def test_two_officers_close_a_gateway_by_commands(tmp_path: Path) -> None:
    async with running_cloud(tmp_path / "cloud") as cloud:
        first, second = (
            ("--officer-file", str(cloud.officer_file(name))) for name in ("first", "second")
        )
        token, folder = tmp_path / "enrol.token", tmp_path / "north"
        assert (
            await cloud.command(
                *("gateway", "add", "--name", "north", "--allow-software"),
                *("--token-file", str(token)),
            )
        )[0] == 0
        journal = await provisioned(cloud, folder, token)

        async def done(*arguments: str) -> str:
            code, out, errors = await cloud.command("gateway", *arguments)
            assert code == 0, errors
            return out

        close = ("close", journal, "--cause", "lost", "--reason", "stolen", *first)
        closure = (await done(*close)).split()[1].rstrip(":")
        assert "draft" in await done("closures", *second)
        assert ": closed  claims until" in await done("approve", closure, *second)
        assert "carried 0 of 0 wallets" in await done("claims", closure, *first)
        receipts = tmp_path / "receipts"
        receipts.mkdir()
        (receipts / "one.json").write_text('{"entry": "AA", "receipt": "AA"}\n')
        out = await done("claims", "--receipts", str(receipts), *first)
        assert out == "receipt 1: invalid\n"
        (receipts / "two.json").write_text("nonsense")
        for wrong in (("--receipts", str(receipts)), ()):
            code, _, errors = await cloud.command("gateway", "claims", *wrong, *first)
            assert (code, "claims-unnamed" in errors or "receipt-unreadable" in errors) == (1, True)
        statement = ("statement", closure, "--hosted", "online", *first)
        code, _, errors = await cloud.command("gateway", *statement)
        assert (code, "claims-open" in errors) == (1, True)
        for verb in ("sign", "judged"):
            code, _, errors = await cloud.command("gateway", verb, "0" * 64, *second)
            assert (code, "statement-unknown" in errors) == (1, True)
        out = await done("successor", closure, "--token-file", str(tmp_path / "next"), *first)
        assert "good for one gateway" in out


async def provisioned(cloud: CloudProcess, folder: Path, token: Path) -> str:
    """A gateway that enrolled with a token; its journal."""
    ports = json.loads((cloud.folder / "ports.json").read_text())
    command = Command(folder)
    where = ("--cloud", f"https://127.0.0.1:{ports['gateway_port']}")
    authority = ("--cloud-ca", str(cloud.folder / "transport-ca.pem"))
    code, out, errors = await command.edge(
        "provision", *where, *authority, "--token-file", str(token)
    )
    assert code == 0, errors
    code, out, _ = await command.edge("key", "show", "--json")
    journal: str = json.loads(out)["journal"]
    return journal
