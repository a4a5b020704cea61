"""COSE_Sign1 (RFC 9052) as wire.cddl narrows it: untagged, typed (RFC 9596), few headers."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import decode, decode_shallow, encode, head
from wallet.protocol.keys import EDDSA, ES256, SIGNATURE_BYTES, PublicKey
from wallet.protocol.refusals import Code, ProtocolError

ORDER_TYPE = "application/cbdc-order+cose"
REQUEST_TYPE = "application/cbdc-request+cose"
OBJECT_BYTES_MAX = 16 * 1024
CERTIFICATE_BYTES_MAX = 4 * 1024
_PROTECTED_BYTES_MAX = 512
_UNPROTECTED_BYTES_MAX = 20 * 1024
_SIGNATURE1 = head(4, 4) + encode("Signature1")
_HEADER = {1: shapes.choice(EDDSA, ES256), 4: shapes.digest}
_signature = shapes.octets(SIGNATURE_BYTES)


class Sign1(msgspec.Struct, frozen=True, gc=False):
    """A decoded COSE_Sign1; nothing about its signature has been checked yet."""

    raw: bytes
    protected: bytes
    algorithm: int
    key_id: bytes
    type: str
    chain: tuple[bytes, ...]
    payload: bytes
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: Sig_structure of RFC 9052 section 4.4."""
        return sig_structure(self.protected, self.payload)

    def names(self, key: PublicKey) -> bool:
        """Whether its header names this key and its algorithm."""
        return key.key_id == self.key_id and key.algorithm == self.algorithm

    def verify(self, key: PublicKey) -> None:
        """Raises: ProtocolError `bad-signature`, also for another key's id or algorithm."""
        if not self.names(key):
            raise ProtocolError(Code.BAD_SIGNATURE, "another key or algorithm is named")
        key.verify(self.signature, self.signed_bytes)


def sig_structure(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of a COSE_Sign1 without external data."""
    return b"".join(
        (_SIGNATURE1, head(2, len(protected)), protected, b"\x40", head(2, len(payload)), payload)
    )


def identity(payload: bytes) -> bytes:
    """Identity of an order or a request: SHA-256 of its payload."""
    return hashlib.sha256(payload).digest()


@functools.lru_cache(maxsize=16_384)
def protected_header(algorithm: int, key_id: bytes, type_: str) -> bytes:
    """Encoded protected header of a signed object."""
    return encode({1: algorithm, 4: key_id, 16: type_})


def assemble(
    protected: bytes, payload: bytes, signature: bytes, chain: tuple[bytes, ...] = ()
) -> bytes:
    """The object as it travels."""
    unprotected = {33: chain_value(chain)} if chain else {}
    return encode([protected, unprotected, payload, signature])


def chain_value(chain: tuple[bytes, ...]) -> bytes | list[bytes]:
    """x5chain (RFC 9360): one certificate is a byte string, more are a list."""
    return chain[0] if len(chain) == 1 else list(chain)


def chain_of(value: Any) -> tuple[bytes, ...]:
    """Certificates of a header 33, leaf first. Raises: `malformed`."""
    certificates = (
        (value,) if type(value) is bytes else shapes.listed(shapes.binary, least=2)(value)
    )
    if any(len(certificate) > CERTIFICATE_BYTES_MAX for certificate in certificates):
        raise shapes.malformed("a certificate that is too large")
    if len(certificates) > 4:
        raise shapes.malformed("a certificate chain that is too long")
    return certificates


def decode_sign1(
    raw: bytes, *, type_: str, with_chain: bool, bytes_max: int = OBJECT_BYTES_MAX
) -> tuple[Sign1, Any]:
    """The object and its decoded payload.

    In the order of protocol.md: canonical bytes, shape, `typ`; then version and claims are the
    caller's. Raises: ProtocolError `too-large`, `not-canonical`, `malformed`, `unknown-type`.
    """
    parts = decode(raw, bytes_max=bytes_max)
    protected, unprotected, payload, signature = _parts(parts)
    header = decode(protected, bytes_max=_PROTECTED_BYTES_MAX)
    claims = decode(payload, bytes_max=bytes_max)
    fields = _protected_fields(header)
    chain = _chain(unprotected, with_chain=with_chain)
    if fields[16] != type_:
        raise ProtocolError(Code.UNKNOWN_TYPE, str(fields[16])[:80])
    signed = Sign1(
        raw, protected, fields[1], fields[4], type_, chain, payload, _signature(signature)
    )
    return signed, claims


def open_sign1(raw: bytes, *, type_: str, bytes_max: int) -> Sign1:
    """A large object of a certified key, its payload still closed: verify it, then decode that.

    The work before the signature is checked is bounded, whatever the size.
    Raises: as `decode_sign1`.
    """
    parts = decode_shallow(raw, bytes_max=bytes_max, member_bytes_max=_UNPROTECTED_BYTES_MAX)
    protected, unprotected, payload, signature = _parts(parts)
    fields = _protected_fields(decode(protected, bytes_max=_PROTECTED_BYTES_MAX))
    chain = _chain(unprotected, with_chain=True)
    if fields[16] != type_:
        raise ProtocolError(Code.UNKNOWN_TYPE, str(fields[16])[:80])
    return Sign1(raw, protected, fields[1], fields[4], type_, chain, payload, signature)


def _parts(parts: Any) -> list[Any]:
    if type(parts) is not list or len(parts) != 4:
        raise shapes.malformed("no COSE_Sign1 of four parts")
    shapes.binary(parts[0])
    shapes.binary(parts[2])
    _signature(parts[3])
    return parts


def _protected_fields(header: Any) -> dict[int, Any]:
    fields = shapes.record(header, _HEADER, {16: lambda value: value})
    if 16 not in fields:
        raise shapes.malformed("no typ")
    return fields


def _chain(unprotected: Any, *, with_chain: bool) -> tuple[bytes, ...]:
    if not with_chain:
        shapes.record(unprotected, {})
        return ()
    fields = shapes.record(unprotected, {}, {33: chain_of})
    chain: tuple[bytes, ...] = fields.get(33, ())
    return chain
