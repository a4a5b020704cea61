"""Enrolment of gateways that have to prove their hardware, by real TPMs in software."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.attestation.enrolling import CHALLENGE_MS, CHALLENGES_MAX, REFUSED_MAX
from cloud.database import Database
from cloud.http.octets import from_text, to_text
from cloud.issuer.gateways import TOKEN_LIFE_MS
from edge.config import TokenConfig
from edge.errors import EnrolmentFailed
from edge.provision import Wish, provision
from hsm.api import Attested
from hsm.tpm import TpmToken
from hsm.tpm.config import NV_INDEX_DEFAULT
from sync.attestation import enrolment_data
from tests.support.attested import (
    FIRMWARE,
    TpmGateway,
    Trust,
    certify_chip,
    manifest_of,
    measured,
    tpm_token,
)
from tests.support.branch_local import PASSPHRASE, config_of
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.maker import Maker
from tests.support.swtpm import Swtpm, extend_pcr, running_swtpm
from wallet.clock import SystemClock
from wallet.protocol.ids import journal_text

MAKER = Maker()


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud."""
    async with local_cloud(database, tmp_path / "cloud") as opened:
        yield opened


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Swtpm]:
    """A TPM, powered on."""
    with running_swtpm(tmp_path / "chip") as swtpm:
        yield swtpm


@pytest.fixture
async def token(chip: Swtpm, tmp_path: Path) -> AsyncIterator[TpmToken]:
    """Keys in that TPM, which its maker certified."""
    await certify_chip(chip, MAKER, tmp_path / "factory")
    async with tpm_token(chip, tmp_path / "token") as made:
        yield made


@pytest.fixture
async def trust(cloud: LocalCloud, token: TpmToken) -> Trust:
    """Officers who trust the maker and the image that runs."""
    made = await Trust.of(cloud)
    await made.approve("maker", MAKER.root)
    await made.approve("image", manifest_of(await measured(token)))
    return made


@pytest.fixture
def gateway(token: TpmToken) -> TpmGateway:
    """A gateway with that token."""
    return TpmGateway("one", token)


async def refused(trust: Trust, answer: tuple[int, Any], code: str) -> str:
    """That the gateway was told which check failed, and the audit log has it; the sentence."""
    status, problem = answer
    assert (status, problem["code"]) == (403, code)
    last = (await trust.acts("gateway.refuse"))[-1]
    detail = json.loads(last["detail"])
    assert (last["actor"], last["subject"]) == ("enrolment", "branch")
    assert (detail["code"], detail["detail"]) == (code, problem["detail"])
    sentence: str = problem["detail"]
    return sentence


