"""A disk by a seed: what it holds is real, what it would hold after a power cut is worked out.

What the model covers, for the database and its write-ahead log:

* A power cut keeps what was synced. Of what was written since, it keeps nothing, all, a prefix, or
  any sectors of 512 bytes, in any order: short and torn writes. A sector is written whole or not.
* A full disk takes a part of a write, or nothing, and says so.
* A sync that fails says so; afterwards some of what was written is on the disk and the rest never
  will be, though it is read back as if it were (what Linux does with pages that failed).
* A disk that lies says that it synced and did not, until a power cut shows it.
* A deleted file may be there again after a power cut, until the folder was synced.
* Bits rot: at rest, after a power cut or beneath a process that runs.
* A write goes astray: it lands on another place of its file or nowhere, whole or one sector of it,
  and what it should have replaced stays. SQLite hears that all is well.

Small files beside the database are in `tests.sim.files`. Not covered: sectors that cannot be read
at all, which is a failure that the system tells.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.vfs import FULL, IOERR_DELETE, IOERR_SYNC, IOERR_TRUNCATE, IOERR_WRITE, OK

SECTOR_BYTES = 512
Write = tuple[int, bytes]
KEEPS = ("nothing", "all", "a prefix", "any sectors", "any sectors")


class PowerCut(BaseException):
    """The machine is off: nothing that runs on it may catch this."""


class _File:
    """What of a file is durable, and what was written or cut since, in order."""

    def __init__(self, durable: bytes | None) -> None:
        self.durable = durable
        self.waiting: list[Write | int] = []

    def settle(self, kept: list[Write | int]) -> None:
        """These are on the disk now."""
        content = bytearray(self.durable or b"")
        for change in kept:
            if isinstance(change, int):
                del content[change:]
            else:
                _put(content, *change)
        if kept or self.waiting or self.durable is not None:
            self.durable = bytes(content)
        self.waiting = []


def _changed(content: bytes, offset: int, data: bytes) -> bytes:
    changed = bytearray(content)
    _put(changed, offset, data)
    return bytes(changed)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Disk:
    """The files of one folder. The attributes are what a simulation sets."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._files: dict[str, _File] = {}
        self._deleted: dict[str, _File] = {}
        self.starts = 0
        self.off = False
        self.lies = False
        self.sync_fails = False
        # Bytes by which files may still grow, and steps until the power fails; None is without end.
        self.room_bytes: int | None = None
        self.steps_left: int | None = None
        # The n-th write from now on goes astray; 0 is none.
        self.astray_at = 0
        self.synced = 0

    # ---- what SQLite asks (see `tests.support.vfs.Watcher`) ----------------------------------
    def opened(self, path: str) -> None:
        """A file that was there is durable; a new one is not."""
        if path not in self._files:
            content = Path(path).read_bytes()
            self._files[path] = _File(content or None)

    def write(self, path: str, offset: int, data: bytes) -> tuple[int, int]:
        """A part of it goes through when the power fails or the room ends."""
        if self.off:
            return 0, IOERR_WRITE
        if self.power_fails():
            self._files[path].waiting.append((offset, data))
            return 0, IOERR_WRITE
        if self._goes_astray(path, offset, data):
            return 0, OK
        fits = self._fitting(path, offset, data)
        if fits:
            self._files[path].waiting.append((offset, data[:fits]))
        return fits, OK if fits == len(data) else FULL

    def _goes_astray(self, path: str, offset: int, data: bytes) -> bool:
        """Whether it was written elsewhere or nowhere: the write, or one sector of it."""
        self.astray_at -= 1
        if self.astray_at != 0:
            return False
        sectors = max(1, Path(path).stat().st_size // SECTOR_BYTES)
        part = slice(0, len(data))
        if self._chance.random() < 0.5:
            at = self._chance.randrange(0, len(data), SECTOR_BYTES)
            part = slice(at, at + SECTOR_BYTES)
        to = self._chance.randrange(sectors) * SECTOR_BYTES
        changes = [(offset, data[: part.start]), (offset + part.stop, data[part.stop :])]
        if self._chance.random() < 0.6:
            changes.append((to, data[part]))
        for change in changes:
            _overwrite(path, *change)
            self._files[path].waiting.append(change)
        return True

    def truncate(self, path: str, size: int) -> int:
        """Waits for a sync like a write."""
        if self.off:
            return IOERR_TRUNCATE
        self._files[path].waiting.append(size)
        return IOERR_TRUNCATE if self.power_fails() else OK

    def sync(self, path: str) -> int:
        """All that waits is durable, unless this disk fails or lies."""
        if self.off or self.power_fails():
            return IOERR_SYNC
        file = self._files[path]
        if self.sync_fails:
            self.sync_fails = False
            file.settle(self._some(file.waiting))
            return IOERR_SYNC
        if not self.lies:
            if file.durable is None:
                # SQLite syncs the folder with the first sync of a log or journal that it made.
                self._deleted.clear()
            file.settle(file.waiting)
            self.synced += 1
        return OK

    def delete(self, path: str) -> int:
        """The folder is not synced by it."""
        if self.off:
            return IOERR_DELETE
        if path in self._files:
            self._deleted[path] = self._files.pop(path)
        return OK

    def power_fails(self) -> bool:
        """Whether it fails at this step."""
        if self.steps_left is not None:
            self.steps_left -= 1
            self.off = self.steps_left < 0
        return self.off

    def _fitting(self, path: str, offset: int, data: bytes) -> int:
        """How many of the bytes there is room for."""
        if self.room_bytes is None:
            return len(data)
        size = Path(path).stat().st_size
        grows = max(0, offset + len(data) - max(size, offset))
        fits = len(data) - max(0, grows - self.room_bytes)
        self.room_bytes -= min(grows, self.room_bytes)
        return fits if fits == len(data) else self._chance.choice((0, fits))

    def rot(self, path: Path) -> int:
        """A bit, a byte or a sector of a file is not what was written; where."""
        content = path.read_bytes()
        at = self._chance.randrange(len(content))
        kind = self._chance.choice(("bit", "bit", "byte", "sector", "zeros"))
        if kind == "bit":
            changed = bytes([content[at] ^ 1 << self._chance.randrange(8)])
        elif kind == "byte":
            changed = bytes([content[at] ^ self._chance.randint(1, 255)])
        else:
            at -= at % SECTOR_BYTES
            some = min(SECTOR_BYTES, len(content) - at)
            changed = bytes(some) if kind == "zeros" else self._chance.randbytes(some)
        _overwrite(str(path), at, changed)
        file = self._files.get(str(path))
        if file is not None:
            # What is synced later holds it too, and what a power cut leaves.
            file.waiting.append((at, changed))
            if file.durable is not None and at < len(file.durable):
                file.durable = _changed(file.durable, at, changed)
        return at

    # ---- what a power cut leaves -------------------------------------------------------------
    def cut(self) -> None:
        """The power is off from now on."""
        self.off = True

    def restart(self) -> None:
        """The files are what the disk held; the memory that processes shared is gone."""
        for path, file in sorted(self._deleted.items()):
            if path not in self._files and self._chance.random() < 0.5:
                self._files[path] = file
        for path, file in sorted(self._files.items()):
            file.settle(self._some(file.waiting))
            if file.durable is None:
                Path(path).unlink(missing_ok=True)
            else:
                Path(path).write_bytes(file.durable)
            Path(path + "-shm").unlink(missing_ok=True)
        self._files, self._deleted = {}, {}
        self.starts += 1
        self.off, self.steps_left, self.lies, self.sync_fails = False, None, False, False

    def _some(self, waiting: list[Write | int]) -> list[Write | int]:
        """What of these reached the disk."""
        keeps = self._chance.choice(KEEPS)
        if keeps == "nothing":
            return []
        if keeps == "all":
            return waiting
        if keeps == "a prefix":
            return waiting[: self._chance.randint(0, len(waiting))]
        share = self._chance.random()
        return [
            part
            for change in waiting
            for part in (_sectors(change) if isinstance(change, tuple) else [change])
            if self._chance.random() < share
        ]


def _overwrite(path: str, offset: int, data: bytes) -> None:
    """Beside SQLite, which does not know."""
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _sectors(change: Write) -> list[Write]:
    """A write as the disk does it."""
    offset, data = change
    parts, at = [], 0
    while at < len(data):
        end = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        parts.append((offset + at, data[at:end]))
        at = end
    return parts
