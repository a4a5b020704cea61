"""A layer between SQLite and its files, so that a test decides what the disk does.

The driver has no interface for it, but exports SQLite's own (https://sqlite.org/vfs.html): the
system's VFS is registered once more under another name, and the files that it opens in a watched
folder get a table of methods in which writing, truncating and syncing are ours. All else, the
shared memory and the locks among it, is done by the system's own methods.

SQLite keeps pointers to the VFS, and each open file one to its table: those, a handful, stay for as
long as the process lives. What is known of a file goes when it is closed, and its watcher with it.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlcipher3 import _sqlite3

OK, IOERR, FULL = 0, 10, 13
IOERR_WRITE, IOERR_SYNC, IOERR_TRUNCATE = IOERR | 3 << 8, IOERR | 4 << 8, IOERR | 6 << 8
IOERR_DELETE = IOERR | 10 << 8
NAME = b"watched"

_Pointer, _Int, _Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
# The name has parameters behind its end and is kept by the system: it must stay a pointer.
_Open = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Pointer, _Int, _Pointer)
_Delete = ctypes.CFUNCTYPE(_Int, _Pointer, ctypes.c_char_p, _Int)
_Close = ctypes.CFUNCTYPE(_Int, _Pointer)
_Write = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int, _Long)
_Truncate = ctypes.CFUNCTYPE(_Int, _Pointer, _Long)
_Sync = ctypes.CFUNCTYPE(_Int, _Pointer, _Int)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3; what is not named here is copied as it is."""

    _fields_ = (
        ("version", _Int),
        ("file_bytes", _Int),
        ("path_bytes_max", _Int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _Open),
        ("delete", _Delete),
        ("rest", _Pointer * 14),
    )


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = (
        ("version", _Int),
        ("close", _Close),
        ("read", _Pointer),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("rest", _Pointer * 13),
    )


class Watcher(Protocol):
    """What decides for the files of a folder.

    `starts`: how often the machine was started. What a process of before left open, until Python
    collects it, reaches no file any more.
    """

    starts: int

    def opened(self, path: str) -> None:
        """A file was opened, or made."""

    def write(self, path: str, offset: int, data: bytes) -> tuple[int, int]:
        """How many of the bytes are written, and the status that SQLite hears."""

    def truncate(self, path: str, size: int) -> int:
        """The status; the file is cut when it is OK."""

    def sync(self, path: str) -> int:
        """The status. Nothing is synced in truth: the watcher knows what would be durable."""

    def delete(self, path: str) -> int:
        """The status; the file is deleted when it is OK."""


@dataclass(slots=True)
class _Opened:
    """A file that SQLite has open. `watcher`: None once its block has ended."""

    path: str
    watcher: Watcher | None
    system: _Methods
    starts: int

    def deciding(self) -> Watcher | None:
        """Who decides about it; nobody for what a life of before left open: it reaches no file."""
        watcher = self.watcher
        return None if watcher is None or watcher.starts != self.starts else watcher


class _Layer:
    """The registered VFS of this process; SQLite keeps pointers into it for as long as it lives."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = _Pointer
        for name in ("sqlite3_vfs_register", "sqlite3_vfs_unregister"):
            getattr(self._library, name).argtypes = (_Pointer, _Int)[: 2 if "_reg" in name else 1]
        self._system = _Vfs.from_address(self._library.sqlite3_vfs_find(None))
        self._vfs = _copy(self._system)
        self._vfs.name = NAME
        self._vfs.open, self._vfs.delete = _Open(self._open), _Delete(self._delete)
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        # By the address that SQLite has it at, from its opening to its closing.
        self._files: dict[int, _Opened] = {}
        self._watched: dict[str, Watcher] = {}
        # Never freed, not even while Python ends: a connection may be closed later than that.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def watch(self, folder: Path, watcher: Watcher) -> None:
        """From now on new connections come here."""
        self._library.sqlite3_vfs_register(ctypes.addressof(self._vfs), 1)
        self._watched[str(folder)] = watcher

    def forget(self, folder: Path) -> None:
        """New connections are the system's again; what is still open reaches no file any more."""
        del self._watched[str(folder)]
        for opened in list(self._files.values()):
            if os.path.dirname(opened.path) == str(folder):
                opened.watcher = None
        self._library.sqlite3_vfs_unregister(ctypes.addressof(self._vfs))
        self._library.sqlite3_vfs_register(ctypes.addressof(self._system), 1)

    def _watcher(self, path: str) -> Watcher | None:
        return self._watched.get(os.path.dirname(path))

    def _open(self, vfs: Any, name: int | None, file: int, flags: int, out: Any) -> int:
        status = int(self._system.open(vfs, name, file, flags, out))
        path = "" if name is None else ctypes.string_at(name).decode()
        watcher = self._watcher(path)
        if status == OK and watcher is not None:
            methods = ctypes.cast(file, ctypes.POINTER(ctypes.c_size_t))
            address = methods[0]
            if address not in self._tables:
                self._tables[address] = _Methods.from_address(address), self._table(address)
            system, ours = self._tables[address]
            methods[0] = ctypes.addressof(ours)
            self._files[file] = _Opened(path, watcher, system, watcher.starts)
            watcher.opened(path)
        return status

    def _table(self, address: int) -> _Methods:
        table: _Methods = _copy(_Methods.from_address(address))
        table.close = _Close(self._close)
        table.write, table.truncate = _Write(self._write), _Truncate(self._truncate)
        table.sync = _Sync(self._sync)
        return table

    def _delete(self, vfs: Any, path: bytes, sync_folder: int) -> int:
        watcher = self._watcher(path.decode())
        status = OK if watcher is None else watcher.delete(path.decode())
        return status or int(self._system.delete(vfs, path, sync_folder))

    def _close(self, file: int) -> int:
        # SQLite asks nothing more of it, and may have the next one at the same address.
        return int(self._files.pop(file).system.close(file))

    def _write(self, file: int, data: int, count: int, offset: int) -> int:
        opened = self._files[file]
        watcher = opened.deciding()
        if watcher is None:
            return IOERR_WRITE
        through, status = watcher.write(opened.path, offset, ctypes.string_at(data, count))
        written = int(opened.system.write(file, data, through, offset)) if through else OK
        return status or written

    def _truncate(self, file: int, size: int) -> int:
        opened = self._files[file]
        watcher = opened.deciding()
        if watcher is None:
            return IOERR_TRUNCATE
        return watcher.truncate(opened.path, size) or int(opened.system.truncate(file, size))

    def _sync(self, file: int, flags: int) -> int:
        opened = self._files[file]
        watcher = opened.deciding()
        return IOERR_SYNC if watcher is None else watcher.sync(opened.path)


def _copy(original: Any) -> Any:
    return type(original).from_buffer_copy(original)


@functools.cache
def _layer() -> _Layer:
    return _Layer()


@contextmanager
def watched(folder: Path, watcher: Watcher) -> Iterator[None]:
    """The watcher decides about the database files of this folder, opened within the block."""
    layer = _layer()
    layer.watch(folder, watcher)
    try:
        yield
    finally:
        layer.forget(folder)
