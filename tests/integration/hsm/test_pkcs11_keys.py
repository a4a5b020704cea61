"""Keys in a PKCS#11 token: what they do, and that they never leave it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import pkcs11
from hsm.api import SECRET_BYTES_MAX, Algorithm, KeyMissing, SealBroken, TokenRefused
from hsm.open import TokenConfig, create_token, open_token
from hsm.pkcs11 import Pkcs11Config
from tests.support import key_thief
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, nothing_can_be_stored, verify

# Without AES-GCM. SoftHSM 2.6 takes a list of what it may, and errs in one of what it may not.
WRAP_ONLY = "CKM_EDDSA,CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_AES_KEY_GEN,CKM_AES_KEY_WRAP"
SIGN_ONLY = "CKM_EDDSA,CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_AES_KEY_GEN"


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_another_library_verifies_what_it_signs(
    hsm: SoftHsm, tmp_path: Path, algorithm: Algorithm
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path, algorithm=algorithm))) as token:
        assert token.driver == "pkcs11"
        for number in range(40):  # half of all P-256 signatures come with a high s
            message = b"message %d" % number
            verify(token, message, await token.signer.sign(message))


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_fifty_at_once_each_get_their_own_signature(
    hsm: SoftHsm, tmp_path: Path, algorithm: Algorithm
) -> None:
    messages = [b"message %d" % number for number in range(50)]
    async with closing(await pkcs11.create(hsm.config(tmp_path, algorithm=algorithm))) as token:
        signatures = await asyncio.gather(*map(token.signer.sign, messages))
        for message, signature in zip(messages, signatures, strict=True):
            verify(token, message, signature)


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_nobody_brings_the_keys_out_even_with_the_pin(
    hsm: SoftHsm, tmp_path: Path, algorithm: Algorithm
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path, algorithm=algorithm))):
        met = key_thief.attempts(hsm)
    assert met == {
        "read signing": "AttributeSensitive",
        "read sealing": "AttributeSensitive",
        "wrap signing": "KeyUnextractable",
        "wrap sealing": "KeyUnextractable",
        "loosen signing": "AttributeReadOnly",
        "loosen sealing": "AttributeReadOnly",
        "bare signing": "AttributeReadOnly",
        "bare sealing": "AttributeReadOnly",
    }


async def test_a_second_client_sees_the_keys_and_the_public_key(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        listed = hsm.tool("--list-objects")
        assert listed.count("label:      journal") == 3
        assert listed.count("sensitive, always sensitive, never extractable, local") == 2
        assert f"EC_POINT:   0420{token.signer.public_key.hex()}" in listed


async def test_a_second_client_signs_by_the_same_key(hsm: SoftHsm, tmp_path: Path) -> None:
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"message")
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        files = ("--input-file", str(message), "--output-file", str(signature))
        key = ("--id", b"journal".hex())
        await asyncio.to_thread(hsm.tool, "--sign", "--mechanism", "EDDSA", *key, *files)
        assert signature.read_bytes() == await token.signer.sign(b"message")


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_the_keys_are_the_same_after_opening_again(
    hsm: SoftHsm, tmp_path: Path, algorithm: Algorithm
) -> None:
    config = hsm.config(tmp_path, algorithm=algorithm)
    async with closing(await pkcs11.create(config)) as made:
        sealed = await made.sealer.seal(b"secret", label="store")
        await made.counter.increment()
    async with closing(await pkcs11.open_token(config)) as opened:
        assert opened.signer.public_key == made.signer.public_key
        assert await opened.sealer.unseal(sealed, label="store") == b"secret"
        assert (opened.counter.driver, await opened.counter.read()) == ("software", 1)


async def test_two_gateways_keep_their_keys_apart_in_one_token(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    one = hsm.config(tmp_path / "one", key_label="one")
    two = hsm.config(tmp_path / "two", key_label="two")
    async with (
        closing(await pkcs11.create(one)) as first,
        closing(await pkcs11.create(two)) as second,
    ):
        assert first.signer.public_key != second.signer.public_key
        sealed = await first.sealer.seal(b"secret", label="store")
        with pytest.raises(SealBroken):
            await second.sealer.unseal(sealed, label="store")
        await first.close()
        verify(second, b"message", await second.signer.sign(b"message"))


async def test_keys_are_never_made_over_others(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    async with closing(await pkcs11.create(config)) as made:
        with pytest.raises(TokenRefused, match="already"):
            await pkcs11.create(config)
        verify(made, b"message", await made.signer.sign(b"message"))
    async with closing(await pkcs11.open_token(config)) as opened:
        assert opened.signer.public_key == made.signer.public_key


async def test_a_label_or_an_algorithm_without_a_key_says_so(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))):
        with pytest.raises(KeyMissing):
            await pkcs11.open_token(hsm.config(tmp_path, key_label="other"))
        with pytest.raises(KeyMissing):
            await pkcs11.open_token(hsm.config(tmp_path, algorithm=Algorithm.ES256))


async def exchange_sealing_key(hsm: SoftHsm, config: Pkcs11Config, *command: str) -> None:
    """Make keys, and put another sealing key in the place of the one that was made."""
    async with closing(await pkcs11.create(config)):
        pass
    hsm.tool("--delete-object", "--type", "secrkey", "--label", "journal")
    hsm.tool(*command, "--key-type", "AES:32", "--label", "journal", "--private", "--sensitive")


async def test_a_key_that_may_leave_the_token_is_not_used(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    await exchange_sealing_key(hsm, config, "--keygen", "--extractable")
    with pytest.raises(TokenRefused, match="not captive: EXTRACTABLE"):
        await pkcs11.open_token(config)


async def test_a_key_that_was_brought_in_is_not_used(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    brought = tmp_path / "brought"
    brought.write_bytes(bytes(32))
    write = ("--write-object", str(brought), "--type", "secrkey")
    await exchange_sealing_key(hsm, config, *write)
    with pytest.raises(TokenRefused, match="not captive: LOCAL"):
        await pkcs11.open_token(config)


async def test_a_sealing_key_for_two_uses_is_not_used(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    await exchange_sealing_key(hsm, config, "--keygen", "--usage-decrypt", "--usage-wrap")
    with pytest.raises(TokenRefused, match="both wrap and decrypt"):
        await pkcs11.open_token(config)


async def test_two_keys_of_one_label_are_not_chosen_from(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    async with closing(await pkcs11.create(config)):
        pass
    hsm.tool("--keygen", "--key-type", "AES:32", "--label", "journal", "--sensitive")
    with pytest.raises(TokenRefused, match="MultipleObjectsReturned"):
        await pkcs11.open_token(config)


async def test_a_public_key_of_another_pair_is_not_believed(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path, algorithm=Algorithm.ES256)
    async with closing(await pkcs11.create(config)):
        pass
    other = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    file = tmp_path / "other.der"
    file.write_bytes(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    hsm.tool("--delete-object", "--type", "pubkey", "--label", "journal")
    hsm.tool("--write-object", str(file), "--type", "pubkey", "--label", "journal")
    with pytest.raises(TokenRefused, match="does not belong"):
        await pkcs11.open_token(config)


@pytest.mark.parametrize("mechanisms", ["ALL", WRAP_ONLY])
async def test_the_seal_opens_under_its_label_alone(tmp_path: Path, mechanisms: str) -> None:
    hsm = SoftHsm(tmp_path / "softhsm", mechanisms=mechanisms)
    hsm.init_token()
    with hsm.in_this_process():
        async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
            for secret in (b"", b"\x00", b"secret\x00", bytes(32), b"x" * SECRET_BYTES_MAX):
                sealed = await token.sealer.seal(secret, label="store")
                assert await token.sealer.unseal(sealed, label="store") == secret
                with pytest.raises(SealBroken):
                    await token.sealer.unseal(sealed, label="hosted")
            with pytest.raises(TokenRefused, match="at most"):
                await token.sealer.seal(bytes(SECRET_BYTES_MAX + 1), label="store")


@pytest.mark.parametrize("mechanisms", ["ALL", WRAP_ONLY])
async def test_every_changed_byte_and_every_cut_breaks_the_seal(
    tmp_path: Path, mechanisms: str
) -> None:
    hsm = SoftHsm(tmp_path / "softhsm", mechanisms=mechanisms)
    hsm.init_token()
    with hsm.in_this_process():
        async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
            sealed = await token.sealer.seal(b"secret", label="store")
            for place in range(len(sealed)):
                changed = bytearray(sealed)
                changed[place] ^= 1
                for broken in (bytes(changed), sealed[:place]):
                    with pytest.raises(SealBroken):
                        await token.sealer.unseal(broken, label="store")
            assert await token.sealer.unseal(sealed, label="store") == b"secret"


async def test_the_same_secret_is_never_sealed_alike(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        seals = {await token.sealer.seal(b"secret", label="store") for _ in range(20)}
    assert len(seals) == 20


async def test_a_token_that_cannot_seal_is_refused_and_left_empty(tmp_path: Path) -> None:
    hsm = SoftHsm(tmp_path / "softhsm", mechanisms=SIGN_ONLY)
    hsm.init_token()
    with hsm.in_this_process():
        with pytest.raises(TokenRefused, match="neither"):
            await pkcs11.create(hsm.config(tmp_path))
        assert "label" not in hsm.tool("--list-objects")


async def test_without_a_place_for_the_counter_no_key_is_made(hsm: SoftHsm, tmp_path: Path) -> None:
    with nothing_can_be_stored(), pytest.raises(TokenRefused, match="counter"):
        await pkcs11.create(hsm.config(tmp_path / "counter"))
    assert "label" not in hsm.tool("--list-objects")


async def test_a_token_whose_counter_is_lost_does_not_open(hsm: SoftHsm, tmp_path: Path) -> None:
    config = hsm.config(tmp_path)
    async with closing(await pkcs11.create(config)):
        pass
    (tmp_path / "counter").unlink()
    with pytest.raises(TokenRefused, match="counter"):
        await pkcs11.open_token(config)


async def test_the_pkcs11_driver_is_chosen_by_its_name(hsm: SoftHsm, tmp_path: Path) -> None:
    config = TokenConfig(
        driver="pkcs11",
        folder=tmp_path,
        module_path=hsm.module_path,
        token_label="gateway",
        key_label="journal",
    )
    async with closing(await create_token(config, secret=b"4711")) as made:
        assert made.driver == "pkcs11"
    async with closing(await open_token(replace(config, timeout_s=20), secret=b"4711")) as opened:
        assert opened.signer.public_key == made.signer.public_key
        verify(opened, b"message", await opened.signer.sign(b"message"))
