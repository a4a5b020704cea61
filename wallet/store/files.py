"""The files beside the database: the lock of the one process, and the check of the key.

Beside `store.db` lie `store.db.lock`, `store.db.keycheck`, the engine's `-wal` and `-shm`, and
`store.db.least` where a page failed while somebody used the store.
"""

import fcntl
import hashlib
import hmac
import os
from pathlib import Path

from hsm.memory import Secret, wipe
from wallet.store.errors import StoreInUse

FILE_MODE = 0o600
_DIGITS_MAX = 20
KEY_CHECK_CONTEXT = b"wallet.store key check 1"


class Lock:
    """The right to open the store, for one holder at a time; gone when its process ends."""

    def __init__(self, database: Path) -> None:
        """Raises: StoreInUse, OSError."""
        self._descriptor = os.open(_beside(database, ".lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            # flock, not fcntl: a second open in this very process must be refused as well.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StoreInUse(f"{database.name} is open already") from error

    def release(self) -> None:
        os.close(self._descriptor)


def ensure_database(database: Path) -> bool:
    """Create the file for its owner alone; the engine gives its other files the same mode.

    Gives true when there was none, or an empty one. Raises: OSError.
    """
    descriptor = os.open(database, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        return os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def knows_key(database: Path, key: bytes | Secret) -> bool:
    """Whether the store that lived here was finished under this key.

    A first page that does not decrypt means another key or a changed file; this tells which.
    """
    path = _beside(database, ".keycheck")
    return path.exists() and hmac.compare_digest(path.read_bytes(), _key_check(key))


def remember_key(database: Path, key: bytes | Secret) -> None:
    """Write the key's check beside a finished store, durably. Raises: OSError."""
    _replace(_beside(database, ".keycheck"), _key_check(key))


def remember_least(database: Path, entries: int) -> None:
    """Write beside a store how many entries it had when a page failed, durably. Raises: OSError."""
    _replace(_beside(database, ".least"), str(entries).encode())


def least(database: Path) -> int:
    """How many entries the store has to have, as far as is remembered.

    Raises: OSError; ValueError where what is remembered was changed.
    """
    path = _beside(database, ".least")
    return int(path.read_bytes()[:_DIGITS_MAX]) if path.exists() else 0


def wal_path(database: Path) -> Path:
    """Where the engine keeps the write-ahead log of this database."""
    return _beside(database, "-wal")


def _key_check(key: bytes | Secret) -> bytes:
    copy = key.copy() if isinstance(key, Secret) else key
    try:
        return hmac.digest(copy, KEY_CHECK_CONTEXT, hashlib.sha256).hex().encode()
    finally:
        if copy is not key:
            wipe(copy)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_folder(path.parent)


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
