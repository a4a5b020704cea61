"""In a box that somebody opened no command opens a key, whichever trace of it was taken away."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.commands.rotation import exchange_store_key
from edge.config import TamperConfig
from edge.errors import GatewayTampered
from edge.folder import Folder
from edge.http.types import GatewayAnswer
from edge.store_key import open_store
from edge.tamper import Mark, guarded, read_mark, store_mark, write_mark
from hsm import software
from tests.integration.edge.conftest import Template
from tests.support.branch import Command, Daemon
from tests.support.branch_local import PASSPHRASE, config_of, copied
from wallet.clock import SystemClock
from wallet.store.connection import Connection
from wallet.store.journal import entry_count
from wallet.store.meta import put_meta

MARK = Mark(time_ms=1_700_000_000_000, source="file", reason="/run/lid is there")
SENTENCE = "the tamper switch tripped at"
# Stands for a small file that is there.
FILE = "FILE"
CERTIFICATE = "CERTIFICATE"
ROTATE = ("key", "rotate")
# Those that open keys by themselves, then those that ask the daemon.
OPENING = {
    "database": (*ROTATE, "database"),
    "signing": (*ROTATE, "signing", "--token-file", FILE),
    "restore": ("restore", FILE, "--passphrase-file", FILE),
    "reseal": ("key", "reseal", "--to", "none"),
    "show": ("key", "show"),
    "ceremony": (
        *("key", "ceremony", "--yes", "--serial", "1", "--witness", "A", "--witness", "B"),
    ),
    "provision": (
        *("provision", "--cloud", "https://cloud.example"),
        *("--cloud-ca", CERTIFICATE, "--token-file", FILE),
    ),
}
ASKING = {
    "backup": ("backup", "copy", "--passphrase-file", FILE),
    "end": (*ROTATE, "signing", "--end"),
    "tls": (*ROTATE, "tls"),
    "terminals": (*ROTATE, "terminals"),
    "finish": (*ROTATE, "terminals", "--finish"),
}
STEPS = ("sealed", "locked", "opened", "rekeyed", "folded", "checked", "remembered", "promoted")
FILLER = 20_000


@pytest.fixture
def folder(template: Template, tmp_path: Path) -> Folder:
    """A copy of a provisioned folder."""
    shutil.copytree(template.folder, tmp_path / "gateway")
    return Folder(tmp_path / "gateway")


async def run(
    folder: Folder, name: str, *flags: str, passphrase: str = PASSPHRASE.decode()
) -> tuple[int, str, str]:
    """One of the commands above."""
    file = folder.root.parent / "file"
    file.write_text("a secret of one line\n")
    command = Command(folder.root)
    command.environment["CBDC_EDGE_PASSPHRASE"] = passphrase
    stands_for = {FILE: str(file), CERTIFICATE: str(folder.tls / "authority.crt")}
    words = [stands_for.get(word, word) for word in {**OPENING, **ASKING}[name]]
    return await command.edge(*flags, *words)


@pytest.mark.parametrize("name", [*OPENING, *ASKING])
async def test_with_the_mark_no_command_opens_a_key(folder: Folder, name: str) -> None:
    write_mark(folder, MARK)
    # No passphrase would do: nobody asks for the keys.
    code, out, errors = await run(folder, name, passphrase="wrong")
    assert (code, out) == (4, "")
    assert errors.startswith("cbdc-edge: edge-tampered: " + SENTENCE), errors
    assert read_mark(folder) == MARK


async def with_store(folder: Folder, work: Callable[[Connection], object]) -> None:
    """Write to a store, as the daemon did before it let go."""
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    database = await open_store(folder, token)
    await database.write(work)
    await database.close()
    await token.close()


@pytest.mark.parametrize("name", ["database", "signing", "restore", "provision"])
async def test_where_the_mark_was_taken_away_the_store_remembers_it(
    folder: Folder, name: str
) -> None:
    await with_store(folder, lambda connection: store_mark(connection, MARK))
    before = folder.store_key.read_bytes()
    code, _, errors = await run(folder, name)
    assert (code, "edge-tampered: " + SENTENCE in errors) == (4, True), errors
    # The command set it again: the next one does not come as far as the keys.
    assert read_mark(folder) == MARK
    assert folder.store_key.read_bytes() == before


@pytest.mark.parametrize("name", ["database", "signing", "restore", "reseal"])
async def test_a_switch_that_is_open_now_stops_a_command_and_leaves_its_mark(
    folder: Folder, tmp_path: Path, name: str
) -> None:
    lid = tmp_path / "lid"
    lid.touch()
    flags = ("--set", "tamper.source=file", "--set", f"tamper.file={lid}")
    code, _, errors = await run(folder, name, *flags)
    assert (code, f"{lid} is there" in errors) == (4, True), errors
    mark = read_mark(folder)
    assert mark is not None and mark.source == "file"


async def test_receipts_of_a_backup_are_written_all_the_same(
    template: Template, tmp_path: Path
) -> None:
    """They are what holders claim by, and need no key of the box."""
    words = tmp_path / "words"
    words.write_text("correct horse battery staple\n")
    passphrase = ("--passphrase-file", str(words))
    async with copied(template.folder, tmp_path / "g", template.issuer) as branch:
        code, _, errors = await Command(branch.folder.root).edge(
            "backup", str(tmp_path / "b"), *passphrase
        )
        assert code == 0, errors
    write_mark(Folder(tmp_path / "g"), MARK)
    code, out, errors = await Command(tmp_path / "g").edge(
        "restore", str(tmp_path / "b"), *passphrase, "--receipts", str(tmp_path / "receipts")
    )
    assert (code, "receipts" in out) == (0, True), errors


# ---- a trip while the store's key is exchanged ------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
async def test_a_trip_while_the_store_s_key_is_exchanged_ends_it_and_loses_nothing(
    folder: Folder, tmp_path: Path, step: str
) -> None:
    lid, seen = tmp_path / "lid", []
    config = config_of(folder.root, tamper=TamperConfig(source="file", file=lid))

    with (
        pytest.raises(GatewayTampered, match="tamper switch tripped"),
        guarded(config, SystemClock()) as look,
    ):

        def stepped(name: str) -> None:
            seen.append(name)
            if name == step:
                lid.touch()
            look()

        await exchange_store_key(config, folder, stepped, secret=PASSPHRASE)
    assert seen[-1] == step
    lid.unlink()
    await frozen_with_all_entries(folder)


async def frozen_with_all_entries(folder: Folder) -> None:
    """The daemon opens nothing; an auditor with the passphrase finds every entry."""
    daemon = Daemon(folder.root)
    await daemon.start()
    status: GatewayAnswer = await daemon.wait_for(lambda s: s.mode == "frozen-tamper")
    assert SENTENCE in (status.cause or "")
    assert await daemon.stop() == 0
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    database = await open_store(folder, token)
    assert await database.read(entry_count) > 5
    await database.close()
    await token.close()


async def test_a_trip_during_the_real_command_ends_it_with_a_sentence(
    folder: Folder, tmp_path: Path
) -> None:
    def fill(connection: Connection) -> None:
        for number in range(FILLER):
            put_meta(connection, f"filler {number}", bytes(400))

    await with_store(folder, fill)
    lid = tmp_path / "lid"
    flags = ("--set", "tamper.source=file", "--set", f"tamper.file={lid}")
    process = await Command(folder.root).start(
        *("edge.cli", "--folder", str(folder.root), *flags, *ROTATE, "database")
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while (line := (await process.stderr.readline()).decode()) != "database key: opened\n":
            assert line, "it ended before"
        lid.touch()
        _, errors = await process.communicate()
    assert (process.returncode, "edge-tampered" in errors.decode()) == (4, True), errors
    lid.unlink()
    await frozen_with_all_entries(folder)
