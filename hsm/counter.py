"""A counter in a file: durable and honest, but only as hard to set back as the file is."""

import asyncio
import threading
from pathlib import Path

from hsm.api import TokenRefused
from hsm.files import replace_durably

DIGITS_MAX = 19
FILE_NAME = "counter"


class SoftwareCounter:
    """A counter that whoever can write the file can set back; its driver says so."""

    driver = "software"

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        # Increments run in threads, and one that was cancelled goes on in its thread.
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Begin at nought, unless a count stands there: a counter never goes back.

        Raises:
            OSError: it could not be stored.
        """
        if not self.exists():
            self._write(0)

    def exists(self) -> bool:
        """Whether a count stands there."""
        return self._path.exists()

    def check(self) -> int:
        """The count, or what a reading would raise."""
        return self._read()

    async def read(self) -> int:
        """Read the count.

        Raises:
            TokenRefused: the file is missing or holds no count.
        """
        return self._read()

    async def increment(self) -> int:
        """Add one and return the new count once it is on the disk.

        Raises:
            TokenRefused: the count could not be read or stored.
        """
        return await asyncio.to_thread(self._increment)

    def _increment(self) -> int:
        with self._lock:
            count = self._read() + 1
            try:
                self._write(count)
            except OSError as error:
                raise TokenRefused(f"the counter is not stored: {error.strerror}") from error
            return count

    def _read(self) -> int:
        try:
            text = self._path.read_bytes()
        except OSError as error:
            raise TokenRefused(f"the counter is not readable: {error.strerror}") from error
        digits = text.removesuffix(b"\n")
        if not (digits.isdigit() and len(digits) <= DIGITS_MAX):
            raise TokenRefused("the counter's file holds no count")
        return int(digits)

    def _write(self, count: int) -> None:
        replace_durably(self._path, b"%d\n" % count)
