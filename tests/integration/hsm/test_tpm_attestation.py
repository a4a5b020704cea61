"""What a real TPM says about itself, checked by the module that knows no TPM."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hsm import tpm
from hsm.api import SealBroken, TokenRefused
from hsm.attestation import (
    AttestationInvalid,
    make_challenge,
    verify_counter,
    verify_endorsement,
    verify_quote,
    verify_signer,
)
from hsm.attestation.structures import RsaPublic, read_endorsement, read_public
from hsm.attestation.verification import public_key, rsa_public_key
from hsm.tpm.attester import CHAIN_FIRST
from hsm.tpm.config import NV_INDEX_DEFAULT
from tests.support.maker import NOW_MS, Maker
from tests.support.swtpm import Swtpm, define, extend_pcr, running_swtpm, undefine
from tests.support.tokens import closing

# TCG EK Credential Profile 2.5: of the P-256 key, of the RSA-2048 key.
EK_CERTIFICATE_INDEX, EK_RSA_CERTIFICATE_INDEX = 0x01C0000A, 0x01C00002
FIRMWARE = (0, 2, 7)


async def test_a_quote_shows_the_registers_and_a_change_of_them(
    chip: Swtpm, tmp_path: Path
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        keys, nonce = await token.attester.keys(), os.urandom(20)
        before = await token.attester.quote(FIRMWARE, nonce=nonce)
        said = verify_quote(
            before.attested, attestation_key=keys.attestation, nonce=nonce, pcrs=before.pcrs
        )
        assert before.pcrs.keys() == set(FIRMWARE)
        assert all(len(value) == 32 for value in before.pcrs.values())
        await token._line.run(lambda opened: extend_pcr(7)(opened.esys))
        after = await token.attester.quote(FIRMWARE, nonce=nonce)
        assert after.pcrs[7] != before.pcrs[7] and after.pcrs[0] == before.pcrs[0]
        with pytest.raises(AttestationInvalid, match="other values"):
            verify_quote(
                after.attested, attestation_key=keys.attestation, nonce=nonce, pcrs=before.pcrs
            )
        chip.restart()
        later = await token.attester.quote(FIRMWARE, nonce=nonce)
        restarted = verify_quote(
            later.attested, attestation_key=keys.attestation, nonce=nonce, pcrs=before.pcrs
        )
        assert (restarted.reset_count, restarted.restart_count) != (
            said.reset_count,
            said.restart_count,
        )


async def test_the_signing_key_is_certified_to_be_captive_in_the_tpm(
    chip: Swtpm, tmp_path: Path
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        keys, nonce = await token.attester.keys(), os.urandom(8)
        said = await token.attester.certify_signer(nonce=nonce)
        point = verify_signer(
            said, attestation_key=keys.attestation, nonce=nonce, signer=keys.signer
        )
        assert point == token.signer.public_key


async def test_the_counter_is_certified_as_it_moves(chip: Swtpm, tmp_path: Path) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        keys = await token.attester.keys()
        for _ in range(2):
            nonce, count = os.urandom(32), await token.counter.increment()
            said = await token.attester.certify_counter(nonce=nonce)
            certified = verify_counter(
                said, attestation_key=keys.attestation, nonce=nonce, counter=keys.counter
            )
            assert certified == count


async def test_only_the_tpm_of_both_keys_answers_a_challenge(chip: Swtpm, tmp_path: Path) -> None:
    with running_swtpm(tmp_path / "other") as other:
        mine = await tpm.create(chip.config(tmp_path / "mine"))
        second = await tpm.create(chip.config(tmp_path / "two", nv_index=NV_INDEX_DEFAULT + 1))
        theirs = await tpm.create(other.config(tmp_path / "theirs"))
        async with closing(mine), closing(second), closing(theirs):
            keys = await mine.attester.keys()
            for _ in range(10):  # now and then a coordinate begins with noughts
                answer = os.urandom(32)
                asked = make_challenge(
                    answer, endorsement_key=keys.endorsement, attestation_key=keys.attestation
                )
                parts = {"credential": asked.credential, "secret": asked.secret}
                assert await mine.attester.activate(**parts) == answer
            # Another attestation key of the same TPM, and another TPM.
            for stranger in (second, theirs):
                with pytest.raises(SealBroken, match="other keys"):
                    await stranger.attester.activate(**parts)
            with pytest.raises(TokenRefused):
                await mine.attester.activate(credential=b"\x00", secret=asked.secret)


async def test_the_makers_certificates_are_read_from_the_tpm_and_lead_to_its_root(
    chip: Swtpm, tmp_path: Path
) -> None:
    maker = Maker()
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        bare = await token.attester.keys()
        assert bare.endorsement_certificates == ()
        leaf = maker.certify(public_key(read_public(bare.endorsement)))
        # Makers write certificates into indices that are longer, and split the chain over several.
        await chip.administer(define(EK_CERTIFICATE_INDEX, leaf + bytes(100)))
        await chip.administer(define(CHAIN_FIRST, maker.above[:200]))
        await chip.administer(define(CHAIN_FIRST + 1, maker.above[200:]))
        keys = await token.attester.keys()
    assert keys.endorsement_certificates == (leaf, maker.above)
    assert keys.endorsement == bare.endorsement
    trusted = {"roots": [maker.root], "now_ms": NOW_MS}
    verify_endorsement(
        keys.endorsement_certificates,
        endorsement_key=keys.endorsement,
        **trusted,  # type: ignore[arg-type] # two of the arguments
    )
    strange = maker.certify(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(AttestationInvalid):
        verify_endorsement(
            [strange, maker.above],
            endorsement_key=keys.endorsement,
            **trusted,  # type: ignore[arg-type] # two of the arguments
        )


async def test_a_tpm_that_carries_an_rsa_certificate_alone_is_endorsed_by_that(
    chip: Swtpm, tmp_path: Path
) -> None:
    maker = Maker()
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        await chip.administer(define(EK_RSA_CERTIFICATE_INDEX, b"to be written"))
        key = read_endorsement((await token.attester.keys()).endorsement)
        assert isinstance(key, RsaPublic)
        await chip.administer(undefine(EK_RSA_CERTIFICATE_INDEX))
        leaf = maker.certify(rsa_public_key(key))
        await chip.administer(define(EK_RSA_CERTIFICATE_INDEX, leaf))
        keys = await token.attester.keys()
        verify_endorsement(
            [*keys.endorsement_certificates, maker.above],
            endorsement_key=keys.endorsement,
            roots=[maker.root],
            now_ms=NOW_MS,
        )
        answer = os.urandom(32)
        asked = make_challenge(
            answer, endorsement_key=keys.endorsement, attestation_key=keys.attestation
        )
        assert (
            await token.attester.activate(credential=asked.credential, secret=asked.secret)
            == answer
        )


@pytest.mark.parametrize("pcrs", [(), (24,), (-1, 0)], ids=str)
async def test_registers_that_no_tpm_has_are_not_quoted(
    chip: Swtpm, tmp_path: Path, pcrs: tuple[int, ...]
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        with pytest.raises(TokenRefused, match="registers"):
            await token.attester.quote(pcrs, nonce=bytes(8))


@pytest.mark.parametrize("size", [0, 7, 33])
async def test_a_nonce_that_is_guessed_or_too_long_is_refused(
    chip: Swtpm, tmp_path: Path, size: int
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        with pytest.raises(TokenRefused, match="nonce"):
            await token.attester.quote(FIRMWARE, nonce=bytes(size))
        with pytest.raises(TokenRefused, match="nonce"):
            await token.attester.certify_signer(nonce=bytes(size))
        with pytest.raises(TokenRefused, match="nonce"):
            await token.attester.certify_counter(nonce=bytes(size))
