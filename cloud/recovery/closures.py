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
from cloud.issuer.gateways import find_gateway
from cloud.issuer.lists import ListChange
from cloud.issuer.officers import Officer, Role, find_officer, officer_name
from cloud.issuer.policies import longest_window
from cloud.reconciler.outbox import tell
from cloud.recovery import kept
from cloud.recovery.ending import end_again, end_epoch, ended_itself, has_ended, last_expiry
from cloud.recovery.kept import Ended
from cloud.shards.homes import Site
from cloud.shards.news import knows_grants
from wallet.protocol.ids import journal_text
from wallet.protocol.lists import ListId

# Drafts that the upkeep looks at in one turn.
OPEN_MAX = 1_000


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
    def place(self) -> tuple[bytes, int]:
        """The journal and epoch."""
        return self.journal, self.epoch

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
    another draft, or the epoch has a closure already).
    """
    officer.require(Role.RECOVERY)
    gateway = await find_gateway(connection, journal)
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
    site: Site, desk: Desk, closure_id: bytes, *, officer: Officer, now_ms: int
) -> Closure:
    """Close the epoch. Approving one's own approval again changes nothing.

    `site`: of the closure's journal. Raises: IssuerError `role-missing`, `four-eyes`,
    `closure-unknown`, `draft-decided`, `draft-expired`, `window-unset` (the policy says nothing of
    code 117), `epoch-open` for an orderly cause whose journal has not ended its epoch, or not told
    so yet.
    """
    await learn_closure(site, desk, closure_id, now_ms=now_ms)
    closure, again = await _DRAFTS.take(site.head, closure_id, officer=officer, now_ms=now_ms)
    if again:
        return closure
    known = await kept.ended(site, closure.place)
    epoch_id = await end_epoch(site.home, closure.place, now_ms=now_ms)
    if closure.cause.is_orderly and not await ended_itself(site.home, epoch_id):
        raise IssuerError("epoch-open", "the gateway has to end its epoch and synchronise")
    if known is not None:
        until_ms, window_s = known.claims_until_ms, known.window_s
    else:
        until_ms = now_ms
        if not closure.cause.is_orderly:
            until_ms = await _claims_until(site, closure, now_ms=now_ms)
        window_s = (until_ms - now_ms) // 1000
    ended = Ended(
        closure_id=closure_id,
        decided_by=officer.name,
        claims_until_ms=until_ms,
        window_s=window_s,
    )
    await kept.keep_ended(site, closure.place, ended)
    return await _close(site, desk, closure, until_ms, officer=officer, now_ms=now_ms)


async def _close(
    site: Site,
    desk: Desk,
    closure: Closure,
    until_ms: int,
    *,
    officer: Officer,
    now_ms: int,
) -> Closure:
    """What is done at the head once the epoch is over where its journal lives."""
    connection = site.head
    if not closure.cause.is_orderly:
        await _revoke(connection, desk, closure, officer=officer, now_ms=now_ms)
    await give_back(site, closure, now_ms=now_ms)
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


async def learn_closure(site: Site, desk: Desk, closure_id: bytes, *, now_ms: int) -> None:
    """Let the head know of an approval that was carried out where the journal lives.

    It does not where the transaction at the head failed after that. Raises: IssuerError
    `closure-unknown`.
    """
    closure = await find_closure(site.head, closure_id)
    if closure.state is not ClosureState.DRAFT:
        return
    known = await kept.ended(site, closure.place)
    if known is None or known.closure_id != closure_id:
        return
    officer = await find_officer(site.head, known.decided_by)
    # An issuer that was restored may have forgotten the officer: another one approves it then.
    if officer is not None:
        until_ms = known.claims_until_ms
        await _close(site, desk, closure, until_ms, officer=officer, now_ms=now_ms)


async def keep_closed(site: Site, closure: Closure, *, now_ms: int) -> None:
    """Close the epoch again where its journal lives, if that was restored to before it was closed.

    Otherwise the journal would be taken in, and go on, as if nobody had decided.
    """
    if site.here.is_head or closure.state is not ClosureState.CLOSED:
        return
    if await kept.ended(site, closure.place) is None:
        if closure.cause.is_orderly and not await has_ended(site.home, closure.place):
            # It tells again what it told before, up to its end.
            return
        await end_again(site.home, closure.place, now_ms=now_ms)
        until_ms, decided_ms = closure.claims_until_ms or 0, closure.decided_ms or 0
        name = await officer_name(site.head, closure.decided_by)
        ended = Ended(
            closure_id=closure.closure_id,
            decided_by=name,
            claims_until_ms=until_ms,
            window_s=max(0, until_ms - decided_ms) // 1000,
        )
        await kept.keep_ended(site, closure.place, ended)


async def keep_place_closed(site: Site, place: tuple[bytes, int], *, now_ms: int) -> None:
    """The same by the journal and epoch, which need not be closed."""
    if site.here.is_head:
        return
    for closure in await _DRAFTS.where(
        site.head, "state = 'closed' AND journal = $1 AND epoch = $2", *place
    ):
        await keep_closed(site, closure, now_ms=now_ms)


async def give_back(site: Site, closure: Closure, *, now_ms: int) -> None:
    """What was held for an epoch that is over, and never signed, cannot be in the journal.

    Once the head knows of all grants that are: a head that was restored may have forgotten some.
    """
    if await knows_grants(site, closure.journal):
        await funding.give_back_held(site.head, closure.journal, epoch=closure.epoch, now_ms=now_ms)


async def reject_closure(
    site: Site, desk: Desk, closure_id: bytes, *, officer: Officer, now_ms: int
) -> Closure:
    """Decide against the draft: the gateway goes on. Raises: as `approve_closure`."""
    await learn_closure(site, desk, closure_id, now_ms=now_ms)
    known = await kept.ended(site, (await find_closure(site.head, closure_id)).place)
    if known is not None and known.closure_id == closure_id:
        raise IssuerError("draft-decided", "it was carried out: approve it again")
    return await _DRAFTS.reject(site.head, closure_id, officer=officer, now_ms=now_ms)


async def find_closure(connection: Connection, closure_id: bytes) -> Closure:
    """The closure, locked for this transaction. Raises: IssuerError `closure-unknown`."""
    return await _DRAFTS.find(connection, closure_id)


async def list_closures(connection: Connection, *, first: int) -> list[Closure]:
    """A page of the closures, the newest first, from the place `first` on."""
    return await _DRAFTS.newest(connection, first=first)


async def open_closures(connection: Connection) -> list[Closure]:
    """Those that nobody is known to have decided about."""
    return await _DRAFTS.newest(connection, "state = 'draft'", limit=OPEN_MAX)


async def closures_with_holds(connection: Connection) -> list[Closure]:
    """Closed ones for which value is still held."""
    return await _DRAFTS.newest(
        connection,
        "state = 'closed' AND EXISTS (SELECT FROM funding WHERE funding.state = 'held' AND"
        " (funding.journal, funding.epoch) = (epoch_closure.journal, epoch_closure.epoch))",
        limit=OPEN_MAX,
    )


async def closed_at(connection: Connection, shard: int, *, after: bytes) -> list[Closure]:
    """Closed ones of journals that live at a shard, by their identities, a page of them."""
    return await _DRAFTS.where(
        connection,
        "state = 'closed' AND closure_id > $1 AND journal IN"
        " (SELECT journal FROM journal_home WHERE shard = $2) ORDER BY closure_id LIMIT $3",
        *(after, shard, OPEN_MAX),
    )


async def _claims_until(site: Site, closure: Closure, *, now_ms: int) -> int:
    """The longest expiry of an order whose note is on its way, then the policy's window (117)."""
    gateway = await find_gateway(site.head, closure.journal)
    window_s = await longest_window(site.head, gateway.currency, now_ms=now_ms)
    if window_s is None:
        raise IssuerError("window-unset", "sign a policy with code 117, the claims window, first")
    expires_ms = await last_expiry(site.home, closure.place)
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
