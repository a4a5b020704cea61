"""The token as the house sees it: each call goes to the device's thread, with a timeout."""

from collections.abc import Sequence

from hsm.api import Algorithm, Attested, AttestedKeys, Quote
from hsm.boxes import close_box, open_box
from hsm.line import Line
from hsm.memory import Secret
from hsm.pcr_policies import PcrPolicy, check_policy
from hsm.tpm import attester
from hsm.tpm.config import TpmConfig
from hsm.tpm.connection import Connection
from hsm.tpm.device import device_for
from hsm.tpm.keys import Keys

# The first byte of what is sealed says by what; the other drivers have others.
SEALED_BY_TPM = b"\x04"


class TpmSigner:
    """Signs in the TPM: some ten milliseconds on a fast one, two hundred on a slow one."""

    algorithm = Algorithm.ES256

    def __init__(self, line: Line[Keys], public_key: bytes) -> None:
        self._line = line
        self.public_key = public_key

    async def sign(self, message: bytes) -> bytes:
        """Sign the message.

        Raises:
            HsmError: as `open_token`, and TokenTimeout.
        """
        return await self._line.run(lambda keys: keys.sign(message))


class TpmSealer:
    """Seals under a key that the TPM opened; it is in memory until the TPM is lost or closed."""

    def __init__(self, line: Line[Keys]) -> None:
        self._line = line

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """Seal a secret under a label.

        Raises:
            HsmError: as `TpmSigner.sign`; TokenRefused when the secret is too long.
        """
        return await self._line.run(
            lambda keys: close_box(SEALED_BY_TPM, Secret(keys.key), secret, label=label)
        )

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """Give back what was sealed under this label.

        Raises:
            SealBroken: altered, of another token, or under another label.
            HsmError: as `TpmSigner.sign`.
        """
        return await self._line.run(
            lambda keys: open_box(SEALED_BY_TPM, Secret(keys.key), sealed, label=label)
        )


class TpmCounter:
    """Counts in the TPM's NV memory, which wears: `hsm.tpm.counter`."""

    driver = "tpm"

    def __init__(self, line: Line[Keys], connection: Connection) -> None:
        self._line = line
        self._connection = connection

    async def read(self) -> int:
        """Read the count.

        Raises:
            HsmError: as `TpmSigner.sign`, and CounterReplaced.
        """
        return await self._line.run(self._connection.counter.read)

    async def increment(self) -> int:
        """Add one, once, and return the new count. After a failure it may have counted or not.

        Raises:
            HsmError: as `read`.
        """
        return await self._line.call(self._connection.count)


class TpmAttester:
    """Statements of the TPM, by a key that signs nothing else."""

    def __init__(self, line: Line[Keys], connection: Connection) -> None:
        self._line = line
        self._counter = connection.counter

    async def keys(self) -> AttestedKeys:
        """The public side of all keys. Raises: HsmError."""
        return await self._line.run(lambda keys: attester.keys_of(keys, self._counter))

    async def quote(self, pcrs: Sequence[int], *, nonce: bytes) -> Quote:
        """The measurements, signed. Raises: HsmError."""
        return await self._line.run(lambda keys: attester.quote(keys, pcrs, nonce))

    async def certify_signer(self, *, nonce: bytes) -> Attested:
        """That the signing key lives here. Raises: HsmError."""
        return await self._line.run(lambda keys: attester.certify_signer(keys, nonce))

    async def certify_counter(self, *, nonce: bytes) -> Attested:
        """What the counter shows. Raises: HsmError."""
        return await self._line.run(
            lambda keys: attester.certify_counter(keys, self._counter, nonce)
        )

    async def activate(self, *, credential: bytes, secret: bytes) -> bytes:
        """Open a credential. Raises: SealBroken, HsmError."""
        return await self._line.run(lambda keys: attester.activate(keys, credential, secret))


class TpmToken:
    """An open TPM token."""

    driver = "tpm"

    def __init__(self, line: Line[Keys], connection: Connection, public_key: bytes) -> None:
        self._line = line
        self._connection = connection
        self.signer = TpmSigner(line, public_key)
        self.sealer = TpmSealer(line)
        self.counter = TpmCounter(line, connection)
        self.attester = TpmAttester(line, connection)

    async def probe(self) -> None:
        """Let the TPM sign and show its counter, which it does again by itself when it came back.

        Raises:
            HsmError: as `open_token`, and TokenTimeout.
        """
        await self._line.call(self._connection.probe)

    async def reseal(self, policy: PcrPolicy) -> None:
        """Seal to another policy and the measurements of now, before or after an update.

        What was sealed before still opens where a copy of the token's file was kept.

        Raises:
            HsmError: as `open_token`, and TokenTimeout; what opened before still does.
        """
        check_policy(policy)
        await self._line.call(lambda: self._connection.reseal(policy))

    async def close(self) -> None:
        """Unload the keys; later calls say TokenGone.

        Raises:
            TokenTimeout: the TPM hangs; the keys are unloaded when it wakes up.
        """
        await self._line.close()


async def create(config: TpmConfig) -> TpmToken:
    """Make new keys and a counter, and open them.

    Raises:
        TokenRefused: the folder holds a token, the counter's index is taken, or nothing is stored.
        HsmError: as `open_token`.
    """
    line, connection = _line(config)
    return TpmToken(line, connection, await line.begin(connection.create))


async def open_token(config: TpmConfig) -> TpmToken:
    """Open the keys of a folder.

    Raises:
        KeyMissing: the folder holds no token, or one whose creation was broken off.
        HsmError: TokenGone, TokenTimeout, TokenCleared, TokenReplaced, TokenLocked, PinWrong,
            PolicyRefused, CounterReplaced, SealBroken or TokenRefused.
    """
    line, connection = _line(config)
    return TpmToken(line, connection, await line.begin(connection.open))


def _line(config: TpmConfig) -> tuple[Line[Keys], Connection]:
    device = device_for(config.tcti)
    connection = Connection(config, device)
    return Line(connection, device.thread, timeout_s=config.timeout_s), connection
