"""The arithmetic around signatures that tokens and libraries leave to their callers."""

import nacl.bindings
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from nacl.exceptions import BadSignatureError

from hsm.api import Algorithm, TokenRefused

# FIPS 186-5 with SP 800-186, section 3.2.1.3: the order of P-256's base point.
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
COORDINATE_BYTES = 32
PUBLIC_KEY_BYTES = {Algorithm.EDDSA: 32, Algorithm.ES256: 64}
UNCOMPRESSED = b"\x04"


def low_s(signature: bytes) -> bytes:
    """Return r || s with the lower of the two values of s that are valid.

    Both verify; one form for each signature keeps it from being changed by others.
    """
    s = int.from_bytes(signature[COORDINATE_BYTES:])
    if s <= P256_ORDER // 2:
        return signature
    return signature[:COORDINATE_BYTES] + (P256_ORDER - s).to_bytes(COORDINATE_BYTES)


def raw_signature(der: bytes) -> bytes:
    """Turn a DER ECDSA signature into r || s with the low s: 64 bytes."""
    r, s = utils.decode_dss_signature(der)
    return low_s(r.to_bytes(COORDINATE_BYTES) + s.to_bytes(COORDINATE_BYTES))


def check_signature(
    algorithm: Algorithm, public_key: bytes, *, message: bytes, signature: bytes
) -> None:
    """Return when the signature is of this key.

    Raises:
        TokenRefused: it is not, or the key is no point of the curve.
    """
    try:
        if algorithm is Algorithm.EDDSA:
            nacl.bindings.crypto_sign_open(signature + message, public_key)
        else:
            _check_es256(public_key, message, signature)
    except (BadSignatureError, InvalidSignature, ValueError) as error:
        raise TokenRefused("the public key does not belong to the signing key") from error


def _check_es256(public_key: bytes, message: bytes, signature: bytes) -> None:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), UNCOMPRESSED + public_key)
    r = int.from_bytes(signature[:COORDINATE_BYTES])
    s = int.from_bytes(signature[COORDINATE_BYTES:])
    key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
