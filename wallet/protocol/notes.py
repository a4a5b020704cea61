"""Redeeming a note: `transfer-in`, protocol.md, "Moving between journals"."""

from __future__ import annotations

from wallet.protocol import limits
from wallet.protocol.codec import encode
from wallet.protocol.context import Context, Source
from wallet.protocol.entry import EntryKind, Note
from wallet.protocol.limits import Bounds
from wallet.protocol.payments import (
    check_lists,
    check_request_here,
    check_same,
    check_wallet,
    receive,
)
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code, ProtocolError, Refusal, refuse
from wallet.protocol.state import NEVER, NOBODY, Decision, State, Wallet


def decide_note(
    state: State, note: Note, context: Context, *, now_ms: int, clock: int
) -> Decision | Refusal:
    """What a note brings, or why it is refused."""
    grace_s = state.journal_limit(JournalLimit.CERTIFICATE_GRACE_S)
    try:
        source = context.check_note(note, lists=state.lists, certificate_grace_s=grace_s)
    except ProtocolError as error:
        return error.refusal()
    payee = state.wallets.get(note.order.payee)
    refused = _check_note(state, note, source, payee, grace_s=grace_s, now_ms=now_ms)
    if refused is not None or payee is None:
        return refused or refuse(Code.UNKNOWN_WALLET)
    bounds = limits.bounds_of(state, payee, now_ms=now_ms, clock=clock)
    refused = (
        check_wallet(state, payee, now_ms=now_ms)
        or _check_request(state, note, payee, context)
        or _check_limits(state, note, payee, bounds, now_ms=now_ms)
        or check_lists(state, note.order, leaves=True, now_ms=now_ms)
    )
    if refused is not None:
        return refused
    return _decision(state, note, source, payee, bounds, now_ms=now_ms)


def _check_note(
    state: State,
    note: Note,
    source: Source,
    payee: Wallet | None,
    *,
    grace_s: int | None,
    now_ms: int,
) -> Refusal | None:
    order = note.order
    if source.journal == state.journal or source.journal != order.payer_journal:
        return refuse(Code.NOTE_NOT_FOR_US, "a note comes from the payer's other journal")
    if source.epoch != order.payer_epoch:
        return refuse(Code.NOTE_NOT_FOR_US, "its order is of another epoch")
    if order.payee_journal != state.journal:
        return refuse(Code.NOTE_NOT_FOR_US, "it names another journal")
    if order.currency != state.currency:
        return refuse(Code.WRONG_CURRENCY)
    if payee is None or payee.key is None:
        return refuse(Code.UNKNOWN_WALLET, "the payee is not enrolled here")
    if (source.journal, source.epoch, source.index) in state.redeemed:
        return refuse(Code.NOTE_REDEEMED)
    if now_ms > order.expires_ms:
        return refuse(Code.NOTE_EXPIRED, "it goes back to the payer at the issuer")
    if grace_s is not None and now_ms > (source.not_after_s + grace_s) * 1000:
        return refuse(Code.CERTIFICATE_INVALID, "the journal's certificate has expired")
    return None


def _check_request(state: State, note: Note, payee: Wallet, context: Context) -> Refusal | None:
    """The request that the note pays: unpaid, not void, and not so old that we forgot it."""
    request = note.request
    if request is None:
        missing = note.order.request is not None
        return refuse(Code.UNKNOWN_REQUEST) if missing else None
    return check_same(note.order, request) or check_request_here(state, request, payee, context)


def _check_limits(
    state: State, note: Note, payee: Wallet, bounds: Bounds, *, now_ms: int
) -> Refusal | None:
    if note.hop + 1 > bounds.hops_max:
        return refuse(Code.HOPS_ABOVE_LIMIT, limit=bounds.hops_max)
    amount = note.order.amount_minor
    return limits.check_payee(payee, bounds, amount=amount) or limits.check_journal(
        state, now_ms=now_ms, arriving=amount
    )


def _decision(
    state: State, note: Note, source: Source, payee: Wallet, bounds: Bounds, *, now_ms: int
) -> Decision:
    order = note.order
    grace_s = state.journal_limit(JournalLimit.NOTE_GRACE_S)
    until = NEVER if grace_s is None else order.expires_ms + grace_s * 1000
    key = (source.journal, source.epoch, source.index)
    facts: list[tuple[str, object, object]] = [("redeemed", key, until)]
    if note.request is not None:
        facts.append(("requests", note.request.identity, ("paid", note.request.expires_ms)))
    return Decision(
        kind=EntryKind.TRANSFER_IN,
        body=encode([note.entry, note.receipt]),
        wallets=(receive(payee, 0, order.amount_minor, hop=note.hop + 1),),
        movement=(NOBODY, payee.number, order.amount_minor, order.amount_minor),
        tables=tuple(facts),
        unsettled_change=order.amount_minor,
        soft=limits.arrival_signals(state, bounds, arriving=order.amount_minor, now_ms=now_ms),
    )
