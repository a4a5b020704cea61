"""`pay`, `refund`, `request`, `verify`, `load`: money."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.commands.common import FAILED, WELL, Subparsers, add_json, print_json
from edge.errors import ArgumentsWrong, FileUnreadable, OrderRefused
from edge.http.octets import Octets
from edge.http.types import (
    HostedPayment,
    HostedRefund,
    HostedRequest,
    PaymentAnswer,
    PaymentBody,
    RefundBody,
    RequestAnswer,
    RequestBody,
    WalletAnswer,
)
from edge.pos.arguments import PosArguments, decimal, now_ms
from edge.pos.client import Client
from edge.pos.load import send_all
from edge.pos.orders import Row, Signer, count_rows, parse_amount, read_rows
from edge.pos.purse import Purse
from edge.pos.receipts import read_receipts, read_root, save_receipt, verify
from edge.pos.terminal import Terminal
from edge.qr import PREFIX, from_qr
from edge.secret_input import ask, read_secret_file
from wallet.protocol.checkpoint import ReceiptError
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import parse_journal
from wallet.protocol.messages import Request, decode_order, decode_request
from wallet.protocol.refusals import ProtocolError

CONNECTIONS_MAX = 512
NONCE_BYTES = 16


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    pay = commands.add_parser(
        "pay",
        help="pay once, or every row of a file",
        description="Rows: CSV with the columns from,to,amount[,journal,reference,category] or "
        "NDJSON with the same names; `-` is the standard input.",
    )
    pay.add_argument("--from", dest="payer", metavar="NAME", help="a wallet of this folder")
    pay.add_argument("--hosted", metavar="WALLET", help="a wallet that the gateway hosts (PIN)")
    pay.add_argument("--pin-file", type=Path, metavar="FILE", help="else the PIN is asked for")
    pay.add_argument("--to", dest="payee", metavar="WALLET")
    pay.add_argument("--amount", type=decimal, metavar="DECIMAL", help="such as 12.34")
    pay.add_argument("--journal", metavar="JOURNAL", help="the payee's, when it is another one")
    pay.add_argument("--reference", metavar="TEXT")
    pay.add_argument("--category", metavar="MCC", help="merchant category of four digits")
    pay.add_argument("--request", metavar="QR", help="the text of a request's QR code")
    pay.add_argument("--file", type=Path, metavar="FILE", help="CSV or NDJSON")
    pay.add_argument("--receipts", type=Path, metavar="DIR", help="keep the receipts there")
    add_json(pay)
    pay.set_defaults(run=_pay)

    refund = commands.add_parser("refund", help="give a payment back, or a part of it")
    refund.add_argument("payment", metavar="PAYMENT", help="its identifier")
    refund.add_argument("--from", dest="payer", metavar="NAME", help="the merchant's wallet here")
    refund.add_argument("--hosted", metavar="WALLET", help="the merchant's hosted wallet (PIN)")
    refund.add_argument("--pin-file", type=Path, metavar="FILE")
    refund.add_argument("--amount", type=decimal, metavar="DECIMAL", help="else all of it")
    refund.add_argument("--receipts", type=Path, metavar="DIR")
    add_json(refund)
    refund.set_defaults(run=_refund)

    request = commands.add_parser("request", help="ask for money: prints the QR code's text")
    request.add_argument("--wallet", required=True, metavar="NAME", help="here, or hosted")
    request.add_argument("--amount", type=decimal, required=True, metavar="DECIMAL")
    request.add_argument("--reference", metavar="TEXT")
    request.add_argument("--expires-s", type=int, default=900, metavar="N")
    add_json(request)
    request.set_defaults(run=_request)

    check = commands.add_parser("verify", help="check receipts: no gateway, no network")
    check.add_argument("files", nargs="+", type=Path, metavar="RECEIPT")
    check.add_argument("--root", required=True, type=Path, metavar="FILE", help="root, DER")
    check.set_defaults(run=_verify)

    load = commands.add_parser(
        "load",
        help="send many orders and measure",
        description="Rows as for `pay`, or NDJSON with `order` (signed, base64url).",
    )
    load.add_argument("file", type=Path, metavar="FILE")
    load.add_argument("--connections", type=int, default=64, metavar="N")
    load.add_argument("--count", type=int, metavar="N", help="the first N rows alone")
    add_json(load)
    load.set_defaults(run=_load)


async def _pay(parsed: PosArguments) -> int:
    _check_pay(parsed)
    purse = Purse.open(parsed.folder)
    async with Client(Terminal.load(parsed.folder)) as client:
        if parsed.hosted is not None:
            return _show(parsed, await _pay_hosted(parsed, client, parsed.hosted))
        signer = Signer(client, purse, now_ms=now_ms())
        if parsed.request is not None:
            return await _pay_request(parsed, client, purse, signer)
        rows = read_rows(parsed.file) if parsed.file is not None else [_row(parsed)]
        failures = 0
        for row in rows:
            failures += await _pay_row(parsed, client, purse, signer, row)
        return FAILED if failures else WELL


def _check_pay(parsed: PosArguments) -> None:
    if parsed.hosted is not None:
        return
    if parsed.request is not None:
        if parsed.payer is None:
            raise ArgumentsWrong("give --from, the wallet that pays")
    elif parsed.file is None and not (parsed.payer and parsed.payee and parsed.amount):
        raise ArgumentsWrong("give --from, --to and --amount, or --request, or --file")


def _row(parsed: PosArguments) -> Row:
    return Row(
        payer=parsed.payer or "",
        payee=parsed.payee or "",
        amount=parsed.amount,
        journal=parsed.journal,
        reference=parsed.reference,
        category=parsed.category,
    )


async def _pay_row(
    parsed: PosArguments, client: Client, purse: Purse, signer: Signer, row: Row
) -> int:
    """Pay one row; gives 1 when it was refused."""
    order = await signer.sign(row, typed=parsed.file is None)
    try:
        body = PaymentBody(order=Octets(order))
        return _show(parsed, await client.call("POST", "/v1/payments", PaymentAnswer, body=body))
    except OrderRefused as error:
        if row.order is None:
            signer.took(purse.key(row.payer), accepted=False)
        print(f"refused: {error.detail}", file=sys.stderr)
        return FAILED


async def _pay_request(parsed: PosArguments, client: Client, purse: Purse, signer: Signer) -> int:
    request = _read_request(parsed.request or "")
    order = await signer.answer_request(purse.key(parsed.payer or ""), request)
    body = PaymentBody(order=Octets(order), request=Octets(request.signed.raw))
    return _show(parsed, await client.call("POST", "/v1/payments", PaymentAnswer, body=body))


def _read_request(text: str) -> Request:
    if not text.startswith(PREFIX):
        raise FileUnreadable(f"the text of a request's QR code begins with {PREFIX}")
    try:
        return decode_request(from_qr(text))
    except (ValueError, ProtocolError) as error:
        raise FileUnreadable(f"the QR code: {error}") from error


async def _pay_hosted(parsed: PosArguments, client: Client, wallet: str) -> PaymentAnswer:
    request = None if parsed.request is None else _read_request(parsed.request)
    known = await client.call("GET", f"/v1/wallets/{wallet}", WalletAnswer)
    amount = None
    if parsed.amount is not None:
        amount = parse_amount(parsed.amount, known.currency)
    hosted = HostedPayment(
        wallet=wallet,
        pin=_pin(parsed),
        payee=parsed.payee,
        journal=parsed.journal,
        amount=amount,
        currency=None if amount is None else known.currency,
        reference=parsed.reference,
        category=parsed.category,
        request=None if request is None else Octets(request.signed.raw),
    )
    body = PaymentBody(hosted=hosted)
    return await client.call("POST", "/v1/payments", PaymentAnswer, body=body, keyed=True)


def _pin(parsed: PosArguments) -> str:
    given = (
        read_secret_file(parsed.pin_file)
        if parsed.pin_file is not None
        else ask("PIN", instead="--pin-file")
    )
    return given.decode("ascii", "replace")


def _show(parsed: PosArguments, payment: PaymentAnswer) -> int:
    if parsed.receipts is not None:
        save_receipt(
            parsed.receipts,
            payment=payment.id,
            entry=payment.entry.raw,
            receipt=payment.receipt.raw,
        )
    if parsed.json:
        print_json(payment)
    else:
        note = f", note for {payment.note_for}" if payment.note_for else ""
        print(f"{payment.id} {payment.state}, {payment.finality}{note}")
    return WELL


async def _refund(parsed: PosArguments) -> int:
    if parsed.hosted is None and parsed.payer is None:
        raise ArgumentsWrong("give --from, the merchant's wallet, or --hosted")
    purse = Purse.open(parsed.folder)
    async with Client(Terminal.load(parsed.folder)) as client:
        path = f"/v1/payments/{parsed.payment}"
        paid = await client.call("GET", path, PaymentAnswer)
        body = decode_entry(paid.entry.raw).body
        if not isinstance(body, Payment):
            raise FileUnreadable("that entry is no payment")
        currency = body.order.currency
        amount = body.order.amount_minor
        if parsed.amount is not None:
            amount = parse_amount(parsed.amount, currency)
        if parsed.hosted is not None:
            hosted = HostedRefund(
                wallet=parsed.hosted, pin=_pin(parsed), payment=parsed.payment, amount=amount
            )
            refund = RefundBody(hosted=hosted)
        else:
            signer = Signer(client, purse, now_ms=now_ms())
            order = await signer.refund(
                purse.key(parsed.payer or ""),
                payment=bytes.fromhex(paid.id),
                payee=body.order.payer,
                amount_minor=amount,
            )
            refund = RefundBody(order=Octets(order))
        answer = await client.call(
            "POST", "/v1/refunds", PaymentAnswer, body=refund, keyed=refund.hosted is not None
        )
        return _show(parsed, answer)


async def _request(parsed: PosArguments) -> int:
    purse = Purse.open(parsed.folder)
    async with Client(Terminal.load(parsed.folder)) as client:
        body = await _request_body(parsed, client, purse)
        made = await client.call("POST", "/v1/requests", RequestAnswer, body=body, keyed=True)
    if parsed.json:
        print_json(made)
    else:
        print(made.qr)
        print(f"request {made.id} {made.state}", file=sys.stderr)
    return WELL


async def _request_body(parsed: PosArguments, client: Client, purse: Purse) -> RequestBody:
    own = purse.keys.get(parsed.wallet or "")
    wallet = own.text if own is not None else (parsed.wallet or "")
    known = await client.call("GET", f"/v1/wallets/{wallet}", WalletAnswer)
    amount = parse_amount(parsed.amount or "", known.currency)
    if own is None:
        hosted = HostedRequest(
            wallet=wallet,
            amount=amount,
            currency=known.currency,
            reference=parsed.reference,
            expires_s=parsed.expires_s,
        )
        return RequestBody(hosted=hosted)
    now = now_ms()
    signed = own.sign_request(
        nonce=secrets.token_bytes(NONCE_BYTES),
        payee_journal=parse_journal(known.journal),
        amount_minor=amount,
        currency=known.currency,
        created_ms=now,
        expires_ms=now + parsed.expires_s * 1000,
        reference=parsed.reference,
    )
    return RequestBody(request=Octets(signed))


async def _verify(parsed: PosArguments) -> int:
    root = read_root(parsed.root)
    failures = 0
    for path in parsed.files:
        for held in read_receipts(path):
            try:
                verified = verify(held, root)
            except ReceiptError as error:
                failures += 1
                print(f"{path}: NOT valid: {error} (step {error.step})")
                continue
            print(f"{path}: valid: {verified.text}; entry {verified.index} of {verified.journal}")
    return FAILED if failures else WELL


async def _load(parsed: PosArguments) -> int:
    if parsed.file is None or not 1 <= parsed.connections <= CONNECTIONS_MAX:
        raise ArgumentsWrong(f"--connections: 1 to {CONNECTIONS_MAX}")
    purse = Purse.open(parsed.folder)
    rows = count_rows(read_rows(parsed.file), parsed.count)
    async with Client(Terminal.load(parsed.folder), connections=parsed.connections) as client:
        chains = await _chains(Signer(client, purse, now_ms=now_ms()), rows)
        result = await send_all(client, chains, connections=parsed.connections)
    if parsed.json:
        print_json(result)
        return WELL
    print(f"{result.accepted} of {result.sent} accepted in {result.seconds_ms} ms: {result.rate}/s")
    print(", ".join(f"{name} {us / 1000:.1f} ms" for name, us in result.latency_us.items()))
    for code, count in result.refusals.items():
        print(f"refused {count}: {code}")
    return WELL


async def _chains(signer: Signer, rows: Sequence[Row]) -> list[list[bytes]]:
    """Signed orders by payer: one payer's orders have to go one after another."""
    chains: dict[bytes, list[bytes]] = {}
    for row in rows:
        order = await signer.sign(row)
        chains.setdefault(decode_order(order).payer, []).append(order)
    return list(chains.values())
