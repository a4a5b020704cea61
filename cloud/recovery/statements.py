"""The statement of a closed epoch: reckoned for one officer, approved by another one, then signed.

Reckoning writes nothing. Approval reckons again: where it comes to something else than the draft
said, because more was claimed meanwhile, the draft is stale and has to be made anew.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud import funding
from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.funding import Funding, FundingState
from cloud.issuer import audit
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import find_gateway
from cloud.issuer.officers import Officer, Role
from cloud.reconciler import forks as proofs
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.outbox import tell
from cloud.reconciler.replica import load
from cloud.recovery.accounting import Books, forks
from cloud.recovery.claims import claims_of
from cloud.recovery.closures import Closure, ClosureState, find_closure
from cloud.recovery.posting import post_total
from cloud.recovery.total import Total
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import STATEMENT_TYPE
from wallet.protocol.keys import PublicKey, from_cose_key
from wallet.protocol.merkle import EMPTY_ROOT
from wallet.protocol.refusals import Code


class Hosted(enum.StrEnum):
    """What becomes of wallets whose keys the gateway kept.

    `carry`: the next gateway has the keys, from a backup or on the same token. `online`: the keys
    are lost, and the value goes to the holders' online wallets.
    """

    CARRY = "carry"
    ONLINE = "online"


class StatementState(enum.StrEnum):
    """A draft is decided once: signed or rejected."""

    DRAFT = "draft"
    SIGNED = "signed"
    REJECTED = "rejected"


class StatementDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A draft and what became of it. Amounts are sums in minor units."""

    statement_id: bytes
    closure_id: bytes
    hosted: Hosted
    outcome: bytes
    carried: int
    paid_out: int
    borne: int
    counted: int
    refused: int
    state: StatementState
    drafted_by: int
    decided_by: int | None
    object: bytes | None


GRANTS_MAX = 10_000
_COLUMNS = ", ".join(StatementDraft.__struct_fields__)


async def reckon(connection: Connection, desk: Desk, closure: Closure, *, hosted: Hosted) -> Total:
    """What a closed epoch comes to, by what is known now; nothing is written but empty accounts.

    Raises: IssuerError `closure-open`, `entries-held`; ReconcilerError `replica-broken`.
    """
    if closure.state is not ClosureState.CLOSED:
        raise IssuerError("closure-open", f"the closure is {closure.state.value}")
    # Whoever hands a claim in, or redeems a note of this epoch, waits until this is decided.
    row = await connection.fetchrow(
        "SELECT epoch_id, journal, epoch, size, applied, root, stated_ms FROM journal_epoch"
        " WHERE journal = $1 AND epoch = $2 FOR UPDATE",
        *(closure.journal, closure.epoch),
    )
    await _require_decided(connection, row)
    place = (closure.journal, closure.epoch)
    replica = await load(
        connection, desk.anchor, epoch_id=row["epoch_id"], journal=place[0], epoch=place[1]
    )
    gateway = await find_gateway(connection, closure.journal)
    keys, kept = await _enrolled(connection, closure.journal)
    books = Books(desk.anchor, replica.state, place=place, currency=gateway.currency, keys=keys)
    grants = await _granted(connection, closure)
    books.add_grants(grants)
    for claim in await claims_of(connection, row):
        await books.add(connection, claim)
    books.bear()
    books.pay_out(kept if hosted is Hosted.ONLINE else ())
    return Total(
        size=row["size"],
        root=row["root"] or EMPTY_ROOT,
        currency=gateway.currency,
        carried=books.carried(),
        redeemed=sorted(books.redeemed),
        moves=books.moves,
        notes=books.notes,
        grants=grants,
        judged=books.judged,
        paid_out=books.paid_out,
        borne=books.borne,
    )


async def _require_decided(connection: Connection, row: Any) -> None:
    """Carried value is settled: nothing may be in it that a person has still to decide about."""
    held: int = await connection.fetchval(
        "SELECT count(*) FROM verdict WHERE epoch_id = $1 AND state = 'held' AND index < $2",
        *(row["epoch_id"], row["applied"]),
    )
    if held:
        raise IssuerError("entries-held", f"{held} entries wait for a decision first")


