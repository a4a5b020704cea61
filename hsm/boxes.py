"""Boxes for short secrets: XChaCha20-Poly1305 under a key that the caller keeps.

kind (1) || nonce (24) || ciphertext and tag; the label is the additional data. The kind says by
which driver: 1 software, 2 and 3 PKCS#11, 4 TPM.
"""

from hsm import sodium
from hsm.api import SECRET_BYTES_MAX, SealBroken, TokenRefused
from hsm.memory import Secret

KEY_BYTES = sodium.KEY_BYTES


def close_box(kind: bytes, key: Secret, secret: bytes, *, label: str) -> bytes:
    """Seal a secret under a label.

    Raises:
        TokenRefused: the secret is too long.
    """
    if len(secret) > SECRET_BYTES_MAX:
        raise TokenRefused(f"at most {SECRET_BYTES_MAX} bytes are sealed")
    return kind + sodium.encrypt(key, secret, label.encode())


def open_box(kind: bytes, key: Secret, sealed: bytes, *, label: str) -> bytes:
    """Give back what was sealed under this label.

    Raises:
        SealBroken: altered, of another kind or key, or under another label.
    """
    if not sealed.startswith(kind):
        raise SealBroken("this was not sealed by a token of this kind")
    try:
        return sodium.decrypt(key, sealed[len(kind) :], label.encode())
    except sodium.NotAuthentic as error:
        raise SealBroken("the seal does not open under this label") from error
