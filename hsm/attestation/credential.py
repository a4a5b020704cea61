"""A secret that only one TPM opens, and only for one attestation key: it ties the two together.

TPM 2.0 Library, part 1, section 24 (credential protection), annexes B.10.4 and C.6.4 (secret
sharing for RSA and ECC), section 11.4.10 (KDFa and KDFe).
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128

from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.structures import (
    COORDINATE_BYTES,
    DIGEST_BYTES,
    Attribute,
    EccPublic,
    RsaPublic,
    read_endorsement,
    read_public,
)
from hsm.attestation.verification import check_attestation_key, public_key, rsa_public_key

SECRET_BYTES_MAX = 32
AES_BYTES = 16
IDENTITY = b"IDENTITY\x00"
IV = bytes(AES_BYTES)  # of a key that is used once


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What the TPM is sent: TPMS_ID_OBJECT, and from what its key comes.

    `secret` is a TPMS_ECC_POINT for an endorsement key of P-256, a ciphertext for one of RSA.
    """

    credential: bytes
    secret: bytes


def make_challenge(answer: bytes, *, endorsement_key: bytes, attestation_key: bytes) -> Challenge:
    """Hide an answer of 16 to 32 random bytes: who gives it back holds both keys in one TPM.

    Raises:
        AttestationInvalid: a key is not what it has to be, or the answer is too short or long.
    """
    if not AES_BYTES <= len(answer) <= SECRET_BYTES_MAX:
        raise AttestationInvalid("an answer has 16 to 32 bytes")
    endorsement, attestation = read_endorsement(endorsement_key), read_public(attestation_key)
    check_attestation_key(attestation)
    _check_endorsement_key(endorsement)
    if isinstance(endorsement, RsaPublic):
        seed, secret = _encrypted(endorsement)
    else:
        seed, secret = _shared(endorsement)
    key = _kdfa(seed, b"STORAGE", context=attestation.name, bits=8 * AES_BYTES)
    encryptor = Cipher(AES128(key), CFB(IV)).encryptor()
    hidden = encryptor.update(_sized(answer)) + encryptor.finalize()
    integrity = _kdfa(seed, b"INTEGRITY", context=b"", bits=256)
    tag = hmac.digest(integrity, hidden + attestation.name, "sha256")
    return Challenge(credential=_sized(tag) + hidden, secret=secret)


def _check_endorsement_key(key: EccPublic | RsaPublic) -> None:
    """Only a restricted decryption key insists on the name that is in the credential."""
    wanted = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.RESTRICTED | Attribute.DECRYPT
    encrypts = isinstance(key, RsaPublic) or key.encrypts
    if key.attributes & wanted != wanted or not encrypts or key.attributes & Attribute.SIGN:
        raise AttestationInvalid("the endorsement key is no restricted decryption key")


def _shared(endorsement: EccPublic) -> tuple[bytes, bytes]:
    """A seed by ECDH with a fresh key, and the point from which the TPM finds it."""
    fresh = ec.generate_private_key(ec.SECP256R1())
    numbers = fresh.public_key().public_numbers()
    x, y = (value.to_bytes(COORDINATE_BYTES) for value in (numbers.x, numbers.y))
    z = fresh.exchange(ec.ECDH(), public_key(endorsement))
    ours = endorsement.point[:COORDINATE_BYTES]
    seed = hashlib.sha256((1).to_bytes(4) + z + IDENTITY + x + ours).digest()
    return seed, _sized(x) + _sized(y)


def _encrypted(endorsement: RsaPublic) -> tuple[bytes, bytes]:
    """A random seed, and its ciphertext by RSAES-OAEP (RFC 8017)."""
    seed = secrets.token_bytes(DIGEST_BYTES)
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), IDENTITY)
    try:
        return seed, rsa_public_key(endorsement).encrypt(seed, scheme)
    except ValueError as error:
        raise AttestationInvalid("an endorsement key is no key of RSA") from error


def _kdfa(key: bytes, label: bytes, *, context: bytes, bits: int) -> bytes:
    """KDFa for at most one digest: NIST SP 800-108 in counter mode."""
    block = (1).to_bytes(4) + label + b"\x00" + context + bits.to_bytes(4)
    return hmac.digest(key, block, "sha256")[: bits // 8]


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content
