"""Each report is held against what the enrolment proved; a drift suspends, and keeps evidence."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.attestation.reports import ANSWER_BYTES_MAX
from cloud.attestation_commands import lift, list_gateways
from cloud.database import Database
from cloud.errors import IssuerError
from cloud.syncing import Exchange
from hsm.api import Attested
from hsm.attestation import verify_quote
from hsm.tpm.config import NV_INDEX_DEFAULT
from sync.attestation import HEALTH, report_data
from tests.integration.cloud.test_attested_enrolment import MAKER
from tests.integration.cloud.test_gateways import KeepsAll, kinds
from tests.support.attested import (
    TpmGateway,
    Trust,
    certify_chip,
    manifest_of,
    measured,
    tpm_token,
)
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.issuer import Key
from tests.support.swtpm import Swtpm, extend_pcr, running_swtpm
from wallet.protocol.checkpoint import assemble_checkpoint, checkpoint_protected
from wallet.protocol.codec import decode
from wallet.protocol.envelope import Down, Up
from wallet.protocol.ids import journal_text
from wallet.protocol.lists import ListId

WISH = {"key": Key("wallet").public.cose_key, "tier": 0}
NEWEST = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}


class Site:
    """An enrolled gateway with a TPM, and who decides about it."""

    def __init__(self, cloud: LocalCloud, trust: Trust, gateway: TpmGateway, chip: Swtpm) -> None:
        self.cloud = cloud
        self.trust = trust
        self.gateway = gateway
        self.chip = chip
        self.exchange = Exchange(
            database=cloud.cloud.database, desk=cloud.cloud.desk, reconciler=KeepsAll()
        )

    async def report(self, *, health: Any = None, **changed: Any) -> Down:
        """A report that asks for a wallet. `health`: what proves it, if not the truth."""
        up = self.gateway.up(newest=NEWEST, **changed)
        proof = await self.gateway.answering(up) if health is None else health
        return await self.send(up, proof)

    async def send(self, up: Up, proof: Any) -> Down:
        """This report with this proof."""
        whole = msgspec.structs.replace(up, health={"enrol": [WISH], **proof})
        return await self.gateway.send(self.cloud, whole, self.exchange)

    async def evidence(self) -> list[tuple[str, str, list[bytes]]]:
        """(kind, code, parts) of all that is kept."""
        async with self.cloud.cloud.database.transaction() as c:
            rows = await c.fetch(
                "SELECT kind, code, parts FROM journal_evidence ORDER BY evidence_id"
            )
        return [(row["kind"], row["code"], row["parts"]) for row in rows]

    async def lift(self) -> tuple[int, Any]:
        """Lift the suspension."""
        path = f"/v1/issuer/journals/{journal_text(self.gateway.journal)}/lift"
        return await self.trust.post(self.trust.first, path, {})


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Swtpm]:
    """A TPM, powered on."""
    with running_swtpm(tmp_path / "chip") as swtpm:
        yield swtpm


@pytest.fixture
async def site(database: Database, chip: Swtpm, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway that was enrolled just now."""
    await certify_chip(chip, MAKER, tmp_path / "factory")
    async with (
        local_cloud(database, tmp_path / "cloud") as cloud,
        tpm_token(chip, tmp_path / "token") as token,
    ):
        trust = await Trust.of(cloud)
        await trust.approve("maker", MAKER.root)
        await trust.approve("image", manifest_of(await measured(token)))
        gateway = TpmGateway("one", token)
        assert (await gateway.enrol_honestly(cloud, await trust.token()))[0] == 201
        yield Site(cloud, trust, gateway, chip)


async def test_a_report_that_answers_earns_value_and_is_asked_anew(site: Site) -> None:
    asked = site.gateway.question
    assert asked is not None
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    again = site.gateway.question
    assert again is not None and again.nonce != asked.nonce
    # There is no end to it, and the counter may go on meanwhile.
    await site.gateway.token.counter.increment()
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    assert await site.evidence() == []


async def test_a_report_that_answers_an_older_question_earns_nothing_but_the_next_one(
    site: Site,
) -> None:
    first = site.gateway.question
    await site.report()
    second = site.gateway.question
    # The answer with the second question was lost.
    site.gateway.question = first
    assert kinds(await site.report()) == ["Question"]
    assert site.gateway.question == second
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    # Two questions back, or never asked: the books of one of both are of a backup.
    for nonce in (first.nonce if first else b"", b"n" * 32):
        up, before = site.gateway.up(newest=NEWEST), site.gateway.question
        down = await site.send(up, await site.gateway.answering(up, nonce=nonce))
        assert kinds(down) == ["Question"] and site.gateway.question != before
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    assert await site.evidence() == []


async def other_measurements(site: Site, folder: Path) -> Any:
    """Other firmware."""
    await site.chip.administer(extend_pcr(0))
    return None


async def nothing(site: Site, folder: Path) -> Any:
    """No word of the hardware."""
    return {}


async def no_answer(site: Site, folder: Path) -> Any:
    """Something else in its place."""
    return {HEALTH: {"nonce": b"short"}}


