"""The commands `cbdc-pos` and `cbdc-edge` against a running gateway, as people use them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from edge.pos.purse import DeviceKey, Purse
from tests.integration.edge.conftest import Template
from tests.support.branch import Command
from tests.support.branch_local import Branch
from wallet.protocol.keys import from_cose_key


class Till:
    """A paired folder with the keys of alice, bob and the shop."""

    def __init__(self, branch: Branch, folder: Path, purse: Purse) -> None:
        self.branch = branch
        self.folder = folder
        self.purse = purse
        self.command = Command(branch.folder.root)

    async def pos(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """`cbdc-pos` in this folder."""
        return await self.command.run(
            "edge.pos.cli", "--folder", str(self.folder), *arguments, stdin=stdin
        )

    async def edge(self, *arguments: str) -> tuple[int, str, str]:
        """`cbdc-edge` on the gateway."""
        return await self.command.edge(*arguments)

    def file(self, name: str, content: str) -> str:
        """A file with a content; its path."""
        path = self.folder / name
        path.write_text(content)
        return str(path)


@pytest.fixture
async def till(branch: Branch, template: Template, tmp_path: Path) -> AsyncIterator[Till]:
    """A till beside a running gateway."""
    folder = tmp_path / "till"
    (await branch.terminal()).save(folder)
    purse = Purse.open(folder)
    seeds = {name: key.seed for name, key in template.keys.items()}
    names = ("alice", "bob", "shop")
    content = {name: DeviceKey(seeds[name]) for name in names}
    purse.keys |= content
    purse.create("newcomer")
    yield Till(branch, folder, purse)


async def test_a_payment_is_made_kept_verified_and_given_back(till: Till) -> None:
    receipts, root = till.folder / "receipts", till.folder / "root.der"
    root.write_bytes(till.branch.issuer.root)
    pay = ("pay", "--from", "alice", "--to", "shop", "--amount", "12.34", "--reference", "r 1")
    code, out, errors = await till.pos(*pay, "--receipts", str(receipts))
    assert code == 0, errors
    payment = out.split()[0]
    (path,) = receipts.iterdir()
    code, out, _ = await till.pos("verify", str(path), "--root", str(root))
    assert (code, "valid: 12.34 EUR from wal1" in out) == (0, True)
    held = json.loads(path.read_text())
    broken = till.file("broken.json", json.dumps({**held, "entry": held["entry"][:-2] + "AA"}))
    code, out, _ = await till.pos("verify", broken, str(path), "--root", str(root))
    assert (code, "NOT valid" in out, "proof-invalid" in out) == (1, True, True)
    code, out, errors = await till.pos("refund", payment, "--from", "shop", "--amount", "2.34")
    assert code == 0, errors
    code, _, errors = await till.pos("refund", payment, "--from", "shop")
    assert (code, "refund-above-payment" in errors) == (1, True)
    code, out, _ = await till.pos("wallet", "show", "alice")
    assert "balance 990.00 EUR" in out and "payment_max" in out
    code, out, _ = await till.pos("wallet", "statement", "shop")
    assert "refund" in out and "-2.34" in out
    for command in (("wallet", "show", "alice"), ("wallet", "statement", "shop")):
        code, out, _ = await till.pos(*command, "--json")
        assert (code, json.loads(out)["currency"]) == (0, "EUR")
    code, _, errors = await till.pos("refund", payment)
    assert (code, "--from" in errors) == (2, True)
    code, out, _ = await till.pos(*pay, "--json")
    assert json.loads(out)["state"] == "accepted"


async def test_rows_of_a_file_are_paid_and_refusals_do_not_stop_them(till: Till) -> None:
    rows = till.file(
        "rows.csv", "from,to,amount\nalice,shop,1.00\nalice,shop,600.00\nalice,bob,2.00\n"
    )
    code, out, errors = await till.pos("pay", "--file", rows)
    assert code == 1
    assert out.count("accepted") == 2
    assert "payment-above-limit" in errors and "limit 50000" in errors
    code, _, errors = await till.pos(
        "pay", "--file", "-", stdin=b'{"from":"alice","to":"nobody","amount_minor":5}\n'
    )
    assert (code, "nobody" in errors) == (1, True)
    code, _, errors = await till.pos("pay", "--from", "alice")
    assert (code, "--to" in errors) == (2, True)


async def test_a_request_is_shown_and_paid_by_its_code(till: Till) -> None:
    code, out, errors = await till.pos("request", "--wallet", "shop", "--amount", "3.50")
    assert code == 0, errors
    qr = out.strip("\n")
    code, _, errors = await till.pos("pay", "--request", qr)
    assert (code, "--from" in errors) == (2, True)
    code, out, errors = await till.pos("pay", "--request", qr, "--from", "alice")
    assert (code, "accepted" in out) == (0, True), errors
    code, _, errors = await till.pos("pay", "--request", qr, "--from", "bob")
    assert (code, "request-paid" in errors) == (1, True)
    for text in ("nothing", "CBDC1:00"):
        code, _, errors = await till.pos("pay", "--request", text, "--from", "bob")
        assert (code, "edge-file-unreadable" in errors) == (1, True)
    code, out, _ = await till.pos("request", "--wallet", "shop", "--amount", "1", "--json")
    assert json.loads(out)["state"] == "open"


async def test_a_hosted_wallet_is_made_and_used_from_the_command_line(till: Till) -> None:
    pin = till.file("pin", "2580\n")
    code, out, errors = await till.edge("wallet", "create", "--pin-file", pin, "--label", "desk")
    assert (code, "pending" in out) == (0, True), errors
    wallet = out.split()[0]
    code, out, _ = await till.edge("wallet", "create", "--pin-file", pin, "--json")
    assert json.loads(out)["hosted"] is True
    journal = till.branch.opened.journal.state
    for wish in await till.branch.wishes():
        key = from_cose_key(wish.key)
        await till.branch.take(
            till.branch.issuer.enrolment(journal.journal, key),
            till.branch.issuer.grant(journal.journal, key.id, 5_000, sequence=journal.grants_next),
        )
    hosted = ("--hosted", wallet, "--pin-file", pin)
    code, out, errors = await till.pos(
        "pay", *hosted, "--to", till.purse.key("shop").text, "--amount", "5"
    )
    assert code == 0, errors
    code, out, errors = await till.pos("request", "--wallet", wallet, "--amount", "1")
    assert code == 0, errors
    code, paid, errors = await till.pos("pay", "--from", "bob", "--request", out.strip("\n"))
    assert code == 0, errors
    code, out, errors = await till.pos("refund", paid.split()[0], *hosted)
    assert code == 0, errors
    code, out, _ = await till.pos("request", "--wallet", "shop", "--amount", "2")
    code, _, errors = await till.pos("pay", *hosted, "--request", out.strip("\n"))
    assert code == 0, errors
    code, out, _ = await till.edge("wallet", "list")
    assert "hosted" in out and "device" in out
    code, out, _ = await till.edge("wallet", "list", "--json")
    assert len(json.loads(out)["wallets"]) == 7


async def test_wallets_are_made_listed_and_wished_for(till: Till) -> None:
    code, out, _ = await till.pos("wallet", "new", "carol", "dave")
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = await till.pos("wallet", "list")
    assert "carol" in out
    code, out, _ = await till.pos("wallet", "list", "--json")
    assert json.loads(out)["carol"].startswith("wal1")
    code, out, _ = await till.pos("wallet", "enrol", "carol", "dave")
    assert (code, out.count("pending")) == (0, 2)
    code, _, errors = await till.pos("wallet", "enrol", "nobody")
    assert (code, "nobody" in errors) == (1, True)
    code, _, errors = await till.pos("pay", "--from", "newcomer", "--to", "shop", "--amount", "1")
    assert (code, "unknown-wallet" in errors) == (1, True)


async def test_load_measures_and_counts_refusals(till: Till) -> None:
    rows = "".join(f"alice,shop,1\nbob,shop,{1 + 600 * (number // 9)}\n" for number in range(10))
    path = till.file("load.csv", "from,to,amount\n" + rows)
    code, out, errors = await till.pos("load", path, "--connections", "4")
    assert code == 0, errors
    assert "19 of 20 accepted" in out and "payment-above-limit" in out and "p99" in out
    code, out, _ = await till.pos("load", path, "--count", "2", "--json")
    assert json.loads(out)["accepted"] == 2
    code, _, errors = await till.pos("load", path, "--connections", "0")
    assert (code, "--connections" in errors) == (2, True)


async def test_the_technicians_commands_tell_of_the_gateway(till: Till) -> None:
    code, out, _ = await till.edge("status")
    assert (code, "mode          open" in out) == (0, True)
    code, out, _ = await till.edge("status", "--json")
    assert json.loads(out)["mode"] == "open"
    code, out, _ = await till.edge("device", "list")
    assert "till" in out
    code, out, _ = await till.edge("report", "x")
    assert "payment" in out and "amounts in EUR" in out
    code, out, _ = await till.edge("report", "x", "--json")
    assert json.loads(out)["currency"] == "EUR"
    code, out, _ = await till.edge("--set", "sync.url=https://127.0.0.1:1", "doctor")
    assert (code, "counter is a file" in out, "cannot be reached" in out) == (3, True, True)
    code, _, errors = await till.edge("device", "revoke", "nobody")
    assert (code, "terminal-unknown" in errors) == (1, True)
    code, out, _ = await till.edge("device", "revoke", "till")
    assert (code, out) == (0, "revoked: till\n")
    code, out, _ = await till.edge("device", "list", "--json")
    (terminal,) = json.loads(out)["terminals"]
    assert terminal["revoked_ms"] > 0
    code, _, errors = await till.pos("wallet", "show", "alice")
    assert (code, "terminal-revoked" in errors) == (1, True)


async def test_a_technician_who_is_not_there_pairs_nobody(till: Till) -> None:
    process = await till.command.start(
        "edge.cli", "--folder", str(till.branch.folder.root), "device", "pair"
    )
    assert process.stdout is not None
    code = (await process.stdout.readline()).decode().split()[1]
    ports = till.branch.ports
    till.command.environment["CBDC_POS_CODE"] = code
    arguments = [f"https://127.0.0.1:{ports[name]}" for name in ("pairing_port", "port")]
    status, _, errors = await till.pos("pair", *arguments)
    assert (status, "pairing-refused" in errors) == (1, True)
    await process.communicate()
    assert process.returncode == 1
    named = till.file("code", "AAAA-AAAA")
    status, _, errors = await till.pos("pair", *arguments, "--code-file", named)
    assert (status, "pairing-refused" in errors) == (1, True)


async def test_a_till_without_a_gateway_says_so(till: Till, tmp_path: Path) -> None:
    code, _, errors = await till.command.run(
        "edge.pos.cli", "--folder", str(tmp_path / "empty"), "wallet", "show", "x"
    )
    assert (code, "not paired yet" in errors) == (1, True)
    terminal = await till.branch.terminal("second")
    away = tmp_path / "away"
    msgspec.structs.replace(terminal, url="https://127.0.0.1:1").save(away)
    code, _, errors = await till.command.run(
        "edge.pos.cli", "--folder", str(away), "wallet", "show", "x"
    )
    assert (code, "pos-gateway-unreachable" in errors) == (1, True)


async def test_an_amount_that_its_currency_does_not_have_is_a_mistake_of_usage(till: Till) -> None:
    before = await till.pos("wallet", "show", "alice")
    for amount in ("1.234", "0", "0.00", "99999999999"):
        for words in (
            ("pay", "--from", "alice", "--to", "shop"),
            ("request", "--wallet", "shop"),
        ):
            code, out, errors = await till.pos(*words, "--amount", amount)
            assert (code, out) == (2, "")
            assert errors.startswith("cbdc-pos: edge-arguments-wrong: --amount: "), errors
    path = till.file("odd.csv", "from,to,amount\nalice,shop,1.234\n")
    code, _, errors = await till.pos("pay", "--file", path)
    assert (code, "edge-file-unreadable: `amount`" in errors) == (1, True)
    assert await till.pos("wallet", "show", "alice") == before


async def test_doctor_tries_the_cloud_that_the_gateway_was_provisioned_with(till: Till) -> None:
    _, out, _ = await till.edge("doctor")
    # The cloud of the template is gone; its address is in the store alone.
    url = till.branch.opened.identity.cloud_url
    assert f"{urlsplit(url).netloc} cannot be reached" in out
    _, out, _ = await till.edge("doctor", "--offline")
    assert "cannot be reached" not in out


async def test_doctor_says_that_the_cloud_s_address_is_not_known(tmp_path: Path) -> None:
    _, out, _ = await Command(tmp_path / "none").edge("doctor")
    assert "the cloud's address is not known while the gateway is not open" in out
