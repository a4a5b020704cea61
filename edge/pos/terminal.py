"""A paired terminal: where its gateway is, its certificate and key. One JSON file, mode 0600."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge.errors import FileUnreadable
from hsm.files import make_folder, replace_durably

FILE_NAME = "terminal.json"
FILE_BYTES_MAX = 256 * 1024


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """What pairing left behind. Certificates and key are PEM text."""

    url: str
    gateway: str
    terminal: str
    authority: str
    certificate: str
    key: str

    def save(self, folder: Path) -> Path:
        """Store it for its owner alone. Raises: OSError."""
        make_folder(folder)
        replace_durably(folder / FILE_NAME, msgspec.json.encode(self))
        return folder / FILE_NAME

    @classmethod
    def load(cls, folder: Path) -> Terminal:
        """The terminal of a folder. Raises: FileUnreadable."""
        path = folder / FILE_NAME
        try:
            with path.open("rb") as stream:
                return msgspec.json.decode(stream.read(FILE_BYTES_MAX), type=cls)
        except FileNotFoundError as error:
            raise FileUnreadable(f"{path}: not paired yet; `cbdc-pos pair` does it") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise FileUnreadable(f"{path}: {error}") from error

    def tls(self) -> ssl.SSLContext:
        """TLS 1.3 towards this gateway and no other. Raises: FileUnreadable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cadata=self.authority)
            with _as_file(self.key + self.certificate) as path:
                context.load_cert_chain(path)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise FileUnreadable(f"the terminal's certificate: {error}") from error
        return context


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Python's ssl reads certificates from files alone: one for a moment, mode 0600."""
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        yield path
    finally:
        os.unlink(path)
