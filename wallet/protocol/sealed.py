"""Sealed envelopes: "CBS1" || kid || HPKE enc || ciphertext of one zstd frame (wire.cddl).

HPKE (RFC 9180) base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from wallet.protocol.codec import encode
from wallet.protocol.refusals import Code, ProtocolError

MAGIC = b"CBS1"
KID_BYTES = 8
ENC_BYTES = 32
OPENED_BYTES_MAX = 64 * 1024 * 1024
# What does not compress grows by less than this.
SEALED_BYTES_MAX = OPENED_BYTES_MAX + 1024 * 1024
_TAG_BYTES = 16
_HEADER_BYTES = len(MAGIC) + KID_BYTES
_FRONT_BYTES = _HEADER_BYTES + ENC_BYTES
_LEVEL = 3
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def short_id(x25519: bytes) -> bytes:
    """kid of an HPKE key: the first 8 bytes of its RFC 9679 thumbprint."""
    return hashlib.sha256(encode({1: 1, -1: 4, -2: x25519})).digest()[:KID_BYTES]


def seal(envelope: bytes, *, recipient: bytes) -> bytes:
    """The envelope, for the holder of a raw X25519 key alone.

    Raises: ProtocolError `too-large`; `weak-key` for a key that no secret can be shared with.
    """
    if len(envelope) > OPENED_BYTES_MAX:
        raise ProtocolError(Code.TOO_LARGE, f"{len(envelope)} bytes to seal")
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(envelope)
    front = MAGIC + short_id(recipient)
    try:
        key = X25519PublicKey.from_public_bytes(recipient)
        return front + _SUITE.encrypt(frame, key, _info(front))
    except ValueError as error:
        raise ProtocolError(Code.WEAK_KEY, "no X25519 key to seal to") from error


def open_sealed(sealed: bytes, *, keys: Mapping[bytes, X25519PrivateKey]) -> bytes:
    """The envelope inside, with the key of its kid; nothing in the envelope is checked.

    Raises: ProtocolError `malformed` (magic, length, not one zstd frame), `unknown-key`,
    `not-opened`, `too-large`.
    """
    if len(sealed) > SEALED_BYTES_MAX:
        raise ProtocolError(Code.TOO_LARGE, f"{len(sealed)} sealed bytes")
    if len(sealed) < _FRONT_BYTES + _TAG_BYTES or not sealed.startswith(MAGIC):
        raise ProtocolError(Code.MALFORMED, "no sealed envelope")
    key = keys.get(sealed[len(MAGIC) : _HEADER_BYTES])
    if key is None:
        raise ProtocolError(Code.UNKNOWN_KEY, "sealed to a key that is not held")
    try:
        frame = _SUITE.decrypt(sealed[_HEADER_BYTES:], key, _info(sealed[:_HEADER_BYTES]))
    except (InvalidTag, ValueError) as error:
        raise ProtocolError(Code.NOT_OPENED, "not sealed to this key, or altered") from error
    return unpack(frame)


def _info(front: bytes) -> bytes:
    return b"cbdc-sync/1" + front


def unpack(frame: bytes) -> bytes:
    """The content of exactly one frame; never makes more than the limit and a little."""
    try:
        content = _content(frame)
    except zstandard.ZstdError as error:
        raise ProtocolError(Code.MALFORMED, "not exactly one zstd frame") from error
    if not content:
        raise ProtocolError(Code.MALFORMED, "nothing in the zstd frame")
    return content


def _content(frame: bytes) -> bytes:
    opener = zstandard.ZstdDecompressor(max_window_size=OPENED_BYTES_MAX)
    size = zstandard.frame_content_size(frame)
    if size < 0:
        # The frame does not say how large it is: count first.
        with opener.stream_reader(frame) as reader:
            size = len(reader.read(OPENED_BYTES_MAX + 1))
    if size > OPENED_BYTES_MAX:
        raise ProtocolError(Code.TOO_LARGE, f"more than {OPENED_BYTES_MAX} bytes in the frame")
    # Unlike the reader, this refuses a frame that is cut off and bytes behind it.
    return opener.decompress(frame, max_output_size=size, allow_extra_data=False)
