"""The token as the house sees it: each call goes to the module's thread, with a timeout."""

import asyncio

from hsm.api import Algorithm, Counter, HsmError
from hsm.counter import SoftwareCounter
from hsm.line import Line
from hsm.pkcs11 import seals
from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.connection import Connection
from hsm.pkcs11.counter import TokenCounter
from hsm.pkcs11.keys import Keys
from hsm.pkcs11.module import module_for


class Pkcs11Signer:
    """Signs in the token."""

    def __init__(self, line: Line[Keys], algorithm: Algorithm, public_key: bytes) -> None:
        self._line = line
        self.algorithm = algorithm
        self.public_key = public_key

    async def sign(self, message: bytes) -> bytes:
        """Sign the message.

        Raises:
            HsmError: TokenGone, TokenTimeout, PinWrong, KeyMissing or TokenRefused.
        """
        return await self._line.run(lambda keys: keys.sign(message))


class Pkcs11Sealer:
    """Seals in the token."""

    def __init__(self, line: Line[Keys]) -> None:
        self._line = line

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """Seal a secret under a label.

        Raises:
            HsmError: as `Pkcs11Signer.sign`; TokenRefused when the secret is too long.
        """
        return await self._line.run(lambda keys: seals.seal(keys, secret, label))

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """Give back what was sealed under this label.

        Raises:
            SealBroken: altered, of another token, or under another label.
            HsmError: as `Pkcs11Signer.sign`.
        """
        return await self._line.run(lambda keys: seals.unseal(keys, sealed, label))


class Pkcs11Token:
    """An open PKCS#11 token. Where it has no counter, a file counts, and says so."""

    driver = "pkcs11"

    def __init__(
        self, config: Pkcs11Config, line: Line[Keys], connection: Connection, public_key: bytes
    ) -> None:
        self._line = line
        self.signer = Pkcs11Signer(line, config.algorithm, public_key)
        self.sealer = Pkcs11Sealer(line)
        self.counter: Counter = SoftwareCounter(config.folder)
        if connection.counting.in_token:
            self.counter = TokenCounter(line, connection.counting)

    async def probe(self) -> None:
        """Let the token sign, which it does again by itself when it came back.

        Raises:
            HsmError: TokenGone, TokenTimeout, PinWrong, KeyMissing or TokenRefused.
        """
        await self._line.run(Keys.prove)

    async def close(self) -> None:
        """End the session; later calls say TokenGone.

        Raises:
            TokenTimeout: the token hangs; the session ends when it wakes up.
        """
        await self._line.close()


async def create(config: Pkcs11Config) -> Pkcs11Token:
    """Make new keys in the token and open them.

    Raises:
        TokenRefused: the token has keys of these labels, makes keys that can leave it, or the
            counter cannot be stored.
        TokenTimeout: the keys may still have been made; then `open_token` finds them.
        HsmError: TokenGone or PinWrong.
    """
    line, connection = _line(config)
    await asyncio.to_thread(connection.counting.prepare)
    return Pkcs11Token(config, line, connection, await line.begin(connection.create))


async def add_signer(config: Pkcs11Config) -> Pkcs11Token:
    """Make a signing pair for a later epoch beside the sealing key, and open both.

    The pair has a label of its own, `key_label`; the sealing key stays where it is, under
    `sealing_label`. What signs under an earlier label goes on signing meanwhile.

    Raises:
        TokenRefused: the token has keys of this label, or makes keys that can leave it.
        HsmError: as `create`, and KeyMissing when there is no sealing key.
    """
    line, connection = _line(config)
    await asyncio.to_thread(connection.counting.check)
    return Pkcs11Token(config, line, connection, await line.begin(connection.add_signer))


async def open_token(config: Pkcs11Config) -> Pkcs11Token:
    """Open the keys in the token.

    Raises:
        HsmError: TokenGone, TokenTimeout, PinWrong, KeyMissing, CounterReplaced or TokenRefused.
    """
    line, connection = _line(config)
    public_key = await line.begin(connection.open)
    token = Pkcs11Token(config, line, connection, public_key)
    try:
        connection.counting.check()
    except HsmError:
        await token.close()
        raise
    return token


def _line(config: Pkcs11Config) -> tuple[Line[Keys], Connection]:
    module = module_for(config.module_path)
    connection = Connection(config, module)
    return Line(connection, module.thread, timeout_s=config.timeout_s), connection