async def too_much(site: Site, folder: Path) -> Any:
    """More than any answer has."""
    return {HEALTH: [bytes(ANSWER_BYTES_MAX)]}


async def replayed(site: Site, folder: Path) -> Any:
    """What an earlier report answered."""
    up = site.gateway.up()
    return await site.gateway.answering(up)


DRIFTS: list[tuple[Callable[[Site, Path], Awaitable[Any]], str]] = [
    (other_measurements, "image-unknown"),
    (nothing, "attestation-missing"),
    (no_answer, "attestation-malformed"),
    (too_much, "attestation-malformed"),
    (replayed, "quote-invalid"),
]


@pytest.mark.parametrize(("drift", "code"), DRIFTS)
async def test_a_drift_suspends_once_with_evidence_and_nothing_of_value_goes_out(
    site: Site, tmp_path: Path, drift: Callable[[Site, Path], Awaitable[Any]], code: str
) -> None:
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    for _ in range(2):
        health = await drift(site, tmp_path)
        assert kinds(await site.report(health=health)) == ["Question"]
    ((kind, found, parts),) = await site.evidence()
    assert (kind, found, len(parts)) == ("attestation", code, 3)
    assert all(len(part) <= 2 * ANSWER_BYTES_MAX for part in parts)
    standing = await site.trust.standing()
    assert (standing["suspended"], standing["finding"]["code"]) == (True, code)


@pytest.mark.parametrize("part", ["quote", "counter"])
async def test_another_attestation_key_suspends(site: Site, tmp_path: Path, part: str) -> None:
    index = NV_INDEX_DEFAULT + 1
    async with tpm_token(site.chip, tmp_path / "second", nv_index=index) as second:
        up = site.gateway.up(newest=NEWEST)
        honest = (await site.gateway.answering(up))[HEALTH]
        theirs = (await site.gateway.answering(up, by=second))[HEALTH]
        down = await site.send(up, {HEALTH: {**honest, part: theirs[part]}})
    assert kinds(down) == ["Question"]
    ((_, code, _),) = await site.evidence()
    assert code == {"quote": "quote-invalid", "counter": "counter-not-certified"}[part]


async def test_the_evidence_of_a_drift_is_checked_by_anybody_and_shown_to_officers(
    site: Site,
) -> None:
    known = await measured(site.gateway.token)
    await site.chip.administer(extend_pcr(7))
    await site.report()
    ((_, _, parts),) = await site.evidence()
    given, asked, expected = [decode(part, bytes_max=1 << 20) for part in parts]
    statement, signature = given["quote"]
    verify_quote(
        Attested(statement=statement, signature=signature),
        attestation_key=asked["attestation_key"],
        nonce=report_data(
            given["nonce"],
            journal=asked["journal"],
            exchange=asked["exchange"],
            checkpoint=asked["checkpoint"],
        ),
        pcrs=given["registers"],
    )
    assert given["registers"] == await measured(site.gateway.token)
    assert expected == [["cbdc-edge 1.0 (1) on board-1", known]]
    finding = (await site.trust.standing())["finding"]
    assert finding["found"]["7"] == given["registers"][7].hex()
    assert finding["expected"][0]["registers"]["7"] == known[7].hex()


def checkpoint(gateway: TpmGateway, counter: int) -> bytes:
    """A checkpoint that says how far the counter was."""
    protected = checkpoint_protected(
        gateway.public, journal=gateway.journal, epoch=1, size=1, counter=counter, issued_s=0
    )
    return assemble_checkpoint(protected, gateway.chain, root=bytes(32), signature=bytes(64))


async def test_a_counter_behind_what_the_journal_signed_suspends(site: Site) -> None:
    count = await site.gateway.token.counter.read()
    head = checkpoint(site.gateway, count)
    assert kinds(await site.report(checkpoint=head)) == ["Question", "Enrolment"]
    await site.report(checkpoint=checkpoint(site.gateway, count + 1))
    ((_, code, _),) = await site.evidence()
    assert code == "counter-fell"


