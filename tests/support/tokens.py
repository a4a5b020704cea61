"""Open tokens for tests: closed at the end, and checked by another library."""

import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from hsm.api import Algorithm, Token
from hsm.curves import P256_ORDER
from hsm.keyfile import Cost

# A passphrase that costs nothing, so that many files can be opened. For tests alone.
FEEBLE = Cost(passes=1, memory_bytes=8192)

AnyToken = TypeVar("AnyToken", bound=Token)


@contextlib.asynccontextmanager
async def closing(token: AnyToken) -> AsyncIterator[AnyToken]:
    """Close the token at the end."""
    try:
        yield token
    finally:
        await token.close()


def verify(token: Token, message: bytes, signature: bytes) -> None:
    """Return when OpenSSL takes the signature and, for P-256, its s is the low one.

    Raises:
        InvalidSignature, AssertionError.
    """
    signer = token.signer
    assert len(signature) == 64
    if signer.algorithm is Algorithm.EDDSA:
        ed25519.Ed25519PublicKey.from_public_bytes(signer.public_key).verify(signature, message)
        return
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    assert s <= P256_ORDER // 2
    point = b"\x04" + signer.public_key
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


@contextlib.contextmanager
def nothing_can_be_stored() -> Iterator[None]:
    """Let every write to a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
