"""Orders from rows of CSV or NDJSON, signed with the keys of the purse."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from edge.errors import ArgumentsWrong, FileUnreadable
from edge.http.octets import from_text
from edge.http.types import WalletAnswer
from edge.pos.client import Client
from edge.pos.purse import DeviceKey, Purse
from wallet.protocol.ids import parse_journal, parse_wallet
from wallet.protocol.messages import Authorisation, OrderKind, Request
from wallet.protocol.money import AMOUNT_MAX, Currency, MoneyError, parse_decimal
from wallet.protocol.refusals import ProtocolError

LIFETIME_MS = 24 * 3_600_000
FILE_BYTES_MAX = 256 * 1024 * 1024
ROWS_MAX = 1_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True, rename={"payer": "from", "payee": "to"}):
    """One payment as a file tells it: `from`, `to`, and an amount in decimals or minor units.

    A row with `order` is signed already (base64url).
    """

    payer: str = ""
    payee: str = ""
    amount: str | None = None
    amount_minor: int | None = None
    journal: str | None = None
    reference: str | None = None
    category: str | None = None
    order: str | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file, `-` for the standard input; CSV with a head, or NDJSON.

    Raises: FileUnreadable, naming the line.
    """
    text = _text(path)
    lines = _ndjson(text) if text.lstrip()[:1] == "{" else _csv(text)
    for number, row in enumerate(lines, start=1):
        if number > ROWS_MAX:
            raise FileUnreadable(f"{path}: more than {ROWS_MAX} rows")
        yield row


def _text(path: Path) -> str:
    try:
        if str(path) == "-":
            return sys.stdin.read(FILE_BYTES_MAX)
        with path.open(encoding="utf-8", newline="") as stream:
            return stream.read(FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(f"{path}: {error}") from error


def _ndjson(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=Row)
            except msgspec.MsgspecError as error:
                raise FileUnreadable(f"line {number}: {error}") from error


def _csv(text: str) -> Iterator[Row]:
    for number, cells in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        given = {name: value for name, value in cells.items() if name and value}
        try:
            yield msgspec.convert(given, Row, strict=False)
        except msgspec.MsgspecError as error:
            raise FileUnreadable(f"line {number}: {error}") from error


class Signer:
    """Signs orders of the purse's wallets, each with its next sequence."""

    def __init__(self, client: Client, purse: Purse, *, now_ms: int) -> None:
        self._client = client
        self._purse = purse
        self._now_ms = now_ms
        self._known: dict[str, WalletAnswer] = {}
        self._sequences: dict[str, int] = {}

    async def sign(self, row: Row, *, typed: bool = False) -> bytes:
        """The order of a row. `typed`: its amount is the option's, not a file's.

        Raises: FileUnreadable for what the row lacks, ArgumentsWrong for a typed amount,
        OrderRefused for an unknown wallet.
        """
        if row.order is not None:
            return _signed_already(row.order)
        key = self._purse.key(row.payer)
        wallet = await self._wallet(key)
        amount = parse_amount(row.amount or "", wallet.currency) if typed else None
        return self._order(
            key,
            wallet,
            kind=OrderKind.PAY,
            payee=_payee(row.payee, self._purse),
            payee_journal=row.journal or wallet.journal,
            amount_minor=amount or amount_of(row, wallet.currency),
            reference=row.reference,
            category=row.category,
        )

    async def answer_request(self, key: DeviceKey, request: Request) -> bytes:
        """The order that pays a request."""
        wallet = await self._wallet(key)
        return self._order(
            key,
            wallet,
            kind=OrderKind.PAY,
            payee=request.payee,
            payee_journal=request.payee_journal,
            amount_minor=request.amount_minor,
            reference=request.reference,
            request=request.identity,
        )

    async def refund(
        self, key: DeviceKey, *, payment: bytes, payee: bytes, amount_minor: int
    ) -> bytes:
        """The order that gives a payment back."""
        wallet = await self._wallet(key)
        return self._order(
            key,
            wallet,
            kind=OrderKind.REFUND,
            payee=payee,
            payee_journal=wallet.journal,
            amount_minor=amount_minor,
            refunded=payment,
        )

    def _order(
        self, key: DeviceKey, wallet: WalletAnswer, *, payee_journal: str | bytes, **claims: object
    ) -> bytes:
        sequence = self._sequences[key.text]
        journal = parse_journal(payee_journal) if isinstance(payee_journal, str) else payee_journal
        order = key.sign_order(
            sequence=sequence,
            payee_journal=journal,
            currency=wallet.currency,
            created_ms=self._now_ms,
            expires_ms=self._now_ms + LIFETIME_MS,
            authorisation=Authorisation.DEVICE_KEY,
            payer_journal=parse_journal(wallet.journal),
            payer_epoch=wallet.epoch,
            **claims,
        )
        self._sequences[key.text] = sequence + 1
        return order

    def took(self, key: DeviceKey, *, accepted: bool) -> None:
        """A refused order leaves no entry, so that its sequence is still the next."""
        if not accepted:
            self._sequences[key.text] -= 1

    async def _wallet(self, key: DeviceKey) -> WalletAnswer:
        known = self._known.get(key.text)
        if known is None:
            known = await self._client.call("GET", f"/v1/wallets/{key.text}", WalletAnswer)
            self._known[key.text] = known
            self._sequences[key.text] = known.next_sequence
        return known


def _signed_already(text: str) -> bytes:
    try:
        return from_text(text)
    except ValueError as error:
        raise FileUnreadable(f"`order`: {error}") from error


def _payee(text: str, purse: Purse) -> bytes:
    if text in purse.keys:
        return purse.keys[text].public.id
    try:
        return parse_wallet(text)
    except ProtocolError as error:
        raise FileUnreadable(f"`to` {text!r}: {error.detail}") from error


def amount_of(row: Row, currency: str) -> int:
    """Minor units of a row. Raises: FileUnreadable."""
    if row.amount_minor is not None:
        return row.amount_minor
    try:
        return parse_decimal(row.amount or "", Currency(currency)).minor
    except MoneyError as error:
        raise FileUnreadable(f"`amount`: {error}") from error


def parse_amount(text: str, currency: str) -> int:
    """Minor units of the option --amount. Raises: ArgumentsWrong, which names it."""
    try:
        minor = parse_decimal(text, Currency(currency)).minor
    except MoneyError as error:
        raise ArgumentsWrong(f"--amount: {error}") from error
    if not 1 <= minor <= AMOUNT_MAX:
        raise ArgumentsWrong(f"--amount: {text!r} is nothing, or more than an order can say")
    return minor


def count_rows(rows: Iterable[Row], limit: int | None) -> list[Row]:
    """The first rows, or all."""
    taken: list[Row] = []
    for row in rows:
        if limit is not None and len(taken) == limit:
            break
        taken.append(row)
    return taken
