"""Who owns a PostgreSQL data folder: our lock, and the server's own note `postmaster.pid`."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from cloud.errors import DatabaseError

# Lines of postmaster.pid (src/include/utils/pidfile.h), counted from 0.
_LINE_PID = 0
_LINE_STATUS = 7
_READY = "ready"


class FolderLock:
    """An exclusive lock on a folder that ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock or raise DatabaseError `database-in-use`; nothing waits."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise DatabaseError("database-in-use", "another process serves this folder") from error

    def release(self) -> None:
        """Give the lock back; once."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """What postmaster.pid says of a server."""

    pid: int
    data: Path
    ready: bool

    def is_alive(self) -> bool:
        """Whether that process is a server of this folder: a postmaster works in its data folder.

        Another process that got the number of a dead server works elsewhere.
        """
        try:
            return os.path.samefile(f"/proc/{self.pid}/cwd", self.data)
        except OSError:
            return False


def read_postmaster(data: Path) -> Postmaster | None:
    """The server that noted itself in the data folder; None without a note or with half of one."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="ascii", errors="replace").splitlines()
        pid = int(lines[_LINE_PID])
    except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
        return None
    ready = len(lines) > _LINE_STATUS and lines[_LINE_STATUS].strip() == _READY
    return Postmaster(pid=pid, data=data, ready=ready)
