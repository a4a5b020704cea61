"""The token without hardware: keys in a sealed file, and in memory while it is open.

Its keys are in locked memory, but for a P-256 key, which OpenSSL keeps in its own.
It signs at once, in the caller's thread. Its counter says "software", for it is no protection
against whoever can write the files.
"""

import asyncio
import functools
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import keyfile, sodium
from hsm.api import Algorithm, KeyMissing, TokenGone, TokenRefused
from hsm.boxes import close_box, open_box
from hsm.counter import SoftwareCounter
from hsm.curves import P256_ORDER, raw_signature
from hsm.files import create_durably, make_folder
from hsm.memory import Secret, wipe

FILE_NAME = "token.sealed"
KEY_BYTES = keyfile.KEY_BYTES
# The first byte of what is sealed says by what; the other drivers have others.
SEALED_BY_FILE = b"\x01"

Sign = Callable[[bytes], bytes]


class SoftwareSigner:
    """Signs in the caller's thread: an Ed25519 signature takes some 20 microseconds."""

    def __init__(
        self, algorithm: Algorithm, public_key: bytes, sign: Sign, *, pair: Secret | None = None
    ) -> None:
        """`pair`: the key in locked memory that `sign` uses, if it does."""
        self.algorithm = algorithm
        self.public_key = public_key
        self._sign = sign
        self._pair = pair

    async def sign(self, message: bytes) -> bytes:
        """Sign the message.

        Raises:
            TokenGone: the token was closed.
        """
        return self._sign(message)

    def forget(self) -> None:
        """Drop the key."""
        self._sign = _sign_closed
        if self._pair is not None:
            self._pair.wipe()


class SoftwareSealer:
    """Seals with XChaCha20-Poly1305; the label is authenticated."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """Seal a secret under a label.

        Raises:
            TokenRefused: the secret is too long.
            TokenGone: the token was closed.
        """
        self._refuse_when_closed()
        return close_box(SEALED_BY_FILE, self._key, secret, label=label)

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """Give back what was sealed under this label.

        Raises:
            SealBroken: altered, of another token, or under another label.
            TokenGone: the token was closed.
        """
        self._refuse_when_closed()
        return open_box(SEALED_BY_FILE, self._key, sealed, label=label)

    def forget(self) -> None:
        """Drop the key."""
        self._key.wipe()

    def _refuse_when_closed(self) -> None:
        if self._key.wiped:
            raise TokenGone("the token is closed")


class SoftwareToken:
    """An open software token."""

    driver = "software"

    def __init__(self, folder: Path, signer: SoftwareSigner, sealer: SoftwareSealer) -> None:
        self.signer = signer
        self.sealer = sealer
        self.counter = SoftwareCounter(folder)
        self._path = folder / FILE_NAME
        self._closed = False

    async def probe(self) -> None:
        """Return when the token is open and its file still stands.

        Raises:
            TokenGone: it is not, or does not.
        """
        if self._closed or not self._path.is_file():
            raise TokenGone("the token is closed" if self._closed else "the key file is gone")

    async def close(self) -> None:
        """Forget the keys."""
        self._closed = True
        self.signer.forget()
        self.sealer.forget()


async def create(
    folder: Path,
    *,
    passphrase: bytes,
    algorithm: Algorithm = Algorithm.EDDSA,
    cost: keyfile.Cost = keyfile.STANDARD,
) -> SoftwareToken:
    """Make new keys in a folder, which may not exist yet, and open them.

    Raises:
        TokenRefused: the folder holds a token already, or cannot be written.
    """
    return await asyncio.to_thread(_create, folder, passphrase, algorithm, cost)


async def open_token(folder: Path, *, passphrase: bytes) -> SoftwareToken:
    """Open the keys of a folder.

    Raises:
        KeyMissing: the folder holds no token.
        PinWrong: the passphrase is not the one that sealed it.
        SealBroken: the file is damaged or was altered.
        TokenRefused: the file or the counter cannot be read.
    """
    return await asyncio.to_thread(_open, folder, passphrase)


def _create(
    folder: Path, passphrase: bytes, algorithm: Algorithm, cost: keyfile.Cost
) -> SoftwareToken:
    signing, sealing = _new_signing_secret(algorithm), secrets.token_bytes(KEY_BYTES)
    public_key = _load(algorithm, signing).public_key
    opened = keyfile.Opened(algorithm=algorithm, public_key=public_key, secret=signing + sealing)
    content = keyfile.close_file(opened, passphrase=passphrase, cost=cost)
    try:
        _store(folder, content)
    except OSError as error:
        raise TokenRefused(f"the key file is not stored: {error.strerror}") from error
    token = _assemble(folder, opened)
    for used in (signing, sealing):
        wipe(used)
    return token


def _store(folder: Path, content: bytes) -> None:
    make_folder(folder)
    # The counter first: the key file is what makes the token exist.
    SoftwareCounter(folder).prepare()
    try:
        create_durably(folder / FILE_NAME, content)
    except FileExistsError as error:
        raise TokenRefused("the folder holds a token already") from error


def _open(folder: Path, passphrase: bytes) -> SoftwareToken:
    try:
        with (folder / FILE_NAME).open("rb") as file:
            content = file.read(keyfile.FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise KeyMissing("the folder holds no token") from error
    except OSError as error:
        raise TokenRefused(f"the key file is not readable: {error.strerror}") from error
    token = _assemble(folder, keyfile.open_file(content, passphrase=passphrase))
    token.counter.check()
    return token


def _assemble(folder: Path, opened: keyfile.Opened) -> SoftwareToken:
    """The token over the keys of its file, which are wiped there: each is of its own call."""
    signing, sealing = opened.secret[:KEY_BYTES], opened.secret[KEY_BYTES:]
    signer = _load(opened.algorithm, signing)
    token = SoftwareToken(folder, signer, SoftwareSealer(Secret.take(sealing)))
    for used in (signing, opened.secret):
        wipe(used)
    return token


def _new_signing_secret(algorithm: Algorithm) -> bytes:
    if algorithm is Algorithm.EDDSA:
        return secrets.token_bytes(KEY_BYTES)
    return (1 + secrets.randbelow(P256_ORDER - 1)).to_bytes(KEY_BYTES)


def _load(algorithm: Algorithm, secret: bytes) -> SoftwareSigner:
    if algorithm is Algorithm.EDDSA:
        public_key, pair = sodium.seed_keypair(secret)
        sign = functools.partial(sodium.sign, pair)
        return SoftwareSigner(algorithm, public_key, sign, pair=pair)
    key = ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return SoftwareSigner(algorithm, point[1:], functools.partial(_sign_es256, key))


def _sign_es256(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return raw_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))


def _sign_closed(message: bytes) -> bytes:
    raise TokenGone("the token is closed")
