"""A consistent copy of a store under another key, made while others write.

The copy is of one moment: a read transaction of its own holds it (WAL), and nobody waits for it but
the folding of the log. The target appears whole or not at all, as one file without a log.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from wallet.store.connection import Connection, EngineError, connect, translated, translated_os
from wallet.store.errors import StoreFailed

SALT_BYTES = 16
FILE_MODE = 0o600

Finish = Callable[[Connection], None]


def copy_store(
    source: Path, *, key: bytes, target: Path, target_key: bytes, salt: bytes, finish: Finish
) -> None:
    """Copy the store to a file that is not there yet; `finish` changes the copy before it appears.

    `salt` becomes the file's first 16 bytes, in the clear, so that a key can be derived by it.
    Raises: DiskFull, Tampered, StoreFailed (the target exists, or cannot be written).
    """
    if target.exists():
        raise StoreFailed(f"{target.name} exists already")
    draft = target.with_name(f"{target.name}.part")
    with _translating(draft):
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
        _copy(source, key=key, draft=draft, draft_key=target_key + salt, finish=finish)
        _place(draft, target)


def file_salt(path: Path) -> bytes:
    """The first 16 bytes of a copy. Raises: StoreFailed."""
    try:
        with path.open("rb") as stream:
            salt = stream.read(SALT_BYTES)
    except OSError as error:
        raise translated_os(error) from error
    if len(salt) < SALT_BYTES:
        raise StoreFailed(f"{path.name} is no copy of a store")
    return salt


def _copy(source: Path, *, key: bytes, draft: Path, draft_key: bytes, finish: Finish) -> None:
    with (
        contextlib.closing(connect(source, key=key, query_only=True)) as reading,
        contextlib.closing(connect(draft, key=draft_key, query_only=False)) as writing,
    ):
        reading.execute("BEGIN")
        # A transaction sees the moment of its first read.
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing)
        reading.execute("COMMIT")
        # What is deleted from the copy is gone from the file as well.
        writing.execute("PRAGMA secure_delete = ON")
        writing.execute("BEGIN IMMEDIATE")
        finish(writing)
        writing.execute("COMMIT")
        # One file that can be carried away: without a log beside it.
        writing.execute("PRAGMA journal_mode = DELETE")


def _place(draft: Path, target: Path) -> None:
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # A link, unlike a rename, never takes the place of another file.
    os.link(draft, target)
    draft.unlink()
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _translating(draft: Path) -> Iterator[None]:
    done = False
    try:
        yield
        done = True
    except EngineError as error:
        raise translated(error, path=draft) from error
    except OSError as error:
        raise translated_os(error) from error
    finally:
        if not done:
            for suffix in ("", "-journal", "-wal", "-shm"):
                draft.with_name(draft.name + suffix).unlink(missing_ok=True)
