"""`cbdc-edge key ceremony` as people hold it: at a terminal, or by a script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.branch import WAIT_S, Command
from tests.support.programs import Process, start_program
from tests.support.softhsm import SoftHsm

WITNESSES = ("--witness", "Ada", "--witness", "Grace")


class Talk:
    """A running ceremony whose standard input is a terminal."""

    def __init__(self, process: Process, terminal: int) -> None:
        self.process = process
        self.heard = ""
        self._terminal = terminal

    async def hear(self, words: str) -> None:
        """Wait until it says this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while words not in self.heard:
                part = await self.process.stdout.read(4096)
                assert part, self.heard
                self.heard += part.decode()

    def say(self, answer: str) -> None:
        """Type a line."""
        os.write(self._terminal, answer.encode() + b"\n")

    async def answer(self, question: str, answer: str) -> None:
        """Wait for a question and answer it."""
        await self.hear(question)
        self.say(answer)

    async def until_made(self, serial: str) -> None:
        """All answers up to the comparison."""
        await self.answer("Type the serial", serial)
        await self.answer("1 of 2", "Ada")
        await self.answer("2 of 2", "Grace")
        await self.hear("type its last")

    @property
    def last_digits(self) -> str:
        """What both read as the end of the fingerprint."""
        found = re.search(r"SHA-256 ([0-9a-f ]+)", self.heard)
        assert found is not None
        return found[1][-8:]

    async def end(self) -> tuple[int, str, str]:
        """(exit code, output, errors)."""
        async with asyncio.timeout(WAIT_S):
            out, errors = await self.process.communicate()
        return self.process.returncode or 0, self.heard + out.decode(), errors.decode()


class Vault:
    """A token, and the folder of the gateway that will have its keys."""

    def __init__(self, folder: Path, hsm: SoftHsm, *, algorithm: str = "es256") -> None:
        self.hsm = hsm
        self.command = Command(folder / "gateway")
        self.command.environment.update(hsm.variables)
        pin = folder / "pin"
        pin.write_text("4711\n")
        self.settings: tuple[str, ...] = (
            "token.driver=pkcs11",
            f"token.algorithm={algorithm}",
            f"token.module={hsm.module_path}",
            "token.label=gateway",
            f"token.pin_file={pin}",
        )

    @property
    def token_folder(self) -> Path:
        """Where the record, the note and the counter are."""
        return self.command.folder / "token"

    @property
    def record(self) -> Path:
        """The record of the first epoch."""
        return self.token_folder / "ceremony-journal-epoch-1.txt"

    @property
    def note(self) -> Path:
        """What a ceremony leaves that was broken off."""
        return self.token_folder / "ceremony.unfinished"

    def labels(self) -> list[str]:
        """Labels of all objects in the token, by the second client."""
        return sorted(re.findall(r"label: +(\S+)", self.hsm.tool("--list-objects")))

    async def edge(self, *arguments: str) -> tuple[int, str, str]:
        """`cbdc-edge` with this token."""
        return await self.command.edge(*self._flags(), *arguments)

    async def scripted(self, *more: str) -> tuple[int, str, str]:
        """A ceremony without questions: (exit code, output, errors)."""
        return await self.edge(
            "key", "ceremony", "--yes", "--serial", self.hsm.serial(), *WITNESSES, *more
        )

    @contextlib.asynccontextmanager
    async def talk(self, *more: str) -> AsyncIterator[Talk]:
        """A ceremony at a terminal; it does not outlive the test."""
        terminal, theirs = pty.openpty()
        process = await start_program(
            *("edge.cli", "--folder", str(self.command.folder), *self._flags()),
            *("key", "ceremony", *more),
            environment=self.command.environment,
            stdin=theirs,
        )
        os.close(theirs)
        try:
            yield Talk(process, terminal)
        finally:
            os.close(terminal)
            if process.returncode is None:
                process.kill()
                await process.communicate()

    def _flags(self) -> list[str]:
        return [part for text in self.settings for part in ("--set", text)]
