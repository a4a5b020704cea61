"""Public keys: Ed25519 and P-256 as COSE_Key, their thumbprints, and strict verification."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from wallet.protocol.codec import decode, encode
from wallet.protocol.ids import ID_BYTES
from wallet.protocol.refusals import Code, ProtocolError

EDDSA = -8
ES256 = -7
SIGNATURE_BYTES = 64
COSE_KEY_BYTES_MAX = 128

# RFC 8032 section 5.1: the field and the curve constant.
_P25519 = 2**255 - 19
_D25519 = -121665 * pow(121666, -1, _P25519) % _P25519
# y of the points whose order divides 8; each stands for both signs of x.
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P25519 - 1, _ORDER_8, _P25519 - _ORDER_8})
# FIPS 186-5 / SEC 2: P-256.
_P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B256 = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SHA256 = ec.ECDSA(hashes.SHA256())


class PublicKey(msgspec.Struct, frozen=True):
    """A checked public key. `raw`: 32 bytes of Ed25519, or x || y of P-256."""

    algorithm: int
    raw: bytes
    cose_key: bytes
    key_id: bytes

    @property
    def id(self) -> bytes:
        """The identifier that the key gives its wallet or journal: 20 bytes."""
        return self.key_id[:ID_BYTES]

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises: ProtocolError `bad-signature`; a high s (RFC 9053 allows it) is one too."""
        verify_signature(self.algorithm, self.raw, signature, message)


def verify_signature(algorithm: int, raw: bytes, signature: bytes, message: bytes) -> None:
    """Under the raw bytes of a key that was checked. Raises: as `PublicKey.verify`."""
    if algorithm == EDDSA:
        _verify_ed25519(raw, signature, message)
    else:
        _verify_p256(raw, signature, message)


def _verify_ed25519(raw: bytes, signature: bytes, message: bytes) -> None:
    try:
        crypto_sign_open(signature + message, raw)
    except BadSignatureError as error:
        raise ProtocolError(Code.BAD_SIGNATURE, "Ed25519") from error


def _verify_p256(raw: bytes, signature: bytes, message: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != SIGNATURE_BYTES or not (0 < r < _N256 and 0 < s <= _N256 // 2):
        raise ProtocolError(Code.BAD_SIGNATURE, "ES256: r or s out of range")
    try:
        _p256_key(raw).verify(encode_dss_signature(r, s), message, _SHA256)
    except InvalidSignature as error:
        raise ProtocolError(Code.BAD_SIGNATURE, "ES256") from error


@functools.lru_cache(maxsize=16_384)
def _p256_key(raw: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw)


def low_s(signature: bytes) -> bytes:
    """The form of an ES256 signature with s <= n/2; the other form is refused everywhere."""
    s = int.from_bytes(signature[32:], "big")
    if s <= _N256 // 2:
        return signature
    return signature[:32] + (_N256 - s).to_bytes(32, "big")


def from_raw(algorithm: int, raw: bytes) -> PublicKey:
    """The key of its raw bytes. Raises: ProtocolError `weak-key` or `malformed`."""
    if algorithm == EDDSA and len(raw) == 32:
        check_ed25519(raw)
        fields: dict[int, Any] = {1: 1, -1: 6, -2: raw}
    elif algorithm == ES256 and len(raw) == 64:
        check_p256(raw)
        fields = {1: 2, -1: 1, -2: raw[:32], -3: raw[32:]}
    else:
        raise ProtocolError(Code.MALFORMED, "neither an Ed25519 nor a P-256 key")
    cose_key = encode(fields)
    return PublicKey(algorithm, raw, cose_key, hashlib.sha256(cose_key).digest())


def from_cose_key(cose_key: bytes) -> PublicKey:
    """The key of COSE_Key bytes. Raises: ProtocolError `not-canonical`, `malformed`, `weak-key`."""
    return from_cose_map(decode(cose_key, bytes_max=COSE_KEY_BYTES_MAX))


def from_cose_map(fields: Any) -> PublicKey:
    """The key of a decoded COSE_Key (RFC 9052 section 7): exactly the members of wire.cddl."""
    if type(fields) is dict:
        shape = {name: type(value) for name, value in fields.items()}
        if shape == {1: int, -1: int, -2: bytes} and (fields[1], fields[-1]) == (1, 6):
            return from_raw(EDDSA, fields[-2])
        p256 = shape == {1: int, -1: int, -2: bytes, -3: bytes} and (fields[1], fields[-1]) == (
            2,
            1,
        )
        if p256 and len(fields[-2]) == len(fields[-3]) == 32:
            return from_raw(ES256, fields[-2] + fields[-3])
    raise ProtocolError(Code.MALFORMED, "no COSE_Key of Ed25519 or P-256")


def check_ed25519(raw: bytes) -> None:
    """Raises: ProtocolError `weak-key`: small order, a second form, no point (RFC 8032 5.1.3)."""
    # The highest bit is the sign of x; x is 0 only where y is 1 or -1, which are refused below.
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    if y >= _P25519:
        raise ProtocolError(Code.WEAK_KEY, "Ed25519 key of non-canonical form")
    if y in _SMALL_ORDER_Y:
        raise ProtocolError(Code.WEAK_KEY, "Ed25519 key of small order")
    square = (y * y - 1) * pow(_D25519 * y * y + 1, -1, _P25519) % _P25519
    if pow(square, (_P25519 - 1) // 2, _P25519) != 1:
        raise ProtocolError(Code.WEAK_KEY, "Ed25519 key that is no point of the curve")


def check_p256(raw: bytes) -> None:
    """Raises: ProtocolError `weak-key` for coordinates that are no point of P-256."""
    x, y = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    on_curve = x < _P256 and y < _P256 and (y * y - (x * x * x - 3 * x + _B256)) % _P256 == 0
    if not on_curve:
        raise ProtocolError(Code.WEAK_KEY, "P-256 key that is no point of the curve")
