"""Closing an epoch: one officer declares it, another one approves, and only then it is over.

protocol.md, "A gateway is lost". The journal and epoch go on list 1, what was held for it goes back
to the online wallets, and the claims window begins. A planned change is closed by the journal
itself, by its last entry: then everything is known, nothing is revoked, and no claims are awaited.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from cloud import funding
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import lists
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.gateways import Gateway, find_gateway
from cloud.issuer.lists import ListChange
from cloud.issuer.officers import Officer, Role
from cloud.issuer.policies import longest_window
from cloud.reconciler.outbox import tell
from cloud.reconciler.replica import open_epoch
from cloud.shards.homes import require_at_head
from wallet.protocol.entry import EntryKind
from wallet.protocol.ids import journal_text
from wallet.protocol.lists import ListId

# An entry begins with a map of five and its kind.
_CLOSE_LEAD = bytes((0xA5, 0x01, EntryKind.CLOSE))
_SETTLEMENT_LEAD = bytes((0xA5, 0x01, EntryKind.SETTLEMENT))


class Cause(enum.StrEnum):
    """Why an epoch ends; the words are those of `body-close` in wire.cddl."""

    PLANNED = "planned"
    LOST = "lost"
    COMPROMISED = "compromised"
    MIGRATED = "migrated"

    @property
    def is_orderly(self) -> bool:
        """Whether the journal itself has to have ended its epoch before."""
        return self in (Cause.PLANNED, Cause.MIGRATED)


class ClosureState(enum.StrEnum):
    """A draft is decided once: closed or rejected."""

    DRAFT = "draft"
    CLOSED = "closed"
    REJECTED = "rejected"


class Closure(Draft, frozen=True, kw_only=True):
    """A draft and what became of it. `successor`: the journal that opened with its statement."""

    closure_id: bytes
    journal: bytes
    epoch: int
    cause: Cause
    reason: str
    state: ClosureState
    decided_ms: int | None
    claims_until_ms: int | None
    successor: bytes | None

    @property
    def subject(self) -> str:
        """The journal and epoch for people."""
        return f"{journal_text(self.journal)} {self.epoch}"

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """Why it ends."""
        return {"cause": self.cause.value, "closure": self.closure_id.hex()}


_DRAFTS = Drafts(
    Closure,
    table="epoch_closure",
    key="closure_id",
    role=Role.RECOVERY,
    action="closure",
    approved=ClosureState.CLOSED,
    unknown="closure-unknown",
    invalid="draft-conflict",
)


async def draft_closure(
    connection: Connection,
    *,
    closure_id: bytes,
    journal: bytes,
    cause: Cause,
    reason: str,
    officer: Officer,
    now_ms: int,
) -> Closure:
    """Declare the epoch of a gateway over, or answer the draft that is there.

    Raises: IssuerError `role-missing`, `gateway-unknown`, `draft-conflict` (the identity names
    another draft, or the epoch has a closure already); ShardError `journal-elsewhere`.
    """
    officer.require(Role.RECOVERY)
    gateway = await find_gateway(connection, journal)
    await require_at_head(connection, journal, what="closing an epoch")
    said = {"journal": journal, "cause": cause.value, "reason": reason}
    return await _DRAFTS.propose(
        connection,
        closure_id,
        said,
        more={"epoch": gateway.epoch},
        officer=officer,
        now_ms=now_ms,
    )


async def approve_closure(
    connection: Connection, desk: Desk, closure_id: bytes, *, officer: Officer, now_ms: int
) -> Closure:
    """Close the epoch. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `closure-unknown`, `draft-decided`,
    `draft-expired`, `window-unset` (the policy says nothing of code 117), `epoch-open` for an
    orderly cause whose journal has not ended its epoch, or not told so yet.
    """
    closure, again = await _DRAFTS.take(connection, closure_id, officer=officer, now_ms=now_ms)
    if again:
        return closure
    gateway = await find_gateway(connection, closure.journal)
    epoch_id = await _end_epoch(connection, closure, now_ms=now_ms)
    if closure.cause.is_orderly:
        if not await _ended_itself(connection, epoch_id):
            raise IssuerError("epoch-open", "the gateway has to end its epoch and synchronise")
        until_ms = now_ms
    else:
        until_ms = await _claims_until(connection, gateway, closure, now_ms=now_ms)
        await _revoke(connection, desk, closure, officer=officer, now_ms=now_ms)
    await _give_back(connection, closure, now_ms=now_ms)
    await connection.execute(
        "UPDATE gateway SET state = 'closed' WHERE journal = $1", closure.journal
    )
    decided = await _DRAFTS.approve(
        connection,
        closure,
        officer=officer,
        now_ms=now_ms,
        more={"claims_until_ms": until_ms},
    )
    body = {"journal": journal_text(closure.journal), "epoch": closure.epoch}
    await tell(connection, "journal.closed", {**body, "cause": closure.cause}, now_ms=now_ms)
    return decided


async def reject_closure(
    connection: Connection, closure_id: bytes, *, officer: Officer, now_ms: int
) -> Closure:
    """Decide against the draft: the gateway goes on. Raises: as `approve_closure`."""
    return await _DRAFTS.reject(connection, closure_id, officer=officer, now_ms=now_ms)


async def find_closure(connection: Connection, closure_id: bytes) -> Closure:
    """The closure, locked for this transaction. Raises: IssuerError `closure-unknown`."""
    return await _DRAFTS.find(connection, closure_id)


async def list_closures(connection: Connection, *, first: int) -> list[Closure]:
    """A page of the closures, the newest first, from the place `first` on."""
    return await _DRAFTS.newest(connection, first=first)


async def _end_epoch(connection: Connection, closure: Closure, *, now_ms: int) -> int:
    """Nothing more is taken from the journal in this epoch; a row is made where it never told."""
    epoch_id = await open_epoch(
        connection, journal=closure.journal, epoch=closure.epoch, now_ms=now_ms
    )
    if epoch_id is None:
        raise IssuerError("draft-conflict", "a later epoch of this journal is open")
    # What a journal was suspended for stays in its evidence.
    await connection.execute(
        "UPDATE journal_epoch SET state = 'closed', reason = NULL, changed_ms = $2"
        " WHERE epoch_id = $1",
        *(epoch_id, now_ms),
    )
    return epoch_id


async def _ended_itself(connection: Connection, epoch_id: int) -> bool:
    """Whether the journal's `close` is among what it told: settlements alone may follow it."""
    end = None
    while True:
        row = await connection.fetchrow(
            "SELECT first, entries FROM journal_segment WHERE epoch_id = $1"
            " AND ($2::bigint IS NULL OR first < $2) ORDER BY first DESC LIMIT 1",
            *(epoch_id, end),
        )
        if row is None:
            return False
        leads = [bytes(entry[: len(_CLOSE_LEAD)]) for entry in row["entries"]]
        others = [lead for lead in leads if lead != _SETTLEMENT_LEAD]
        if others:
            return others[-1] == _CLOSE_LEAD
        end = row["first"]


