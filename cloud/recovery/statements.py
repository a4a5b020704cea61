"""The statement of a closed epoch: reckoned for one officer, approved by another one, then signed.

Reckoning writes nothing. Approval reckons again: where it comes to something else than the draft
said, because more was claimed meanwhile, the draft is stale and has to be made anew.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from cloud import funding
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.funding import Funding, FundingState
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.gateways import find_gateway
from cloud.issuer.officers import Officer, Role
from cloud.reconciler import evidence
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


class StatementDraft(Draft, frozen=True, kw_only=True):
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
            "borne": self.borne,
        }


GRANTS_MAX = 10_000
_DRAFTS = Drafts(
    StatementDraft,
    table="epoch_statement",
    key="statement_id",
    role=Role.RECOVERY,
    action="statement",
    approved=StatementState.SIGNED,
    unknown="statement-unknown",
)


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
    said = {"closure_id": closure_id, "hosted": hosted.value}
    outcome: Mapping[str, Any] = {}
    if await _DRAFTS.known(connection, statement_id) is None:
        await _require_window_over(connection, closure, now_ms=now_ms)
        outcome = _outcome(await reckon(connection, desk, closure, hosted=hosted))
    return await _DRAFTS.propose(
        connection, statement_id, said, more=outcome, officer=officer, now_ms=now_ms
    )


async def _require_window_over(connection: Connection, closure: Closure, *, now_ms: int) -> None:
    if closure.claims_until_ms is not None and now_ms < closure.claims_until_ms:
        raise IssuerError("claims-open", f"holders may claim until {closure.claims_until_ms} ms")
    if await signed_statement(connection, closure.closure_id) is not None:
        raise IssuerError("draft-decided", "the epoch has its statement")


def _outcome(total: Total) -> Mapping[str, Any]:
    """What the draft keeps of it."""
    refused = sum(1 for item in total.judged if item.code is not None)
    return {
        "outcome": total.digest,
        "carried": sum(balance for _, balance in total.carried),
        "paid_out": total.paid_out,
        "borne": total.borne,
        "counted": len(total.judged) - refused,
        "refused": refused,
    }


async def approve_statement(
    connection: Connection, desk: Desk, statement_id: bytes, *, officer: Officer, now_ms: int
) -> StatementDraft:
    """Post the claims and sign. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `statement-unknown`, `draft-decided`,
    `draft-expired`, `draft-stale` where it comes to something else by now; LedgerError.
    """
    draft, again = await _DRAFTS.take(connection, statement_id, officer=officer, now_ms=now_ms)
    if again:
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
    decided = await _DRAFTS.approve(
        connection, draft, officer=officer, now_ms=now_ms, more={"object": signed}
    )
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
        parts = evidence.of_index(
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
    return await _DRAFTS.reject(connection, statement_id, officer=officer, now_ms=now_ms)


async def list_statements(connection: Connection, closure_id: bytes) -> list[StatementDraft]:
    """Drafts of a closure's statement, the newest first."""
    return await _DRAFTS.newest(connection, "closure_id = $1", closure_id)


async def signed_statement(connection: Connection, closure_id: bytes) -> bytes | None:
    """The statement, if it was signed."""
    found: bytes | None = await connection.fetchval(
        "SELECT object FROM epoch_statement WHERE closure_id = $1 AND state = 'signed'", closure_id
    )
    return found
