"""The state of one journal: what its entries add up to, and how an entry changes it.

A `Decision` of the rules says what changes; `State.advance` carries it out. The state keeps what
it replaced until `release`, so that a batch whose commit failed can be taken back whole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import msgspec

from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, ListId
from wallet.protocol.policy import JournalLimit, Policy
from wallet.protocol.refusals import InvariantBroken

HOUR_MS = 3_600_000
DAY_HOURS = 24
NEVER = 2**62
NOBODY = 2**32 - 1
Hours = tuple[tuple[int, int, int], ...]


class Wallet(msgspec.Struct, kw_only=True, gc=False):
    """One wallet. It is replaced as a whole and never altered once it stands in a state.

    `hours`: (hour since 1970, spent, count), oldest first, at most 24. `key` is None for a
    balance that a statement carried over and whose holder is not enrolled anew yet.
    """

    wallet: WalletId
    number: int
    key: PublicKey | None = None
    tier: int = 0
    enrolment_expires_ms: int = 0
    settled: int = 0
    unsettled: int = 0
    hop: int = 0
    next_sequence: int = 0
    out_amount_since: int = 0
    out_count_since: int = 0
    in_amount_since: int = 0
    hours: Hours = ()

    if TYPE_CHECKING:
        # msgspec's own, a third of the cost of `copy.copy`.
        def __copy__(self) -> Wallet:
            """Another wallet with the same fields."""

    @property
    def balance(self) -> int:
        """All of its value in minor units."""
        return self.settled + self.unsettled


class Movements:
    """What moved since the last settlement, a row an entry, in the order of their indexes.

    Rows: index, payer's number, payee's number (`NOBODY` where there is none), amount, and how
    much of it arrived unsettled. Columns of machine integers: 32 bytes a row.
    """

    __slots__ = ("amounts", "arrived", "indexes", "payees", "payers")

    def __init__(self) -> None:
        self.indexes = array("Q")
        self.payers = array("I")
        self.payees = array("I")
        self.amounts = array("Q")
        self.arrived = array("Q")

    def columns(self) -> tuple[array[int], ...]:
        """The five columns, always of one length."""
        return (self.indexes, self.payers, self.payees, self.amounts, self.arrived)

    def append(self, index: int, payer: int, payee: int, amount: int, arrived: int) -> None:
        """One more row."""
        self.indexes.append(index)
        self.payers.append(payer)
        self.payees.append(payee)
        self.amounts.append(amount)
        self.arrived.append(arrived)

    def cut(self, size: int) -> int:
        """How many rows belong to entries below `size`."""
        return bisect_left(self.indexes, size)

    def after(self, rows: int) -> Movements:
        """A copy without the first rows."""
        rest = Movements()
        for column, kept in zip(rest.columns(), self.columns(), strict=True):
            column.extend(kept[rows:])
        return rest

    def truncate(self, rows: int) -> None:
        """Forget all but the first rows."""
        for column in self.columns():
            del column[rows:]

    def __len__(self) -> int:
        return len(self.indexes)


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An accepted proposal: the entry's kind and body, and what it changes.

    `tables`: (name of a dict of State, key, value). `fields`: new values of State's attributes.
    `movement`: payer's number, payee's number, amount, part that arrived unsettled.
    """

    kind: int
    body: bytes
    hop: int | None = None
    wallets: tuple[Wallet, ...] = ()
    movement: tuple[int, int, int, int] | None = None
    tables: tuple[tuple[str, Any, Any], ...] = ()
    fields: dict[str, Any] | None = None
    unsettled_change: int = 0
    soft: tuple[str, ...] = ()


class Mark(msgspec.Struct, frozen=True):
    """A point to which a state can be taken back."""

    scalars: tuple[Any, ...]
    rows: int


_MISSING = object()
_SCALARS = (
    "opened",
    "closed",
    "journal",
    "epoch",
    "currency",
    "policy",
    "size",
    "time_ms",
    "opened_ms",
    "grants_next",
    "settled_size",
    "settled_ms",
    "unsettled_total",
    "movements",
    "held",
    "swept_hour",
    "requests_from_ms",
    "soft_from_ms",
    "lists_hard_from_ms",
    "policy_hard_from_ms",
    "revoked_here",
)