async def _claims_until(
    connection: Connection, gateway: Gateway, closure: Closure, *, now_ms: int
) -> int:
    """The longest expiry of an order whose note is on its way, then the policy's window (117)."""
    window_s = await longest_window(connection, gateway.currency, now_ms=now_ms)
    if window_s is None:
        raise IssuerError("window-unset", "sign a policy with code 117, the claims window, first")
    expires_ms: int | None = await connection.fetchval(
        "SELECT max(expires_ms) FROM note WHERE journal = $1 AND epoch = $2"
        " AND state IN ('out', 'early')",
        *(closure.journal, closure.epoch),
    )
    return max(now_ms, expires_ms or 0) + window_s * 1000


async def _revoke(
    connection: Connection, desk: Desk, closure: Closure, *, officer: Officer, now_ms: int
) -> None:
    place = (closure.journal, closure.epoch)
    held = await lists.held(connection, ListId.JOURNALS)
    if held is not None and place in held.items:
        # An officer has put it there before.
        return
    change = ListChange(added={place: ()})
    await lists.change_list(
        connection, desk, ListId.JOURNALS, change, actor=officer.name, now_ms=now_ms
    )


async def _give_back(connection: Connection, closure: Closure, *, now_ms: int) -> None:
    """What was held and never signed cannot be in the journal."""
    await funding.give_back_held(connection, closure.journal, epoch=closure.epoch, now_ms=now_ms)
