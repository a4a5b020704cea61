"""Proofs that somebody holds the private key for which a certificate is asked."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.errors import IssuerError
from cloud.issuer.profiles import CertifiedKey
from wallet.protocol.keys import PublicKey
from wallet.protocol.refusals import ProtocolError

CONTEXT = b"cbdc-journal-key/1"
NONCE_BYTES = 32
REQUEST_BYTES_MAX = 8_192
_EPOCH_BYTES = 8


def journal_proof(*, journal: bytes, epoch: int, nonce: bytes) -> bytes:
    """What a journal's key signs: the context, journal (20), epoch (8, big-endian), nonce (32).

    The nonce binds the proof to one enrolment, such as the SHA-256 of its one-time token.
    """
    if len(nonce) != NONCE_BYTES:
        raise IssuerError("key-proof-invalid", f"the nonce has {NONCE_BYTES} bytes")
    return CONTEXT + journal + epoch.to_bytes(_EPOCH_BYTES, "big") + nonce


def check_journal_proof(
    key: PublicKey, signature: bytes, *, journal: bytes, epoch: int, nonce: bytes
) -> None:
    """Raises: IssuerError `key-proof-invalid`."""
    try:
        key.verify(signature, journal_proof(journal=journal, epoch=epoch, nonce=nonce))
    except ProtocolError as error:
        raise IssuerError("key-proof-invalid", "the journal's key did not sign this") from error


def requested_key(request: bytes) -> CertifiedKey:
    """The key of a PKCS#10 request (DER) that its holder signed; nothing else of it is taken.

    Raises: IssuerError `key-proof-invalid`.
    """
    if len(request) > REQUEST_BYTES_MAX:
        raise IssuerError("key-proof-invalid", "the request is too large")
    try:
        parsed = x509.load_der_x509_csr(request)
        key, signed = parsed.public_key(), parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise IssuerError("key-proof-invalid", "no readable request") from error
    if not signed:
        raise IssuerError("key-proof-invalid", "the holder did not sign the request")
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise IssuerError("key-proof-invalid", "neither an Ed25519 nor a P-256 key")
