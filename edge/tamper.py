"""The tamper switch: what tells that somebody opened the box, and the mark that it leaves.

The mark is a file of the data folder, and a value in the store beside it. It is honoured before any
key is opened, and no command removes it: the issuer closes the epoch, and a gateway that is
provisioned anew opens the next one (protocol page, "A gateway is lost").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from edge.config import Config, TamperConfig
from edge.errors import GatewayTampered
from edge.folder import Folder
from edge.log import Log
from edge.moments import moment
from edge.store_key import open_store
from hsm.api import Token
from hsm.files import create_durably, replace_durably
from wallet.clock import Clock
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.meta import get_meta, put_meta

POLL_S = 0.1
CONTENT_BYTES_MAX = 64
# What a file of a closed box may say, as a GPIO line of the system does; anything else trips.
QUIET = b"0"
_NAME = "tamper"
_log = Log("tamper")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """When the switch tripped, which one, and what it saw."""

    time_ms: int
    source: str
    reason: str

    @property
    def sentence(self) -> str:
        """For people: what happened and what it means."""
        return (
            f"the tamper switch tripped at {moment(self.time_ms)} ({self.reason}); the keys were"
            " dropped, receipts that were given stay good, and the issuer has to close this epoch:"
            " `cbdc-edge tamper` says what to do"
        )


# Something stands in the mark's place that this release did not write: it counts all the same.
UNREADABLE = Mark(time_ms=0, source="unknown", reason="its mark cannot be read")


# ---- the mark -----------------------------------------------------------------------------


def arm(folder: Folder) -> None:
    """Have a mark ready that needs no room on the disk to be set. Raises: OSError."""
    with contextlib.suppress(FileExistsError):
        create_durably(folder.tamper_ready, msgspec.json.encode(UNREADABLE))


def write_mark(folder: Folder, mark: Mark) -> None:
    """Set the mark, durably; on a full disk the one that was ready. Raises: OSError."""
    try:
        replace_durably(folder.tamper, msgspec.json.encode(mark))
    except OSError as error:
        _log.error("tamper.mark-shortened", detail=error.strerror)
        os.replace(folder.tamper_ready, folder.tamper)


def read_mark(folder: Folder) -> Mark | None:
    """The mark, if the switch ever tripped; whatever stands there counts."""
    try:
        return msgspec.json.decode(folder.tamper.read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return UNREADABLE


def refuse_tampered(folder: Folder) -> None:
    """Stop a command before it opens a key. Raises: GatewayTampered."""
    mark = read_mark(folder)
    if mark is not None:
        raise GatewayTampered(mark.sentence)


async def open_unmarked(folder: Folder, token: Token) -> Database:
    """The store for a command; one that remembers a mark stays closed, and sets it again.

    Raises: GatewayTampered, as `open_store`.
    """
    database = await open_store(folder, token)
    opened = False
    try:
        mark = await database.read(load_mark)
        if mark is not None:
            write_mark(folder, mark)
            raise GatewayTampered(mark.sentence)
        opened = True
        return database
    finally:
        if not opened:
            await database.close()


def load_mark(connection: Connection) -> Mark | None:
    """The mark as the store remembers it."""
    stored = get_meta(connection, _NAME)
    return None if stored is None else msgspec.json.decode(stored, type=Mark)


def store_mark(connection: Connection, mark: Mark) -> None:
    """Remember the mark, so that taking the file away is not enough."""
    put_meta(connection, _NAME, msgspec.json.encode(mark))


# ---- the switch ---------------------------------------------------------------------------


class Switch(Protocol):
    """One switch. It trips once; what cannot be read any more has tripped."""

    source: str

    def tripped(self) -> str | None:
        """What it sees now that trips it, for people; None while the box is closed."""

    async def wait(self) -> str:
        """Return what tripped it, at once when it does."""

    def close(self) -> None:
        """Let go of it."""


class NoSwitch:
    """A box without a switch."""

    source = "none"

    def tripped(self) -> str | None:
        """Never."""
        return None

    async def wait(self) -> str:
        """For ever."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    def close(self) -> None:
        """There is nothing to let go of."""


class FileSwitch:
    """A file: it trips when it is there and does not say `0`, or cannot be read.

    So does a line of a chip that the system shows as a file, and so do tests.
    """

    source = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def tripped(self) -> str | None:
        """What it sees now."""
        try:
            with self._path.open("rb") as stream:
                content = stream.read(CONTENT_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self._path} cannot be read: {error.strerror}"
        return None if content.strip() == QUIET else f"{self._path} is there"

    async def wait(self) -> str:
        """Look ten times a second: kernels tell of no change in the files of a chip."""
        while (reason := self.tripped()) is None:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(POLL_S)
        return reason

    def close(self) -> None:
        """Nothing is held open."""


def open_switch(config: TamperConfig) -> Switch:
    """The configured switch. Raises: SwitchFailed."""
    if config.source == "file" and config.file is not None:
        return FileSwitch(config.file)
    if config.source == "gpio" and config.chip is not None and config.line is not None:
        # Imported here, so that a box without a switch needs no libgpiod.
        from edge.gpio import open_line

        return open_line(
            config.chip, config.line, active_low=config.active == "low", bias=config.bias
        )
    return NoSwitch()


@contextlib.contextmanager
def guarded(config: Config, clock: Clock) -> Iterator[Callable[[], None]]:
    """Watch the switch for a command that opens keys while no daemon does.

    It looks before anything is opened, whenever the block asks by what it is given, and at the
    end; a trip leaves the mark. Raises: GatewayTampered, SwitchFailed, OSError.
    """
    folder = Folder(config.folder)
    refuse_tampered(folder)
    switch = open_switch(config.tamper)

    def look() -> None:
        reason = switch.tripped()
        if reason is not None and read_mark(folder) is None:
            write_mark(folder, Mark(time_ms=clock.now_ms(), source=switch.source, reason=reason))
        refuse_tampered(folder)

    try:
        look()
        yield look
        look()
    finally:
        switch.close()
