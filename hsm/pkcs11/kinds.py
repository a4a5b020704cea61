"""The two kinds of signing keys, as PKCS#11 names and writes them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pkcs11.mechanisms import KeyType, Mechanism

from hsm.api import Algorithm, TokenRefused
from hsm.curves import PUBLIC_KEY_BYTES, UNCOMPRESSED, low_s

OCTET_STRING = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How keys of one algorithm are made and used."""

    key_type: KeyType
    curve: bytes  # the DER of the curve's object identifier
    generate: Mechanism
    sign: Mechanism
    prepare: Callable[[bytes], bytes]  # the message as the mechanism takes it
    finish: Callable[[bytes], bytes]  # the signature as we give it
    prefix: bytes  # what stands before the public key in its point


def _as_it_is(data: bytes) -> bytes:
    return data


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


KINDS = {
    Algorithm.EDDSA: Kind(
        key_type=KeyType.EC_EDWARDS,
        curve=bytes.fromhex("06032b6570"),
        generate=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        sign=Mechanism.EDDSA,
        prepare=_as_it_is,
        finish=_as_it_is,
        prefix=b"",
    ),
    # Many tokens lack ECDSA_SHA256, none lacks ECDSA: the digest is made here.
    Algorithm.ES256: Kind(
        key_type=KeyType.EC,
        curve=bytes.fromhex("06082a8648ce3d030107"),
        generate=Mechanism.EC_KEY_PAIR_GEN,
        sign=Mechanism.ECDSA,
        prepare=_digest,
        finish=low_s,
        prefix=UNCOMPRESSED,
    ),
}


def public_key_of_point(algorithm: Algorithm, point: bytes) -> bytes:
    """Take the public key out of CKA_EC_POINT: a DER OCTET STRING, which some tokens leave out.

    Raises:
        TokenRefused: the point is of no form that is known.
    """
    prefix = KINDS[algorithm].prefix
    raw_bytes = len(prefix) + PUBLIC_KEY_BYTES[algorithm]
    if len(point) == raw_bytes + 2 and point.startswith(bytes((OCTET_STRING, raw_bytes))):
        point = point[2:]
    if len(point) != raw_bytes or not point.startswith(prefix):
        raise TokenRefused("the token gives a public key of a form that is not known")
    return point[len(prefix) :]
