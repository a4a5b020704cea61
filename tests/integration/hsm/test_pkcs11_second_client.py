"""OpenSC's pkcs11-tool, with the PIN, beside the gateway: it sees the keys and gets none out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hsm import pkcs11
from hsm.api import Algorithm
from hsm.pkcs11 import Pkcs11Token
from tests.support.softhsm import SoftHsm
from tests.support.tokens import closing, verify

SIGNING, SEALING = "journal-signing-epoch-1", "journal-sealing-epoch-1"
THIEF, BAIT = "77", "88"


@pytest.fixture(params=Algorithm)
async def token(
    hsm: SoftHsm, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Pkcs11Token]:
    """The gateway's own token, open all the while."""
    config = hsm.config(tmp_path, key_label=SIGNING, sealing_label=SEALING, algorithm=request.param)
    async with closing(await pkcs11.create(config)) as made:
        yield made


async def take(hsm: SoftHsm, file: Path, *arguments: str) -> str:
    """What the tool says to an attempt to write something of the token into the file."""
    command = (*arguments, "--output-file", str(file))
    try:
        return await asyncio.to_thread(hsm.tool, *command)
    except RuntimeError as error:
        return str(error)


async def test_it_sees_the_pair_and_the_sealing_key_and_that_they_are_captive(
    hsm: SoftHsm, token: Pkcs11Token
) -> None:
    listed = await asyncio.to_thread(hsm.tool, "--list-objects")
    assert listed.count(f"label:      {SIGNING}") == 2
    assert listed.count(f"label:      {SEALING}") == 1
    assert listed.count("sensitive, always sensitive, never extractable, local") == 2


async def test_it_reads_the_public_key_alone(
    hsm: SoftHsm, token: Pkcs11Token, tmp_path: Path
) -> None:
    file = tmp_path / "taken"
    read = ("--read-object", "--type")
    await take(hsm, file, *read, "pubkey", "--label", SIGNING)
    # OpenSC 0.23 writes an Ed25519 key in a form of its own.
    assert token.signer.algorithm is Algorithm.EDDSA or (
        token.signer.public_key in file.read_bytes()
    )
    file.unlink()
    await take(hsm, file, *read, "privkey", "--label", SIGNING)
    assert not file.exists()
    refused = await take(hsm, file, *read, "secrkey", "--label", SEALING)
    assert "CKR_ATTRIBUTE_SENSITIVE" in refused
    assert not file.exists()


async def test_it_does_not_wrap_the_sealing_key_with_a_key_of_its_own(
    hsm: SoftHsm, token: Pkcs11Token, tmp_path: Path
) -> None:
    file = tmp_path / "taken"
    own = ("--keygen", "--key-type", "AES:32", "--label")
    await asyncio.to_thread(hsm.tool, *own, "thief", "--id", THIEF, "--usage-wrap")
    await asyncio.to_thread(hsm.tool, *own, "bait", "--id", BAIT, "--extractable")
    wrap = ("--wrap", "--mechanism", "AES-KEY-WRAP", "--id", THIEF, "--application-id")
    # What may leave does leave: the attempt is a real one. The tool wraps secret keys alone; the
    # private one is tried by `key_thief`.
    await take(hsm, file, *wrap, BAIT)
    assert file.stat().st_size == 40
    file.unlink()
    assert "CKR_KEY_UNEXTRACTABLE" in await take(hsm, file, *wrap, SEALING.encode().hex())
    assert not file.exists()
    verify(token, b"message", await token.signer.sign(b"message"))
