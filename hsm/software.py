"""The token without hardware: keys in a sealed file, and in memory while it is open.

It signs at once, in the caller's thread. Its counter says "software", for it is no protection
against whoever can write the files.
"""

import asyncio
import functools
import secrets
from collections.abc import Callable
from pathlib import Path

import nacl.bindings
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import keyfile
from hsm.api import Algorithm, KeyMissing, TokenGone, TokenRefused
from hsm.boxes import close_box, open_box
from hsm.counter import SoftwareCounter
from hsm.curves import P256_ORDER, raw_signature
from hsm.files import create_durably, make_folder

FILE_NAME = "token.sealed"
KEY_BYTES = keyfile.KEY_BYTES
# The first byte of what is sealed says by what; the other drivers have others.
SEALED_BY_FILE = b"\x01"

Sign = Callable[[bytes], bytes]


class SoftwareSigner:
    """Signs in the caller's thread: an Ed25519 signature takes some 20 microseconds."""

    def __init__(self, algorithm: Algorithm, public_key: bytes, sign: Sign) -> None:
        self.algorithm = algorithm
        self.public_key = public_key
        self._sign = sign

    async def sign(self, message: bytes) -> bytes:
        """Sign the message.

        Raises:
            TokenGone: the token was closed.
        """
        return self._sign(message)

    def forget(self) -> None:
        """Drop the key."""
        self._sign = _sign_closed


class SoftwareSealer:
    """Seals with XChaCha20-Poly1305; the label is authenticated."""

    def __init__(self, key: bytes) -> None:
        self._key: bytes | None = key

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """Seal a secret under a label.

        Raises:
            TokenRefused: the secret is too long.
            TokenGone: the token was closed.
        """
        return close_box(SEALED_BY_FILE, self._open_key(), secret, label=label)

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """Give back what was sealed under this label.

        Raises:
            SealBroken: altered, of another token, or under another label.
            TokenGone: the token was closed.
        """
        return open_box(SEALED_BY_FILE, self._open_key(), sealed, label=label)

    def forget(self) -> None:
        """Drop the key."""
        self._key = None

    def _open_key(self) -> bytes:
        if self._key is None:
            raise TokenGone("the token is closed")
        return self._key


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
    public_key, _ = _load(algorithm, signing)
    opened = keyfile.Opened(algorithm=algorithm, public_key=public_key, secret=signing + sealing)
    content = keyfile.close_file(opened, passphrase=passphrase, cost=cost)
    try:
        _store(folder, content)
    except OSError as error:
        raise TokenRefused(f"the key file is not stored: {error.strerror}") from error
    return _assemble(folder, opened)


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
    signing, sealing = opened.secret[:KEY_BYTES], opened.secret[KEY_BYTES:]
    public_key, sign = _load(opened.algorithm, signing)
    signer = SoftwareSigner(opened.algorithm, public_key, sign)
    return SoftwareToken(folder, signer, SoftwareSealer(sealing))


def _new_signing_secret(algorithm: Algorithm) -> bytes:
    if algorithm is Algorithm.EDDSA:
        return secrets.token_bytes(KEY_BYTES)
    return (1 + secrets.randbelow(P256_ORDER - 1)).to_bytes(KEY_BYTES)


def _load(algorithm: Algorithm, secret: bytes) -> tuple[bytes, Sign]:
    """Return the public key and the function that signs."""
    if algorithm is Algorithm.EDDSA:
        public_key, pair = nacl.bindings.crypto_sign_seed_keypair(secret)
        return public_key, functools.partial(_sign_eddsa, pair)
    key = ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point[1:], functools.partial(_sign_es256, key)


def _sign_eddsa(pair: bytes, message: bytes) -> bytes:
    return nacl.bindings.crypto_sign(message, pair)[: nacl.bindings.crypto_sign_BYTES]


def _sign_es256(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return raw_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))


def _sign_closed(message: bytes) -> bytes:
    raise TokenGone("the token is closed")
