"""The small files of a token's driver on the simulated disk, beside the database.

`hsm.files` replaces a file by writing another one, syncing it, renaming it and syncing the folder.
Its calls of the system come here: a power cut keeps of a file what was synced, else nothing, a part
or all of it, and of the renames since the folder was synced any first ones.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hsm import files
from tests.sim.disk import Disk, PowerCut

Kept = dict[str, "_Content"]


class _Content:
    """What was written to a file, and whether all of it is durable."""

    def __init__(self, data: bytes, *, synced: bool) -> None:
        self.data = data
        self.synced = synced


class SmallFiles:
    """One folder; it stands for the module `os` in `hsm.files`."""

    def __init__(self, folder: Path, disk: Disk, chance: random.Random) -> None:
        self._folder = folder
        self._disk = disk
        self._chance = chance
        self._names: Kept = {}
        self._synced: dict[str, bytes] = {}
        self._moves: list[tuple[str, _Content]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Calls come here within the block."""
        # The real code on a simulated disk: what it asks of the system is asked of this.
        with mock.patch.object(files, "os", self):
            yield

    def place(self, name: str, data: bytes) -> None:
        """A file that was there before everything."""
        (self._folder / name).write_bytes(data)
        self._names[name] = _Content(data, synced=True)

    # ---- what `hsm.files` asks ------------------------------------------------------------
    def fsync(self, descriptor: int) -> None:
        """Of a new file, or of the folder."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_dir():
            data = path.read_bytes()
            self._step(len(data))
            if not self._disk.lies:
                self._synced[path.name] = data
            return
        self._step(0)
        if not self._disk.lies:
            self._names.update(self._moves)
            self._moves = []

    def replace(self, draft: Path, path: Path) -> None:
        """Seen at once, durable when the folder is synced."""
        self._step(0)
        data = draft.read_bytes()
        synced = self._synced.pop(draft.name, None) == data
        # Written anew: a rename over a file makes some file systems wait for the disk.
        path.write_bytes(data)
        draft.unlink()
        self._moves.append((path.name, _Content(data, synced=synced)))

    def _step(self, grows: int) -> None:
        """The power may fail here, the disk be full or fail. Raises: OSError, PowerCut."""
        disk = self._disk
        if disk.off or disk.power_fails():
            raise PowerCut
        if disk.room_bytes is not None and disk.room_bytes < grows:
            raise OSError(errno.ENOSPC, "no room")
        if disk.sync_fails:
            disk.sync_fails = False
            raise OSError(errno.EIO, "the disk fails")

    # ---- what a power cut leaves ------------------------------------------------------------
    def restart(self) -> None:
        """The files are what the disk held."""
        self._names.update(self._moves[: self._chance.randint(0, len(self._moves))])
        self._moves, self._synced = [], {}
        for path in self._folder.iterdir():
            path.unlink()
        for name, content in self._names.items():
            data = content.data
            if not content.synced:
                data = data[: self._chance.randint(0, len(data))]
            self.place(name, data)
