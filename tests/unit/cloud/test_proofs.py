"""Proofs of possession: only the holder of a key gets a certificate for it, for one enrolment."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.errors import IssuerError
from cloud.issuer.proofs import (
    REQUEST_BYTES_MAX,
    check_journal_proof,
    journal_proof,
    requested_key,
)
from wallet.protocol.keys import EDDSA, from_raw

KEY = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x02")
PUBLIC = from_raw(EDDSA, KEY.public_key().public_bytes_raw())
JOURNAL = bytes(range(20))
NONCE = bytes(range(32))


def test_the_proof_is_context_journal_epoch_and_nonce() -> None:
    message = journal_proof(journal=JOURNAL, epoch=3, nonce=NONCE)
    assert message == b"cbdc-journal-key/1" + JOURNAL + bytes(7) + b"\x03" + NONCE
    signature = KEY.sign(message)
    check_journal_proof(PUBLIC, signature, journal=JOURNAL, epoch=3, nonce=NONCE)


@pytest.mark.parametrize(
    ("journal", "epoch", "nonce"),
    [(bytes(20), 3, NONCE), (JOURNAL, 4, NONCE), (JOURNAL, 3, bytes(32)), (JOURNAL, 3, b"short")],
)
def test_a_proof_for_something_else_is_refused(journal: bytes, epoch: int, nonce: bytes) -> None:
    signature = KEY.sign(journal_proof(journal=JOURNAL, epoch=3, nonce=NONCE))
    with pytest.raises(IssuerError, match="key-proof-invalid"):
        check_journal_proof(PUBLIC, signature, journal=journal, epoch=epoch, nonce=nonce)


def test_a_proof_by_another_key_is_refused() -> None:
    signature = OTHER.sign(journal_proof(journal=JOURNAL, epoch=3, nonce=NONCE))
    with pytest.raises(IssuerError, match="key-proof-invalid"):
        check_journal_proof(PUBLIC, signature, journal=JOURNAL, epoch=3, nonce=NONCE)


def request(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A PKCS#10 request signed by the key."""
    algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "key", [KEY, ec.derive_private_key(7, ec.SECP256R1())], ids=["ed25519", "p256"]
)
def test_the_key_of_a_signed_request_is_taken(
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    assert requested_key(request(key)).public_bytes(*form) == key.public_key().public_bytes(*form)


def test_a_request_that_its_holder_did_not_sign_is_refused() -> None:
    mine, others = KEY.public_key().public_bytes_raw(), OTHER.public_key().public_bytes_raw()
    with pytest.raises(IssuerError, match="did not sign"):
        requested_key(request(KEY).replace(mine, others))


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(7, ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    ],
    ids=["p384", "rsa"],
)
def test_other_kinds_of_keys_are_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    with pytest.raises(IssuerError, match="neither"):
        requested_key(request(key))


@pytest.mark.parametrize("data", [b"", b"0", request(KEY)[:-1], bytes(REQUEST_BYTES_MAX + 1)])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(IssuerError, match="key-proof-invalid"):
        requested_key(data)
