"""Accepting an order: the numbered steps of protocol.md, "Accepting an order"."""

from __future__ import annotations

from wallet.protocol import limits
from wallet.protocol.codec import encode
from wallet.protocol.context import Context, Refundable
from wallet.protocol.entry import Clock, EntryKind, Payment, encode_payment_body
from wallet.protocol.ids import wallet_text
from wallet.protocol.keys import PublicKey
from wallet.protocol.limits import Bounds
from wallet.protocol.lists import ListId
from wallet.protocol.messages import Order, OrderKind, Request
from wallet.protocol.refusals import Code, ProtocolError, Refusal, refuse
from wallet.protocol.state import HOUR_MS, NOBODY, Decision, State, Wallet

FUTURE_MS = 5 * 60 * 1000
# An enum's member looked up by name costs ten times what a global does, and these are asked for at
# every payment.
_PAY, _REDEEM = int(OrderKind.PAY), int(OrderKind.REDEEM)
_SURE = int(Clock.SURE)
_WALLETS, _SANCTIONED, _FROZEN = map(int, (ListId.WALLETS, ListId.SANCTIONED, ListId.FROZEN))
_PAID, _LEFT, _DEFUNDED = map(int, (EntryKind.PAY, EntryKind.TRANSFER_OUT, EntryKind.DEFUND))


def decide_payment(
    state: State, payment: Payment, context: Context, *, now_ms: int, clock: int
) -> Decision | Refusal:
    """What an order does, or why it is refused. Steps 2 to 10; step 1 is `decode_order`."""
    order = payment.order
    refused = _check_place(state, order)
    if refused is not None:
        return refused
    payer = state.wallets.get(order.payer)
    if payer is None or payer.key is None:
        return refuse(Code.UNKNOWN_WALLET, "the payer is not enrolled here")
    here = order.payee_journal == state.journal
    refused = _check_parties(
        state, order, payer, payer.key, here=here, now_ms=now_ms
    ) or _check_order(order, payer, payer.key, context, now_ms=now_ms, clock=clock)
    if refused is not None:
        return refused
    payee = state.wallets[order.payee] if here and order.payee != order.payer else None
    refused = _check_request(state, payment, payee, context, now_ms=now_ms)
    if refused is not None:
        return refused
    bounds = limits.bounds_of(state, payer, now_ms=now_ms, clock=clock)
    refunded = _check_refund(state, order, context)
    if isinstance(refunded, Refusal):
        return refunded
    # 8. Balance.
    if payer.settled + payer.unsettled < order.amount_minor:
        return refuse(Code.INSUFFICIENT_FUNDS, left=payer.settled + payer.unsettled)
    refused = _check_limits(
        state, order, payer, payee, bounds, refunded, now_ms=now_ms, clock=clock
    ) or check_lists(state, order, leaves=not here, now_ms=now_ms)
    if refused is not None:
        return refused
    return _decision(state, payment, payer, payee, bounds, refunded, now_ms=now_ms)


def _check_place(state: State, order: Order) -> Refusal | None:
    # 1. Currency. 2. Journal and epoch.
    if order.currency != state.currency:
        return refuse(Code.WRONG_CURRENCY, f"this journal keeps {state.currency}")
    if order.payer_journal != state.journal or order.payer_epoch != state.epoch:
        return refuse(Code.WRONG_JOURNAL)
    return None


def _check_parties(
    state: State, order: Order, payer: Wallet, key: PublicKey, *, here: bool, now_ms: int
) -> Refusal | None:
    # 1. A kid or alg that is not the enrolled key's, which step 2 alone can find.
    if order.signed.key_id != key.key_id or order.signed.algorithm != key.algorithm:
        return refuse(Code.BAD_SIGNATURE, "another key or algorithm than the enrolled one")
    # 2. Enrolled, not frozen, not expired.
    refused = check_wallet(state, payer, now_ms=now_ms)
    if refused is not None or not here or order.payee == order.payer:
        return refused
    payee = state.wallets.get(order.payee)
    if payee is None or payee.key is None:
        return refuse(Code.UNKNOWN_WALLET, "the payee is not enrolled here")
    return check_wallet(state, payee, now_ms=now_ms)


def check_wallet(state: State, wallet: Wallet, *, now_ms: int) -> Refusal | None:
    """Not frozen, enrolment not expired."""
    frozen = state.lists.get(_FROZEN)
    if frozen is not None and wallet.wallet in frozen.items:
        return refuse(Code.WALLET_FROZEN, wallet_text(wallet.wallet))
    if now_ms > wallet.enrolment_expires_ms:
        return refuse(Code.ENROLMENT_EXPIRED, wallet_text(wallet.wallet))
    return None


