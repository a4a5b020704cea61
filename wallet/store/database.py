"""The encrypted database of one gateway: one thread writes, another one reads.

The writer commits with synchronous=FULL: what `write` returned is on the disk. The reader sees a
snapshot of its own (WAL) and never waits for the writer. Both are shared by everybody in the loop.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from hsm.memory import Secret
from wallet.store.connection import (
    Connection,
    EngineError,
    connect,
    fold_log,
    is_foreign,
    translated,
    translated_os,
)
from wallet.store.copying import Finish, copy_store
from wallet.store.errors import StoreClosed, Tampered, WrongKey
from wallet.store.files import (
    Lock,
    ensure_database,
    knows_key,
    least,
    remember_key,
    remember_least,
    wal_path,
)
from wallet.store.schema import migrate, migrations
from wallet.store.wal import check_wal
from wallet.store.worker import Worker

T = TypeVar("T")

KEY_BYTES = 32
JOBS_MAX = 1024


class MakeWorker(Protocol):
    """Makes the runner of one connection's jobs."""

    def __call__(self, name: str, *, jobs_max: int) -> Worker: ...


class Database:
    """An open store; `open` makes one, `close` ends it."""

    def __init__(
        self, path: Path, *, key: Secret, jobs_max: int, worker: MakeWorker = Worker
    ) -> None:
        self._path = path
        self._key = key
        self._writer = worker("store-writer", jobs_max=jobs_max)
        self._reader = worker("store-reader", jobs_max=jobs_max)
        # Each connection lives and is closed on its own thread; the stacks hold what to undo.
        self._writing: Connection
        self._reading: Connection
        self._writer_files = contextlib.ExitStack()
        self._reader_files = contextlib.ExitStack()
        self._log_folded = False
        self._tampered: str | None = None
        self._closed = False
        # Whoever must know at once that a page failed, whatever it was read for; says how many
        # entries there have to be at the next start.
        self.on_tampered: Callable[[], int] = lambda: 0
        self._told = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        key: bytes,
        check: bool = True,
        jobs_max: int = JOBS_MAX,
        worker: MakeWorker = Worker,
    ) -> "Database":
        """Open the store, or create it where there is none, and bring its schema up to date.

        With `check` every page's HMAC and the structure of every table are verified: 4 s for
        600 MB on two cores. Without it a changed page is found when it is read. The write-ahead
        log is checked in both cases. `jobs_max` bounds the waiting work of each thread. The key is
        copied, and the copy wiped once the store is open: the engine locks and wipes its own.
        `worker` makes what runs the jobs: a thread, or what a simulation puts in its place.
        Raises: WrongKey, Tampered, StoreInUse, SchemaTooNew, DiskFull, StoreFailed.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"the store's key has {KEY_BYTES} bytes")
        database = cls(path, key=Secret(key), jobs_max=jobs_max, worker=worker)
        started = False
        try:
            await database._start(check=check)
            started = True
        finally:
            database._key.wipe()
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
        with self._telling():
            return await self._writer.run(lambda: self._write(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run the work on a snapshot of what is committed; it cannot write.

        Raises: Tampered, StoreBusy, StoreClosed, StoreFailed.
        """
        self._refuse_when_closed()
        with self._telling():
            return await self._reader.run(lambda: self._read(work))

    def least(self) -> int:
        """How many entries there have to be. Raises: Tampered, StoreFailed."""
        with _translating_os():
            try:
                return least(self._path)
            except ValueError as error:
                raise Tampered("the number of entries beside the store was changed") from error

    async def copy(
        self, target: Path, *, own_key: bytes, key: bytes, salt: bytes, finish: Finish
    ) -> None:
        """Copy what is committed now to a new file under another key; others go on meanwhile.

        `own_key` is the store's, which is not kept here. See `copy_store`.
        Raises: DiskFull, Tampered, StoreClosed, StoreFailed.
        """
        self._refuse_when_closed()
        copier = Worker("store-copier", jobs_max=1)
        await copier.finish(
            lambda: copy_store(
                self._path,
                key=own_key,
                target=target,
                target_key=key,
                salt=salt,
                finish=finish,
            )
        )

    async def close(self) -> None:
        """Finish the work that waits, fold the write-ahead log in and let go of the files.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        await self._reader.finish(self._reader_files.close)
        await self._writer.finish(self._writer_files.close)

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
        with self._translating(), _translating_os():
            lock = Lock(self._path)
            self._writer_files.callback(lock.release)
            created = ensure_database(self._path)
            if created and knows_key(self._path, self._key):
                raise Tampered("the database file is missing or empty")
            if not created:
                check_wal(wal_path(self._path))
            self._writing = self._connect(query_only=False)
            self._writer_files.callback(self._writing.close)
            self._log_folded = fold_log(self._writing)
            self._writer_files.callback(fold_log, self._writing)
        return created

    def _start_reading(self) -> None:
        with self._translating():
            self._reading = self._connect(query_only=True)
            self._reader_files.callback(self._reading.close)

    def _connect(self, *, query_only: bool) -> Connection:
        try:
            return connect(self._path, key=self._key, query_only=query_only)
        except EngineError as error:
            if not is_foreign(error):
                raise
            if knows_key(self._path, self._key):
                raise Tampered("page 1 of the database was changed") from error
            name = self._path.name
            raise WrongKey(f"{name} does not open with this key, or is no store") from error

    def _check_pages(self) -> None:
        """Verify the HMAC of every page of the file, used or not."""
        if not self._log_folded:
            # The file may end in half a page that the log holds whole; `_check_structure` reads
            # every used page, from the log or the file, and each is verified when it is read.
            return
        with self._translating():
            finding = self._writing.execute("PRAGMA cipher_integrity_check").fetchone()
            if finding is not None:
                raise Tampered(f"the database: {finding[0]}")

    def _check_structure(self) -> None:
        """Verify that the pages fit together: each may be genuine and come from another time."""
        with self._translating():
            finding = self._reading.execute("PRAGMA quick_check(1)").fetchone()
            if finding != ("ok",):
                raise Tampered(f"the database: {finding}")

    def _finish_start(self) -> None:
        with self._translating(), _translating_os():
            migrate(self._writing, migrations())
            # From then on an empty file is a lost store: its content must be in the file first.
            if not knows_key(self._path, self._key) and fold_log(self._writing):
                remember_key(self._path, self._key)

    def _write(self, work: Callable[[Connection], T]) -> T:
        if self._tampered is not None:
            # The engine turned read-only after a page that failed; say the cause every time.
            raise Tampered(self._tampered)
        with self._translating():
            return _transaction(self._writing, "BEGIN IMMEDIATE", work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._translating():
            return _transaction(self._reading, "BEGIN", work)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Tampered:
            if not self._told:
                self._told = True
                # A disk that takes nothing more is remembered by nobody.
                with contextlib.suppress(OSError):
                    remember_least(self._path, self.on_tampered())
            raise

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn errors of the engine into the store's own, and remember that a page failed."""
        try:
            yield
        except EngineError as error:
            failure = translated(error, path=self._path)
            if isinstance(failure, Tampered):
                self._tampered = failure.detail
            raise failure from error


@contextlib.contextmanager
def _translating_os() -> Iterator[None]:
    """Turn errors of the store's own files into the store's own."""
    try:
        yield
    except OSError as error:
        raise translated_os(error) from error


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
