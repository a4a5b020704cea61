"""Is it so, what the token says? Each check raises, or gives what it proved.

What is proven is that one TPM holds the attestation key and what it certifies. That the TPM is a
maker's hardware follows from `verify_endorsement` and an answered `make_challenge`.
"""

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from hsm.api import Attested
from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.structures import (
    RSA_EXPONENT,
    Attribute,
    Certified,
    EccPublic,
    NvAttribute,
    NvCertified,
    Quoted,
    RsaPublic,
    Statement,
    read_nv_public,
    read_public,
    read_signature,
    read_statement,
)

# What must hold of a key that was made in the TPM and never leaves it.
CAPTIVE = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN
COUNTER_BYTES = 8


def verify_quote(
    attested: Attested, *, attestation_key: bytes, nonce: bytes, pcrs: Mapping[int, bytes]
) -> Statement:
    """That the registers had these SHA-256 values when the nonce was known.

    Raises:
        AttestationInvalid: they had not, or it is not proven.
    """
    # 1. to 4. The key, the signature, the shape, the nonce.
    statement = _statement(attested, attestation_key, nonce)
    # 5. It is a quote of the registers that were asked for, no fewer.
    body = statement.body
    if not isinstance(body, Quoted) or body.pcrs != pcrs.keys():
        raise AttestationInvalid("it does not quote these registers")
    # 6. Their digest is the signed one (part 3, section 18.4: in the order of their numbers).
    digest = hashlib.sha256(b"".join(pcrs[pcr] for pcr in sorted(pcrs))).digest()
    if not hmac.compare_digest(body.digest, digest):
        raise AttestationInvalid("the registers had other values")
    return statement


def verify_signer(
    attested: Attested, *, attestation_key: bytes, nonce: bytes, signer: bytes
) -> bytes:
    """That the signing key lives in the TPM of the attestation key: its public key, x || y.

    Raises:
        AttestationInvalid: it does not, or it is not proven.
    """
    # 1. to 4. The key, the signature, the shape, the nonce.
    body = _statement(attested, attestation_key, nonce).body
    # 5. It certifies this key.
    key = read_public(signer)
    if not isinstance(body, Certified) or body.name != key.name:
        raise AttestationInvalid("it certifies another key")
    # 6. The key was made there, cannot leave, and signs; it opens nothing for others.
    if not _is(key, CAPTIVE | Attribute.SIGN) or key.attributes & Attribute.DECRYPT:
        raise AttestationInvalid("the signing key is not captive in the TPM")
    return key.point


def verify_counter(
    attested: Attested, *, attestation_key: bytes, nonce: bytes, counter: bytes
) -> int:
    """That the counter showed this value when the nonce was known.

    Raises:
        AttestationInvalid: it did not, or it is not proven.
    """
    # 1. to 4. The key, the signature, the shape, the nonce.
    body = _statement(attested, attestation_key, nonce).body
    # 5. It is about this index, and about all of it.
    index = read_nv_public(counter)
    if not isinstance(body, NvCertified) or body.name != index.name or body.offset != 0:
        raise AttestationInvalid("it certifies another index")
    # 6. The index only counts, and has begun to.
    kind = index.attributes & NvAttribute.TYPE_MASK
    if kind != NvAttribute.COUNTER or not index.attributes & NvAttribute.WRITTEN:
        raise AttestationInvalid("the index is no counter")
    if len(body.content) != COUNTER_BYTES:
        raise AttestationInvalid("a counter has eight octets")
    return int.from_bytes(body.content)


def endorsement_public_key(
    key: EccPublic | RsaPublic,
) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The endorsement key as a key. Raises: AttestationInvalid."""
    return public_key(key) if isinstance(key, EccPublic) else rsa_public_key(key)


def rsa_public_key(key: RsaPublic) -> rsa.RSAPublicKey:
    """The modulus as a key. Raises: AttestationInvalid."""
    try:
        return rsa.RSAPublicNumbers(RSA_EXPONENT, key.modulus).public_key()
    except ValueError as error:
        raise AttestationInvalid("an endorsement key is no key of RSA") from error


def public_key(key: EccPublic) -> ec.EllipticCurvePublicKey:
    """The point as a key. Raises: AttestationInvalid."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.point)
    except ValueError as error:
        raise AttestationInvalid("a public key is no point of the curve") from error


def check_attestation_key(key: EccPublic) -> None:
    """That a key signs statements of its TPM alone, and lives there. Raises: AttestationInvalid."""
    wanted = CAPTIVE | Attribute.SIGN | Attribute.RESTRICTED
    if not _is(key, wanted) or key.attributes & Attribute.DECRYPT:
        raise AttestationInvalid("the attestation key is no restricted key of a TPM")


def _statement(attested: Attested, attestation_key: bytes, nonce: bytes) -> Statement:
    # 1. The key signs nothing but what its TPM says: an unrestricted one would sign forgeries.
    key = read_public(attestation_key)
    check_attestation_key(key)
    # 2. The signature is the key's, over these bytes.
    signature = utils.encode_dss_signature(*read_signature(attested.signature))
    try:
        public_key(key).verify(signature, attested.statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise AttestationInvalid("the statement is not signed by the attestation key") from error
    # 3. The bytes are one whole statement of a TPM.
    statement = read_statement(attested.statement)
    # 4. It answers this question: an old answer has another nonce.
    if not nonce or not hmac.compare_digest(statement.nonce, nonce):
        raise AttestationInvalid("the statement answers another question")
    return statement


def _is(key: EccPublic, wanted: int) -> bool:
    return key.attributes & wanted == wanted
