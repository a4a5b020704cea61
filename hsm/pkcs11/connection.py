"""A gateway's session with its token, found again when the token comes back.

Everything here runs in the module's thread.
"""

import contextlib
from collections.abc import Callable
from typing import TypeVar

import pkcs11
from pkcs11.exceptions import PKCS11Error

from hsm.api import HsmError, KeyMissing, PinWrong, TokenGone
from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.counter import Counting
from hsm.pkcs11.errors import is_lost, translated
from hsm.pkcs11.keys import Keys, find, generate
from hsm.pkcs11.module import Module

Result = TypeVar("Result")


class Connection:
    """The keys of one configuration, in the session that is open now."""

    def __init__(self, config: Pkcs11Config, module: Module) -> None:
        self.counting = Counting(config.folder)
        self._config = config
        self._module = module
        self._keys: Keys | None = None
        self._generation = 0
        self._public_key: bytes | None = None
        self._pin_refused = False
        self._closed = False

    def create(self) -> bytes:
        """Make the keys, then open them: returns the public key.

        Raises:
            TokenRefused: keys of this label exist, or the token makes keys that can leave it.
            HsmError: as `open`.
        """
        return self._begin(self._generate)

    def add_signer(self) -> bytes:
        """Make a signing pair beside the sealing key, then open both: returns the public key.

        Raises:
            TokenRefused: keys of its label exist, or the token makes keys that can leave it.
            HsmError: as `open`.
        """
        return self._begin(self._generate_signing)

    def open(self) -> bytes:
        """Find the keys: returns the public key.

        Raises:
            HsmError: TokenGone, PinWrong, KeyMissing or TokenRefused.
        """
        return self._begin(lambda: None)

    def run(self, work: Callable[[Keys], Result]) -> Result:
        """Do something with the keys; when the session is lost, once more in a new one.

        Raises:
            TokenGone: there is no token to be found.
            HsmError: what the work met.
        """
        return self._twice(lambda: work(self._current()))

    def close(self) -> None:
        """End the session and let the module go, whatever the token says to it."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(PKCS11Error):
            if self._keys is not None and self._generation == self._module.generation:
                self._keys.session.close()
        with contextlib.suppress(PKCS11Error):
            self._module.leave(self)

    def _begin(self, first: Callable[[], None]) -> bytes:
        self._module.join(self)
        try:
            self._twice(first)
            return self.run(lambda keys: keys.public_key)
        except HsmError:
            self.close()
            raise

    def _twice(self, step: Callable[[], Result]) -> Result:
        if self._closed:
            raise TokenGone("the token is closed")
        if self._pin_refused:
            raise PinWrong("the token refused the PIN before; it is not tried again")
        try:
            with translated():
                try:
                    return step()
                except PKCS11Error as error:
                    if not is_lost(error):
                        raise
                self._module.restart()
                return step()
        except PinWrong:
            # A real token locks itself after a few wrong PINs, so nothing here may repeat one.
            self._pin_refused = True
            raise

    def _generate(self) -> None:
        token = self._log_in()
        self.counting.choose(token)
        generate(token, self._config)

    def _generate_signing(self) -> None:
        generate(self._log_in(), self._config, sealing=False)

    def _current(self) -> Keys:
        """Return the keys of the open session, or open one.

        Handles of another generation are never used: they may mean the keys of others.
        """
        if self._keys is None or self._generation != self._module.generation:
            self._keys = self._connect()
            self._generation = self._module.generation
        return self._keys

    def _connect(self) -> Keys:
        keys = find(self._log_in(), self._config)
        if self._public_key not in (None, keys.public_key):
            keys.session.close()
            raise KeyMissing("the token came back with another signing key")
        self._public_key = keys.public_key
        return keys

    def _log_in(self) -> pkcs11.Token:
        token = self._module.library().get_token(token_label=self._config.token_label)
        self._module.log_in(token, self._config.pin)
        return token
