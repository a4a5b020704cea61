"""Late payments: one officer proposes that a late receipt is paid, another one decides.

The value comes out of the loss account where the journal lives, and goes to the payee's online
wallet, once. What was paid is kept there in the same transaction, which ends before the head's:
were that one to fail, whoever approves next, or the upkeep, completes what was begun, and nobody
rejects it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role, find_officer, officer_name
from cloud.ledger.accounts import ensure_accounts, loss
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler.outbox import tell
from cloud.reconciler.postings import Batch, online_accounts
from cloud.recovery.closures import OPEN_MAX, Closure, find_closure
from cloud.recovery.late import Late, review
from cloud.recovery.reckoning import locked_epoch
from cloud.shards.homes import Site
from cloud.shards.messages import HEAD, Addressed, PaidOnline, send
from cloud.wallets import redeem_accounts
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.messages import Order


class LateState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class LatePayment(Draft, frozen=True, kw_only=True):
    """A draft and what became of it. `bear_max`: what the issuer may bear of the epoch in all."""

    draft_id: bytes
    closure_id: bytes
    leaf: bytes
    index: int
    payee: bytes
    amount: int
    reason: str
    bear_max: int
    state: LateState

    @property
    def subject(self) -> str:
        """The entry."""
        return self.leaf.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What is paid to whom, why, and of which closure it is."""
        return {
            "closure": self.closure_id.hex(),
            "payee": wallet_text(WalletId(self.payee)),
            "amount": self.amount,
            "bear_max": self.bear_max,
            "reason": self.reason,
        }


_DRAFTS = Drafts(
    LatePayment,
    table="late_payment_draft",
    role=Role.RECOVERY,
    action="late-payment",
    approved=LateState.APPROVED,
)


async def draft_late(
    site: Site,
    desk: Desk,
    *,
    draft_id: bytes,
    closure_id: bytes,
    leaf: bytes,
    reason: str,
    bear_max: int = 0,
    officer: Officer,
    now_ms: int,
) -> LatePayment:
    """Propose to pay a late receipt, or answer the draft that is there.

    `site`: of the closure's journal. `bear_max`: what the issuer may bear of the epoch in all, in
    minor units, where that is more than the bound of the journal's policy.
    Raises: IssuerError `role-missing`, `closure-unknown`, `closure-open`, `closure-unstated`,
    `claim-unknown`, the code why the receipt pays nobody, `loss-above-limit`, `draft-conflict`,
    `draft-invalid`.
    """
    officer.require(Role.RECOVERY)
    closure = await find_closure(site.head, closure_id)
    known = await _DRAFTS.known(site.head, draft_id)
    if known is None:
        _, late, order = await _payable(site, desk, closure, leaf, bear_max)
        more = {"index": late.judged.index, "payee": order.payee, "amount": order.amount_minor}
    else:
        more = {"index": known.index, "payee": known.payee, "amount": known.amount}
    said = {"closure_id": closure_id, "leaf": leaf, "reason": reason, "bear_max": bear_max}
    return await _DRAFTS.propose(
        site.head, draft_id, said, more=more, officer=officer, now_ms=now_ms
    )


