"""The statement of a closed epoch: reckoned for one officer, approved by another one, then signed.

Reckoning writes nothing. Approval reckons again: where it comes to something else than the draft
said, because more was claimed meanwhile, the draft is stale and has to be made anew.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role, find_officer, officer_name
from cloud.reconciler.outbox import tell
from cloud.recovery import kept
from cloud.recovery.closures import OPEN_MAX, Closure, find_closure, give_back
from cloud.recovery.kept import Stated
from cloud.recovery.reckoning import Hosted, reckon
from cloud.recovery.stating import carry_out
from cloud.recovery.total import Judged, Total
from cloud.shards.homes import Site
from wallet.protocol import issued
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import STATEMENT_TYPE


class StatementState(enum.StrEnum):
    """A draft is decided once: signed or rejected."""

    DRAFT = "draft"
    SIGNED = "signed"
    REJECTED = "rejected"


class StatementDraft(Draft, frozen=True, kw_only=True):
    """A draft and what became of it. Amounts are sums in minor units."""

    statement_id: bytes
    closure_id: bytes
    hosted: Hosted
    outcome: bytes
    carried: int
    paid_out: int
    taken_back: int
    borne: int
    counted: int
    refused: int
    state: StatementState
    object: bytes | None

    @property
    def subject(self) -> str:
        """The closure."""
        return self.closure_id.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What it comes to."""
        return {
            "statement": self.statement_id.hex(),
            "carried": self.carried,
            "paid_out": self.paid_out,
            "taken_back": self.taken_back,
            "borne": self.borne,
        }


# Half of what an envelope carries: with it a gateway opens its journal, and then it travels.
STATEMENT_BYTES_MAX = 32 * 1024 * 1024
PAGE_MAX = 1_000
_DRAFTS = Drafts(
    StatementDraft,
    table="epoch_statement",
    key="statement_id",
    role=Role.RECOVERY,
    action="statement",
    approved=StatementState.SIGNED,
    unknown="statement-unknown",
)


async def draft_statement(
    site: Site,
    desk: Desk,
    *,
    statement_id: bytes,
    closure_id: bytes,
    hosted: Hosted,
    bear_max: int = 0,
    officer: Officer,
    now_ms: int,
) -> StatementDraft:
    """Reckon and keep what it comes to, or answer the draft that is there.

    `site`: of the closure's journal. `bear_max`: what the issuer may bear, in minor units, where
    that is more than the bound of the journal's policy.
    Raises: IssuerError `role-missing`, `closure-unknown`, `claims-open` before the window is over,
    `draft-conflict`, `draft-decided` where the epoch has its statement, `loss-above-limit`,
    `statement-too-large`; and as `reckon`.
    """
    officer.require(Role.RECOVERY)
    closure = await find_closure(site.head, closure_id)
    said = {"closure_id": closure_id, "hosted": hosted.value}
    more: Mapping[str, Any] = {}
    judged: Sequence[Judged] = []
    if await _DRAFTS.known(site.head, statement_id) is None:
        await _require_window_over(site.head, closure, now_ms=now_ms)
        known = await kept.stated(site, closure.place)
        if known is not None:
            # The head was restored from a backup, and has forgotten what was signed.
            more = {name: getattr(known, name) for name in _OUTCOME}
            said["hosted"] = known.hosted
        else:
            total = await reckon(site, desk, closure, hosted=hosted)
            _require_bounded(total, bear_max)
            _payload(closure, total)
            more, judged = _outcome(total), total.judged
    draft = await _DRAFTS.propose(
        site.head, statement_id, said, more=more, officer=officer, now_ms=now_ms
    )
    await _keep_judged(site.head, statement_id, judged)
    return draft


async def _require_window_over(connection: Connection, closure: Closure, *, now_ms: int) -> None:
    if closure.claims_until_ms is not None and now_ms < closure.claims_until_ms:
        raise IssuerError("claims-open", f"holders may claim until {closure.claims_until_ms} ms")
    if await signed_statement(connection, closure.closure_id) is not None:
        raise IssuerError("draft-decided", "the epoch has its statement")


def _require_bounded(total: Total, bear_max: int) -> None:
    """Colluders cannot make the issuer bear more than its policy, unless officers say how much."""
    if total.bound is not None and total.borne > max(total.bound, bear_max):
        raise IssuerError(
            "loss-above-limit",
            f"the issuer would bear {total.borne}, and its policy bounds that by {total.bound}:"
            " refuse claims, or say how much it may bear",
        )


# What a draft keeps of what an epoch comes to.
_OUTCOME = ("outcome", "carried", "paid_out", "taken_back", "borne", "counted", "refused")


