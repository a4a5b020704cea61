"""libsodium on keys that stay where they are: in a `Secret`, or in a buffer that is wiped.

PyNaCl has the same functions, and leaves the keys that it worked on behind in memory that it freed.
"""

import ctypes
import secrets

from hsm.memory import Secret, libsodium

SEED_BYTES, PUBLIC_BYTES, PAIR_BYTES, SIGNATURE_BYTES = 32, 32, 64, 64
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 24, 16
SALT_BYTES = 16
ARGON2ID13 = 2

_pointer, _bytes, _count = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulonglong
libsodium.crypto_sign_seed_keypair.argtypes = [_pointer, _pointer, _bytes]
libsodium.crypto_sign_detached.argtypes = [_pointer, _pointer, _bytes, _count, _pointer]
libsodium.crypto_aead_xchacha20poly1305_ietf_encrypt.argtypes = [
    *(_pointer, _pointer, _bytes, _count, _bytes, _count, _pointer, _bytes, _pointer)
]
libsodium.crypto_aead_xchacha20poly1305_ietf_decrypt.argtypes = [
    *(_pointer, _pointer, _pointer, _bytes, _count, _bytes, _count, _bytes, _pointer)
]
libsodium.crypto_pwhash.argtypes = [
    *(_pointer, _count, _bytes, _count, _bytes, _count, ctypes.c_size_t, ctypes.c_int)
]


class NotAuthentic(Exception):
    """A box does not open: altered, under another key, or with other additional data."""


def seed_keypair(seed: bytes) -> tuple[bytes, Secret]:
    """The Ed25519 public key of a seed, and the pair to sign with. The seed stays the caller's."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    public, pair = ctypes.create_string_buffer(PUBLIC_BYTES), Secret(bytes(PAIR_BYTES))
    libsodium.crypto_sign_seed_keypair(public, pair.address, seed)
    return public.raw, pair


def sign(pair: Secret, message: bytes) -> bytes:
    """An Ed25519 signature. Raises: TokenGone for a pair that was wiped."""
    signature = ctypes.create_string_buffer(SIGNATURE_BYTES)
    libsodium.crypto_sign_detached(signature, None, message, len(message), pair.address)
    return signature.raw


def encrypt(key: Secret, message: bytes, additional: bytes) -> bytes:
    """XChaCha20-Poly1305 under a fresh nonce, which leads. Raises: TokenGone."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    box = ctypes.create_string_buffer(len(message) + TAG_BYTES)
    libsodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        box, None, message, len(message), additional, len(additional), None, nonce, key.address
    )
    return nonce + box.raw


def decrypt(key: Secret, box: bytes, additional: bytes) -> bytes:
    """What `encrypt` was given, for the caller to wipe. Raises: NotAuthentic, TokenGone."""
    nonce, sealed = box[:NONCE_BYTES], box[NONCE_BYTES:]
    if len(sealed) < TAG_BYTES:
        raise NotAuthentic("the box is cut short")
    message = ctypes.create_string_buffer(max(1, len(sealed) - TAG_BYTES))
    held = libsodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
        *(message, None, None, sealed, len(sealed)),
        *(additional, len(additional), nonce, key.address),
    )
    if held != 0:
        raise NotAuthentic("the box does not open")
    # A slice of `raw` would leave the whole of it behind.
    opened = ctypes.string_at(message, len(sealed) - TAG_BYTES)
    ctypes.memset(message, 0, len(message))
    return opened


def derive(passphrase: bytes, salt: bytes, *, length: int, passes: int, memory: int) -> Secret:
    """Argon2id, version 1.3 (RFC 9106); `memory` in bytes. Raises: MemoryError."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes")
    derived = Secret(bytes(length))
    done = libsodium.crypto_pwhash(
        *(derived.address, length, passphrase, len(passphrase), salt, passes, memory, ARGON2ID13)
    )
    if done != 0:
        derived.wipe()
        raise MemoryError("not enough for Argon2id")
    return derived
