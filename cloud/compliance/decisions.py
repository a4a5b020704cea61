"""Entries that are held: one officer proposes to release or reject each, another one decides.

A released entry is settled by the next settlement. A rejected one is named as such in each from
then on: what it brought stays unsettled in its journal, and leaves the payee when the epoch comes
to its statement (`Books.take_back`). Until then the journal's balances are what its entries say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import lists
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.lists import ListChange
from cloud.issuer.officers import Officer, Role
from cloud.reconciler.outbox import tell
from cloud.shards.messages import HEAD, Addressed, Decided, send
from cloud.shards.shards import Shards, shard_of
from wallet.protocol.entry import Entry, EntryKind, Note, Payment, decode_entry
from wallet.protocol.ids import WalletId, journal_text
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order
from wallet.protocol.refusals import Code, ProtocolError

PAGE_MAX = 200
# What brought value to a wallet of the journal that tells of it.
_REVERSIBLE = (EntryKind.PAY, EntryKind.TRANSFER_IN)


class Action(enum.StrEnum):
    """What is to become of a held entry."""

    RELEASE = "release"
    REJECT = "reject"


class DecisionState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class Decision(Draft, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    epoch_id: int
    index: int
    action: Action
    freezes: bool
    reason: str
    state: DecisionState

    @property
    def subject(self) -> str:
        """The entry, by the number of its epoch here and its index."""
        return f"{self.epoch_id} {self.index}"

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What is proposed."""
        return {
            "action": self.action.value,
            "reason": self.reason,
            "draft": self.draft_id.hex(),
            **({"freeze": 1} if self.freezes else {}),
        }


_DRAFTS = Drafts(
    Decision,
    table="entry_decision",
    role=Role.COMPLIANCE,
    action="decision",
    approved=DecisionState.APPROVED,
)


class HeldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that waits for a decision. `entry` is None where it cannot be read.

    `is_applied`: false of what a suspended journal told after its offence; that is a claim when
    its epoch is closed.
    """

    epoch_id: int
    journal: bytes
    epoch: int
    index: int
    code: str
    held_ms: int
    is_applied: bool
    entry: Entry | None

    @property
    def order(self) -> Order | None:
        """The order in it, if there is one."""
        body = None if self.entry is None else self.entry.body
        return body.order if isinstance(body, Payment | Note) else None


_HELD = (
    "SELECT epoch_id, journal, epoch, index, code, decided_ms AS held_ms, index < applied"
    " AS is_applied FROM verdict JOIN journal_epoch USING (epoch_id)"
    " WHERE verdict.state = 'held' AND stated_ms IS NULL"
)
_WITH_ENTRY = (
    "SELECT held.*, entry FROM ({held}) AS held CROSS JOIN LATERAL"
    " (SELECT entries[held.index - first + 1] AS entry FROM journal_segment"
    "  WHERE journal_segment.epoch_id = held.epoch_id AND first <= held.index"
    "  ORDER BY first DESC LIMIT 1) AS told ORDER BY epoch_id, index"
)
_PAGE = _WITH_ENTRY.format(held=f"{_HELD} ORDER BY epoch_id, index OFFSET $1 LIMIT $2")
_ONE = _WITH_ENTRY.format(held=f"{_HELD} AND epoch_id = $1 AND index = $2")


async def list_held(
    connection: Connection, *, first: int, limit: int = PAGE_MAX
) -> list[HeldEntry]:
    """A page of the entries that wait, from the place `first` on."""
    rows = await connection.fetch(_PAGE, first, limit)
    return [_held(row) for row in rows]


async def list_held_everywhere(
    connection: Connection, shards: Shards, *, first: int
) -> list[HeldEntry]:
    """The same of all shards, one behind the other; `connection`: at the head."""
    found: list[HeldEntry] = []
    for number, _ in shards:
        async with shards.beside(connection, number) as there:
            found += await list_held(there, first=0, limit=first + PAGE_MAX)
    return found[first : first + PAGE_MAX]


async def draft_decision(
    connection: Connection,
    shards: Shards,
    *,
    draft_id: bytes,
    journal: bytes,
    epoch: int,
    index: int,
    action: Action,
    freeze: bool = False,
    reason: str,
    officer: Officer,
    now_ms: int,
) -> Decision:
    """Propose what is to become of a held entry, or answer the draft that is there.

    `freeze`: a rejection puts the payee's wallet on list 5 as well, so that nobody spends what the
    entry brought before the epoch ends.
    Raises: IssuerError `role-missing`, `journal-unknown`, `entry-not-held`, `entry-not-applied`,
    `entry-irreversible`, `entry-pending` (of a note whose parent is missing: it is not rejected),
    `draft-conflict`, `draft-invalid`. `connection`: at the head, as the draft is.
    """
    officer.require(Role.COMPLIANCE)
    if freeze and action is not Action.REJECT:
        raise IssuerError("draft-invalid", "what is released is not frozen")
    async with shards.at_home(connection, journal) as there:
        epoch_id = await _epoch(there, journal, epoch)
        if await _DRAFTS.known(connection, draft_id) is None:
            await _require_decidable(there, epoch_id, index, action)
    said = {"epoch_id": epoch_id, "index": index, "action": action.value, "reason": reason}
    said["freezes"] = freeze
    return await _DRAFTS.propose(connection, draft_id, said, officer=officer, now_ms=now_ms)


async def approve_decision(
    connection: Connection,
    desk: Desk,
    shards: Shards,
    draft_id: bytes,
    *,
    officer: Officer,
    now_ms: int,
) -> Decision:
    """Decide as proposed. Approving one's own approval again changes nothing.

    `connection`: at the head; an entry that lives elsewhere is decided there by a message.
    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`, `entry-not-held` where it was decided, or its epoch stated, meanwhile.
    """
    decision, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return decision
    home = shard_of(decision.epoch_id)
    async with shards.beside(connection, home) as there:
        # Whoever reckons the epoch, and its journal's next report, waits for this or is before it.
        await there.execute(
            "SELECT FROM journal_epoch WHERE epoch_id = $1 FOR UPDATE", decision.epoch_id
        )
        is_early = await _require_decidable(
            there, decision.epoch_id, decision.index, decision.action
        )
        if decision.freezes:
            payee = await _payee(there, decision)
            await _freeze(connection, desk, payee, officer=officer, now_ms=now_ms)
    said = _said(decision, is_early=is_early)
    if home == HEAD:
        await carry_out(connection, said, now_ms=now_ms)
    else:
        await send(connection, HEAD, [Addressed(target=home, message=said)], now_ms=now_ms)
    return await _DRAFTS.approve(connection, decision, officer=officer, now_ms=now_ms)


def _said(decision: Decision, *, is_early: bool) -> Decided:
    state = "rejected" if decision.action is Action.REJECT else "settled"
    return Decided(
        draft=decision.draft_id,
        epoch_id=decision.epoch_id,
        index=decision.index,
        state="pending" if is_early else state,
        code=str(Code.PARENT_MISSING) if is_early else None,
    )


async def carry_out(connection: Connection, said: Decided, *, now_ms: int) -> None:
    """What was decided is the verdict, unless the entry waits no more: the next settlement has it.

    `connection`: where the journal lives.
    """
    row = await connection.fetchrow(
        "UPDATE verdict SET state = $3, code = coalesce($4, code), decided_ms = $5, told = false"
        " FROM journal_epoch AS made WHERE verdict.epoch_id = $1 AND index = $2"
        " AND verdict.state = 'held' AND made.epoch_id = $1 RETURNING journal, epoch",
        *(said.epoch_id, said.index, said.state, said.code, now_ms),
    )
    if row is None:
        return
    body = {"journal": journal_text(row["journal"]), "epoch": row["epoch"], "index": said.index}
    topic = "entry.rejected" if said.state == "rejected" else "entry.released"
    await tell(connection, topic, body, now_ms=now_ms)


async def _payee(connection: Connection, decision: Decision) -> WalletId:
    """Whom a rejected entry brought value to."""
    row = await connection.fetchrow(
        "SELECT entries[$2 - first + 1] AS entry FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(decision.epoch_id, decision.index),
    )
    body = decode_entry(row["entry"]).body
    assert isinstance(body, Payment | Note)  # nothing else is rejected
    return body.order.payee


async def _freeze(
    connection: Connection, desk: Desk, payee: WalletId, *, officer: Officer, now_ms: int
) -> None:
    """Put the payee's wallet on list 5. Officers take it off again when they want to."""
    held = await lists.held(connection, ListId.FROZEN)
    if held is None or payee not in held.items:
        change = ListChange(added={payee: ()})
        await lists.change_list(
            connection, desk, ListId.FROZEN, change, actor=officer.name, now_ms=now_ms
        )


async def reject_decision(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> Decision:
    """Decide against the draft: the entry is held as before. Raises: as `approve_decision`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def list_decisions(connection: Connection, *, first: int) -> list[Decision]:
    """A page of the drafts that wait, the newest first."""
    return await _DRAFTS.newest(connection, "state = 'draft'", first=first)


async def place_of(connection: Connection, shards: Shards, decision: Decision) -> tuple[bytes, int]:
    """Journal and epoch of the entry. `connection`: at the head."""
    async with shards.beside(connection, shard_of(decision.epoch_id)) as there:
        row = await there.fetchrow(
            "SELECT journal, epoch FROM journal_epoch WHERE epoch_id = $1", decision.epoch_id
        )
    return row["journal"], row["epoch"]


async def _epoch(connection: Connection, journal: bytes, epoch: int) -> int:
    found: int | None = await connection.fetchval(
        "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2", journal, epoch
    )
    if found is None:
        raise IssuerError("journal-unknown", f"{journal_text(journal)} {epoch}")
    return found


async def _require_decidable(
    connection: Connection, epoch_id: int, index: int, action: Action
) -> bool:
    """Whether the entry is a note whose parent is missing."""
    row = await connection.fetchrow(_ONE, epoch_id, index)
    if row is None:
        raise IssuerError("entry-not-held", "nothing is to be decided about this entry")
    held = _held(row)
    if not held.is_applied:
        raise IssuerError("entry-not-applied", "it is a claim when its epoch is closed")
    kind = None if held.entry is None else held.entry.kind
    if action is Action.REJECT and kind not in _REVERSIBLE:
        raise IssuerError("entry-irreversible", "it brought nothing to a wallet of this journal")
    is_early = held.entry is not None and await _is_early(connection, held.entry)
    if is_early and action is Action.REJECT:
        raise IssuerError("entry-pending", "decide once the journal that it comes from has told")
    return is_early


async def _is_early(connection: Connection, entry: Entry) -> bool:
    if not isinstance(entry.body, Note):
        return False
    order = entry.body.order
    state: str | None = await connection.fetchval(
        "SELECT state FROM note WHERE (journal, epoch, index, leaf) = ($1, $2, $3, $4)",
        *(order.payer_journal, order.payer_epoch, entry.body.index, leaf_hash(entry.body.entry)),
    )
    return state == "early"


def _held(row: Any) -> HeldEntry:
    try:
        entry = decode_entry(row["entry"])
    except ProtocolError:
        entry = None
    return HeldEntry(**{**dict(row), "entry": entry})
