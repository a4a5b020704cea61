"""The token without hardware."""

from pathlib import Path

import pytest

from hsm import software
from hsm.api import (
    SECRET_BYTES_MAX,
    Algorithm,
    HsmError,
    KeyMissing,
    PinWrong,
    SealBroken,
    TokenGone,
    TokenRefused,
)
from hsm.software import SoftwareToken
from tests.support.tokens import FEEBLE, nothing_can_be_stored, verify

PASSPHRASE = b"correct horse"


async def create(folder: Path, algorithm: Algorithm = Algorithm.EDDSA) -> SoftwareToken:
    return await software.create(folder, passphrase=PASSPHRASE, algorithm=algorithm, cost=FEEBLE)


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_another_library_verifies_what_it_signs(tmp_path: Path, algorithm: Algorithm) -> None:
    token = await create(tmp_path, algorithm)
    assert token.signer.algorithm is algorithm
    for number in range(40):  # half of all P-256 signatures come with a high s
        message = b"message %d" % number
        verify(token, message, await token.signer.sign(message))


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_the_keys_are_the_same_after_opening_again(
    tmp_path: Path, algorithm: Algorithm
) -> None:
    made = await create(tmp_path, algorithm)
    sealed = await made.sealer.seal(b"secret", label="store")
    await made.close()
    opened = await software.open_token(tmp_path, passphrase=PASSPHRASE)
    assert opened.driver == "software"
    assert opened.signer.algorithm is algorithm
    assert opened.signer.public_key == made.signer.public_key
    assert await opened.sealer.unseal(sealed, label="store") == b"secret"
    verify(opened, b"message", await opened.signer.sign(b"message"))


async def test_two_tokens_have_different_keys(tmp_path: Path) -> None:
    first, second = await create(tmp_path / "a"), await create(tmp_path / "b")
    assert first.signer.public_key != second.signer.public_key
    with pytest.raises(SealBroken):
        sealed = await first.sealer.seal(b"secret", label="store")
        await second.sealer.unseal(sealed, label="store")


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    await create(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["counter", "token.sealed"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_a_token_is_never_overwritten(tmp_path: Path) -> None:
    made = await create(tmp_path)
    await made.counter.increment()
    with pytest.raises(TokenRefused, match="already"):
        await create(tmp_path)
    opened = await software.open_token(tmp_path, passphrase=PASSPHRASE)
    assert opened.signer.public_key == made.signer.public_key
    assert await opened.counter.read() == 1


async def test_a_wrong_passphrase_and_a_damaged_file_are_told_apart(tmp_path: Path) -> None:
    await create(tmp_path)
    with pytest.raises(PinWrong) as wrong:
        await software.open_token(tmp_path, passphrase=b"wrong")
    file = tmp_path / "token.sealed"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SealBroken) as damaged:
        await software.open_token(tmp_path, passphrase=PASSPHRASE)
    assert (wrong.value.code, damaged.value.code) == ("token-pin-wrong", "seal-broken")


async def test_a_folder_without_a_token_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        await software.open_token(tmp_path, passphrase=PASSPHRASE)


async def test_a_place_that_cannot_hold_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TokenRefused, match="not stored"):
        await create(tmp_path / "file" / "keys")
    with pytest.raises(TokenRefused, match="not readable"):
        await software.open_token(tmp_path / "file", passphrase=PASSPHRASE)


async def test_a_full_disk_leaves_no_half_token(tmp_path: Path) -> None:
    with nothing_can_be_stored(), pytest.raises(TokenRefused, match="not stored"):
        await create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    await create(tmp_path)


async def test_a_token_whose_counter_is_lost_does_not_open(tmp_path: Path) -> None:
    await create(tmp_path)
    (tmp_path / "counter").unlink()
    with pytest.raises(TokenRefused, match="counter"):
        await software.open_token(tmp_path, passphrase=PASSPHRASE)


async def test_a_probe_notices_that_the_file_is_gone_and_back(tmp_path: Path) -> None:
    token = await create(tmp_path / "keys")
    await token.probe()
    (tmp_path / "keys").rename(tmp_path / "away")
    with pytest.raises(TokenGone, match="gone"):
        await token.probe()
    (tmp_path / "away").rename(tmp_path / "keys")
    await token.probe()


async def test_a_closed_token_does_nothing(tmp_path: Path) -> None:
    token = await create(tmp_path)
    sealed = await token.sealer.seal(b"secret", label="store")
    await token.close()
    await token.close()
    for call in (
        token.signer.sign(b"message"),
        token.sealer.seal(b"secret", label="store"),
        token.sealer.unseal(sealed, label="store"),
        token.probe(),
    ):
        with pytest.raises(TokenGone, match="closed"):
            await call


async def test_the_seal_opens_under_its_label_alone(tmp_path: Path) -> None:
    token = await create(tmp_path)
    for secret in (b"", b"secret", bytes(SECRET_BYTES_MAX)):
        sealed = await token.sealer.seal(secret, label="store")
        assert await token.sealer.unseal(sealed, label="store") == secret
        with pytest.raises(SealBroken):
            await token.sealer.unseal(sealed, label="hosted")


async def test_the_same_secret_is_never_sealed_alike(tmp_path: Path) -> None:
    token = await create(tmp_path)
    seals = {await token.sealer.seal(b"secret", label="store") for _ in range(20)}
    assert len(seals) == 20


async def test_every_changed_bit_breaks_the_seal(tmp_path: Path) -> None:
    token = await create(tmp_path)
    sealed = await token.sealer.seal(b"secret", label="store")
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            await token.sealer.unseal(bytes(changed), label="store")


async def test_every_cut_breaks_the_seal(tmp_path: Path) -> None:
    token = await create(tmp_path)
    sealed = await token.sealer.seal(b"secret", label="store")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            await token.sealer.unseal(sealed[:length], label="store")


async def test_what_is_no_key_is_not_sealed(tmp_path: Path) -> None:
    token = await create(tmp_path)
    with pytest.raises(TokenRefused, match="at most"):
        await token.sealer.seal(bytes(SECRET_BYTES_MAX + 1), label="store")


def test_every_error_has_a_code_of_its_own_and_a_plain_sentence_for_the_technician() -> None:
    errors: set[type[HsmError]] = {HsmError, *HsmError.__subclasses__()}
    codes = {error.code for error in errors if error.__module__ == HsmError.__module__}
    assert codes == {
        "hsm-failed",
        "token-gone",
        "token-pin-wrong",
        "token-locked",
        "key-missing",
        "token-cleared",
        "token-replaced",
        "token-policy-refused",
        "counter-replaced",
        "seal-broken",
        "token-refused",
        "token-timeout",
    }
    assert len({error.advice for error in errors}) == len(errors)
    for error in errors:
        assert error.advice[0].isupper() and error.advice.endswith(".")
        assert error("why").explained() == f"{error.code}: why. {error.advice}"
