"""What is proven once is not good for ever: outdated images, makers' revocations, levels."""

from __future__ import annotations

import argparse
import json
import secrets
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.attestation_commands import list_revoked, revoke_endorsements
from cloud.issuer.officers import Role
from tests.integration.cloud.test_attested_enrolment import MAKER
from tests.integration.cloud.test_attested_reports import Site, chip, site
from tests.integration.cloud.test_gateways import kinds
from tests.integration.cloud.test_trust_drafts import draft_of
from tests.support.attested import manifest_of, measured
from tests.support.cloud_local import NewGateway
from tests.support.swtpm import extend_pcr
from wallet.protocol.codec import decode
from wallet.protocol.ids import journal_text

__all__ = ["chip", "site"]


async def codes(site: Site) -> list[str]:
    """Of the evidence that is kept."""
    return [code for _, code, _ in await site.evidence()]


async def refusal(site: Site) -> str:
    """The code that the same TPM is told when it enrols anew."""
    status, problem = await site.gateway.enrol_honestly(site.cloud, await site.trust.token())
    assert status == 403, problem
    code: str = problem["code"]
    return code


async def newer(site: Site, **changed: Any) -> bytes:
    """The manifest of a release that this box does not run."""
    await site.chip.administer(extend_pcr(0))
    registers = await measured(site.gateway.token)
    site.chip.restart()
    return manifest_of(registers, **changed)


async def test_an_image_below_the_lowest_security_version_is_suspended_and_not_enrolled(
    site: Site,
) -> None:
    await site.trust.approve("image", await newer(site, version="1.1", security=2, floor=1))
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    await site.trust.approve("image", await newer(site, version="2.0", security=3, floor=2))
    assert kinds(await site.report()) == ["Question"]
    ((kind, code, parts),) = await site.evidence()
    assert (kind, code) == ("attestation", "image-outdated")
    assert decode(parts[1], bytes_max=1 << 20)["floors"] == [["cbdc-edge", "board-1", 2]]
    assert (await site.trust.standing())["finding"]["code"] == "image-outdated"
    assert await refusal(site) == "image-outdated"
    # With the update, and lifted by an officer, it is in order.
    await site.chip.administer(extend_pcr(0))
    assert (await site.lift())[0] == 201
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    assert (await site.trust.standing())["image"] == "cbdc-edge 2.0 (3) on board-1"


async def test_who_withdraws_a_manifest_does_not_lower_what_it_demanded(site: Site) -> None:
    draft = await site.trust.approve("image", await newer(site, version="2", security=2, floor=2))
    path = f"/v1/issuer/trust/{draft}/withdraw"
    assert (await site.trust.post(site.trust.first, path, {}))[0] == 201
    await site.report()
    assert await codes(site) == ["image-outdated"]


async def test_a_draft_demands_nothing(site: Site) -> None:
    body = draft_of("image", await newer(site, version="2", security=2, floor=2))
    assert (await site.trust.post(site.trust.first, "/v1/issuer/trust", body))[0] == 201
    assert kinds(await site.report()) == ["Question", "Enrolment"]


# ---- makers' certificates that were taken back -------------------------------------------------


def options_of(site: Site, file: Path) -> argparse.Namespace:
    """Of a command by the first officer."""
    folder = site.cloud.cloud.config.folder
    (folder / "transport-ca.pem").write_bytes(site.cloud.authority)
    officer = folder / "officer.token"
    officer.write_text(site.trust.first)
    return argparse.Namespace(file=file, officer_file=officer)


async def leaf_of(site: Site) -> x509.Certificate:
    """The endorsement certificate of the TPM."""
    keys = await site.gateway.token.attester.keys()
    return x509.load_der_x509_certificate(keys.endorsement_certificates[0])