async def _enrolled(
    connection: Connection, journal: bytes
) -> tuple[dict[bytes, PublicKey], list[bytes]]:
    """Keys by wallet as the issuer enrolled them there, and the wallets whose keys were kept."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (wallet) wallet, cose_key, hosted FROM wallet_enrolment"
        " WHERE journal = $1 ORDER BY wallet, enrolment_id DESC",
        journal,
    )
    keys = {row["wallet"]: from_cose_key(row["cose_key"]) for row in rows}
    return keys, [row["wallet"] for row in rows if row["hosted"]]


async def _granted(connection: Connection, closure: Closure) -> list[Funding]:
    """Grants that were signed and that the journal did not tell of."""
    found = await funding.grants_from(
        connection, closure.journal, epoch=closure.epoch, sequence=0, limit=GRANTS_MAX
    )
    return [grant for grant in found if grant.state is FundingState.GRANTED]


async def draft_statement(
    connection: Connection,
    desk: Desk,
    *,
    statement_id: bytes,
    closure_id: bytes,
    hosted: Hosted,
    officer: Officer,
    now_ms: int,
) -> StatementDraft:
    """Reckon and keep what it comes to, or answer the draft that is there.

    Raises: IssuerError `role-missing`, `closure-unknown`, `claims-open` before the window is over,
    `draft-conflict`, `draft-decided` where the epoch has its statement; and as `reckon`.
    """
    officer.require(Role.RECOVERY)
    closure = await find_closure(connection, closure_id)
    known = await _find(connection, statement_id)
    if known is None:
        await _require_window_over(connection, closure, now_ms=now_ms)
        total = await reckon(connection, desk, closure, hosted=hosted)
        known = await _insert(
            connection, statement_id, closure, hosted, total, officer=officer, now_ms=now_ms
        )
        await _audit(connection, "statement.draft", closure, known, officer, now_ms=now_ms)
    if (known.closure_id, known.hosted, known.drafted_by) != (
        closure_id,
        hosted,
        officer.officer_id,
    ):
        raise IssuerError("draft-conflict", "the identity names another draft")
    return known


async def _require_window_over(connection: Connection, closure: Closure, *, now_ms: int) -> None:
    if closure.claims_until_ms is not None and now_ms < closure.claims_until_ms:
        raise IssuerError("claims-open", f"holders may claim until {closure.claims_until_ms} ms")
    if await signed_statement(connection, closure.closure_id) is not None:
        raise IssuerError("draft-decided", "the epoch has its statement")


async def _insert(
    connection: Connection,
    statement_id: bytes,
    closure: Closure,
    hosted: Hosted,
    total: Total,
    *,
    officer: Officer,
    now_ms: int,
) -> StatementDraft:
    refused = sum(1 for item in total.judged if item.code is not None)
    with constraints_as(IssuerError, "draft-invalid"):
        row = await connection.fetchrow(
            "INSERT INTO epoch_statement (statement_id, closure_id, hosted, outcome, carried,"
            " paid_out, borne, counted, refused, drafted_by, drafted_ms)"
            f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING {_COLUMNS}",
            *(statement_id, closure.closure_id, hosted.value, total.digest),
            *(sum(balance for _, balance in total.carried), total.paid_out, total.borne),
            *(len(total.judged) - refused, refused, officer.officer_id, now_ms),
        )
    return _draft(row)


async def approve_statement(
    connection: Connection, desk: Desk, statement_id: bytes, *, officer: Officer, now_ms: int
) -> StatementDraft:
    """Post the claims and sign. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `statement-unknown`, `draft-decided`,
    `draft-stale` where it comes to something else by now; LedgerError.
    """
    draft = await _to_decide(connection, statement_id, StatementState.SIGNED, officer)
    if draft.state is StatementState.SIGNED:
        return draft
    closure = await find_closure(connection, draft.closure_id)
    await _require_window_over(connection, closure, now_ms=now_ms)
    total = await reckon(connection, desk, closure, hosted=draft.hosted)
    if total.digest != draft.outcome:
        raise IssuerError("draft-stale", "more was claimed meanwhile; draft it anew")
    await post_total(connection, closure, total, now_ms=now_ms)
    await _convict(connection, desk, closure, total, now_ms=now_ms)
    claims = {
        2: closure.journal,
        3: closure.epoch,
        4: total.size,
        5: total.root,
        6: [list(pair) for pair in total.carried],
        7: [list(note) for note in total.redeemed],
    }
    signed = await desk.sign(STATEMENT_TYPE, claims)
    await connection.execute(
        "UPDATE journal_epoch SET stated_ms = $3 WHERE journal = $1 AND epoch = $2",
        *(closure.journal, closure.epoch, now_ms),
    )
    decided = await _decide(
        connection, statement_id, StatementState.SIGNED, officer, object_=signed, now_ms=now_ms
    )
    await _audit(connection, "statement.approve", closure, decided, officer, now_ms=now_ms)
    body = {"journal": journal_text(closure.journal), "epoch": closure.epoch}
    await tell(connection, "journal.stated", body, now_ms=now_ms)
    return decided


async def _convict(
    connection: Connection, desk: Desk, closure: Closure, total: Total, *, now_ms: int
) -> None:
    """Two claims at one index are evidence against the journal, whatever they move."""
    for one, other in forks(total.judged):
        epoch_id = await connection.fetchval(
            "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2",
            *(closure.journal, closure.epoch),
        )
        parts = proofs.of_index(
            desk.anchor,
            (one.entry.raw, one.receipt or b""),
            (other.entry.raw, other.receipt or b""),
        )
        found = Evidence(kind="fork", code=Code.PROOF_INVALID, index=one.index, parts=parts)
        await suspend(connection, epoch_id, found, now_ms=now_ms)


async def reject_statement(
    connection: Connection, statement_id: bytes, *, officer: Officer, now_ms: int
) -> StatementDraft:
    """Decide against the draft; another one may follow. Raises: as `approve_statement`."""
    draft = await _to_decide(connection, statement_id, StatementState.REJECTED, officer)
    if draft.state is StatementState.REJECTED:
        return draft
    decided = await _decide(
        connection, statement_id, StatementState.REJECTED, officer, object_=None, now_ms=now_ms
    )
    closure = await find_closure(connection, draft.closure_id)
    await _audit(connection, "statement.reject", closure, decided, officer, now_ms=now_ms)
    return decided


async def list_statements(connection: Connection, closure_id: bytes) -> Sequence[StatementDraft]:
    """Drafts of a closure's statement, the newest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM epoch_statement WHERE closure_id = $1 ORDER BY drafted_ms DESC",
        closure_id,
    )
    return [_draft(row) for row in rows]


