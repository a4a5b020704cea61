"""Small files that survive a power cut: whole or not at all, readable by their owner alone."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace_durably(path: Path, content: bytes) -> None:
    """Put the content in the place of what stood there.

    Raises:
        OSError: it could not be stored; what stood there still stands.
    """
    _place(path, content, os.replace)


def create_durably(path: Path, content: bytes) -> None:
    """Put the content where nothing stands yet.

    Raises:
        FileExistsError: something stands there; it is untouched.
        OSError: it could not be stored.
    """
    _place(path, content, os.link)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, for their owner alone; one that exists stays as it is."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def _place(path: Path, content: bytes, move: Callable[[Path, Path], None]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(Path(name), path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # a replacing move leaves nothing behind
            os.unlink(name)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises: OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
