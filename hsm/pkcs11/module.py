"""A loaded PKCS#11 module: shared by all its tokens in this process, driven by one thread.

The library is initialised without locking and lets the interpreter run other threads meanwhile:
calls from two threads crash the process. So a module has one thread, and everything here but
`module_for` runs in it.
"""

import hmac
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pkcs11

from hsm.api import PinWrong
from hsm.driver_thread import DriverThread

if TYPE_CHECKING:
    from pkcs11._pkcs11 import lib as Library  # noqa: N812 - the class has a function's name


class Module:
    """One module, its sessions' generation and who is logged in."""

    def __init__(self, path: Path) -> None:
        self.thread = DriverThread(f"pkcs11 {path.name}")
        # Handles of an older generation are void, and may meanwhile mean other people's objects.
        self.generation = 0
        self._path = path
        self._library: Library | None = None
        self._users: set[object] = set()
        self._logins: dict[bytes, tuple[str, pkcs11.Session]] = {}

    def join(self, user: object) -> None:
        """Keep the module initialised for this user."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Let the module go; the last one to leave finalises it."""
        self._users.discard(user)
        if not self._users:
            self._finalise()

    def restart(self) -> None:
        """Finalise and initialise: the module looks anew for its tokens.

        Every session of this process on this module ends; each finds that out by the generation.
        """
        self._finalise()
        self.library()

    def library(self) -> "Library":
        """Return the library, loaded and initialised.

        Raises:
            PKCS11Error: it cannot be loaded or initialised.
        """
        if self._library is None:
            self._library = pkcs11.lib(str(self._path))
        self._library.initialize()
        return self._library

    def log_in(self, token: pkcs11.Token, pin: str) -> None:
        """Log in to a token; all sessions of this process share it.

        Raises:
            PinWrong: the token is logged in by another PIN.
            PKCS11Error: the token refuses.
        """
        known = self._logins.get(token.serial)
        if known is None:
            self._logins[token.serial] = (pin, token.open(user_pin=pin))
        elif not hmac.compare_digest(known[0].encode(), pin.encode()):
            raise PinWrong("the token is open under another PIN")

    def _finalise(self) -> None:
        self._logins.clear()
        self.generation += 1
        if self._library is not None:
            self._library.finalize()


_modules: dict[Path, Module] = {}
_modules_lock = threading.Lock()


def module_for(path: Path) -> Module:
    """Return the one Module of a library's file in this process."""
    real = path.resolve()  # one library under two names is still one library
    with _modules_lock:
        if real not in _modules:
            _modules[real] = Module(real)
        return _modules[real]
