"""Cheats with real gateways: found, exported by an auditor, proven to who has the root alone."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cloud import cli
from cloud.database import Database
from cloud.errors import CloudError
from cloud.issuer.officers import Role
from cloud.issuer.suspensions import list_suspended
from edge.http.octets import to_text
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Branch, Http
from tests.support.convictions import rows_of, third_party
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    Box,
    Story,
    balance,
    exchanged,
    paid,
    redeemed,
)
from wallet.protocol.ids import WalletId, journal_text
from wallet.protocol.lists import ListId
from wallet.protocol.refusals import Code, Refusal


class Office:
    """An auditor at a desk of his own, with the commands."""

    def __init__(self, story: Story, token: Path) -> None:
        self.story = story
        self.config = story.cloud.cloud.config
        self.officer = ("--officer-file", str(token))

    async def run(self, *arguments: str) -> int:
        """A command; its exit code."""
        options = cli.parser().parse_args(["evidence", *arguments, *self.officer])
        found: int = await options.run(self.config, options)
        return found


@pytest.fixture
async def office(story: Story, tmp_path: Path) -> Office:
    """The auditor."""
    token = tmp_path / "auditor.token"
    token.write_text(await story.cloud.officer("auditor"))
    authority = story.cloud.cloud.desk.pki.transport.certificate
    folder = story.cloud.cloud.config.folder
    (folder / "transport-ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    return Office(story, token)


async def clone(story: Story, box: Box) -> Box:
    """Another box with a copy of this one's disk."""
    other = Box(story, story.folder / "clone")
    other.journal = box.journal
    shutil.copytree(box.folder, other.folder)
    return other


async def told(branch: Branch) -> str:
    """Synchronise once; what became of it."""
    result, detail = await branch.daemon.sync_now()
    return f"{result} {detail}"


async def proven(
    office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str], box: Box, code: str
) -> str:
    """What a third party reads of the newest evidence."""
    row = (await rows_of(office.story.database))[-1]
    path = tmp_path / "evidence.cbor"
    assert await office.run("export", str(row.evidence_id), "--out", str(path)) == 0
    assert await office.run("show", str(row.evidence_id)) == 0
    assert f"  {row.kind}: {row.code}  suspended\nProven: " in capsys.readouterr().out
    assert third_party(office.story.cloud.cloud.desk.pki.root.der, path) == 0
    said = capsys.readouterr().out
    assert (
        f"Proven: journal {journal_text(box.journal)} broke the rules in epoch 1 ({code})" in said
    )
    return said


async def revoked_at(box: Box) -> Set[Any]:
    """The journals that a gateway knows to be revoked, once it has synchronised."""
    async with box.running() as branch:
        await exchanged(branch)
        held = branch.opened.journal.state.lists[ListId.JOURNALS]
        return held.items


