"""What a closed epoch comes to, as values: transfers, notes, and what is carried over."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cloud.funding import Funding
from cloud.ledger.accounts import Account
from cloud.ledger.posting import TransferKind
from cloud.recovery.claims import Claim, Redeemed
from wallet.protocol.entry import Note
from wallet.protocol.messages import Order

Place = tuple[bytes, int]
"""Journal and epoch."""
NoteKey = tuple[bytes, int, int]
"""Journal, epoch, index of a transfer-out."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer. The online account of a wallet is named by the wallet: `to_online`."""

    identity: bytes
    debit: Account
    credit: Account | None = None
    to_online: bytes | None = None
    amount: int
    kind: TransferKind

    @property
    def way(self) -> tuple[str, str]:
        """From where to where, in words that tell accounts apart."""
        target = (self.to_online or b"").hex() if self.credit is None else self.credit.name
        return self.debit.name, target


class NoteChange(msgspec.Struct, frozen=True, kw_only=True):
    """A note that a claim tells of: `state` is what it becomes; `note` where it came in here."""

    key: NoteKey
    leaf: bytes
    state: str
    order: Order
    note: Note | None = None
    in_index: int | None = None
    known: Redeemed | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim is of, and where it does not count, the code why."""

    index: int
    leaf: bytes
    kind: int
    amount: int
    code: str | None


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What an epoch comes to. `carried` and `redeemed` are those of the statement, in order.

    `told`: the epoch's row of `journal_epoch`. `bound`: the most that the journal's policy exposes
    the issuer to (limit 102); None where it sets no bound.
    """

    told: Any
    root: bytes
    currency: str
    carried: list[tuple[bytes, int]]
    redeemed: list[NoteKey]
    moves: list[Move]
    notes: list[NoteChange]
    grants: list[Funding]
    judged: list[Judged]
    forks: list[tuple[Claim, Claim]]
    paid_out: int
    taken_back: int
    borne: int
    bound: int | None

    @property
    def digest(self) -> bytes:
        """SHA-256 over all that an officer approves."""
        moves = [(move.identity.hex(), *move.way, move.amount) for move in self.moves]
        judged = [(item.leaf.hex(), item.code) for item in self.judged]
        carried = [(wallet.hex(), balance) for wallet, balance in self.carried]
        redeemed = [(journal.hex(), epoch, index) for journal, epoch, index in self.redeemed]
        said = [self.told["size"], self.root.hex(), carried, redeemed, moves, judged]
        return hashlib.sha256(msgspec.json.encode(said)).digest()