async def test_a_gateway_that_proves_its_tpm_and_its_image_is_enrolled(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret = await trust.token()
    status, first = await gateway.enrol_honestly(cloud, secret)
    assert status == 201, first
    standing = await trust.standing()
    assert (standing["journal"], standing["level"]) == (journal_text(gateway.journal), "tpm")
    assert (standing["image"], standing["suspended"]) == ("cbdc-edge 1.0 (1) on board-1", False)
    assert gateway.question is not None and gateway.question.registers == FIRMWARE
    # An answer that was lost is asked for again, by a new challenge.
    assert await gateway.enrol_honestly(cloud, secret) == (201, first)


async def test_asking_uses_up_no_token_and_an_answer_its_nonce(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret = await trust.token()
    _, asked = await gateway.ask(cloud, secret)
    _, other = await gateway.ask(cloud, secret)
    assert asked["nonce"] != other["nonce"]
    proof = await gateway.attestation(asked)
    wrong = {**proof, "answer": to_text(bytes(32))}
    await refused(trust, await gateway.enrol_with(cloud, secret, wrong), "attestation-key-foreign")
    # The true answer comes too late: its nonce was good once.
    again = await gateway.enrol_with(cloud, secret, proof)
    assert "ask for another" in await refused(trust, again, "attestation-stale")
    assert (await gateway.enrol_with(cloud, secret, await gateway.attestation(other)))[0] == 201


async def test_a_nonce_is_for_its_token_for_a_time_and_few_wait(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret, foreign = await trust.token(), await trust.token()
    _, asked = await gateway.ask(cloud, foreign)
    proof = await gateway.attestation(asked)
    await refused(trust, await gateway.enrol_with(cloud, secret, proof), "attestation-stale")
    _, asked = await gateway.ask(cloud, secret)
    proof = await gateway.attestation(asked)
    cloud.clock.wall_ms += CHALLENGE_MS + 1
    await refused(trust, await gateway.enrol_with(cloud, secret, proof), "attestation-stale")
    for _ in range(CHALLENGES_MAX + 2):
        cloud.clock.wall_ms += 1
        assert (await gateway.ask(cloud, secret))[0] == 201
    async with cloud.cloud.database.transaction() as c:
        assert await c.fetchval("SELECT count(*) FROM enrolment_challenge") == CHALLENGES_MAX


async def test_a_quote_that_was_made_for_another_challenge_is_refused(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret = await trust.token()
    _, asked = await gateway.ask(cloud, secret)
    old = await gateway.attestation(asked)
    _, asked = await gateway.ask(cloud, secret)
    new = await gateway.attestation(asked)
    replayed = {**new, "quote": old["quote"]}
    answer = await gateway.enrol_with(cloud, secret, replayed)
    assert "another question" in await refused(trust, answer, "quote-invalid")
    # So is one that was made for other keys of the certificates.
    _, asked = await gateway.ask(cloud, secret)
    bound = await gateway.attestation(asked)
    answer = await gateway.enrol_with(cloud, secret, bound, hpke_key=to_text(bytes(32)))
    await refused(trust, answer, "quote-invalid")


async def test_other_measurements_are_refused_and_shown_until_their_manifest_is_approved(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway, chip: Swtpm
) -> None:
    secret = await trust.token()
    await chip.administer(extend_pcr(7))
    found = await measured(gateway.token)
    answer = await gateway.enrol_honestly(cloud, secret)
    assert found[7].hex() in await refused(trust, answer, "image-unknown")
    # Values beside the quote that it is not over help nobody.
    _, asked = await gateway.ask(cloud, secret)
    told = await gateway.attestation(asked)
    lied = {**told, "registers": {**told["registers"], "7": to_text(bytes(32))}}
    await refused(trust, await gateway.enrol_with(cloud, secret, lied), "quote-invalid")
    _, asked = await gateway.ask(cloud, secret)
    short = await gateway.attestation({**asked, "registers": [0, 2]})
    await refused(trust, await gateway.enrol_with(cloud, secret, short), "quote-invalid")
    await trust.approve("image", manifest_of(found, version="1.1", security=2))
    assert (await gateway.enrol_honestly(cloud, secret))[0] == 201
    assert (await trust.standing())["image"] == "cbdc-edge 1.1 (2) on board-1"


def body_of(attested: Attested) -> dict[str, str]:
    """A statement as it is sent."""
    return {"statement": to_text(attested.statement), "signature": to_text(attested.signature)}


async def test_statements_of_another_tpm_are_refused(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway, tmp_path: Path
) -> None:
    secret = await trust.token()
    with running_swtpm(tmp_path / "other") as other:
        async with tpm_token(other, tmp_path / "theirs") as theirs:
            for part, code in (
                ("quote", "quote-invalid"),
                ("signer", "key-not-certified"),
                ("counter", "counter-not-certified"),
            ):
                _, asked = await gateway.ask(cloud, secret)
                proof = await gateway.attestation(asked)
                data = gateway.data(from_text(asked["nonce"]))
                said = {
                    "quote": (await theirs.attester.quote(FIRMWARE, nonce=data)).attested,
                    "signer": await theirs.attester.certify_signer(nonce=data),
                    "counter": await theirs.attester.certify_counter(nonce=data),
                }
                answer = await gateway.enrol_with(
                    cloud, secret, {**proof, part: body_of(said[part])}
                )
                await refused(trust, answer, code)
            # The attestation key of a TPM without a maker, beside a certified endorsement key: no
            # TPM opens that credential.
            strange = (await theirs.attester.keys()).attestation
            mixed = dataclasses.replace(await gateway.token.attester.keys(), attestation=strange)
            _, asked = await gateway.ask(cloud, secret, keys=mixed)
            forged = {**proof, "nonce": asked["nonce"], "answer": to_text(bytes(32))}
            answer = await gateway.enrol_with(cloud, secret, forged)
            await refused(trust, answer, "attestation-key-foreign")
            # All of it is the other TPM's, whose maker nobody trusts.
            answer = await TpmGateway("two", theirs).enrol_honestly(cloud, secret)
            await refused(trust, answer, "endorsement-untrusted")


async def test_a_key_that_another_key_of_the_same_tpm_vouches_for_is_refused(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway, chip: Swtpm, tmp_path: Path
) -> None:
    secret = await trust.token()
    async with tpm_token(chip, tmp_path / "second", nv_index=NV_INDEX_DEFAULT + 1) as second:
        _, asked = await gateway.ask(cloud, secret)
        proof = await gateway.attestation(asked)
        data = gateway.data(from_text(asked["nonce"]))
        # Another attestation key certifies the journal's namesake.
        keys = await second.attester.keys()
        said = body_of(await second.attester.certify_signer(nonce=data))
        other = {**proof, "signer": said, "signer_key": to_text(keys.signer)}
        await refused(trust, await gateway.enrol_with(cloud, secret, other), "key-not-certified")
    # The certified key is a good one, and not the one that will sign the journal.
    software = NewGateway("software")
    _, asked = await gateway.ask(cloud, secret)
    data = enrolment_data(
        from_text(asked["nonce"]),
        cose_key=software.key.public.cose_key,
        tls_csr=software.csr,
        hpke_key=software.hpke.public_key().public_bytes_raw(),
    )
    proof = await gateway.attestation(asked, data=data)
    status, problem = await software.enrol(cloud, secret, attestation=proof)
    assert "not the journal's" in await refused(trust, (status, problem), "key-not-certified")


async def test_a_software_key_enrols_where_an_officer_allowed_it_and_nowhere_else(
    cloud: LocalCloud, trust: Trust
) -> None:
    gateway, secret = NewGateway("software"), await trust.token()
    answer = await gateway.enrol(cloud, secret)
    await refused(trust, answer, "attestation-missing")
    # A PKCS#11 token is the officer's word; a gateway that says better of itself is believed.
    word = await trust.token("pkcs11")
    for driver in ({}, {"driver": "software"}):
        await refused(trust, await gateway.enrol(cloud, word, **driver), "key-level-too-low")
    assert (await gateway.enrol(cloud, word, driver="pkcs11"))[0] == 201
    assert ((await trust.standing())["level"], gateway.answer["epoch"]) == ("pkcs11", 1)
    allowed = await trust.token("software")
    assert (await NewGateway("two").enrol(cloud, allowed))[0] == 201
    levels = [json.loads(act["detail"])["level"] for act in await trust.acts("gateway.level")]
    assert levels == ["tpm", "pkcs11", "software"]


async def test_a_tpm_is_asked_nothing_where_nothing_is_to_be_proven(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret = await trust.token("software")
    assert await gateway.ask(cloud, secret) == (201, {"level": "software"})
    assert (await gateway.enrol_with(cloud, secret))[0] == 201
    assert gateway.question is None


async def test_what_is_no_public_side_of_a_tpm_is_not_asked(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret, keys = await trust.token(), await gateway.token.attester.keys()
    for change in (
        {"attestation": b""},
        {"attestation": bytes(2_000)},
        {"endorsement": keys.attestation},
        {"attestation": keys.signer},
        {"endorsement_certificates": (bytes(9_000),)},
        {"endorsement_certificates": (b"",) * 7},
    ):
        shown = dataclasses.replace(keys, **change)
        answer: Any = await gateway.ask(cloud, secret, keys=shown)
        await refused(trust, answer, "attestation-malformed")
    bare = dataclasses.replace(keys, endorsement_certificates=())
    _, asked = await gateway.ask(cloud, secret, keys=bare)
    answer = await gateway.enrol_with(cloud, secret, await gateway.attestation(asked))
    await refused(trust, answer, "endorsement-untrusted")


async def test_tokens_that_are_unknown_expired_or_refused_too_often_ask_nothing(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    status, problem = await gateway.ask(cloud, "cbo_" + "A" * 43)
    assert (status, problem["code"]) == (401, "token-unknown")
    status, problem = await gateway.enrol_with(cloud, "cbo_" + "A" * 43)
    assert (status, problem["code"]) == (401, "token-unknown")
    secret = await trust.token()
    for _ in range(REFUSED_MAX):
        status, problem = await gateway.enrol_with(cloud, secret)
        assert (status, problem["code"]) == (403, "attestation-missing")
    for answer in (await gateway.ask(cloud, secret), await gateway.enrol_with(cloud, secret)):
        assert (answer[0], answer[1]["code"]) == (403, "token-exhausted")
    assert len(await trust.acts("gateway.refuse")) == REFUSED_MAX
    later = await trust.token()
    cloud.clock.wall_ms += TOKEN_LIFE_MS + 1
    for answer in (await gateway.ask(cloud, later), await gateway.enrol_with(cloud, later)):
        assert (answer[0], answer[1]["code"]) == (403, "token-expired")


async def test_a_weak_key_is_told_as_one(
    cloud: LocalCloud, trust: Trust, gateway: TpmGateway
) -> None:
    secret = await trust.token()
    _, asked = await gateway.ask(cloud, secret)
    weak = {"algorithm": -8, "public_key": to_text(bytes(32))}
    proof = await gateway.attestation(asked)
    status, problem = await gateway.enrol_with(cloud, secret, proof, journal_key=weak)
    assert (status, problem["code"]) == (403, "key-proof-invalid")


async def test_the_gateways_own_command_proves_its_tpm_and_is_told_what_failed(
    cloud: LocalCloud, chip: Swtpm, token: TpmToken, tmp_path: Path
) -> None:
    trust = await Trust.of(cloud)
    await trust.approve("maker", MAKER.root)
    settings = TokenConfig(
        driver="tpm", algorithm="es256", tcti=chip.tcti, nv_index=NV_INDEX_DEFAULT + 1
    )
    config = config_of(tmp_path / "gateway", token=settings)
    wish = Wish(
        cloud=f"https://127.0.0.1:{cloud.ports['gateway_port']}",
        cloud_ca=cloud.authority.decode(),
        enrolment_token=await trust.token(),
    )

    async def attempt() -> str:
        return await provision(
            config, wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None
        )

    with pytest.raises(EnrolmentFailed, match="image-unknown no approved manifest tells of"):
        await attempt()
    await trust.approve("image", manifest_of(await measured(token)))
    journal = await attempt()
    standing = await trust.standing()
    assert (standing["journal"], standing["image"]) == (journal, "cbdc-edge 1.0 (1) on board-1")
