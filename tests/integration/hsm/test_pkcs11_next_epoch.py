"""Keys of the next epoch in one token: made or taken, with a count of their own."""

from pathlib import Path

import pytest

from hsm import pkcs11
from hsm.api import Algorithm, KeyMissing, TokenRefused, begin_count
from hsm.open import TokenConfig, begin_next_token
from hsm.pkcs11 import Pkcs11Config
from hsm.pkcs11.ceremony import begin_counter, make
from tests.support.counting_hsm import CountingHsm
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, verify


def config(hsm: SoftHsm, folder: Path, label: str, sealing: str = "") -> Pkcs11Config:
    """Keys of a folder."""
    return hsm.config(folder, key_label=label, sealing_label=sealing)


async def test_both_keys_are_made_once_and_found_when_asked_again(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(config(hsm, tmp_path / "one", "one"))) as first:
        wanted = config(hsm, tmp_path / "two", "two")
        async with closing(await pkcs11.begin_next(wanted, held=False)) as second:
            assert second.signer.public_key != first.signer.public_key
            assert await second.counter.increment() == 1
            sealed = await second.sealer.seal(b"secret", label="store")
        async with closing(await pkcs11.begin_next(wanted, held=False)) as again:
            assert again.signer.public_key == second.signer.public_key
            assert await again.counter.read() == 1
            assert await again.sealer.unseal(sealed, label="store") == b"secret"
        assert await first.counter.read() == 0


async def test_a_sealing_key_of_its_own_label_stays(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(config(hsm, tmp_path / "one", "one", "seals"))) as first:
        sealed = await first.sealer.seal(b"secret", label="store")
        wanted = config(hsm, tmp_path / "two", "two", "seals")
        # As a crash between the count and the keys leaves it.
        await begin_counter(wanted)
        for _ in range(2):
            async with closing(await pkcs11.begin_next(wanted, held=False)) as second:
                verify(second, b"message", await second.signer.sign(b"message"))
                assert await second.sealer.unseal(sealed, label="store") == b"secret"


async def test_keys_that_are_not_this_folder_s_are_refused_however_often(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(config(hsm, tmp_path / "one", "one"))):
        for _ in range(2):
            with pytest.raises(TokenRefused, match="needs another key_label"):
                await pkcs11.begin_next(config(hsm, tmp_path / "two", "one"), held=False)


async def test_keys_of_a_ceremony_are_taken_and_never_made(hsm: SoftHsm, tmp_path: Path) -> None:
    wanted = config(hsm, tmp_path / "two", "two", "two-seals")
    with pytest.raises(KeyMissing):
        await pkcs11.begin_next(wanted, held=True)
    made = await make(config(hsm, tmp_path / "one", "two", "two-seals"), b"k" * 16)
    async with closing(await pkcs11.begin_next(wanted, held=True)) as token:
        assert token.signer.public_key == made.public_key
        assert await token.counter.increment() == 1


async def test_a_token_that_counts_does_so_for_the_next_epoch(tmp_path: Path) -> None:
    hsm = CountingHsm(tmp_path / "softhsm")
    hsm.init_token()
    with hsm.in_this_process():
        for number, sealing in ((1, "seals"), (2, "seals")):
            wanted = config(hsm, tmp_path / str(number), f"epoch-{number}", sealing)
            token = await (
                pkcs11.create(wanted) if number == 1 else pkcs11.begin_next(wanted, held=False)
            )
            async with closing(token):
                await begin_count(token.counter)
                assert (token.counter.driver, await token.counter.increment()) == ("pkcs11", 1)


async def test_other_drivers_make_their_keys_in_the_folder(tmp_path: Path) -> None:
    wanted = TokenConfig(driver="software", folder=tmp_path / "token", algorithm=Algorithm.ES256)
    keys = []
    for _ in range(2):
        async with closing(await begin_next_token(wanted, secret=b"words", held=False)) as token:
            keys.append(token.signer.public_key)
    assert keys[0] == keys[1]
