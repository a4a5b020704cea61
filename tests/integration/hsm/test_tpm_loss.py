"""TPMs that vanish, hang, are locked, cleared or exchanged: a state each, and nothing is lost."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMS_SENSITIVE_CREATE,
    TSS2_Exception,
)

from hsm import tpm
from hsm.api import (
    HsmError,
    PinWrong,
    TokenCleared,
    TokenGone,
    TokenLocked,
    TokenReplaced,
    TokenTimeout,
)
from hsm.tpm import TpmToken
from hsm.tpm.errors import translated
from hsm.tpm.keys import Keys
from hsm.tpm.objects import held, storage_root
from hsm.tpm.templates import SESSION_CIPHER, sealed_data, storage_key
from tests.support.swtpm import Swtpm, clear
from tests.support.tokens import closing, verify

TRIES_MAX = 2
CHIP_HOLDS = 3
WAIT_S = 60


async def codes(token: TpmToken) -> set[str]:
    """The codes that the calls meet; a call that succeeds fails the test."""
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        token.probe,
        token.counter.read,
        token.counter.increment,
        lambda: token.signer.sign(b"message"),
        lambda: token.sealer.seal(b"secret", label="store"),
        lambda: token.attester.certify_signer(nonce=bytes(8)),
    )
    met = set()
    for call in calls:
        with pytest.raises(HsmError) as refused:
            await call()
        assert refused.value.advice.endswith(".")
        met.add(refused.value.code)
    return met


async def test_a_tpm_without_power_is_gone_and_comes_back_by_itself(
    chip: Swtpm, tmp_path: Path
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        sealed = await token.sealer.seal(b"secret", label="store")
        for _ in range(2):
            count = await token.counter.increment()
            chip.kill()
            assert await codes(token) == {"token-gone"}
            chip.start()
            await token.probe()
            assert await token.sealer.unseal(sealed, label="store") == b"secret"
            assert await token.counter.read() == count
            verify(token, b"message", await token.signer.sign(b"message"))


@pytest.mark.parametrize("call", ["sign", "count", "attest"])
async def test_any_call_finds_a_tpm_that_was_restarted(
    chip: Swtpm, tmp_path: Path, call: str
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        count = await token.counter.read()
        chip.restart()
        if call == "sign":
            verify(token, b"message", await token.signer.sign(b"message"))
        elif call == "count":
            assert await token.counter.increment() == count + 1
        else:
            await token.attester.certify_signer(nonce=bytes(8))


async def test_a_count_that_a_power_cut_broke_off_is_made_once_or_not_at_all(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token", pin=b"")  # with a PIN, power cuts are tries
    async with closing(await tpm.create(config)) as token:
        known = await token.counter.read()
        for cut in range(10):
            counting = asyncio.create_task(token.counter.increment())
            await asyncio.to_thread(threading.Event().wait, 0.001 * cut)  # any moment of the call
            chip.kill()
            try:
                known, broken_off = await counting, 0
            except TokenGone:
                broken_off = 1
            chip.start()
            count = await token.counter.read()
            assert known <= count <= known + broken_off
            known = count


async def test_a_tpm_that_was_never_there_is_gone(chip: Swtpm, tmp_path: Path) -> None:
    config = chip.config(tmp_path / "token")
    chip.kill()
    with pytest.raises(TokenGone):
        await tpm.create(config)
    assert not config.folder.exists()
    chip.start()
    async with closing(await tpm.create(config)) as token:
        await token.probe()
    chip.kill()
    with pytest.raises(TokenGone):
        await tpm.open_token(config)


@pytest.mark.parametrize("tcti", ["device:/dev/no-tpm", "nothing:here", "swtpm:port=1"])
async def test_a_way_to_no_tpm_is_a_token_that_is_gone(
    chip: Swtpm, tmp_path: Path, tcti: str
) -> None:
    config = tpm.TpmConfig(folder=tmp_path / "token", tcti=tcti)
    with pytest.raises(TokenGone):
        await tpm.create(config)


async def test_a_cleared_tpm_says_so_and_does_not_count_as_another(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await chip.administer(clear)
        assert await codes(token) == {"token-cleared"}
    with pytest.raises(TokenCleared, match="cleared"):
        await tpm.open_token(config)


async def test_another_tpm_says_so_and_the_first_one_is_taken_again(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        chip.replace()
        assert await codes(token) == {"token-replaced"}
        with pytest.raises(TokenReplaced, match="another"):
            await tpm.open_token(config)
        chip.put_back()
        await token.probe()
        verify(token, b"message", await token.signer.sign(b"message"))


def allow_few_tries(esys: ESAPI) -> None:
    """So many wrong PINs, and then none for a long time."""
    esys.dictionary_attack_parameters(TRIES_MAX, 10_000, 10_000)


def unlock(esys: ESAPI) -> None:
    """What the owner of the lock-out's secret does."""
    esys.dictionary_attack_lock_reset()


