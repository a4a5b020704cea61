"""A signing pair for a later epoch: under a label of its own, while the one before still signs."""

from pathlib import Path

import pytest

from hsm import pkcs11
from hsm.api import KeyMissing, TokenRefused
from hsm.pkcs11 import Pkcs11Config
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, verify


def of_epoch(hsm: SoftHsm, folder: Path, epoch: int) -> Pkcs11Config:
    """The sealing key is that of the first epoch, always."""
    label = f"journal-signing-epoch-{epoch}"
    return hsm.config(folder, key_label=label, sealing_label="journal-sealing-epoch-1")


async def test_the_key_before_signs_while_the_next_one_is_made_and_afterwards(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    async with closing(await pkcs11.create(of_epoch(hsm, tmp_path, 1))) as first:
        sealed = await first.sealer.seal(b"secret", label="store")
        await first.counter.increment()
        async with closing(await pkcs11.add_signer(of_epoch(hsm, tmp_path, 2))) as second:
            assert second.signer.public_key != first.signer.public_key
            for token in (first, second):
                verify(token, b"message", await token.signer.sign(b"message"))
            assert await second.sealer.unseal(sealed, label="store") == b"secret"
            assert await second.counter.read() == 1
    for epoch, made in ((1, first), (2, second)):
        async with closing(await pkcs11.open_token(of_epoch(hsm, tmp_path, epoch))) as opened:
            assert opened.signer.public_key == made.signer.public_key
            assert await opened.sealer.unseal(sealed, label="store") == b"secret"


async def test_a_label_that_has_a_key_gets_no_second_one(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(of_epoch(hsm, tmp_path, 1))) as first:
        with pytest.raises(TokenRefused, match="journal-signing-epoch-1 already"):
            await pkcs11.add_signer(of_epoch(hsm, tmp_path, 1))
        verify(first, b"message", await first.signer.sign(b"message"))


async def test_without_a_sealing_key_no_signing_pair_is_left(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(hsm.config(tmp_path, key_label="other"))):
        listed = hsm.tool("--list-objects")
        with pytest.raises(KeyMissing):
            await pkcs11.add_signer(of_epoch(hsm, tmp_path, 2))
        assert hsm.tool("--list-objects") == listed


async def test_where_nobody_counts_no_signing_pair_is_made(hsm: SoftHsm, tmp_path: Path) -> None:
    async with closing(await pkcs11.create(of_epoch(hsm, tmp_path, 1))):
        listed = hsm.tool("--list-objects")
        with pytest.raises(TokenRefused, match="counter"):
            await pkcs11.add_signer(of_epoch(hsm, tmp_path / "elsewhere", 2))
        assert hsm.tool("--list-objects") == listed
