"""Payments, refunds and notes."""

from __future__ import annotations

import asyncio

from aiohttp import web

from edge.collecting import keep_refused
from edge.gateway import Opened
from edge.http.answers import accepted, batch_item, payment_answer
from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context, note_item
from edge.http.idempotency import HEADER, once
from edge.http.parameters import hash_from, hash_of, journal_from, reference_of, wallet_from
from edge.http.problem import HttpCode, problem
from edge.http.types import (
    BatchAnswer,
    BatchBody,
    HostedPayment,
    HostedRefund,
    NoteBody,
    Offline,
    OrderItem,
    PaymentBody,
    PaymentsAnswer,
    RefundBody,
)
from wallet.journal import Receipted
from wallet.protocol.messages import OrderKind, decode_order, decode_request
from wallet.protocol.refusals import Code, ProtocolError, Refusal

PAYMENT = BodyType(PaymentBody)
BATCH = BodyType(BatchBody)
REFUND = BodyType(RefundBody)
NOTE = BodyType(NoteBody)
REFERENCES_MAX = 100


async def post_payment(context: Context, request: web.Request) -> web.Response:
    """Take a payment: an order signed by the payer's device, or one from a hosted wallet."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = PAYMENT.decode(raw, request)
    _check_path(body.offline)
    opened = context.opened
    order = body.order
    if order is not None and HEADER not in request.headers:
        asked = None if body.request is None else body.request.raw
        return await _answer(context, request, await opened.journal.pay(order.raw, asked))

    async def pay() -> web.Response:
        if body.hosted is not None:
            outcome = await _pay_hosted(opened, body.hosted)
        else:
            asked = None if body.request is None else body.request.raw
            outcome = await opened.journal.pay(b"" if order is None else order.raw, asked)
        return await _answer(context, request, outcome)

    return await once(context, request, raw, pay, needed=body.hosted is not None)


def _check_path(offline: Offline) -> None:
    """The path is chosen before the customer presents; this gateway has the offline one alone."""
    if offline == "require_online":
        raise problem(HttpCode.ONLINE_UNAVAILABLE, "this gateway takes payments offline only")


async def _answer(
    context: Context, request: web.Request, outcome: Receipted | Refusal
) -> web.Response:
    made = accepted(outcome)
    context.metrics.payments += 1
    status = 200 if made.repeated else 201
    return answer(request, await payment_answer(context.opened, made), status=status)


async def _pay_hosted(opened: Opened, hosted: HostedPayment) -> Receipted | Refusal:
    journal = opened.journal.state
    asked = None
    if hosted.request is not None:
        try:
            asked = decode_request(hosted.request.raw)
        except ProtocolError as error:
            return error.refusal()
    payee = wallet_from(hosted.payee) if hosted.payee else None
    amount, currency = hosted.amount, hosted.currency
    payee_journal = journal_from(hosted.journal) if hosted.journal else None
    if asked is not None:
        payee, amount = payee or asked.payee, amount or asked.amount_minor
        currency, payee_journal = currency or asked.currency, payee_journal or asked.payee_journal
    if payee is None or amount is None or currency is None:
        raise problem(HttpCode.BODY_INVALID, "`payee`, `amount` and `currency`, or a `request`")
    if currency != journal.currency:
        return Refusal(code=Code.WRONG_CURRENCY, detail=f"this journal keeps {journal.currency}")
    return await opened.hosted.pay(
        wallet=wallet_from(hosted.wallet),
        pin=hosted.pin,
        payee=payee,
        payee_journal=payee_journal or journal.journal,
        amount_minor=amount,
        reference=hosted.reference,
        request=None if asked is None else asked.signed.raw,
        category=hosted.category,
    )


async def post_batch(context: Context, request: web.Request) -> web.Response:
    """Take up to 1,000 orders, with an answer for each, in their order."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = BATCH.decode(raw, request)
    _check_path(body.offline)

    async def pay() -> web.Response:
        opened = context.opened
        outcomes = await asyncio.gather(*[_pay_item(opened, item) for item in body.orders])
        context.metrics.payments += sum(isinstance(made, Receipted) for made in outcomes)
        answers = [await batch_item(opened, outcome) for outcome in outcomes]
        for number, item in enumerate(answers):
            if item.payment is None:
                note_item(context, request, "post_batch", item=number, code=item.code)
        return answer(request, BatchAnswer(answers=answers))

    return await once(context, request, raw, pay)


async def _pay_item(opened: Opened, item: OrderItem) -> Receipted | Refusal:
    asked = None if item.request is None else item.request.raw
    return await opened.journal.pay(item.order.raw, asked)


async def get_payment(context: Context, request: web.Request) -> web.Response:
    """A payment as it stands now, its receipt again."""
    opened = context.opened
    index = await opened.journal.find(hash_of(request, "payment"))
    if index is None:
        raise problem(HttpCode.PAYMENT_UNKNOWN)
    made = await opened.journal.receipted(index)
    return answer(request, await payment_answer(opened, made))


async def get_payments(context: Context, request: web.Request) -> web.Response:
    """Payments with a reference, oldest first: how a till finds out what became of one."""
    opened = context.opened
    found = await opened.journal.find_reference(reference_of(request))
    made = [await opened.journal.receipted(index) for index in found[:REFERENCES_MAX]]
    payments = [await payment_answer(opened, item) for item in made]
    return answer(request, PaymentsAnswer(payments=payments))


async def post_refund(context: Context, request: web.Request) -> web.Response:
    """Give back a payment, or a part of it."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = REFUND.decode(raw, request)
    opened = context.opened

    async def refund() -> web.Response:
        if body.hosted is not None:
            return await _answer(context, request, await _refund_hosted(opened, body.hosted))
        order = b"" if body.order is None else body.order.raw
        if decode_order(order).kind != OrderKind.REFUND:
            raise problem(HttpCode.BODY_INVALID, "the order is no refund")
        return await _answer(context, request, await opened.journal.pay(order))

    return await once(context, request, raw, refund, needed=body.hosted is not None)


async def _refund_hosted(opened: Opened, hosted: HostedRefund) -> Receipted | Refusal:
    return await opened.hosted.refund(
        wallet=wallet_from(hosted.wallet),
        pin=hosted.pin,
        payment=hash_from(hosted.payment),
        amount_minor=hosted.amount,
        reference=hosted.reference,
    )


async def post_note(context: Context, request: web.Request) -> web.Response:
    """Redeem a note: value that another journal sent to a wallet here."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = NOTE.decode(raw, request)

    async def redeem() -> web.Response:
        opened, entry, receipt = context.opened, body.entry.raw, body.receipt.raw
        outcome = await opened.journal.redeem(entry, receipt)
        if isinstance(outcome, Refusal):
            await keep_refused(opened, entry, receipt, code=outcome.code)
        return await _answer(context, request, outcome)

    return await once(context, request, raw, redeem)
