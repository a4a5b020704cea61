"""What a token gives, whoever makes it: a signer, a sealer, a counter; and the room's errors."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

# What is sealed is a key or a handful of them, never a document.
SECRET_BYTES_MAX = 4096


class Algorithm(enum.IntEnum):
    """The signature algorithms, by their COSE numbers (RFC 9053, section 2)."""

    EDDSA = -8
    ES256 = -7


class HsmError(Exception):
    """The root of all failures of this room; `code` is stable, the text is for people.

    `advice` is a plain sentence for the technician in front of the box: what it means, what to do.
    """

    code: ClassVar[str] = "hsm-failed"
    advice: ClassVar[str] = "The key hardware failed; call support and keep the box as it is."

    def explained(self) -> str:
        """What happened and what to do about it, in one line that begins with the code."""
        return f"{self.code}: {self}. {self.advice}"


class TokenGone(HsmError):
    """The token does not answer: removed, its module missing, or closed."""

    code: ClassVar[str] = "token-gone"
    advice: ClassVar[str] = (
        "The key hardware does not answer: check that it is plugged in and that its service runs;"
        " the gateway goes on by itself once it is back, and nothing is lost."
    )


class PinWrong(HsmError):
    """The PIN or passphrase was refused. It is not tried again by itself: tries may be counted."""

    code: ClassVar[str] = "token-pin-wrong"
    advice: ClassVar[str] = (
        "The PIN or passphrase is not the right one: correct its file before starting again,"
        " for a few wrong tries lock the key hardware."
    )


class TokenLocked(HsmError):
    """The token was tried with wrong PINs too often; it refuses the right one too, for a time.

    A TPM counts a power cut as a wrong try when a PIN was used since it started.
    """

    code: ClassVar[str] = "token-locked"
    advice: ClassVar[str] = (
        "Too many wrong PINs, or power cuts, which count the same: the key hardware refuses"
        " everybody for a while; leave the gateway on, it tries again by itself, nothing is lost."
    )


class KeyMissing(HsmError):
    """The token is there, the key is not, or another one stands in its place."""

    code: ClassVar[str] = "key-missing"
    advice: ClassVar[str] = (
        "The key hardware holds no key of this gateway: put the right one back, or call support."
    )


class TokenCleared(HsmError):
    """The token is the same one, and was emptied: its keys are gone for good."""

    code: ClassVar[str] = "token-cleared"
    advice: ClassVar[str] = (
        "The key hardware was erased and cannot open this gateway again: keep the box and its disk"
        " as they are and report the gateway as lost; its value is claimed at the issuer."
    )


class TokenReplaced(HsmError):
    """Another token stands in the place of the one that made the keys."""

    code: ClassVar[str] = "token-replaced"
    advice: ClassVar[str] = (
        "This is not the key hardware that the gateway was set up with: put the original board or"
        " stick back; nothing is lost as long as that one exists."
    )


class PolicyRefused(HsmError):
    """The token opens the seal to the software that it was set up under, and another one runs."""

    code: ClassVar[str] = "token-policy-refused"
    advice: ClassVar[str] = (
        "The box did not start with the firmware or system that it was set up with: undo the last"
        " change of firmware, boot order or system and restart; nothing is lost."
    )


class CounterReplaced(HsmError):
    """The hardware counter was removed, or removed and made anew: what it shows proves nothing."""

    code: ClassVar[str] = "counter-replaced"
    advice: ClassVar[str] = (
        "The hardware counter was tampered with: take no payments, keep the box as it is and call"
        " the issuer, who opens a new epoch."
    )


class SealBroken(HsmError):
    """What was sealed does not open: altered, of another token, or under another label."""

    code: ClassVar[str] = "seal-broken"
    advice: ClassVar[str] = (
        "A sealed file was changed or belongs to another box: restore the gateway's folder from"
        " this box, or call support."
    )


class TokenRefused(HsmError):
    """The token answers and says no, or what it offers is not good enough to be used."""

    code: ClassVar[str] = "token-refused"
    advice: ClassVar[str] = (
        "The key hardware refuses; check its settings against the configuration, or call support."
    )


class TokenTimeout(HsmError):
    """The token did not answer in time; the call may still have happened inside."""

    code: ClassVar[str] = "token-timeout"
    advice: ClassVar[str] = (
        "The key hardware is too slow or hangs; the gateway tries again by itself,"
        " restart the box if it lasts for minutes."
    )


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


@runtime_checkable
class BegunCounter(Protocol):
    """A counter that has to be begun once: before that, and when its beginning is lost, it refuses.

    Others have counted since their keys were made.
    """

    async def begin(self) -> None:
        """Begin to count, where nothing was counted yet; else do nothing."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What a token says about itself, signed by its attestation key.

    `statement` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE (TPM 2.0 Library, part 2).
    """

    statement: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The platform's measurements: the signed digest, and the SHA-256 values that it is over."""

    attested: Attested
    pcrs: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKeys:
    """The public areas that statements name: TPMT_PUBLIC, and TPMS_NV_PUBLIC of the counter.

    `endorsement_certificates`: DER, the endorsement key's first, then what is above it as far as
    the hardware carries it; empty where it carries none.
    """

    signer: bytes
    counter: bytes
    attestation: bytes
    endorsement: bytes
    endorsement_certificates: tuple[bytes, ...]


class Attester(Protocol):
    """Proves to others what the token is; `hsm.attestation` checks it, on any machine."""

    async def keys(self) -> AttestedKeys:
        """Give the public side of all keys that statements speak of."""
        ...

    async def quote(self, pcrs: Sequence[int], *, nonce: bytes) -> Quote:
        """Sign the measurements of the chosen registers, with the asker's nonce of 8 to 32 bytes.

        Raises:
            TokenRefused: a register or the nonce is out of bounds.
        """
        ...

    async def certify_signer(self, *, nonce: bytes) -> Attested:
        """Certify that the signing key lives in this token."""
        ...

    async def certify_counter(self, *, nonce: bytes) -> Attested:
        """Certify what the counter shows."""
        ...

    async def activate(self, *, credential: bytes, secret: bytes) -> bytes:
        """Open a credential that was made for this token's attestation and endorsement keys.

        Raises:
            SealBroken: it was made for others.
        """
        ...


@runtime_checkable
class AttestingToken(Token, Protocol):
    """A token that can prove what it is."""

    @property
    def attester(self) -> Attester:
        """What proves it."""
        ...


def attester_of(token: Token) -> Attester | None:
    """What proves the token to others, where it can prove anything."""
    return token.attester if isinstance(token, AttestingToken) else None


async def begin_count(counter: Counter) -> None:
    """Let the counter begin, for a journal that is about to be opened for the first time.

    Raises: HsmError, as `Counter.read`.
    """
    if isinstance(counter, BegunCounter):
        await counter.begin()
