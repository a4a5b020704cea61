"""What the engine asks of its surroundings: a journal, a transport, and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sync.meter import Traffic
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import Down, Up
from wallet.protocol.ids import JournalId


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a journal stands: whose it is, what the issuer holds of it, and what it holds."""

    journal: JournalId
    epoch: int
    acknowledged: int
    size: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a report may carry. `lean`: value first, what only tells of the box with the last entry.

    `bytes_max`: of entries together; None is the policy's bound alone. `answer_bytes_max`: of the
    objects in the answer; None is all.
    """

    bytes_max: int | None = None
    answer_bytes_max: int | None = None
    lean: bool = False


WHOLE = Load()


class JournalPort(Protocol):
    """One open journal's side of an exchange.

    Its methods raise StoreError, JournalError and HsmError, and ProtocolError for what the issuer
    sent; the engine takes each of them for a failed exchange.
    """

    @property
    def anchor(self) -> TrustAnchor:
        """The issuer's root that answers are verified against."""

    def position(self) -> Position:
        """Where the journal stands now."""

    async def up(self, exchange: bytes, *, load: Load) -> tuple[Up, Sequence[bytes]] | None:
        """The next report, and the leaves of the receipts that travel with it.

        Bounded by the policy and the load, and covered by its own checkpoint. None before anything
        is signed.
        """

    async def sign(self, payload: bytes, type_: str) -> bytes:
        """A COSE_Sign1 by the journal's key, with its certificates."""

    async def recipient(self) -> bytes | None:
        """The raw X25519 key of the issuer to seal to; None when none is held."""

    def own_keys(self) -> Mapping[bytes, X25519PrivateKey]:
        """The keys that answers are sealed to, by their short ids."""

    async def take(self, down: Down) -> None:
        """Take a checked answer's objects in order, then record what the issuer holds.

        It may be less than before: the issuer lost what is above, and gets it again.
        """

    async def handed_over(self, leaves: Sequence[bytes]) -> None:
        """The issuer has these receipts: they need not be kept."""

    async def waits(self) -> bool:
        """Whether something of value waits to be told: entries, or wallets to be enrolled."""

    async def load_meter(self) -> bytes | None:
        """What `keep_meter` was given last."""

    async def keep_meter(self, counted: bytes) -> None:
        """Keep what links have cost, so that a start does not begin with new budgets."""


class Transport(Protocol):
    """Carries one sealed envelope there and one back."""

    def traffic(self) -> Traffic:
        """All bytes on the line so far, with those of calls that failed."""

    async def hang_up(self) -> None:
        """The session is over, well or not."""

    async def probe(self) -> None:
        """See whether the cloud can be reached, at little cost. Raises: TransportError."""

    async def exchange(self, sealed: bytes) -> bytes:
        """Send an envelope and give the answer. Raises: TransportError."""


class Listener(Protocol):
    """Hears what happens; never waits and never raises."""

    def __call__(self, name: str, **data: object) -> None:
        """An event and its data, as JSON knows them."""
