"""A real small file system, so that a full disk is a full disk: a tmpfs of limited size.

Root mounts it. Anybody else mounts it in a user and mount namespace that this process enters for
good; there the process is root over what the user owned, and nobody else sees the mount.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MNT_DETACH = 2
CHUNK_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A mounted file system; `fill` takes what is left of it, `free` gives that back."""

    path: Path

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Write ballast until nothing is left, then give some back, in whole pages."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _write_until_full(descriptor)
            os.ftruncate(descriptor, max(os.fstat(descriptor).st_size - leave_bytes, 0))
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Remove the ballast."""
        self._ballast.unlink(missing_ok=True)

    def room_bytes(self) -> int:
        """What may still be written."""
        usage = os.statvfs(self.path)
        return usage.f_bavail * usage.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextmanager
def small_disk(folder: Path, *, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a file system of this size on an empty folder; unmounted when the block ends.

    The threads and processes that use it must be started inside the block, from the thread that
    entered it. Raises: OSError where the system permits neither a mount nor a namespace.
    """
    _mount(folder, size_bytes=size_bytes)
    try:
        yield SmallDisk(path=folder)
    finally:
        _check(_libc.umount2(os.fsencode(folder), MNT_DETACH))


def _mount(folder: Path, *, size_bytes: int) -> None:
    options = f"size={size_bytes},mode=0700".encode()
    failure = OSError(errno.EPERM, os.strerror(errno.EPERM))
    for prepare in _PREPARATIONS:
        try:
            prepare()
            _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options))
        except PermissionError as error:
            failure = error
        else:
            return
    raise failure


def _stay() -> None:
    """The process may mount as it is."""


def _enter_mount_namespace() -> None:
    """The process is root in a user namespace without mounts of its own."""
    _check(_libc.unshare(CLONE_NEWNS))


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


_PREPARATIONS: tuple[Callable[[], None], ...] = (
    _stay,
    _enter_mount_namespace,
    _enter_user_namespace,
)


def _write_until_full(descriptor: int) -> None:
    try:
        while True:
            os.write(descriptor, bytes(CHUNK_BYTES))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