def _check_order(
    order: Order, payer: Wallet, key: PublicKey, context: Context, *, now_ms: int, clock: int
) -> Refusal | None:
    # 3. Sequence. A known order gets its receipt again before it comes here.
    if order.sequence != payer.next_sequence:
        used = order.sequence < payer.next_sequence
        code = Code.SEQUENCE_USED if used else Code.SEQUENCE_GAP
        return refuse(code, f"the next sequence is {payer.next_sequence}")
    # 4. Times.
    if now_ms > order.expires_ms:
        return refuse(Code.ORDER_EXPIRED)
    if order.created_ms > now_ms + FUTURE_MS and clock == _SURE:
        return refuse(Code.ORDER_FROM_THE_FUTURE)
    # 5. The signature.
    try:
        context.check_signature(key, order.signed)
    except ProtocolError as error:
        return error.refusal()
    return None


def _check_request(
    state: State, payment: Payment, payee: Wallet | None, context: Context, *, now_ms: int
) -> Refusal | None:
    # 6. The request, if named, came with the order and asks for just this.
    order, request = payment.order, payment.request
    if order.request is None:
        return None if request is None else refuse(Code.REQUEST_MISMATCH, "none is named")
    # The entry of a redeem has no room for a request.
    if request is None or order.kind == _REDEEM:
        return refuse(Code.UNKNOWN_REQUEST, "the request did not come with the order")
    refused = check_same(order, request)
    if refused is None and now_ms > request.expires_ms:
        refused = refuse(Code.REQUEST_EXPIRED)
    if refused is not None or payee is None:
        return refused
    return check_request_here(state, request, payee, context)


def check_same(order: Order, request: Request) -> Refusal | None:
    """That the request is the one which the order names, and asks for just this."""
    asked = (
        request.identity,
        request.payee,
        request.payee_journal,
        request.amount_minor,
        request.currency,
    )
    given = (order.request, order.payee, order.payee_journal, order.amount_minor, order.currency)
    return None if asked == given else refuse(Code.REQUEST_MISMATCH)


def check_request_here(
    state: State, request: Request, payee: Wallet, context: Context
) -> Refusal | None:
    """Where the payee is enrolled: the request's signature, and that it is unpaid and not void."""
    if payee.key is None:
        return refuse(Code.UNKNOWN_WALLET, "the payee is not enrolled here")
    try:
        context.check_signature(payee.key, request.signed)
    except ProtocolError as error:
        return error.refusal()
    known = state.requests.get(request.identity)
    if known is None:
        # One so old that it may have been paid and forgotten counts as expired.
        forgotten = request.expires_ms < state.requests_from_ms
        return refuse(Code.REQUEST_EXPIRED) if forgotten else None
    return refuse(Code.REQUEST_VOID if known[0] == "void" else Code.REQUEST_PAID)


def _check_refund(state: State, order: Order, context: Context) -> Refusal | Refundable | None:
    # 7. The refunded entry brought value from this order's payee to its payer.
    if order.refunded is None:
        return None
    payment = context.refundable(order.refunded)
    parties = None if payment is None else (payment.payer, payment.payee)
    if payment is None or parties != (order.payee, order.payer):
        return refuse(Code.REFUND_UNKNOWN)
    left = payment.amount_minor - state.refunds.get(order.refunded, 0)
    if order.amount_minor > left:
        return refuse(Code.REFUND_ABOVE_PAYMENT, limit=payment.amount_minor, left=left)
    return payment


def _check_limits(
    state: State,
    order: Order,
    payer: Wallet,
    payee: Wallet | None,
    bounds: Bounds,
    refunded: Refundable | None,
    *,
    now_ms: int,
    clock: int,
) -> Refusal | None:
    # 9. Limits, all of them; the first one broken decides: the payer's, the payee's, the journal's.
    amount = order.amount_minor
    refused = limits.check_payer(
        state, payer, bounds, amount=amount, authorisation=order.authorisation, now_ms=now_ms
    )
    if refused is None and bounds.by_pair and order.payee != order.payer:
        refused = limits.check_pair(
            state,
            bounds,
            payer=order.payer,
            payee=order.payee,
            amount=amount,
            now_ms=now_ms,
        )
    if refused is None and refunded is not None:
        refused = limits.check_refund_age(bounds, paid_ms=refunded.time_ms, now_ms=now_ms)
    if refused is None and order.kind == _PAY:
        refused = limits.check_category(state, bounds, order.category)
    if refused is None and payee is not None:
        incoming = limits.bounds_of(state, payee, now_ms=now_ms, clock=clock)
        refused = limits.check_payee(payee, incoming, amount=amount)
    return refused or limits.check_journal(state, now_ms=now_ms, arriving=0)


