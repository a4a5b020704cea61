"""What a process that holds keys asks of the system: no cores, and no page on a swap disk."""

import ctypes
import os
import resource
from pathlib import Path
from typing import Literal

import msgspec

from hsm import memory

# <linux/prctl.h> and <sys/mman.h>, the same on every architecture that Debian's Python 3.11 has.
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
CAP_IPC_LOCK = 1 << 14

_libc = ctypes.CDLL(None, use_errno=True)
_libc.getenv.restype = ctypes.c_void_p


class Hygiene(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force in this process.

    `cores`: whether a crash may leave a core. `dumpable`: whether others of this user may read its
    memory. `locked`: all memory, the keys alone, or not even those.
    """

    cores: bool
    dumpable: bool
    locked: Literal["all", "keys", "nothing"]


def forbid_cores() -> None:
    """No core of this process, nor of those that it starts; none of its user may read its memory.

    A pipe as the system's core pattern ignores the limit, and honours that it is not dumpable.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def lock_memory() -> bool:
    """Keep every page of this process in memory, those to come too; false where that is not ours.

    Pages are locked as they are used, so that what is only reserved takes none. With a small limit
    the next allocation would fail instead: then the secrets alone are locked.
    """
    if not _may_lock_all():
        return False
    return bool(_libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


def forget_variable(name: str) -> None:
    """Take a variable out of the environment, and overwrite it where /proc shows it."""
    value = _libc.getenv(name.encode())
    if value is not None:
        ctypes.memset(value, 0, len(ctypes.string_at(value)))
    os.environ.pop(name, None)


def hygiene() -> Hygiene:
    """What is in force now, as the kernel tells."""
    locked: Literal["all", "keys", "nothing"] = "keys" if memory.all_locked() else "nothing"
    if _status("VmLck") > _status("VmRSS") // 2:
        locked = "all"
    return Hygiene(
        cores=resource.getrlimit(resource.RLIMIT_CORE)[0] != 0,
        dumpable=_libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1,
        locked=locked,
    )


def _may_lock_all() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY or bool(_status("CapEff", base=16) & CAP_IPC_LOCK)


def _status(name: str, *, base: int = 10) -> int:
    """A number of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0], base)
    return 0