async def test_a_cloned_disk_forks_the_journal(
    story: Story,
    north: Box,
    south: Box,
    office: Office,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = await clone(story, north)
    async with north.running() as branch:
        await paid(branch, ANNA, BERT, 300)
        await exchanged(branch)
    async with other.running() as branch:
        await paid(branch, ANNA, BERT, 200)
        assert Code.PROOF_INVALID in await told(branch)
    said = await proven(office, tmp_path, capsys, north, Code.PROOF_INVALID)
    assert "two different entries have receipts for index" in said
    assert (north.journal, 1) in await revoked_at(south)
    async with north.running() as branch:
        assert Code.FROZEN_BY_ISSUER in await told(branch)
        # Its own list says so: it pays no more, with a line or without.
        order = branch.order(ANNA, BERT.public.id, 1)
        refused = await branch.opened.journal.pay(order)
        assert isinstance(refused, Refusal) and refused.code == Code.FROZEN_BY_ISSUER
    found = await story.where()
    assert (found.offline, found.loss) == (1_000, 0)


async def test_an_entry_that_a_till_has_a_receipt_for_is_hidden(
    story: Story,
    north: Box,
    south: Box,
    office: Office,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = await clone(story, north)
    async with other.running(offline=True) as branch:
        shown = await paid(branch, ANNA, BERT, 200)
    async with north.running() as branch:
        await paid(branch, ANNA, BERT, 300)
        await exchanged(branch)
    # A till hands it in at another branch, whose next report brings it along.
    async with south.running() as branch, Client(await branch.terminal()) as till:
        body = {"entry": to_text(shown.entry), "receipt": to_text(shown.receipt)}
        _, kept = await Http(till).post("/v1/receipts", {"receipts": [body]})
        assert [item["kept"] for item in kept["answers"]] == ["new"]
        await exchanged(branch)
    (row,) = await rows_of(story.database)
    assert row.kind == "hidden-entry"
    await proven(office, tmp_path, capsys, north, Code.PROOF_INVALID)
    assert (north.journal, 1) in await revoked_at(south)


async def test_a_note_of_a_hidden_entry_is_paid_and_convicts(
    story: Story,
    north: Box,
    south: Box,
    office: Office,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = await clone(story, north)
    async with other.running(offline=True) as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    async with north.running() as branch:
        await paid(branch, ANNA, BERT, 300)
        await exchanged(branch)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
        assert balance(branch, CARA) == 200
        assert branch.opened.journal.state.unsettled_total == 0
    await proven(office, tmp_path, capsys, north, Code.PROOF_INVALID)
    found = await story.where()
    assert (found.offline, found.suspense, found.loss) == (1_200, 0, -200)


def enrich(branch: Branch, holder: DeviceKey, amount: int) -> None:
    """What somebody does who has broken into the process: value from nowhere."""
    wallets = branch.opened.journal.state.wallets
    rich = copy.copy(wallets[WalletId(holder.public.id)])
    rich.settled += amount
    wallets[rich.wallet] = rich


@pytest.mark.parametrize("early", [False, True])
async def test_value_from_nowhere_is_found_and_who_took_it_in_good_faith_is_paid(
    story: Story,
    north: Box,
    south: Box,
    office: Office,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    early: bool,
) -> None:
    async with north.running() as branch:
        enrich(branch, BERT, 5_000)
        note = await paid(branch, BERT, CARA, 700, payee_journal=south.journal)
        if not early:
            await told(branch)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
    if early:
        assert (await story.where()).suspense == -700
        async with north.running() as branch:
            await told(branch)
    said = await proven(office, tmp_path, capsys, north, Code.INSUFFICIENT_FUNDS)
    assert "a transfer-out of 7.00 EUR" in said
    async with south.running() as branch:
        await exchanged(branch)
        assert (balance(branch, CARA), branch.opened.journal.state.unsettled_total) == (700, 0)
    found = await story.where()
    assert (found.offline, found.suspense, found.loss) == (1_700, 0, -700)
    assert (north.journal, 1) in await revoked_at(south)


async def test_what_comes_home_from_nowhere_is_paid_by_nobody(
    story: Story, north: Box, south: Box
) -> None:
    await story.enrol(south, BERT)
    await south.sync()
    async with north.running() as branch:
        enrich(branch, BERT, 5_000)
        note = await paid(branch, BERT, BERT, 700, payee_journal=south.journal, kind=2)
        await told(branch)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 700
    found = await story.where()
    assert (found.suspense, found.loss) == (-700, 0)


async def test_evidence_is_listed_shown_and_paged(
    story: Story, north: Box, office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with story.database.transaction() as connection:
        epoch_id = await connection.fetchval("SELECT epoch_id FROM journal_epoch")
        await connection.executemany(
            "INSERT INTO journal_evidence (epoch_id, kind, code, index, parts, found_ms)"
            " VALUES ($1, 'violation', 'malformed', $2, '{x,y}', $2)",
            [(epoch_id, number) for number in range(150)],
        )
    capsys.readouterr()
    assert await office.run("list", "--json") == 0
    found = json.loads(capsys.readouterr().out)["evidence"]
    assert [line["index"] for line in found] == list(range(150))
    assert await office.run("list") == 0
    assert "1970-01-01 00:00 UTC" in capsys.readouterr().out
    first = str(found[0]["evidence_id"])
    assert await office.run("show", first) == 0
    assert "convinces nobody but the issuer" in capsys.readouterr().out
    with pytest.raises(CloudError, match="not-proven"):
        await office.run("export", first, "--out", str(tmp_path / "none"))
    with pytest.raises(CloudError, match="evidence-unknown"):
        await office.run("show", "999999")
    assert not (tmp_path / "none").exists()


async def test_an_officer_who_is_no_auditor_reads_no_evidence(story: Story) -> None:
    token = await story.cloud.officer("clerk", *_without_auditor())
    async with story.cloud.api(token) as api:
        for path in ("", "/1", "/1/proof", "/1/proof/piece"):
            status, problem = await api.get(f"/v1/issuer/evidence{path}")
            assert (status, problem["code"]) == (403, "role-missing")


def _without_auditor() -> Sequence[Role]:
    return [role for role in Role if role is not Role.AUDITOR]


async def test_a_journal_is_listed_once_and_not_for_its_hardware_alone(
    story: Story, north: Box
) -> None:
    desk = story.cloud.cloud.desk

    async def listed(kind: str) -> int:
        async with story.database.transaction() as connection:
            epoch_id = await connection.fetchval("SELECT epoch_id FROM journal_epoch")
            await connection.execute(
                "INSERT INTO journal_evidence (epoch_id, kind, code, parts, found_ms)"
                " VALUES ($1, $2, 'malformed', '{}', 0)",
                *(epoch_id, kind),
            )
            await connection.execute(
                "UPDATE journal_epoch SET state = 'suspended', reason = 'malformed'"
            )
            return await list_suspended(connection, desk, now_ms=story.cloud.clock.now_ms())

    assert await listed("attestation") == 0
    assert await listed("fork") == 1
    assert await listed("fork") == 0


async def test_a_journal_that_an_officer_listed_is_not_listed_again(
    story: Story, north: Box, database: Database
) -> None:
    body = {"add": [{"id": journal_text(north.journal), "epoch": 1}]}
    await story.done(story.first, "/v1/issuer/lists/journals", body)
    async with database.transaction() as connection:
        epoch_id = await connection.fetchval("SELECT epoch_id FROM journal_epoch")
        await connection.execute(
            "INSERT INTO journal_evidence (epoch_id, kind, code, parts, found_ms)"
            " VALUES ($1, 'fork', 'malformed', '{}', 0)",
            epoch_id,
        )
        await connection.execute(
            "UPDATE journal_epoch SET state = 'suspended', reason = 'malformed'"
        )
        desk = story.cloud.cloud.desk
        assert await list_suspended(connection, desk, now_ms=story.cloud.clock.now_ms()) == 0
        assert await connection.fetchval("SELECT listed_ms FROM journal_epoch") is not None
