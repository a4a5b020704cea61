"""One connection to an encrypted database: how it is opened, typed and how its errors are read.

Format: SQLCipher 4 (AES-256-CBC, HMAC-SHA-512 a page, 4,096-byte pages) under a raw 32-byte key.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from sqlcipher3 import dbapi2

from hsm.memory import Secret, wipe
from wallet.store import memory
from wallet.store.errors import Conflict, DiskFull, StoreError, StoreFailed, Tampered

# Imported for what it does to the engine; a build that does not permit it is slower, and works.
LOOKASIDE_ENLARGED = memory.LOOKASIDE_ENLARGED

SqlValue = int | str | bytes | None
Row = tuple[Any, ...]

# An insert of each number of rows up to 128, and what else there is.
STATEMENTS_KEPT = 256
BUSY_TIMEOUT_S = 5.0
CACHE_KIB = 8192
# A checkpoint of 1,000 pages runs inside a commit and holds it for some 15 ms; 4,000 pages held
# it for 60 to 90 ms and gave no more rows a second.
WAL_PAGES_MAX = 1000
WAL_BYTES_KEPT = 64 * 1024 * 1024
FREE_BYTES_MIN = 64 * 1024


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int: ...

    @property
    def lastrowid(self) -> int: ...

    def __iter__(self) -> Iterator[Row]: ...

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> list[Row]: ...


class Connection(Protocol):
    """What the store's functions may do with a connection inside a transaction."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, sql: str, parameters: Sequence[SqlValue] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[SqlValue]], /) -> Cursor: ...

    def executescript(self, sql: str, /) -> Cursor: ...

    def backup(self, target: "Connection", /) -> None: ...

    def close(self) -> None: ...


# The engine's root exception, so that no other module needs the driver.
EngineError = cast(type[Exception], dbapi2.Error)


def connect(path: Path, *, key: bytes | Secret, query_only: bool) -> Connection:
    """Open the database, or create an empty one; the calling thread owns the connection.

    Raises: EngineError, of which `translated` makes one of the store's own.
    """
    connection = cast(
        Connection,
        dbapi2.connect(
            str(path),
            isolation_level=None,
            timeout=BUSY_TIMEOUT_S,
            cached_statements=STATEMENTS_KEPT,
        ),
    )
    try:
        _configure(connection, key=key, query_only=query_only)
    except EngineError:
        connection.close()
        raise
    return connection


def _configure(connection: Connection, *, key: bytes | Secret, query_only: bool) -> None:
    connection.execute("PRAGMA cipher_log_level = NONE")
    connection.execute("PRAGMA cipher_memory_security = ON")
    _give_key(connection, key)
    connection.execute("PRAGMA cipher_compatibility = 4")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    connection.execute(f"PRAGMA query_only = {'ON' if query_only else 'OFF'}")


def _give_key(connection: Connection, key: bytes | Secret) -> None:
    """The raw key, in the one form that the engine takes; every form of it here is wiped.

    As a script, because the driver keeps the text of a single statement for the next time.
    """
    copy = key.copy() if isinstance(key, Secret) else key
    digits = copy.hex()
    pragma = f"PRAGMA key = \"x'{digits}'\""
    try:
        connection.executescript(pragma)
    finally:
        wipe(pragma)
        wipe(digits)
        if copy is not key:
            wipe(copy)


def fold_log(connection: Connection) -> bool:
    """Copy the write-ahead log into the file and empty it.

    False when that is not possible now, on a full disk or under somebody's read: the log stays
    and counts.
    """
    try:
        row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except EngineError:
        return False
    return row is not None and row[0] == 0


def is_foreign(error: Exception) -> bool:
    """Whether the engine could not read the first page: another key, or no database."""
    return _primary_code(error) == int(dbapi2.SQLITE_NOTADB)


def translated(error: Exception, *, path: Path) -> StoreError:
    """The store's own failure for an error of the engine on the database at `path`."""
    code = _primary_code(error)
    if code == dbapi2.SQLITE_FULL:
        return DiskFull("the file system has no room for this transaction")
    if code in (dbapi2.SQLITE_IOERR, dbapi2.SQLITE_CANTOPEN) and has_no_room(path):
        return DiskFull("the file system has no room for the database's files")
    if code in (dbapi2.SQLITE_CORRUPT, dbapi2.SQLITE_NOTADB):
        return Tampered(f"a page of the database fails its check ({error})")
    if code == dbapi2.SQLITE_CONSTRAINT:
        return Conflict(str(error))
    return StoreFailed(str(error))


def translated_os(error: OSError) -> StoreError:
    """The store's own failure for an error of the operating system on one of its files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("the file system has no room for the store's files")
    return StoreFailed(f"the operating system refused a file of the store: {error.strerror}")


def has_no_room(path: Path) -> bool:
    """Whether the file system that holds `path` is full, as far as the engine could need it."""
    usage = os.statvfs(path.parent)
    return usage.f_bavail * usage.f_frsize < FREE_BYTES_MIN


def _primary_code(error: Exception) -> int:
    # The low byte is the primary result code (https://sqlite.org/rescode.html); errors that the
    # driver raises by itself carry no code.
    return int(getattr(error, "sqlite_errorcode", dbapi2.SQLITE_ERROR)) & 0xFF