def _outcome(total: Total) -> Mapping[str, Any]:
    """What the draft keeps of it."""
    refused = sum(1 for item in total.judged if item.code is not None)
    return {
        "outcome": total.digest,
        "carried": sum(balance for _, balance in total.carried),
        "paid_out": total.paid_out,
        "taken_back": total.taken_back,
        "borne": total.borne,
        "counted": len(total.judged) - refused,
        "refused": refused,
    }


def _payload(closure: Closure, total: Total) -> bytes:
    """What is signed. Raises: IssuerError `statement-too-large`."""
    claims = {
        2: closure.journal,
        3: closure.epoch,
        4: total.told["size"],
        5: total.root,
        6: [list(pair) for pair in total.carried],
        7: [list(note) for note in total.redeemed],
    }
    payload = issued.payload(claims)
    if len(payload) > STATEMENT_BYTES_MAX:
        raise IssuerError(
            "statement-too-large",
            f"{len(payload)} bytes, at most {STATEMENT_BYTES_MAX}: pay more wallets out online",
        )
    return payload


async def _keep_judged(
    connection: Connection, statement_id: bytes, judged: Sequence[Judged]
) -> None:
    """What the draft says of each claim, for whoever decides."""
    columns = ["statement_id", "place", "index", "leaf", "kind", "amount", "code"]
    rows = [
        (statement_id, place, *msgspec.structs.astuple(item)) for place, item in enumerate(judged)
    ]
    await connection.copy_records_to_table("statement_claim", records=rows, columns=columns)


async def judged_by(connection: Connection, statement_id: bytes, *, first: int) -> list[Judged]:
    """A page of what a draft says of the claims, in their order, from the place `first` on.

    Raises: IssuerError `statement-unknown`.
    """
    await _DRAFTS.find(connection, statement_id)
    rows = await connection.fetch(
        "SELECT index, leaf, kind, amount, code FROM statement_claim"
        " WHERE statement_id = $1 AND place >= $2 ORDER BY place LIMIT $3",
        *(statement_id, first, PAGE_MAX),
    )
    return [Judged(**dict(row)) for row in rows]


