"""The encrypted database of one gateway: one thread writes, another one reads.

The writer commits with synchronous=FULL: what `write` returned is on the disk. The reader sees a
snapshot of its own (WAL) and never waits for the writer. Both are shared by everybody in the loop.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wallet.store.connection import (
    Connection,
    EngineError,
    connect,
    is_foreign,
    translated,
    translated_os,
)
from wallet.store.errors import StoreClosed, StoreError, Tampered, WrongKey
from wallet.store.files import Lock, ensure_database, knows_key, remember_key, wal_path
from wallet.store.schema import migrate, migrations
from wallet.store.wal import check_wal
from wallet.store.worker import Worker

T = TypeVar("T")

KEY_BYTES = 32
JOBS_MAX = 1024


class Database:
    """An open store; `open` makes one, `close` ends it."""

    def __init__(self, path: Path, *, key: bytes, jobs_max: int) -> None:
        self._path = path
        self._key = key
        self._writer = Worker("store-writer", jobs_max=jobs_max)
        self._reader = Worker("store-reader", jobs_max=jobs_max)
        self._lock: Lock | None = None
        self._writing: Connection | None = None
        self._reading: Connection | None = None
        self._tampered: Tampered | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, key: bytes, check: bool = True, jobs_max: int = JOBS_MAX
    ) -> "Database":
        """Open the store, or create it where there is none, and bring its schema up to date.

        With `check` every page's HMAC and the structure of every table are verified: 4 s for
        600 MB on two cores. Without it a changed page is found when it is read. The write-ahead
        log is checked in both cases. `jobs_max` bounds the waiting work of each thread.
        Raises: WrongKey, Tampered, StoreInUse, SchemaTooNew, DiskFull, StoreFailed.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"the store's key has {KEY_BYTES} bytes")
        database = cls(path, key=key, jobs_max=jobs_max)
        started = False
        try:
            await database._start(check=check)
            started = True
        finally:
            if not started:
                await database.close()
        return database

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run the work in one transaction; when this returns, it is durable.

        Any exception of the work rolls everything back and comes out here. A caller cancelled
        meanwhile does not know the outcome: work that was handed over is done.
        Raises: DiskFull, Tampered, Conflict, StoreBusy, StoreClosed, StoreFailed.
        """
        self._refuse_when_closed()
        return await self._writer.run(lambda: self._write(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on a snapshot of what is committed; it cannot write.

        Raises: Tampered, StoreBusy, StoreClosed, StoreFailed.
        """
        self._refuse_when_closed()
        return await self._reader.run(lambda: self._read(work))

    async def close(self) -> None:
        """Finish the work that waits, fold the write-ahead log in and let go of the files.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        await self._reader.finish(self._stop_reading)
        await self._writer.finish(self._stop_writing)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreClosed(f"{self._path.name} was closed")

    async def _start(self, *, check: bool) -> None:
        created = await self._writer.run(self._start_writing)
        await self._reader.run(self._start_reading)
        if check and not created:
            # Two threads, one core each: the engine holds no Python lock while it checks.
            for result in await asyncio.gather(
                self._writer.run(self._check_pages),
                self._reader.run(self._check_structure),
                return_exceptions=True,
            ):
                if isinstance(result, BaseException):
                    raise result
        await self._writer.run(self._finish_start)

    def _start_writing(self) -> bool:
        """Lock and open the file; true when it was created."""
        try:
            self._lock = Lock(self._path)
            created = ensure_database(self._path)
            if created and knows_key(self._path, self._key):
                raise Tampered("the database file is missing or empty")
            if not created:
                check_wal(wal_path(self._path))
        except OSError as error:
            raise translated_os(error) from error
        try:
            self._writing = connect(self._path, key=self._key, query_only=False)
            self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except EngineError as error:
            raise self._failure_to_open(error) from error
        return created

    def _failure_to_open(self, error: Exception) -> StoreError:
        if not is_foreign(error):
            return translated(error, path=self._path)
        if knows_key(self._path, self._key):
            return Tampered("page 1 of the database was changed")
        return WrongKey(f"{self._path.name} does not open with this key, or is no store")

    def _start_reading(self) -> None:
        try:
            self._reading = connect(self._path, key=self._key, query_only=True)
        except EngineError as error:
            raise self._failure_to_open(error) from error

    def _check_pages(self) -> None:
        """Verify the HMAC of every page of the file, used or not."""
        finding = self._engine(self._writing, "PRAGMA cipher_integrity_check")
        if finding is not None:
            raise Tampered(f"the database: {finding}")

    def _check_structure(self) -> None:
        """Verify that the pages fit together: each may be genuine and come from another time."""
        finding = self._engine(self._reading, "PRAGMA quick_check(1)")
        if finding != "ok":
            raise Tampered(f"the database: {finding}")

    def _engine(self, connection: Connection | None, sql: str) -> str | None:
        """The first column of the statement's first row."""
        try:
            row = self._opened(connection).execute(sql).fetchone()
        except EngineError as error:
            raise translated(error, path=self._path) from error
        return str(row[0]) if row else None

    def _finish_start(self) -> None:
        connection = self._opened(self._writing)
        try:
            migrate(connection, migrations())
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except EngineError as error:
            raise translated(error, path=self._path) from error
        try:
            if not knows_key(self._path, self._key):
                remember_key(self._path, self._key)
        except OSError as error:
            raise translated_os(error) from error

    def _write(self, work: Callable[[Connection], T]) -> T:
        if self._tampered is not None:
            raise self._tampered
        try:
            return _transaction(self._opened(self._writing), "BEGIN IMMEDIATE", work)
        except EngineError as error:
            raise self._remembered(translated(error, path=self._path)) from error

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            return _transaction(self._opened(self._reading), "BEGIN", work)
        except EngineError as error:
            raise self._remembered(translated(error, path=self._path)) from error

    def _remembered(self, error: StoreError) -> StoreError:
        # The engine turns read-only after a page that fails; say the cause every time.
        if isinstance(error, Tampered):
            self._tampered = error
        return error

    @staticmethod
    def _opened(connection: Connection | None) -> Connection:
        if connection is None:
            raise StoreClosed("the connection is not open")
        return connection

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _stop_writing(self) -> None:
        if self._writing is not None:
            # A log that cannot be folded in now, on a full disk, is read at the next start.
            with contextlib.suppress(EngineError):
                self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._writing.close()
            self._writing = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _transaction(connection: Connection, begin: str, work: Callable[[Connection], T]) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    finally:
        # The engine may have rolled back by itself already, as it does on a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return result