async def signed_statement(connection: Connection, closure_id: bytes) -> bytes | None:
    """The statement, if it was signed."""
    found: bytes | None = await connection.fetchval(
        "SELECT object FROM epoch_statement WHERE closure_id = $1 AND state = 'signed'", closure_id
    )
    return found


async def _find(connection: Connection, statement_id: bytes) -> StatementDraft | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM epoch_statement WHERE statement_id = $1 FOR UPDATE", statement_id
    )
    return None if row is None else _draft(row)


async def _to_decide(
    connection: Connection, statement_id: bytes, state: StatementState, officer: Officer
) -> StatementDraft:
    """The draft, undecided, or decided the same by the same officer before."""
    officer.require(Role.RECOVERY)
    draft = await _find(connection, statement_id)
    if draft is None:
        raise IssuerError("statement-unknown")
    if draft.drafted_by == officer.officer_id:
        raise IssuerError("four-eyes", "another officer has to decide")
    again = (draft.state, draft.decided_by) == (state, officer.officer_id)
    if draft.state is not StatementState.DRAFT and not again:
        raise IssuerError("draft-decided", f"the draft is {draft.state.value}")
    return draft


async def _decide(
    connection: Connection,
    statement_id: bytes,
    state: StatementState,
    officer: Officer,
    *,
    object_: bytes | None,
    now_ms: int,
) -> StatementDraft:
    row = await connection.fetchrow(
        "UPDATE epoch_statement SET state = $2, decided_by = $3, decided_ms = $4, object = $5"
        f" WHERE statement_id = $1 RETURNING {_COLUMNS}",
        *(statement_id, state.value, officer.officer_id, now_ms, object_),
    )
    return _draft(row)


async def _audit(
    connection: Connection,
    action: str,
    closure: Closure,
    draft: StatementDraft,
    officer: Officer,
    *,
    now_ms: int,
) -> None:
    await audit.record(
        connection,
        actor=officer.name,
        action=action,
        subject=closure.subject,
        detail={
            "statement": draft.statement_id.hex(),
            "carried": draft.carried,
            "paid_out": draft.paid_out,
            "borne": draft.borne,
        },
        now_ms=now_ms,
    )


def _draft(row: Any) -> StatementDraft:
    return msgspec.convert(dict(row), StatementDraft)