async def approve_late(
    site: Site, desk: Desk, draft_id: bytes, *, officer: Officer, now_ms: int
) -> LatePayment:
    """Pay the late receipt. Approving one's own approval again changes nothing.

    `site`: of the closure's journal. Raises: IssuerError `role-missing`, `four-eyes`,
    `draft-unknown`, `draft-decided`, `draft-expired`, and what `draft_late` does: it is judged
    again.
    """
    await learn_late(site, draft_id, now_ms=now_ms)
    draft, again = await _DRAFTS.take(site.head, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    closure = await find_closure(site.head, draft.closure_id)
    if await _payer_of(site, closure, draft_id) is None:
        await _pay(site, desk, closure, draft, name=officer.name, now_ms=now_ms)
    return await _approve(site.head, closure, draft, officer=officer, now_ms=now_ms)


async def reject_late(site: Site, draft_id: bytes, *, officer: Officer, now_ms: int) -> LatePayment:
    """Decide against the draft; another one may follow. Raises: as `approve_late`."""
    draft = await _DRAFTS.find(site.head, draft_id)
    closure = await find_closure(site.head, draft.closure_id)
    if await _payer_of(site, closure, draft_id) is not None:
        raise IssuerError("draft-decided", "it was paid: approve it again")
    return await _DRAFTS.reject(site.head, draft_id, officer=officer, now_ms=now_ms)


async def learn_late(site: Site, draft_id: bytes, *, now_ms: int) -> None:
    """Let the head know of a payment that was made where the journal lives.

    Raises: IssuerError `draft-unknown`.
    """
    draft = await _DRAFTS.find(site.head, draft_id)
    if draft.state is not LateState.DRAFT:
        return
    closure = await find_closure(site.head, draft.closure_id)
    decided_by = await _payer_of(site, closure, draft_id)
    officer = None if decided_by is None else await find_officer(site.head, decided_by)
    if officer is not None:
        await _approve(site.head, closure, draft, officer=officer, now_ms=now_ms)


async def pay_again(site: Site, desk: Desk, closure: Closure, *, now_ms: int) -> None:
    """Pay what was approved where the journal lives, if that was restored to before it was paid.

    What came to the head by the first time is the same message. Raises: as `draft_late`.
    """
    for draft in await _DRAFTS.where(
        site.head, "closure_id = $1 AND state = 'approved' ORDER BY decided_ms", closure.closure_id
    ):
        if await _payer_of(site, closure, draft.draft_id) is None:
            name = await officer_name(site.head, draft.decided_by)
            await _pay(site, desk, closure, draft, name=name, now_ms=now_ms)


async def approved_at(connection: Connection, closures: Sequence[bytes]) -> dict[bytes, bytes]:
    """Drafts of these closures that were approved, and the closure of each."""
    drafts = await _DRAFTS.where(
        connection, "closure_id = ANY ($1) AND state = 'approved'", list(closures)
    )
    return {draft.draft_id: draft.closure_id for draft in drafts}


async def paid_among(connection: Connection, drafts: Sequence[bytes]) -> set[bytes]:
    """Those that were paid. `connection`: where the journals live."""
    rows = await connection.fetch(
        "SELECT draft_id FROM late_payment WHERE draft_id = ANY ($1)", list(drafts)
    )
    return {row["draft_id"] for row in rows}


async def list_late(connection: Connection, closure_id: bytes, *, first: int) -> list[LatePayment]:
    """A page of the drafts of a closure and what became of them, the newest first."""
    return await _DRAFTS.newest(connection, "closure_id = $1", closure_id, first=first)


async def open_late(connection: Connection) -> list[LatePayment]:
    """Those that nobody is known to have decided about."""
    return await _DRAFTS.newest(connection, "state = 'draft'", limit=OPEN_MAX)


async def late_closure(connection: Connection, draft_id: bytes) -> Closure:
    """The closure that a draft is of. Raises: IssuerError `draft-unknown`."""
    draft = await _DRAFTS.find(connection, draft_id)
    return await find_closure(connection, draft.closure_id)


async def _payer_of(site: Site, closure: Closure, draft_id: bytes) -> str | None:
    """The name of the officer by whose approval a draft was paid where the journal lives.

    It waits for an approval that is on its way there.
    """
    await locked_epoch(site, closure)
    found: str | None = await site.home.fetchval(
        "SELECT decided_by FROM late_payment WHERE draft_id = $1", draft_id
    )
    return found


async def _payable(
    site: Site, desk: Desk, closure: Closure, leaf: bytes, bear_max: int
) -> tuple[str, Late, Order]:
    """The currency, a late receipt that may be paid, and its order. Raises: IssuerError."""
    reviewed = await review(site, desk, closure)
    late = await reviewed.one(leaf)
    order = late.require_payable()
    reviewed.require_bounded(order.amount_minor, bear_max)
    return reviewed.currency, late, order


async def _pay(
    site: Site, desk: Desk, closure: Closure, draft: LatePayment, *, name: str, now_ms: int
) -> None:
    """Out of the loss account where the journal lives, into the payee's online wallet.

    `name`: of the officer who approved it.
    """
    currency, late, order = await _payable(site, desk, closure, draft.leaf, draft.bear_max)
    text, bearing = wallet_text(WalletId(order.payee)), loss(currency)
    # Wherever the journal lives: who cannot be paid is found out before anything is done.
    await redeem_accounts(site.head, [text], currency=currency, now_ms=now_ms)
    online = await online_accounts(
        *(site.home, [text], closure.journal, site.here), currency=currency, now_ms=now_ms
    )
    numbers = await ensure_accounts(site.home, [bearing])
    place = of_entry(closure.journal, epoch=closure.epoch, index=late.judged.index)
    identity, batch = derived("late-payment", place, draft.leaf), Batch()
    batch.add(
        identity,
        debit=numbers[bearing.name],
        credit=online[text],
        amount=order.amount_minor,
        kind=TransferKind.COMPENSATION,
        reference=order.reference,
    )
    await batch.post(site.home, currency=currency, now_ms=now_ms)
    if not site.here.is_head:
        message = PaidOnline(
            transfer=identity,
            journal=closure.journal,
            wallet=text,
            amount=order.amount_minor,
            currency=currency,
            transfer_kind=TransferKind.COMPENSATION,
            reference=order.reference,
        )
        told = [Addressed(target=HEAD, message=message)]
        await send(site.home, site.here.number, told, now_ms=now_ms)
    await site.home.execute(
        "INSERT INTO late_payment VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        *(*closure.place, late.judged.index, draft.leaf, late.entry, order.amount_minor),
        *(draft.draft_id, name, now_ms),
    )


async def _approve(
    connection: Connection, closure: Closure, draft: LatePayment, *, officer: Officer, now_ms: int
) -> LatePayment:
    """What is done at the head once it is paid."""
    body = {"journal": journal_text(closure.journal), "epoch": closure.epoch}
    body |= {"index": draft.index, "amount": draft.amount}
    await tell(connection, "payment.paid-late", body, now_ms=now_ms)
    return await _DRAFTS.approve(connection, draft, officer=officer, now_ms=now_ms)