async def test_a_tpm_that_was_set_back_to_an_older_state_suspends(
    site: Site, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(site.chip.folder, copy)
    await site.gateway.token.counter.increment()
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    site.chip.kill()
    shutil.rmtree(site.chip.folder)
    copy.rename(site.chip.folder)
    site.chip.start()
    await site.report()
    ((_, code, _),) = await site.evidence()
    assert code == "counter-fell"


async def test_a_manifest_that_is_approved_before_the_update_makes_it_fine(site: Site) -> None:
    await site.chip.administer(extend_pcr(0))
    updated = await measured(site.gateway.token)
    site.chip.restart()
    await site.trust.approve("image", manifest_of(updated, version="2.0", security=2))
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    await site.chip.administer(extend_pcr(0))  # the update
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    assert (await site.trust.standing())["image"] == "cbdc-edge 2.0 (2) on board-1"
    assert await site.evidence() == []


async def test_an_officer_lifts_a_drift_and_only_an_approved_manifest_ends_it(site: Site) -> None:
    assert (await site.lift())[1]["code"] == "journal-not-suspended"
    await site.chip.administer(extend_pcr(0))
    await site.report()
    # Lifted by itself: the next report is judged as ever.
    assert (await site.lift())[0] == 201
    assert kinds(await site.report()) == ["Question"]
    assert [code for _, code, _ in await site.evidence()] == ["image-unknown"] * 2
    await site.trust.approve("image", manifest_of(await measured(site.gateway.token), version="2"))
    # Approved, and not lifted: nothing goes out.
    assert kinds(await site.report()) == ["Question"]
    assert await site.lift() == (
        201,
        {"journal": journal_text(site.gateway.journal), "epoch": 1},
    )
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    codes = [json.loads(act["detail"])["code"] for act in await site.trust.acts("journal.lift")]
    assert codes == ["image-unknown"] * 2


async def test_officers_see_a_drift_and_lift_it_by_commands(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config = site.cloud.cloud.config
    (config.folder / "transport-ca.pem").write_bytes(site.cloud.authority)
    officer = config.folder / "officer.token"
    officer.write_text(site.trust.first)
    journal = journal_text(site.gateway.journal)
    options = argparse.Namespace(json=False, officer_file=officer, journal=journal)
    known = await measured(site.gateway.token)
    await list_gateways(config, options)
    shown = f"{journal}  branch  tpm  cbdc-edge 1.0 (1) on board-1  in order\n"
    assert capsys.readouterr().out == shown
    await site.chip.administer(extend_pcr(2))
    await site.report()
    await list_gateways(config, options)
    lines = capsys.readouterr().out.splitlines()
    found = await measured(site.gateway.token)
    assert lines[0].endswith("  suspended") and lines[1] == "  image-unknown"
    assert f"  found     2: {found[2].hex()}" in lines
    assert f"  expected  2: {known[2].hex()}  cbdc-edge 1.0 (1) on board-1" in lines
    await lift(config, options)
    assert capsys.readouterr().out == f"{journal}  epoch 1: its next report is judged\n"


async def test_a_withdrawn_manifest_suspends_who_runs_its_image(site: Site) -> None:
    draft = await site.trust.approve(
        "image", manifest_of(await measured(site.gateway.token), version="1.1", security=2)
    )
    await site.report()
    assert (await site.trust.standing())["image"] == "cbdc-edge 1.1 (2) on board-1"
    path = f"/v1/issuer/trust/{draft}/withdraw"
    assert (await site.trust.post(site.trust.first, path, {}))[0] == 201
    await site.report()
    assert (await site.trust.standing())["image"] == "cbdc-edge 1.0 (1) on board-1"
    async with site.cloud.api(site.trust.first) as api:
        _, page = await api.get("/v1/issuer/trust")
    (last,) = [one["draft_id"] for one in page["drafts"] if one["kind"] == "image"]
    path = f"/v1/issuer/trust/{last}/withdraw"
    assert (await site.trust.post(site.trust.second, path, {}))[0] == 201
    assert kinds(await site.report()) == ["Question"]
    ((_, code, _),) = await site.evidence()
    assert code == "image-unknown"


async def test_what_a_journal_was_convicted_of_besides_is_not_lifted(site: Site) -> None:
    await site.report(health={})
    async with site.cloud.cloud.database.transaction() as c:
        await c.execute(
            "INSERT INTO journal_evidence (epoch_id, kind, code, parts, found_ms)"
            " SELECT epoch_id, 'fork', 'proof-invalid', '{}', 0 FROM journal_epoch"
        )
    status, problem = await site.lift()
    assert (status, problem["code"]) == (409, "suspension-kept")
    assert "proof-invalid" in problem["detail"]


async def test_who_goes_on_where_a_gateway_ended_has_to_prove_as_much(site: Site) -> None:
    closure = secrets.token_hex(32)
    body = {"closure_id": closure, "journal": journal_text(site.gateway.journal)}
    body |= {"cause": "lost", "reason": "stolen"}
    status, made = await site.trust.post(site.trust.first, "/v1/issuer/closures", body)
    assert status == 201, made
    path = f"/v1/issuer/closures/{closure}/token"
    _, made = await site.trust.post(site.trust.first, path, {})
    status, problem = await NewGateway("two").enrol(site.cloud, made["token"])
    assert (status, problem["code"]) == (403, "attestation-missing")
    last = json.loads((await site.trust.acts("gateway.level"))[-1]["detail"])
    assert last == {"level": "tpm", "pcr_policy": "firmware"}


async def test_nothing_is_asked_of_software_and_its_reports_prove_nothing(
    site: Site,
) -> None:
    gateway = NewGateway("software")
    status, _ = await gateway.enrol(site.cloud, await site.trust.token("software"))
    assert status == 201
    async with site.cloud.cloud.database.transaction() as c:
        asked = await c.fetchval(
            "SELECT question FROM gateway_attestation WHERE journal = $1", gateway.journal
        )
        # A gateway that nothing is known of does not report.
        await c.execute("DELETE FROM gateway_attestation")
    assert asked is None
    with pytest.raises(IssuerError) as unknown:
        await site.report()
    assert unknown.value.code == "gateway-unknown"
