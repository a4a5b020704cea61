"""The key ceremony: nothing is made unseen, nothing is overwritten, nothing half-made is left."""

import asyncio
import hashlib
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hsm.api import TokenGone
from tests.support.branch import provisioned
from tests.support.ceremony import Vault
from tests.support.maker import Maker
from tests.support.softhsm import SoftHsm

FAILED, USAGE = 1, 2
SIGNING, SEALING = "journal-signing-epoch-1", "journal-sealing-epoch-1"
ALL = sorted([SIGNING, SIGNING, SEALING])
AGAIN_S = 3.0


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty token, seen by this process too."""
    hsm = SoftHsm(tmp_path / "softhsm")
    hsm.init_token()
    with hsm.in_this_process():
        yield Vault(tmp_path, hsm)


async def test_a_scripted_ceremony_makes_labelled_captive_keys_and_a_record_to_sign(
    vault: Vault,
) -> None:
    code, out, errors = await vault.scripted()
    assert code == 0, errors
    assert vault.labels() == ALL
    assert vault.hsm.tool("--list-objects").count("never extractable, local") == 2
    assert f'key_label = "{SIGNING}"\nsealing_label = "{SEALING}"\n' in out
    record = vault.record.read_text()
    for words in (
        str(vault.hsm.module_path),
        vault.hsm.serial(),
        SIGNING,
        SEALING,
        "1. Ada",
        "2. Gr",
    ):
        assert words in record
    assert record.count("EXTRACTABLE no, NEVER_EXTRACTABLE yes") == 2
    assert "counter: software" in record
    # By itself: a hexadecimal number may have it by chance.
    assert not re.search(r"(?<![0-9a-f])4711(?![0-9a-f])", record + out + errors)
    assert stat.S_IMODE(vault.record.stat().st_mode) == 0o600
    assert not vault.note.exists()


async def test_the_fingerprint_is_that_of_the_key_which_another_client_reads(
    vault: Vault, tmp_path: Path
) -> None:
    code, out, errors = await vault.scripted()
    assert code == 0, errors
    file = tmp_path / "public.der"
    vault.hsm.tool(
        "--read-object", "--type", "pubkey", "--label", SIGNING, "--output-file", str(file)
    )
    shown = re.search(r"SHA-256 ([0-9a-f ]+)", out)
    assert shown is not None
    assert shown[1].replace(" ", "") == hashlib.sha256(file.read_bytes()).hexdigest()


async def test_a_second_ceremony_touches_neither_the_keys_nor_the_record(vault: Vault) -> None:
    await vault.scripted()
    listed, record = vault.hsm.tool("--list-objects"), vault.record.read_text()
    code, _, errors = await vault.scripted()
    assert (code, "edge-ceremony-stopped" in errors) == (FAILED, True)
    assert vault.record.read_text() == record
    vault.record.unlink()
    code, _, errors = await vault.scripted()
    assert (code, f"keys of the label {SIGNING}" in errors) == (FAILED, True)
    assert vault.hsm.tool("--list-objects") == listed
    assert not vault.note.exists()


async def test_a_later_epoch_has_keys_of_its_own_beside_the_first(vault: Vault) -> None:
    await vault.scripted()
    code, _, errors = await vault.scripted("--epoch", "2")
    assert code == 0, errors
    later = [label.replace("epoch-1", "epoch-2") for label in ALL]
    assert vault.labels() == sorted([*ALL, *later])


def some_authority() -> bytes:
    """A CA in PEM."""
    return x509.load_der_x509_certificate(Maker().root).public_bytes(Encoding.PEM)


async def test_a_gateway_is_provisioned_with_the_keys_of_its_ceremony_and_no_others(
    vault: Vault, tmp_path: Path
) -> None:
    _, out, _ = await vault.scripted()
    (tmp_path / "ca.pem").write_bytes(some_authority())
    (tmp_path / "token.txt").write_text("none")
    wish = ("--cloud", "https://none", "--cloud-ca", f"{tmp_path}/ca.pem")
    code, _, errors = await vault.edge("provision", *wish, "--token-file", f"{tmp_path}/token.txt")
    assert (code, "does not name the keys of the ceremony" in errors) == (FAILED, True)
    assert vault.labels() == ALL
    labels = (f"token.key_label={SIGNING}", f"token.sealing_label={SEALING}")
    settings = (*vault.settings, *labels)
    async with provisioned(tmp_path, settings=settings) as (daemon, _):
        daemon.command.environment.update(vault.hsm.variables)
        await daemon.start()
        status = await daemon.wait_for(lambda status: status.mode == "open")
        assert f"journal      {status.id}" in out
        assert status.counter_driver == "software"
        _, doctor, _ = await daemon.command.edge("doctor", "--offline")
        assert "the counter is a file" in doctor
        vault.hsm.vanish()
        gone = await daemon.wait_for(lambda status: status.mode == "sealed")
        assert (gone.cause or "").startswith(TokenGone.code)
        vault.hsm.come_back()
        await daemon.wait_for(lambda status: status.mode == "open")
        await daemon.stop()
    assert vault.labels() == ALL


@pytest.mark.parametrize("algorithm", ["es256", "eddsa"])
async def test_at_a_terminal_two_people_type_the_serial_and_the_fingerprint(
    tmp_path: Path, vault: Vault, algorithm: str
) -> None:
    vault = Vault(tmp_path, vault.hsm, algorithm=algorithm)
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        talk.say(talk.last_digits.upper())
        code, out, errors = await talk.end()
    assert (code, "key_label" in out) == (0, True), errors
    assert vault.labels() == ALL
    assert vault.record.exists()


async def test_a_wrong_serial_or_one_person_twice_makes_nothing(vault: Vault) -> None:
    async with vault.talk() as talk:
        await talk.answer("Type the serial", "0000")
        code, _, errors = await talk.end()
    assert (code, "the token's serial is" in errors) == (FAILED, True)
    async with vault.talk("--serial", vault.hsm.serial(), "--witness", "Ada") as talk:
        await talk.answer("2 of 2", " ada ")
        code, _, errors = await talk.end()
    assert (code, "two people" in errors) == (FAILED, True)
    assert "label" not in vault.hsm.tool("--list-objects")
    assert not vault.record.exists() and not vault.note.exists()


async def test_a_fingerprint_that_is_not_confirmed_leaves_no_keys(vault: Vault) -> None:
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        assert vault.labels() == ALL
        talk.say("00000000")
        code, _, errors = await talk.end()
    assert (code, "nothing was kept" in errors, "3 objects" in errors) == (FAILED, True, True)
    assert "label" not in vault.hsm.tool("--list-objects")
    assert not vault.record.exists() and not vault.note.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_ceremony_that_is_broken_off_leaves_no_keys(
    vault: Vault, number: signal.Signals
) -> None:
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        ended = asyncio.ensure_future(talk.end())
        while not ended.done():
            # One that comes just before the line is waited for is heard with the next one.
            talk.process.send_signal(number)
            await asyncio.wait([ended], timeout=AGAIN_S)
        code, _, _ = await ended
    assert code == FAILED
    assert "label" not in vault.hsm.tool("--list-objects")
    assert not vault.record.exists() and not vault.note.exists()


async def test_what_a_killed_ceremony_left_is_removed_by_the_next_one_and_nothing_else(
    vault: Vault,
) -> None:
    vault.hsm.tool("--keygen", "--key-type", "AES:32", "--label", SEALING + "-of-others")
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        talk.process.kill()
        await talk.end()
    left = vault.hsm.tool("--list-objects")
    assert vault.note.exists() and SIGNING in left
    code, _, errors = await vault.scripted()
    assert (code, "removed what a broken-off ceremony had made: 3 objects" in errors) == (0, True)
    assert vault.labels() == sorted([*ALL, SEALING + "-of-others"])
    found = re.search(r"pubkey|Public Key Object[^\0]*?EC_POINT: +(\w+)", left)
    assert found is not None
    assert found[1] not in vault.hsm.tool("--list-objects")


async def test_a_gateway_is_not_provisioned_beside_a_broken_off_ceremony(
    vault: Vault, tmp_path: Path
) -> None:
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        talk.process.kill()
        await talk.end()
    (tmp_path / "ca.pem").write_bytes(some_authority())
    files = ("--cloud-ca", f"{tmp_path}/ca.pem", "--token-file", f"{tmp_path}/ca.pem")
    code, _, errors = await vault.edge("provision", "--cloud", "https://none", *files)
    assert (code, "hold it again" in errors) == (FAILED, True)


async def test_keys_that_cannot_be_taken_back_now_are_taken_back_by_the_next_ceremony(
    vault: Vault,
) -> None:
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        serial = vault.hsm.serial()
        vault.hsm.vanish()
        talk.say("00000000")
        code, _, errors = await talk.end()
    assert (code, "hold the ceremony again" in errors) == (FAILED, True)
    vault.hsm.init_token()
    code, _, errors = await vault.scripted()
    assert (code, f"on the token {serial} was broken off" in errors) == (FAILED, True)
    for other in list(vault.hsm.tokens.iterdir()):
        other.rename(vault.hsm.tokens.parent / other.name)
    vault.hsm.come_back()
    code, _, errors = await vault.scripted()
    assert code == 0, errors
    assert vault.labels() == ALL


async def test_a_ceremony_that_was_finished_but_for_its_note_stands(vault: Vault) -> None:
    async with vault.talk() as talk:
        await talk.until_made(vault.hsm.serial())
        talk.process.kill()
        await talk.end()
    vault.record.write_text("the record\n")
    code, _, errors = await vault.scripted("--epoch", "2")
    assert code == 0, errors
    assert set(ALL) < set(vault.labels())


WRONG = [
    (("--yes",), "--yes needs --serial and two --witness"),
    ((), "nobody to ask"),
    (("--yes", "--serial", "x", "--witness", "A", "--witness", "B", "--epoch", "0"), "--epoch"),
    (("--yes", "--serial", "x", "--witness", "A", "--witness", "B", "--name", "A B"), "--name"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
async def test_arguments_that_make_no_ceremony_are_told(
    vault: Vault, arguments: tuple[str, ...], words: str
) -> None:
    code, _, errors = await vault.edge("key", "ceremony", *arguments)
    assert (code, words in errors) == (USAGE, True)


async def test_other_drivers_hold_no_ceremony(vault: Vault) -> None:
    vault.settings = ("token.driver=software",)
    people = ("--serial", "x", "--witness", "A", "--witness", "B")
    code, _, errors = await vault.edge("key", "ceremony", "--yes", *people)
    assert (code, "the driver software makes its keys at provisioning" in errors) == (FAILED, True)


async def test_a_note_that_cannot_be_read_stops_the_ceremony(vault: Vault) -> None:
    vault.token_folder.mkdir(parents=True)
    vault.note.write_text("{}")
    code, _, errors = await vault.scripted()
    assert (code, "no note of a key ceremony" in errors) == (FAILED, True)