async def test_too_many_wrong_pins_lock_the_right_one_out_until_it_is_reset(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await chip.administer(allow_few_tries)
        for _ in range(TRIES_MAX):
            with pytest.raises(PinWrong):
                await tpm.open_token(chip.config(tmp_path / "token", pin=b"wrong"))
        assert await codes(token) == {"token-locked"}
        with pytest.raises(TokenLocked, match="locked"):
            await tpm.open_token(config)
        await chip.administer(unlock)
        await token.probe()
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_power_cuts_are_tries_too_and_the_lock_out_ends_by_itself(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await chip.administer(lambda esys: esys.dictionary_attack_parameters(TRIES_MAX, 1, 1))
        await token.probe()
        locked = False
        for _ in range(TRIES_MAX + 1):
            chip.restart()
            try:
                await token.probe()
            except TokenLocked:
                locked = True
        assert locked
        async with asyncio.timeout(WAIT_S):
            while locked:
                await asyncio.sleep(0.1)
                with contextlib.suppress(TokenLocked):
                    await token.probe()
                    locked = False
        verify(token, b"message", await token.signer.sign(b"message"))


def provoke_lock_out(keys: Keys) -> None:
    """Guess at a secret of one's own until the TPM locks."""
    esys, device = keys.esys, keys.device
    esys.dictionary_attack_parameters(1, 10_000, 10_000)
    template = sealed_data(b"", guessable=True)
    template.publicArea.objectAttributes |= TPMA_OBJECT.USERWITHAUTH
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=b"right", data=b"data"))
    with storage_root(esys, device, keys.config) as root:
        private, public, *_ = esys.create(root.handle, sensitive, template)
        with held(device, esys.load(root.handle, private, public)) as item:
            esys.tr_set_auth(item, b"wrong")
            for _ in range(2):
                with pytest.raises(TSS2_Exception):
                    esys.unseal(item)


async def test_a_lock_out_does_not_stop_a_gateway_that_is_open(chip: Swtpm, tmp_path: Path) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await token._line.run(provoke_lock_out)
        await token.probe()
        verify(token, b"message", await token.signer.sign(b"message"))
        assert await token.counter.increment() > 0
    with pytest.raises(TokenLocked):
        await tpm.open_token(config)


async def test_a_wrong_pin_is_refused_and_not_shown(
    chip: Swtpm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with closing(await tpm.create(chip.config(tmp_path / "token"))):
        pass
    wrong = chip.config(tmp_path / "token", pin=b"987654")
    with pytest.raises(PinWrong) as refused:
        await tpm.open_token(wrong)
    assert "987654" not in f"{refused.value!r} {refused.value.__cause__!r} {caplog.text} {wrong!r}"


async def test_a_tpm_that_hangs_times_out_and_works_again_later(
    chip: Swtpm, tmp_path: Path
) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))):
        pass
    token = await tpm.open_token(chip.config(tmp_path / "token", timeout_s=1.0))
    patient = chip.config(tmp_path / "token")
    with chip.hanging():
        for call in (token.probe, token.counter.increment):
            with pytest.raises(TokenTimeout):
                await call()
    async with closing(await tpm.open_token(patient)) as again:
        verify(again, b"message", await again.signer.sign(b"message"))
    await token.close()


async def test_opening_a_tpm_that_hangs_times_out_and_leaves_nothing_open(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass
    with chip.hanging(), pytest.raises(TokenTimeout):
        await tpm.open_token(chip.config(tmp_path / "token", timeout_s=0.5))
    async with closing(await tpm.open_token(config)) as token:
        await token.probe()


async def test_what_a_killed_process_left_in_the_tpm_makes_room(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass

    def fill(esys: ESAPI) -> None:
        for _ in range(CHIP_HOLDS):
            esys.create_primary(None, storage_key(), ESYS_TR.OWNER)
            esys.start_auth_session(
                ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, SESSION_CIPHER, TPM2_ALG.SHA256
            )

    await chip.administer(fill)
    async with closing(await tpm.open_token(config)) as token:
        verify(token, b"message", await token.signer.sign(b"message"))


@pytest.mark.parametrize(
    ("rc", "code"),
    [
        (0x101, "token-gone"),  # failure mode: it wants its power cut
        (0x918, "token-gone"),  # a session of before the reset
        (0xB0101, "token-gone"),  # the same, said by a resource manager
        (0xA000A, "token-gone"),  # the way to it is broken
        (0x920, "token-timeout"),  # its memory is worn too fast
        (0x922, "token-timeout"),
        (0x128, "token-timeout"),  # a register changed between the look and the use
        (0x921, "token-locked"),
        (0x98E, "token-pin-wrong"),
        (0x9A2, "token-refused"),
        (0x1DF, "seal-broken"),
        (0x143, "token-refused"),
    ],
)
def test_each_word_of_a_tpm_has_its_meaning(rc: int, code: str) -> None:
    with pytest.raises(HsmError) as met, translated():
        raise TSS2_Exception(rc)
    assert met.value.code == code


async def test_the_loop_goes_on_while_the_tpm_works(chip: Swtpm, tmp_path: Path) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token", timeout_s=60.0))) as token:
        with chip.hanging():
            signing = asyncio.create_task(token.signer.sign(b"message"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not signing.done()
        verify(token, b"message", await signing)


async def test_a_closed_token_does_nothing(chip: Swtpm, tmp_path: Path) -> None:
    token = await tpm.create(chip.config(tmp_path / "token"))
    await token.close()
    await token.close()
    assert await codes(token) == {"token-gone"}


async def test_a_token_whose_tpm_vanished_can_be_closed(chip: Swtpm, tmp_path: Path) -> None:
    token = await tpm.create(chip.config(tmp_path / "token"))
    chip.kill()
    await token.close()
