"""Another key for a store that nobody has open: one transaction of the engine, killed at will.

SQLCipher rewrites every page in the write-ahead log and commits once: before the commit the old key
opens the store, after it the new one, and nothing is lost in between. Other connections would fail
afterwards, so that there is one alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from wallet.store.connection import (
    Connection,
    EngineError,
    connect,
    fold_log,
    translated,
    translated_os,
)
from wallet.store.errors import StoreFailed, Tampered
from wallet.store.files import Lock, remember_key, wal_path
from wallet.store.wal import check_wal

Step = Callable[[str], None]


def rekey_store(path: Path, *, key: bytes, new_key: bytes, step: Step) -> None:
    """Give the store another key. The caller keeps both until this returns.

    `step` is told what has just been done, in this order: `locked`, `opened`, `rekeyed`, `folded`,
    `checked`, `remembered`. Raises: StoreInUse, Tampered (also for a wrong key), DiskFull,
    StoreFailed; after an error one of the two keys opens the store.
    """
    with _translating(path), contextlib.ExitStack() as files:
        lock = Lock(path)
        files.callback(lock.release)
        step("locked")
        check_wal(wal_path(path))
        connection = connect(path, key=key, query_only=False)
        files.callback(connection.close)
        step("opened")
        connection.execute(f"PRAGMA rekey = \"x'{new_key.hex()}'\"")
        step("rekeyed")
        _fold_and_check(connection, step)
        remember_key(path, new_key)
        step("remembered")


def _fold_and_check(connection: Connection, step: Step) -> None:
    """Every page is in the file under the new key, and reads."""
    if not fold_log(connection):
        raise StoreFailed("the log could not be folded into the file")
    step("folded")
    finding = connection.execute("PRAGMA cipher_integrity_check").fetchone()
    if finding is not None:
        raise Tampered(f"the database: {finding[0]}")
    step("checked")


@contextlib.contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise translated(error, path=path) from error
    except OSError as error:
        raise translated_os(error) from error
