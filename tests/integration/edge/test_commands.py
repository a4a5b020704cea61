"""What a stranger types: each mistake has its words and its exit code, and never a trace."""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.cli import main as edge_main
from edge.folder import Folder
from edge.pos.cli import main as pos_main
from tests.integration.edge.conftest import Template
from tests.support.branch import Command
from tests.support.branch_local import Branch

FAILED, USAGE, SEALED = 1, 2, 4


def run(program: str, arguments: Sequence[str]) -> int:
    """The exit code, also of a usage that argparse refuses."""
    main = edge_main if program == "cbdc-edge" else pos_main
    try:
        return main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


MISTAKES = [
    ("cbdc-edge", ("status",), FAILED, "`cbdc-edge run` starts one"),
    ("cbdc-edge", ("wallet", "create"), FAILED, "--pin-file"),
    ("cbdc-edge", ("wallet", "create", "--tier", "1001"), USAGE, "0 to 1000"),
    ("cbdc-edge", ("--set", "listen", "status"), USAGE, "KEY=VALUE"),
    ("cbdc-edge", ("key",), USAGE, "WHAT"),
    ("cbdc-pos", ("pay",), USAGE, "--from, --to and --amount"),
    ("cbdc-pos", ("refund", "0" * 64), USAGE, "--from"),
    ("cbdc-pos", ("pair", "https://", "https://gateway:8440"), USAGE, "https://HOST:PORT"),
    ("cbdc-pos", ("pair", "http://gateway:8441", "x"), USAGE, "https://HOST:PORT"),
    ("cbdc-pos", ("pair", "https://gateway:nine", "x"), USAGE, "nine"),
    ("cbdc-pos", ("wallet", "show", "x"), FAILED, "not paired yet"),
    *[
        ("cbdc-pos", (*words, "--amount", amount), USAGE, "argument --amount:")
        for amount in ("12,34", "", "1e3", "-1", "12.", "1.23456", "\u0661")
        for words in (
            ("pay", "--from", "alice", "--to", "shop"),
            ("pay", "--hosted", "wal1x"),
            ("refund", "0" * 64, "--from", "shop"),
            ("request", "--wallet", "shop"),
        )
    ],
]


@pytest.mark.parametrize(("program", "arguments", "code", "words"), MISTAKES)
def test_a_mistake_is_told_in_words_with_its_exit_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    program: str,
    arguments: Sequence[str],
    code: int,
    words: str,
) -> None:
    assert run(program, ["--folder", str(tmp_path / "none"), *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_pin_that_is_none_is_refused_before_the_gateway_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pin = tmp_path / "pin"
    pin.write_text("12\n")
    folder = ("--folder", str(tmp_path / "none"))
    assert run("cbdc-edge", [*folder, "wallet", "create", "--pin-file", str(pin)]) == USAGE
    assert "4 to 12 digits" in capsys.readouterr().err


async def test_the_key_of_a_folder_without_one_is_not_provisioned(
    template: Template, tmp_path: Path
) -> None:
    code, _, errors = await Command(tmp_path / "none").edge("key", "show")
    assert (code, "edge-not-provisioned" in errors) == (SEALED, True)
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    command = Command(folder)
    assert (await command.edge("key", "show"))[0] == 0
    command.environment["CBDC_EDGE_PASSPHRASE"] = "wrong"
    code, _, errors = await command.edge("key", "show")
    assert (code, "token-pin-wrong" in errors) == (FAILED, True)
    pin = tmp_path / "pin"
    pin.write_text("4711\n")
    settings = ("token.driver=pkcs11", "token.module=/none.so", f"token.pin_file={pin}")
    flags = [part for text in settings for part in ("--set", text)]
    code, _, errors = await command.edge(*flags, "key", "show")
    assert (code, "token-gone" in errors) == (SEALED, True)


async def test_an_odd_name_of_a_terminal_is_a_terminal_that_is_not_there(branch: Branch) -> None:
    for name in ("../wallets", "a b", "?"):
        code, _, errors = await Command(branch.folder.root).edge("device", "revoke", name)
        assert (code, "terminal-unknown" in errors) == (FAILED, True)


async def test_a_daemon_of_another_version_is_told_in_words(tmp_path: Path) -> None:
    command = Command(tmp_path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    socket = Folder(tmp_path).socket
    async with await asyncio.start_unix_server(answer, socket):
        code, _, errors = await command.edge("status")
    assert (code, "another version" in errors) == (FAILED, True)
