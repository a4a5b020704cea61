"""What a token gives, whoever makes it: a signer, a sealer, a counter; and the room's errors."""

import enum
from typing import ClassVar, Protocol

# What is sealed is a key or a handful of them, never a document.
SECRET_BYTES_MAX = 4096


class Algorithm(enum.IntEnum):
    """The signature algorithms, by their COSE numbers (RFC 9053, section 2)."""

    EDDSA = -8
    ES256 = -7


class HsmError(Exception):
    """The root of all failures of this room; `code` is stable, the text is for people."""

    code: ClassVar[str] = "hsm-failed"


class TokenGone(HsmError):
    """The token does not answer: removed, its module missing, or closed."""

    code: ClassVar[str] = "token-gone"


class PinWrong(HsmError):
    """The PIN or passphrase was refused. It is not tried again by itself: tries may be counted."""

    code: ClassVar[str] = "token-pin-wrong"


class KeyMissing(HsmError):
    """The token is there, the key is not, or another one stands in its place."""

    code: ClassVar[str] = "key-missing"


class SealBroken(HsmError):
    """What was sealed does not open: altered, of another token, or under another label."""

    code: ClassVar[str] = "seal-broken"


class TokenRefused(HsmError):
    """The token answers and says no, or what it offers is not good enough to be used."""

    code: ClassVar[str] = "token-refused"


class TokenTimeout(HsmError):
    """The token did not answer in time; the call may still have happened inside."""

    code: ClassVar[str] = "token-timeout"


class Signer(Protocol):
    """Signs with one key."""

    @property
    def algorithm(self) -> Algorithm:
        """What it signs with."""
        ...

    @property
    def public_key(self) -> bytes:
        """Ed25519: 32 bytes. P-256: x || y, 64 bytes."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """Sign the message: 64 bytes, of Ed25519 or r || s with the low s."""
        ...


class Sealer(Protocol):
    """Keeps short secrets in a form that only this token opens."""

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """Seal at most SECRET_BYTES_MAX bytes; the same label is needed to open them.

        Raises:
            TokenRefused: the secret is too long.
        """
        ...

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """Give back what was sealed under this label.

        Raises:
            SealBroken: altered, of another token, or under another label.
        """
        ...


class Counter(Protocol):
    """Counts upwards, and says how far that can be trusted."""

    @property
    def driver(self) -> str:
        """Who keeps the count: "software", "pkcs11" or "tpm"."""
        ...

    async def read(self) -> int:
        """Read the count."""
        ...

    async def increment(self) -> int:
        """Add one, durably, and return the new count."""
        ...


class Token(Protocol):
    """An open token. Every method raises HsmError, and nothing else, when the token fails."""

    @property
    def driver(self) -> str:
        """Where the keys are: "software", "pkcs11" or "tpm"."""
        ...

    @property
    def signer(self) -> Signer:
        """The signing key."""
        ...

    @property
    def sealer(self) -> Sealer:
        """The sealing key."""
        ...

    @property
    def counter(self) -> Counter:
        """The counter."""
        ...

    async def probe(self) -> None:
        """Return when the token can sign now.

        Raises:
            TokenGone: it cannot; a later probe may find it again.
        """
        ...

    async def close(self) -> None:
        """Forget the keys and let the token go. Closing twice does nothing more."""
        ...
