"""The tamper switch and its mark: what trips, what counts, and what no full disk prevents."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.config import TamperConfig, load_config
from edge.errors import ConfigInvalid, GatewayTampered, SwitchFailed
from edge.folder import Folder
from edge.gpio import GpioSwitch, open_line
from edge.tamper import (
    UNREADABLE,
    FileSwitch,
    Mark,
    NoSwitch,
    arm,
    open_switch,
    read_mark,
    refuse_tampered,
    write_mark,
)
from tests.support.disk import small_disk

MARK = Mark(time_ms=1_764_000_000_000, source="file", reason="/run/lid is there")
WAIT_S = 10


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "gateway")
    made.prepare()
    return made


# ---- the mark -----------------------------------------------------------------------------


def test_a_mark_is_read_back_and_stops_every_command(folder: Folder) -> None:
    refuse_tampered(folder)
    write_mark(folder, MARK)
    assert read_mark(folder) == MARK
    with pytest.raises(GatewayTampered, match=r"2025-11-24.*issuer has to close this epoch"):
        refuse_tampered(folder)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"time_ms": "x"}'])
def test_whatever_stands_in_the_marks_place_counts(folder: Folder, content: bytes) -> None:
    folder.tamper.write_bytes(content)
    assert read_mark(folder) == UNREADABLE


def test_a_mark_that_cannot_be_read_counts(folder: Folder) -> None:
    folder.tamper.mkdir()
    assert read_mark(folder) == UNREADABLE


def test_a_full_disk_does_not_keep_the_mark_away(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with small_disk(place, size_bytes=1024 * 1024) as disk:
        folder = Folder(place / "gateway")
        folder.prepare()
        arm(folder)
        arm(folder)
        disk.fill()
        write_mark(folder, MARK)
        assert read_mark(folder) == UNREADABLE


# ---- a file -------------------------------------------------------------------------------


def test_a_file_trips_when_it_is_there_and_does_not_say_nought(tmp_path: Path) -> None:
    path = tmp_path / "lid"
    switch = open_switch(TamperConfig(source="file", file=path))
    assert switch.tripped() is None
    path.write_bytes(b"0\n")
    assert switch.tripped() is None
    for content in (b"1\n", b"", b"00", b"open"):
        path.write_bytes(content)
        assert switch.tripped() == f"{path} is there"


def test_a_file_that_cannot_be_read_has_tripped(tmp_path: Path) -> None:
    assert "cannot be read" in (FileSwitch(tmp_path).tripped() or "")


async def test_waiting_for_a_file_ends_when_it_appears(tmp_path: Path) -> None:
    path = tmp_path / "lid"
    switch = FileSwitch(path)
    waiting = asyncio.create_task(switch.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    path.touch()
    async with asyncio.timeout(WAIT_S):
        assert await waiting == f"{path} is there"
    switch.close()


async def test_a_box_without_a_switch_never_trips() -> None:
    switch = open_switch(TamperConfig())
    assert isinstance(switch, NoSwitch) and switch.tripped() is None
    waiting = asyncio.create_task(switch.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    switch.close()


# ---- a line of a chip ---------------------------------------------------------------------


class Lid:
    """A line as libgpiod's request gives it: a descriptor that edges make readable."""

    def __init__(self) -> None:
        self.fd, self._edges = os.pipe()
        self.active = False
        self.lost = False
        self.released = False

    def opened(self, *, closed_again: bool = False) -> None:
        """The lid opens: an edge."""
        self.active = not closed_again
        os.write(self._edges, b"e")

    def is_active(self) -> bool:
        """The level."""
        if self.lost:
            raise OSError(19, "No such device")
        return self.active

    def read_edge_events(self) -> list[bytes]:
        """The edges so far."""
        if self.lost:
            raise OSError(19, "No such device")
        return [os.read(self.fd, 1)]

    def release(self) -> None:
        """Closed."""
        self.released = True
        os.close(self.fd)
        os.close(self._edges)


@pytest.fixture
def lid() -> Iterator[Lid]:
    made = Lid()
    yield made
    if not made.released:
        made.release()


@pytest.fixture
async def switch(lid: Lid) -> AsyncIterator[GpioSwitch]:
    made = GpioSwitch(lid, name="line 4 of chip", active=lid.is_active)
    yield made
    made.close()


async def wait(switch: GpioSwitch) -> asyncio.Task[str]:
    """A task that waits by now."""
    waiting = asyncio.create_task(switch.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def outcome(waiting: asyncio.Task[str]) -> str:
    """What it came to."""
    async with asyncio.timeout(WAIT_S):
        return await waiting


async def test_a_line_trips_at_its_edge(lid: Lid, switch: GpioSwitch) -> None:
    assert switch.tripped() is None
    waiting = await wait(switch)
    lid.opened()
    assert await outcome(waiting) == "line 4 of chip became active"
    assert switch.tripped() == "line 4 of chip is active"


async def test_a_lid_that_was_closed_again_has_tripped_the_line(
    lid: Lid, switch: GpioSwitch
) -> None:
    waiting = await wait(switch)
    lid.opened(closed_again=True)
    assert await outcome(waiting) == "line 4 of chip became active"


async def test_a_line_that_is_active_trips_without_an_edge(lid: Lid, switch: GpioSwitch) -> None:
    lid.active = True
    assert await outcome(asyncio.create_task(switch.wait())) == "line 4 of chip is active"


async def test_a_line_that_is_lost_has_tripped(lid: Lid, switch: GpioSwitch) -> None:
    waiting = await wait(switch)
    lid.lost = True
    lid.opened()
    assert "cannot be read" in await outcome(waiting)
    assert "cannot be read" in (switch.tripped() or "")


@pytest.mark.parametrize("bias", ["as-is", "pull-up", "pull-down", "disabled"])
@pytest.mark.parametrize("chip", ["/dev/none", "/dev/null"])
def test_a_chip_that_is_none_is_told_by_libgpiod_itself(chip: str, bias: str) -> None:
    with pytest.raises(SwitchFailed, match=f"line 4 of {chip}"):
        open_line(Path(chip), 4, active_low=True, bias=bias)


def test_a_line_without_libgpiods_package_says_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['gpiod'] = None\n"
        "from pathlib import Path; from edge.config import TamperConfig\n"
        "from edge.tamper import open_switch; from edge.errors import SwitchFailed\n"
        "try: open_switch(TamperConfig(source='gpio', chip=Path('/dev/none'), line=1))\n"
        "except SwitchFailed as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "gpiod" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        {"tamper.source": "file"},
        {"tamper.source": "gpio"},
        {"tamper.source": "lid"},
        {"tamper.source": "gpio", "tamper.chip": "/dev/gpiochip0", "tamper.line": "-1"},
    ],
)
def test_a_switch_that_is_configured_by_half_is_an_error(flags: dict[str, str]) -> None:
    with pytest.raises(ConfigInvalid):
        load_config(None, environment={}, flags=flags)