def check_lists(state: State, order: Order, *, leaves: bool, now_ms: int) -> Refusal | None:
    """Step 10: neither party revoked or sanctioned; no value across journals on stale lists."""
    if state.revoked_here:
        return refuse(Code.FROZEN_BY_ISSUER, "this journal and epoch are revoked")
    revoked = state.lists.get(_WALLETS)
    if (
        revoked is not None
        and revoked.items
        and not revoked.items.isdisjoint((order.payer, order.payee))
    ):
        return refuse(Code.WALLET_REVOKED)
    named = state.lists.get(_SANCTIONED)
    if named is not None and named.items:
        parties = (wallet_text(order.payer), wallet_text(order.payee))
        if not named.items.isdisjoint(parties):
            return refuse(Code.SANCTIONED)
    if leaves and now_ms > state.lists_hard_from_ms:
        return limits.lists_stale(state, now_ms=now_ms)
    return None


def _decision(
    state: State,
    payment: Payment,
    payer: Wallet,
    payee: Wallet | None,
    bounds: Bounds,
    refunded: Refundable | None,
    *,
    now_ms: int,
) -> Decision:
    amount = payment.order.amount_minor
    soft = limits.soft_signals(state, payer, bounds, amount=amount, now_ms=now_ms)
    # Paying takes the settled part first.
    settled_part = min(payer.settled, amount)
    unsettled_part = amount - settled_part
    hop = payer.hop if unsettled_part else 0
    spent = _spend(payer, settled_part, unsettled_part, hour=now_ms // HOUR_MS)
    wallets: tuple[Wallet, ...] = (spent,)
    if payee is not None:
        wallets = (spent, receive(payee, settled_part, unsettled_part, hop=hop))
    kind, body = _body(state, payment, hop)
    return Decision(
        kind=kind,
        body=body,
        hop=hop if kind != _DEFUNDED else None,
        wallets=wallets,
        movement=(
            payer.number,
            NOBODY if payee is None else payee.number,
            amount,
            0 if payee is None else unsettled_part,
        ),
        tables=_facts(state, payment, bounds, payee=payee, refunded=refunded, now_ms=now_ms),
        unsettled_change=0 if payee is not None else -unsettled_part,
        soft=soft,
    )


def _spend(payer: Wallet, settled_part: int, unsettled_part: int, *, hour: int) -> Wallet:
    amount = settled_part + unsettled_part
    spent = payer.__copy__()
    spent.settled -= settled_part
    spent.unsettled -= unsettled_part
    if spent.unsettled == 0:
        spent.hop = 0
    spent.next_sequence += 1
    spent.out_amount_since += amount
    spent.out_count_since += 1
    spent.hours = limits.spent_hours(payer.hours, hour, amount)
    return spent


def receive(payee: Wallet, settled_part: int, unsettled_part: int, *, hop: int) -> Wallet:
    """The payee with what arrived; the hop stays the highest of its unsettled value."""
    richer = payee.__copy__()
    richer.settled += settled_part
    richer.unsettled += unsettled_part
    richer.in_amount_since += settled_part + unsettled_part
    if unsettled_part and hop > richer.hop:
        richer.hop = hop
    return richer


def _body(state: State, payment: Payment, hop: int) -> tuple[int, bytes]:
    order = payment.order
    if order.kind == _REDEEM:
        return _DEFUNDED, encode(order.signed.raw)
    if order.payee_journal == state.journal:
        return _PAID, encode_payment_body(payment, hop=None)
    return _LEFT, encode_payment_body(payment, hop=hop)


def _facts(
    state: State,
    payment: Payment,
    bounds: Bounds,
    *,
    payee: Wallet | None,
    refunded: Refundable | None,
    now_ms: int,
) -> tuple[tuple[str, object, object], ...]:
    order, request = payment.order, payment.request
    facts: list[tuple[str, object, object]] = []
    if refunded is not None:
        done = state.refunds.get(order.refunded or b"", 0)
        facts.append(("refunds", order.refunded, done + order.amount_minor))
    if request is not None and payee is not None:
        facts.append(("requests", request.identity, ("paid", request.expires_ms)))
    if bounds.by_pair and order.payee != order.payer:
        pair = (order.payer, order.payee)
        hours = state.pairs.get(pair, ())
        facts.append(
            ("pairs", pair, limits.spent_hours(hours, now_ms // HOUR_MS, order.amount_minor))
        )
    return tuple(facts)
