"""Boxes for short secrets: XChaCha20-Poly1305 under a key that the caller keeps.

kind (1) || nonce (24) || ciphertext and tag; the label is the additional data. The kind says by
which driver: 1 software, 2 and 3 PKCS#11, 4 TPM.
"""

import nacl.exceptions
import nacl.secret

from hsm.api import SECRET_BYTES_MAX, SealBroken, TokenRefused

KEY_BYTES = nacl.secret.Aead.KEY_SIZE


def close_box(kind: bytes, key: bytes, secret: bytes, *, label: str) -> bytes:
    """Seal a secret under a label.

    Raises:
        TokenRefused: the secret is too long.
    """
    if len(secret) > SECRET_BYTES_MAX:
        raise TokenRefused(f"at most {SECRET_BYTES_MAX} bytes are sealed")
    return kind + bytes(nacl.secret.Aead(key).encrypt(secret, label.encode()))


def open_box(kind: bytes, key: bytes, sealed: bytes, *, label: str) -> bytes:
    """Give back what was sealed under this label.

    Raises:
        SealBroken: altered, of another kind or key, or under another label.
    """
    if not sealed.startswith(kind):
        raise SealBroken("this was not sealed by a token of this kind")
    try:
        return nacl.secret.Aead(key).decrypt(sealed[len(kind) :], label.encode())
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise SealBroken("the seal does not open under this label") from error