class State:
    """One journal's state in one epoch. See protocol.md, "Value inside a wallet"."""

    def __init__(self, journal: JournalId, epoch: int) -> None:
        self.journal = journal
        self.epoch = epoch
        self.opened = False
        self.closed = False
        self.currency = ""
        self.policy: Policy | None = None
        self.size = 0
        self.time_ms = 0
        self.opened_ms = 0
        self.grants_next = 0
        self.settled_size = 0
        self.settled_ms = 0
        self.unsettled_total = 0
        self.wallets: dict[WalletId, Wallet] = {}
        self.numbers: dict[int, WalletId] = {}
        self.lists: dict[int, Held] = {}
        # Requests of payees here: identity -> (paid or void, expires), and from which expiry on
        # all of them are remembered.
        self.requests: dict[bytes, tuple[str, int]] = {}
        self.requests_from_ms = 0
        # Redeemed notes: (journal, epoch, index) -> kept until.
        self.redeemed: dict[tuple[bytes, int, int], int] = {}
        # Leaf hash of a payment -> what has been refunded of it.
        self.refunds: dict[bytes, int] = {}
        self.pairs: dict[tuple[bytes, bytes], Hours] = {}
        self.movements = Movements()
        # Arrivals that settlements named: index -> (wallet's number, unsettled part).
        self.held: dict[int, tuple[int, int]] = {}
        self.swept_hour = 0
        self.soft_from_ms = NEVER
        self.lists_hard_from_ms = NEVER
        self.policy_hard_from_ms = NEVER
        self.revoked_here = False
        self._undo: list[tuple[dict[Any, Any], Any, Any]] | None = None

    def policy_held(self) -> Policy:
        """The policy in force. Raises: InvariantBroken before the journal is open."""
        if self.policy is None:
            raise InvariantBroken("a journal that is not open has no policy")
        return self.policy

    def journal_limit(self, limit: JournalLimit) -> int | None:
        """A journal-wide limit of the policy in force, None for no limit."""
        return None if self.policy is None else self.policy.journal.get(limit)

    def balance_total(self) -> int:
        """Value of all wallets, carried ones included, in minor units."""
        return sum([wallet.settled + wallet.unsettled for wallet in self.wallets.values()])

    # ---- change -------------------------------------------------------------------------
    def advance(self, decision: Decision, *, time_ms: int) -> None:
        """Carry out what was decided, as the next entry, written at `time_ms`."""
        for wallet in decision.wallets:
            self._put(self.wallets, wallet.wallet, wallet)
            if wallet.number not in self.numbers:
                self._put(self.numbers, wallet.number, wallet.wallet)
        if decision.movement is not None:
            self.movements.append(self.size, *decision.movement)
        for name, key, value in decision.tables:
            self._put(getattr(self, name), key, value)
        self.unsettled_total += decision.unsettled_change
        self.size += 1
        self.time_ms = time_ms
        if decision.fields is not None:
            self._set_fields(decision.fields)
        if time_ms // HOUR_MS > self.swept_hour:
            self._sweep(time_ms)

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if self._undo is not None:
            self._undo.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def _set_fields(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self.refresh_deadlines()

    def refresh_deadlines(self) -> None:
        """When the soft and hard ages of limits.md 107 to 112 begin."""
        if self.policy is None:
            return
        limits, since = self.policy.journal, self.policy.valid_from_ms
        revoked, named = self.revoked_issued_ms(), self.named_issued_ms()

        def begins(limit: JournalLimit, from_ms: int) -> int:
            return from_ms + limits[limit] * 1000 if limit in limits else NEVER

        self.lists_hard_from_ms = min(
            begins(JournalLimit.REVOCATION_AGE_HARD_S, revoked),
            begins(JournalLimit.SANCTIONS_AGE_HARD_S, named),
        )
        # Past the hard age of lists, payments inside the branch are reduced: soft is no later.
        self.soft_from_ms = min(
            self.lists_hard_from_ms,
            begins(JournalLimit.REVOCATION_AGE_SOFT_S, revoked),
            begins(JournalLimit.SANCTIONS_AGE_SOFT_S, named),
            begins(JournalLimit.POLICY_AGE_SOFT_S, since),
        )
        self.policy_hard_from_ms = min(
            begins(JournalLimit.POLICY_AGE_HARD_S, since), self.policy.valid_until_ms
        )
        journals = self.lists.get(ListId.JOURNALS)
        self.revoked_here = journals is not None and (self.journal, self.epoch) in journals.items

    def revoked_issued_ms(self) -> int:
        """When the oldest of the lists of revocations was issued."""
        return min(map(self._issued, (ListId.JOURNALS, ListId.WALLETS, ListId.CERTIFICATES)))

    def named_issued_ms(self) -> int:
        """When the list of the sanctioned was issued."""
        return self._issued(ListId.SANCTIONED)

    def _issued(self, list_id: ListId) -> int:
        """When a list was issued; one that was never held counts from the opening."""
        held = self.lists.get(list_id)
        return self.opened_ms if held is None else held.issued_ms

    def _sweep(self, now_ms: int) -> None:
        """Once an hour of entry time: forget requests, notes and pairs that can matter no more."""
        self.swept_hour = now_ms // HOUR_MS
        oldest = self.swept_hour - DAY_HOURS
        grace_s = self.journal_limit(JournalLimit.NOTE_GRACE_S)
        if grace_s is not None:
            # A note for a request may come that much later; a longer grace reaches no further back.
            self.requests_from_ms = max(self.requests_from_ms, now_ms - grace_s * 1000)
        kept = self.requests_from_ms
        self._drop(self.requests, [key for key, (_, end) in self.requests.items() if end < kept])
        self._drop(self.redeemed, [key for key, end in self.redeemed.items() if end < now_ms])
        self._drop(self.pairs, [key for key, hours in self.pairs.items() if hours[-1][0] <= oldest])

    def _drop(self, table: dict[Any, Any], keys: list[Any]) -> None:
        for key in keys:
            if self._undo is not None:
                self._undo.append((table, key, table[key]))
            del table[key]

    # ---- taking back --------------------------------------------------------------------
    def mark(self) -> Mark:
        """Remember this point; changes are kept for `rollback` until `release`."""
        self._undo = []
        return Mark(tuple([getattr(self, name) for name in _SCALARS]), len(self.movements))

    def release(self) -> None:
        """What changed since the mark is durable: forget how to take it back."""
        self._undo = None

    def rollback(self, mark: Mark) -> None:
        """Take back everything since `mark`. Raises: InvariantBroken without a mark."""
        if self._undo is None:
            raise InvariantBroken("there is no mark to go back to")
        for table, key, old in reversed(self._undo):
            if old is _MISSING:
                del table[key]
            else:
                table[key] = old
        for name, value in zip(_SCALARS, mark.scalars, strict=True):
            setattr(self, name, value)
        self.movements.truncate(mark.rows)
        self._undo = None
