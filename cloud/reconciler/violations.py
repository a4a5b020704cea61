"""An entry that the rules refuse: its verdict, its evidence, and who is paid all the same."""

from __future__ import annotations

from cloud.database import Connection
from cloud.ledger.accounts import ensure_accounts, loss
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler.evidence import Evidence
from cloud.reconciler.postings import Batch, online_accounts
from cloud.reconciler.values import Segment, Violation
from cloud.shards.homes import Here
from cloud.shards.messages import HEAD, Addressed, PaidOnline
from wallet.protocol import limits
from wallet.protocol.entry import EntryKind, Payment
from wallet.protocol.ids import wallet_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.lists import ListId
from wallet.protocol.messages import Order
from wallet.protocol.payments import check_wallet
from wallet.protocol.policy import Limit
from wallet.protocol.refusals import Code
from wallet.protocol.state import NEVER, State

_KINDS = {
    Code.LISTS_STALE: "stale-lists",
    Code.POLICY_EXPIRED: "stale-lists",
    Code.NOTE_REDEEMED: "note-replayed",
    Code.ORDER_FROM_THE_FUTURE: "time-travel",
}


def verdicts(segment: Segment, violation: Violation) -> dict[int, tuple[VerdictState, str]]:
    """The violation is rejected; about what follows it in the segment a person decides."""
    after = {
        index: (VerdictState.HELD, str(Code.FROZEN_BY_ISSUER))
        for index in range(violation.index + 1, segment.size)
    }
    return {violation.index: (VerdictState.REJECTED, violation.code), **after}


def evidence_of(state: State, segment: Segment, violation: Violation) -> Evidence:
    """What is kept of it: a proof is made of this and of the entries before, when it is wanted.

    `state`: after the last entry that was accepted.
    """
    entry = violation.entry
    kind = _KINDS.get(Code(violation.code), "violation")
    if entry is not None and entry.index == violation.index and entry.time_ms < state.time_ms:
        kind = "time-travel"
    raw = segment.raws[violation.index - segment.first]
    return Evidence(
        kind=kind,
        code=violation.code,
        index=violation.index,
        parts=(raw, segment.checkpoint_raw),
    )


def owed(state: State, violation: Violation) -> Order | None:
    """The order of a violating pay whose payee kept to the policy; None where nobody is owed.

    The payee is enrolled here, no other than the payer, on no list, within what the policy lets a
    wallet receive and anybody pay; a request of the payee that is named was open.
    """
    entry = violation.entry
    if entry is None or entry.kind != EntryKind.PAY or not isinstance(entry.body, Payment):
        return None
    order, request = entry.body.order, entry.body.request
    payee = state.wallets.get(order.payee)
    if payee is None or payee.key is None or order.payee == order.payer:
        return None
    place = (order.payer_journal, order.payer_epoch, order.payee_journal, order.currency)
    if place != (state.journal, state.epoch, state.journal, state.currency):
        return None
    if order.amount_minor > payment_max(state):
        return None
    if request is not None and request.identity in state.requests:
        return None
    now_ms = max(entry.time_ms, state.time_ms)
    bounds = limits.bounds_of(state, payee, now_ms=now_ms, clock=entry.clock)
    refused = check_wallet(state, payee, now_ms=now_ms) or limits.check_payee(
        payee, bounds, amount=order.amount_minor
    )
    return None if refused is not None or is_listed(state, order.payee) else order


def payment_max(state: State) -> int:
    """The most that any tier may pay: of the payer's, the payee need not know."""
    tiers = state.policy_held().tiers.values()
    return max([tier.get(Limit.PAYMENT_MAX, NEVER) for tier in tiers], default=NEVER)


def is_listed(state: State, wallet: bytes) -> bool:
    """Whether a wallet is revoked or sanctioned, by the lists that its journal holds."""
    revoked, named = (state.lists.get(each) for each in (ListId.WALLETS, ListId.SANCTIONED))
    return (revoked is not None and wallet in revoked.items) or (
        named is not None and wallet_text(wallet) in named.items
    )


async def compensate(
    connection: Connection,
    state: State,
    segment: Segment,
    violation: Violation,
    batch: Batch,
    here: Here,
    *,
    now_ms: int,
) -> list[Addressed]:
    """A payee who kept to the policy is paid from the loss account; supply stays what it was.

    A note is redeemed by its own journal, and borne there. Gives what the head has to know.
    """
    order = owed(state, violation)
    if order is None or await _was_paid(connection, segment, order):
        return []
    text, journal, currency = wallet_text(order.payee), segment.journal, segment.currency
    bearing = loss(currency)
    online = await online_accounts(
        connection, [text], journal, here, currency=currency, now_ms=now_ms
    )
    numbers = await ensure_accounts(connection, [bearing])
    identity = derived(
        "compensation", of_entry(journal, epoch=segment.epoch, index=violation.index)
    )
    batch.add(
        identity,
        debit=numbers[bearing.name],
        credit=online[text],
        amount=order.amount_minor,
        kind=TransferKind.COMPENSATION,
        reference=order.reference,
    )
    message = PaidOnline(
        transfer=identity,
        journal=journal,
        wallet=text,
        amount=order.amount_minor,
        currency=currency,
        transfer_kind=TransferKind.COMPENSATION,
        reference=order.reference,
    )
    return [] if here.is_head else [Addressed(target=HEAD, message=message)]


async def _was_paid(connection: Connection, segment: Segment, order: Order) -> bool:
    """Whether the journal told of this very order before: then its payee has it already."""
    for entry in segment.entries:
        if isinstance(entry.body, Payment) and entry.body.order.identity == order.identity:
            return True
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM journal_segment, LATERAL unnest(entries) AS part (entry)"
        " WHERE epoch_id = $1 AND first < $2 AND position($3::bytea IN entry) > 0)",
        *(segment.epoch_id, segment.first, order.signed.payload),
    )
    return found
