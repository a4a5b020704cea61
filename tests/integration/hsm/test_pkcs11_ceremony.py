"""The steps of a key ceremony in the driver: what it shows, makes and takes back."""

from pathlib import Path

import pytest

from hsm.api import Algorithm, PinWrong, TokenGone, TokenRefused, begin_count
from hsm.ceremony import look, make, remove
from hsm.open import TokenConfig, open_token
from tests.support.counting_hsm import CountingHsm
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, verify

PIN = b"4711"
ID = b"\x07" * 16


def config_of(
    hsm: SoftHsm,
    folder: Path,
    *,
    token_label: str = "gateway",
    key_label: str = "signing-1",
    sealing_label: str = "sealing-1",
) -> TokenConfig:
    """Labels with purpose and epoch, for a gateway in this folder."""
    return TokenConfig(
        driver="pkcs11",
        folder=folder,
        module_path=hsm.module_path,
        token_label=token_label,
        key_label=key_label,
        sealing_label=sealing_label,
        timeout_s=30,
    )


async def test_the_token_is_shown_by_its_own_words(hsm: SoftHsm, tmp_path: Path) -> None:
    facts = await look(config_of(hsm, tmp_path), secret=PIN)
    assert (facts.module, facts.label) == (hsm.module_path, "gateway")
    assert (facts.serial, facts.counter) == (hsm.serial(), "software")
    assert "SoftHSM" in facts.library and "SoftHSM" in facts.model
    assert "label" not in hsm.tool("--list-objects")


async def test_what_was_made_opens_and_what_is_told_of_it_is_so(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    config = config_of(hsm, tmp_path)
    made = await make(config, secret=PIN, key_id=ID)
    assert [(key.kind, key.label) for key in made.keys] == [
        ("signing key, public", "signing-1"),
        ("signing key, private", "signing-1"),
        ("sealing key, secret", "sealing-1"),
    ]
    assert [len(key.attributes) for key in made.keys] == [0, 6, 6]
    async with closing(await open_token(config, secret=PIN)) as token:
        assert (token.signer.public_key, made.algorithm) == (made.public_key, Algorithm.EDDSA)
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_only_what_bears_the_id_is_taken_back(hsm: SoftHsm, tmp_path: Path) -> None:
    config = config_of(hsm, tmp_path)
    await make(config, secret=PIN, key_id=ID)
    assert await remove(config, secret=PIN, key_id=b"\x08" * 16) == 0
    assert hsm.tool("--list-objects").count("label:") == 3
    assert await remove(config, secret=PIN, key_id=ID) == 3
    assert "label" not in hsm.tool("--list-objects")


async def test_keys_are_never_made_beside_others_of_their_label(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    await make(config_of(hsm, tmp_path), secret=PIN, key_id=ID)
    listed = hsm.tool("--list-objects")
    for config in (
        config_of(hsm, tmp_path, key_label="signing-2"),
        config_of(hsm, tmp_path, sealing_label="sealing-2"),
    ):
        with pytest.raises(TokenRefused, match="already"):
            await make(config, secret=PIN, key_id=b"other")
    assert hsm.tool("--list-objects") == listed


async def test_a_wrong_pin_and_a_token_that_is_not_there_are_told(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    with pytest.raises(PinWrong):
        await look(config_of(hsm, tmp_path), secret=b"1234")
    with pytest.raises(TokenGone):
        await look(config_of(hsm, tmp_path, token_label="none"), secret=PIN)


async def test_other_drivers_have_no_ceremony(tmp_path: Path) -> None:
    with pytest.raises(TokenRefused, match="at provisioning"):
        await look(TokenConfig(driver="software", folder=tmp_path), secret=PIN)


async def test_a_counter_in_the_token_is_shown_and_taken(tmp_path: Path) -> None:
    hsm = CountingHsm(tmp_path / "softhsm")
    hsm.init_token()
    config = config_of(hsm, tmp_path)
    with hsm.in_this_process():
        assert (await look(config, secret=PIN)).counter == "pkcs11"
        await make(config, secret=PIN, key_id=ID)
        assert (await look(config, secret=PIN)).counter == "pkcs11"
        async with closing(await open_token(config, secret=PIN)) as token:
            await begin_count(token.counter)
            assert (token.counter.driver, await token.counter.read()) == ("pkcs11", 0)