async def approve_statement(
    site: Site, desk: Desk, statement_id: bytes, *, officer: Officer, now_ms: int
) -> StatementDraft:
    """Post the claims and sign. Approving one's own approval again changes nothing.

    `site`: of the closure's journal. Raises: IssuerError `role-missing`, `four-eyes`,
    `statement-unknown`, `draft-decided`, `draft-expired`, `draft-stale` where it comes to something
    else by now; LedgerError.
    """
    await learn_statement(site, statement_id, now_ms=now_ms)
    draft, again = await _DRAFTS.take(site.head, statement_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    closure = await find_closure(site.head, draft.closure_id)
    await _require_window_over(site.head, closure, now_ms=now_ms)
    # A grant that the journal could not enter, because it had another one of that number, is held.
    await give_back(site, closure, now_ms=now_ms)
    known = await kept.stated(site, closure.place)
    if known is None:
        signed = await _state(site, desk, closure, draft, officer=officer, now_ms=now_ms)
    elif await _DRAFTS.known(site.head, known.statement_id) not in (None, draft):
        raise IssuerError("draft-decided", "another draft was carried out: approve that one again")
    elif known.outcome != draft.outcome:
        raise IssuerError("draft-stale", "the epoch has its statement; draft it anew")
    else:
        signed = known.object
    return await _sign(site.head, closure, draft, signed, officer=officer, now_ms=now_ms)


async def _state(
    site: Site,
    desk: Desk,
    closure: Closure,
    draft: StatementDraft,
    *,
    officer: Officer,
    now_ms: int,
) -> bytes:
    """Post what the epoch comes to where its journal lives; the statement. Raises: IssuerError."""
    total = await reckon(site, desk, closure, hosted=draft.hosted)
    if total.digest != draft.outcome:
        raise IssuerError("draft-stale", "more was claimed meanwhile; draft it anew")
    payload = _payload(closure, total)
    signed = await desk.sign_payload(STATEMENT_TYPE, payload, role=issued.ROLES[STATEMENT_TYPE])
    stated = _stated(draft, signed, officer.name)
    await carry_out(site, desk.anchor, closure, total, stated, now_ms=now_ms)
    return signed


def _stated(draft: StatementDraft, signed: bytes, name: str) -> Stated:
    """What is kept where the journal lives. `name`: of the officer who approved it."""
    return Stated(
        statement_id=draft.statement_id,
        hosted=draft.hosted.value,
        **{name: getattr(draft, name) for name in _OUTCOME},
        decided_by=name,
        object=signed,
    )


async def state_again(site: Site, desk: Desk, closure: Closure, *, now_ms: int) -> None:
    """Post a signed statement anew where its journal lives, if that was restored to before it.

    It is signed, and cannot be another one. Raises: IssuerError `draft-stale` where what is there
    comes to something else, because receipts that were handed in since the backup are lost.
    """
    if site.here.is_head or await kept.stated(site, closure.place) is not None:
        return
    found = await _DRAFTS.where(
        site.head, "closure_id = $1 AND state = 'signed'", closure.closure_id
    )
    if not found:
        return
    (draft,) = found
    # Of receipts that came after it, nothing is in it.
    rows = await site.head.fetch(
        "SELECT leaf FROM statement_claim WHERE statement_id = $1", draft.statement_id
    )
    only = {row["leaf"] for row in rows}
    total = await reckon(site, desk, closure, hosted=draft.hosted, only=only)
    if total.digest != draft.outcome:
        raise IssuerError("draft-stale", "its statement says something else")
    name = await officer_name(site.head, draft.decided_by)
    stated = _stated(draft, draft.object or b"", name)
    await carry_out(site, desk.anchor, closure, total, stated, now_ms=now_ms)


async def _sign(
    connection: Connection,
    closure: Closure,
    draft: StatementDraft,
    signed: bytes,
    *,
    officer: Officer,
    now_ms: int,
) -> StatementDraft:
    """What is done at the head once the claims are posted where the journal lives."""
    decided = await _DRAFTS.approve(
        connection, draft, officer=officer, now_ms=now_ms, more={"object": signed}
    )
    body = {"journal": journal_text(closure.journal), "epoch": closure.epoch}
    await tell(connection, "journal.stated", body, now_ms=now_ms)
    return decided


async def learn_statement(site: Site, statement_id: bytes, *, now_ms: int) -> None:
    """As `learn_closure`. Raises: IssuerError `statement-unknown`."""
    draft = await _DRAFTS.find(site.head, statement_id)
    if draft.state is not StatementState.DRAFT:
        return
    closure = await find_closure(site.head, draft.closure_id)
    known = await kept.stated(site, closure.place)
    if known is None or known.statement_id != statement_id:
        return
    if await signed_statement(site.head, closure.closure_id) is not None:
        return
    officer = await find_officer(site.head, known.decided_by)
    if officer is not None:
        await give_back(site, closure, now_ms=now_ms)
        await _sign(site.head, closure, draft, known.object, officer=officer, now_ms=now_ms)


async def reject_statement(
    site: Site, statement_id: bytes, *, officer: Officer, now_ms: int
) -> StatementDraft:
    """Decide against the draft; another one may follow. Raises: as `approve_statement`."""
    await learn_statement(site, statement_id, now_ms=now_ms)
    closure = await closure_of(site.head, statement_id)
    known = await kept.stated(site, closure.place)
    if known is not None and known.statement_id == statement_id:
        raise IssuerError("draft-decided", "it was carried out: approve it again")
    return await _DRAFTS.reject(site.head, statement_id, officer=officer, now_ms=now_ms)


async def closure_of(connection: Connection, statement_id: bytes) -> Closure:
    """The closure that a draft is of. Raises: IssuerError `statement-unknown`."""
    draft = await _DRAFTS.find(connection, statement_id)
    return await find_closure(connection, draft.closure_id)


async def open_statements(connection: Connection) -> list[StatementDraft]:
    """Those that nobody is known to have decided about."""
    return await _DRAFTS.newest(
        connection,
        "state = 'draft' AND NOT EXISTS (SELECT FROM epoch_statement AS made"
        " WHERE made.closure_id = epoch_statement.closure_id AND made.state = 'signed')",
        limit=OPEN_MAX,
    )


async def signed_among(connection: Connection, closures: Sequence[bytes]) -> set[bytes]:
    """Those of the closures whose statements are signed."""
    rows = await connection.fetch(
        "SELECT closure_id FROM epoch_statement WHERE state = 'signed' AND closure_id = ANY ($1)",
        list(closures),
    )
    return {row["closure_id"] for row in rows}


async def list_statements(
    connection: Connection, closure_id: bytes, *, first: int
) -> list[StatementDraft]:
    """A page of the drafts of a closure's statement, the newest first."""
    return await _DRAFTS.newest(connection, "closure_id = $1", closure_id, first=first)


async def signed_statement(connection: Connection, closure_id: bytes) -> bytes | None:
    """The statement, if it was signed."""
    found: bytes | None = await connection.fetchval(
        "SELECT object FROM epoch_statement WHERE closure_id = $1 AND state = 'signed'", closure_id
    )
    return found