@pytest.mark.parametrize("which", ["list", "certificate", "intermediate"])
async def test_a_tpm_whose_maker_took_its_certificate_back_is_suspended_and_not_enrolled(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    leaf = await leaf_of(site)
    contents = {
        "list": MAKER.revocation_list(1, leaf.serial_number).public_bytes(Encoding.PEM),
        "certificate": leaf.public_bytes(Encoding.DER),
        "intermediate": MAKER.above,
    }
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    file = tmp_path / "revoked"
    file.write_bytes(contents[which])
    options, config = options_of(site, file), site.cloud.cloud.config
    count = 2 if which == "list" else 1
    for again in (count, 0):
        await revoke_endorsements(config, options)
        said = f"{count} certificates, {again} of them not revoked before\n"
        assert capsys.readouterr().out == said
    await list_revoked(config, options)
    if which != "intermediate":
        assert f"{leaf.serial_number:x}  of issuer" in capsys.readouterr().out
    assert len(await site.trust.acts("endorsement.revoke")) == 1
    assert kinds(await site.report()) == ["Question"]
    assert await codes(site) == ["endorsement-revoked"]
    assert await refusal(site) == "endorsement-revoked"
    # Lifted, it is suspended by the next report again.
    assert (await site.lift())[0] == 201
    await site.report()
    assert await codes(site) == ["endorsement-revoked"] * 2


async def test_another_maker_s_serial_revokes_nothing(site: Site, tmp_path: Path) -> None:
    leaf = await leaf_of(site)
    body = {"issuer": x509.Name([]).public_bytes().hex(), "serials": [f"{leaf.serial_number:040x}"]}
    path = "/v1/issuer/endorsement-revocations"
    assert (await site.trust.post(site.trust.first, path, body))[0] == 201
    assert kinds(await site.report()) == ["Question", "Enrolment"]


async def test_one_officer_for_policies_revokes_and_nobody_takes_it_back(site: Site) -> None:
    body = {"issuer": x509.Name([]).public_bytes().hex(), "serials": ["07"]}
    path = "/v1/issuer/endorsement-revocations"
    grants = await site.cloud.officer("grants", Role.GRANTS)
    assert (await site.trust.post(grants, path, body))[1]["code"] == "role-missing"
    wrongs: list[dict[str, Any]] = [{"serials": []}, {"serials": ["7"]}, {"issuer": "xx"}]
    for wrong in (*wrongs, {"serials": ["00" * 22]}):
        status, problem = await site.trust.post(site.trust.first, path, {**body, **wrong})
        assert (status, problem["code"]) == (400, "body-invalid")
    assert await site.trust.post(site.trust.first, path, body) == (201, {"revoked": 1})
    for statement in ("DELETE FROM {}", "UPDATE {} SET revoked_ms = 0"):
        with pytest.raises(asyncpg.PostgresError, match="only ever added"):
            async with site.cloud.cloud.database.transaction() as c:
                await c.execute(statement.format("endorsement_revocation"))


# ---- more than before --------------------------------------------------------------------------


async def test_more_is_asked_of_who_goes_on_and_never_less(site: Site) -> None:
    soft = NewGateway("soft")
    status, _ = await soft.enrol(site.cloud, await site.trust.token("software"))
    assert status == 201
    for gateway, before in ((soft, "software"), (site.gateway, "tpm")):
        path = await closure_of(site, journal_text(gateway.journal))
        lower = {"level": "software"}
        status, problem = await site.trust.post(site.trust.first, path, lower)
        if before == "tpm":
            assert (status, problem["code"]) == (422, "level-lowered")
            continue
        assert status == 201
        more = {"level": "tpm", "pcr_policy": "firmware-and-boot"}
        status, made = await site.trust.post(site.trust.first, path, more)
        assert status == 201, made
        last = json.loads((await site.trust.acts("gateway.level"))[-1]["detail"])
        assert last == more
        status, problem = await NewGateway("two").enrol(site.cloud, made["token"])
        assert (status, problem["code"]) == (403, "attestation-missing")


async def closure_of(site: Site, journal: str) -> str:
    """A closure that is drafted; the path of its successor's token."""
    closure = secrets.token_hex(32)
    body = {"closure_id": closure, "journal": journal, "cause": "lost", "reason": "stolen"}
    status, made = await site.trust.post(site.trust.first, "/v1/issuer/closures", body)
    assert status == 201, made
    return f"/v1/issuer/closures/{closure}/token"
