"""Tokens that vanish, come back, hang, or refuse the PIN."""

import logging
from collections.abc import Awaitable
from pathlib import Path

import pytest

from hsm import pkcs11
from hsm.api import HsmError, KeyMissing, PinWrong, TokenGone, TokenRefused, TokenTimeout
from hsm.pkcs11 import Pkcs11Token
from tests.support.file_locks import locked
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, verify


async def refusals(token: Pkcs11Token, sealed: bytes) -> list[str]:
    """The codes that the calls meet; a call that succeeds fails the test."""
    calls: tuple[Awaitable[object], ...] = (
        token.probe(),
        token.signer.sign(b"message"),
        token.sealer.seal(b"secret", label="store"),
        token.sealer.unseal(sealed, label="store"),
    )
    codes = []
    for call in calls:
        with pytest.raises(HsmError) as refused:
            await call
        codes.append(refused.value.code)
    return codes


async def test_a_token_that_vanished_is_gone_and_comes_back_by_itself(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        sealed = await token.sealer.seal(b"secret", label="store")
        await token.probe()
        for _ in range(2):
            hsm.vanish()
            assert await refusals(token, sealed) == ["token-gone"] * 4
            hsm.come_back()
            await token.probe()
            assert await token.sealer.unseal(sealed, label="store") == b"secret"
            verify(token, b"message", await token.signer.sign(b"message"))


@pytest.mark.parametrize("call", ["sign", "unseal"])
async def test_any_call_finds_a_token_that_came_back(
    hsm: SoftHsm, tmp_path: Path, call: str
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        sealed = await token.sealer.seal(b"secret", label="store")
        hsm.vanish()
        hsm.come_back()
        if call == "sign":
            verify(token, b"message", await token.signer.sign(b"message"))
        else:
            assert await token.sealer.unseal(sealed, label="store") == b"secret"


async def test_a_module_that_does_not_start_is_a_token_that_is_gone(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        hsm.remove()  # without its folder SoftHSM does not initialise
        for _ in range(2):
            with pytest.raises(TokenGone):
                await token.probe()


async def test_one_token_that_vanished_does_not_stop_another(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path / "one"))) as lasting:
        kept = set(hsm.tokens.iterdir())
        hsm.init_token("second", pin="1234")
        config = hsm.config(tmp_path / "two", token_label="second", pin="1234")
        async with closing(await pkcs11.create(config)) as vanishing:
            assert vanishing.signer.public_key != lasting.signer.public_key
            (lost,) = set(hsm.tokens.iterdir()) - kept
            lost.rename(tmp_path / "lost")
            with pytest.raises(TokenGone):
                await vanishing.probe()
            verify(lasting, b"message", await lasting.signer.sign(b"message"))


async def test_another_token_of_the_same_name_is_not_taken_for_it(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path / "one"))) as token:
        hsm.vanish()
        hsm.init_token()
        with pytest.raises(KeyMissing):
            await token.probe()
        async with closing(await pkcs11.create(hsm.config(tmp_path / "two"))):
            with pytest.raises(KeyMissing, match="another signing key"):
                await token.signer.sign(b"message")


async def test_two_tokens_of_one_name_are_not_chosen_from(hsm: SoftHsm, tmp_path: Path) -> None:
    hsm.init_token()
    with pytest.raises(TokenRefused, match="MultipleTokensReturned"):
        await pkcs11.create(hsm.config(tmp_path))


async def test_a_wrong_pin_is_refused_and_not_shown(
    hsm: SoftHsm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with closing(await pkcs11.create(hsm.config(tmp_path))):
        pass
    with pytest.raises(PinWrong) as refused:
        await pkcs11.open_token(hsm.config(tmp_path, pin="987654"))
    assert "987654" not in f"{refused.value!r} {refused.value.__cause__!r} {caplog.text}"
    async with closing(await pkcs11.open_token(hsm.config(tmp_path))) as token:
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_a_wrong_pin_does_not_pass_because_the_token_is_open(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        with pytest.raises(PinWrong):
            await pkcs11.open_token(hsm.config(tmp_path, pin="1234"))
        await token.probe()


async def test_a_pin_that_was_refused_is_not_tried_again(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        hsm.vanish()
        hsm.init_token(pin="1234")
        with pytest.raises(PinWrong, match="refuses"):
            await token.probe()
        with pytest.raises(PinWrong, match="not tried again"):
            await token.probe()


async def test_a_token_that_was_never_there_is_gone(hsm: SoftHsm, tmp_path: Path) -> None:
    for call in (pkcs11.create, pkcs11.open_token):
        with pytest.raises(TokenGone):
            await call(hsm.config(tmp_path, token_label="other"))


async def test_a_token_that_appears_later_is_found(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path / "one"))):
        hsm.init_token("later")
        config = hsm.config(tmp_path / "two", token_label="later")
        async with closing(await pkcs11.create(config)) as token:
            verify(token, b"message", await token.signer.sign(b"message"))


async def test_a_module_that_is_not_there_is_a_token_that_is_gone(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    (tmp_path / "module.so").write_text("no library")
    for name in ("missing.so", "module.so"):
        config = pkcs11.Pkcs11Config(
            module_path=tmp_path / name,
            token_label="gateway",
            key_label="journal",
            pin="4711",
            folder=tmp_path,
        )
        with pytest.raises(TokenGone):
            await pkcs11.create(config)


async def test_a_token_that_hangs_times_out_and_works_again_later(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    hurry = hsm.config(tmp_path, timeout_s=0.5)
    async with (
        closing(await pkcs11.create(hsm.config(tmp_path))) as patient,
        closing(await pkcs11.open_token(hurry)) as hasty,
    ):
        with locked(hsm.tokens):
            with pytest.raises(TokenTimeout):
                await hasty.signer.sign(b"message")
            with pytest.raises(TokenTimeout):
                await hasty.probe()
        verify(patient, b"message", await patient.signer.sign(b"message"))
        await hasty.probe()


async def test_opening_a_token_that_hangs_times_out_and_leaves_nothing_open(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path))) as token:
        with locked(hsm.tokens), pytest.raises(TokenTimeout):
            await pkcs11.open_token(hsm.config(tmp_path, timeout_s=0.5))
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_a_closed_token_does_nothing(hsm: SoftHsm, tmp_path: Path) -> None:
    token = await pkcs11.create(hsm.config(tmp_path))
    sealed = await token.sealer.seal(b"secret", label="store")
    await token.close()
    await token.close()
    assert await refusals(token, sealed) == ["token-gone"] * 4


async def test_a_token_that_vanished_can_be_closed(hsm: SoftHsm, tmp_path: Path) -> None:
    token = await pkcs11.create(hsm.config(tmp_path))
    hsm.remove()
    await token.close()
