"""Bodies of the branch's interface: what handlers decode and answer, and what OpenAPI tells of.

Amounts are integers of minor units beside their currency. `*_ms` are Unix milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.http.octets import Octets
from wallet.protocol.money import AMOUNT_MAX

ORDERS_MAX = 1_000
RECEIPTS_MAX = 100

WalletText = Annotated[str, Meta(pattern="^(wal1[02-9ac-hj-np-z]{38}|WAL1[02-9AC-HJ-NP-Z]{38})$")]
JournalText = Annotated[str, Meta(pattern="^(jnl1[02-9ac-hj-np-z]{38}|JNL1[02-9AC-HJ-NP-Z]{38})$")]
HashText = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Reference = Annotated[str, Meta(min_length=1, max_length=64)]
Category = Annotated[str, Meta(pattern="^[0-9]{4}$")]
Pin = Annotated[str, Meta(pattern="^[0-9]{4,12}$")]
Tier = Annotated[int, Meta(ge=0, le=1_000)]
Offline = Literal["prefer_online", "require_online", "force_offline"]
State = Literal["accepted", "pending", "held", "settled", "rejected"]
Finality = Literal["provisional", "final"]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client sends: nothing that is not named here."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gateway answers; members that say nothing are left out."""


# ---- payments -----------------------------------------------------------------------------


class HostedPayment(Body, frozen=True, kw_only=True):
    """A payment from a wallet whose key the gateway keeps.

    `journal` is the payee's, by default our own. What is left out may be the request's words.
    """

    wallet: WalletText
    pin: Pin
    payee: WalletText | None = None
    journal: JournalText | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    reference: Reference | None = None
    category: Category | None = None
    request: Octets | None = None


class PaymentBody(Body, frozen=True, kw_only=True):
    """An order that the payer's device signed, or a hosted payment: one of the two."""

    order: Octets | None = None
    request: Octets | None = None
    hosted: HostedPayment | None = None
    offline: Offline = "prefer_online"

    def __post_init__(self) -> None:
        if (self.order is None) == (self.hosted is None):
            raise ValueError("either `order` or `hosted`")
        if self.hosted is not None and self.request is not None:
            raise ValueError("the request of a hosted payment belongs inside `hosted`")


class OrderItem(Body, frozen=True, kw_only=True):
    """One order of a batch."""

    order: Octets
    request: Octets | None = None


class BatchBody(Body, frozen=True, kw_only=True):
    """Orders, taken in this order."""

    orders: Annotated[list[OrderItem], Meta(min_length=1, max_length=ORDERS_MAX)]
    offline: Offline = "prefer_online"


class PaymentAnswer(Answer, frozen=True, kw_only=True):
    """A payment that is durable: `id` is its entry's leaf hash; entry and receipt are the proof.

    `reprint`: the payment is not new, the receipt was given before. `soft`: limits that it came
    near to. `note_for`: the payee's journal, where entry and receipt are to be redeemed.
    """

    id: HashText
    state: State
    finality: Finality
    index: int
    time_ms: int
    entry: Octets
    receipt: Octets
    reprint: bool = False
    soft: list[str] = []
    note_for: str | None = None
    code: str | None = None


class BatchItemAnswer(Answer, frozen=True, kw_only=True):
    """The answer to one order: its status, and a payment or a problem."""

    status: int
    payment: PaymentAnswer | None = None
    code: str | None = None
    detail: str | None = None
    limit: int | None = None
    left: int | None = None
    retry_after: int | None = None


class BatchAnswer(Answer, frozen=True, kw_only=True):
    """An answer for each order, in their order."""

    answers: list[BatchItemAnswer]


class PaymentsAnswer(Answer, frozen=True, kw_only=True):
    """Payments with a reference, oldest first."""

    payments: list[PaymentAnswer]


# ---- refunds, notes, receipts -------------------------------------------------------------


class HostedRefund(Body, frozen=True, kw_only=True):
    """A refund by a merchant whose wallet is hosted here; in full when no amount is given."""

    wallet: WalletText
    pin: Pin
    payment: HashText
    amount: Amount | None = None
    reference: Reference | None = None


class RefundBody(Body, frozen=True, kw_only=True):
    """A refund that the merchant's device signed, or one by a hosted merchant."""

    order: Octets | None = None
    hosted: HostedRefund | None = None

    def __post_init__(self) -> None:
        if (self.order is None) == (self.hosted is None):
            raise ValueError("either `order` or `hosted`")


class NoteBody(Body, frozen=True, kw_only=True):
    """Entry and receipt of a transfer-out of another journal."""

    entry: Octets
    receipt: Octets


class ReceiptsBody(Body, frozen=True, kw_only=True):
    """Receipts of other journals, for the issuer to look at."""

    receipts: Annotated[list[NoteBody], Meta(min_length=1, max_length=RECEIPTS_MAX)]


class ReceiptKept(Answer, frozen=True, kw_only=True):
    """What became of one receipt: `new`, `known`, `receipts-full`, or refused with a code."""

    kept: str
    code: str | None = None
    detail: str | None = None


class ReceiptsAnswer(Answer, frozen=True, kw_only=True):
    """An answer for each receipt, in their order."""

    answers: list[ReceiptKept]


# ---- requests -----------------------------------------------------------------------------


class HostedRequest(Body, frozen=True, kw_only=True):
    """What a hosted wallet asks for; the gateway signs."""

    wallet: WalletText
    amount: Amount
    currency: Currency
    reference: Reference | None = None
    expires_s: Annotated[int, Meta(ge=10, le=604_800)] = 900


class RequestBody(Body, frozen=True, kw_only=True):
    """A request that the payee's device signed, or one of a hosted wallet."""

    request: Octets | None = None
    hosted: HostedRequest | None = None

    def __post_init__(self) -> None:
        if (self.request is None) == (self.hosted is None):
            raise ValueError("either `request` or `hosted`")


class RequestAnswer(Answer, frozen=True, kw_only=True):
    """A request: `id` is its identity, `qr` the text of its QR code."""

    id: HashText
    state: Literal["open", "paid", "void", "expired"]
    wallet: str
    amount: int
    currency: str
    created_ms: int
    expires_ms: int
    request: Octets
    qr: str
    reference: str | None = None
    payment: str | None = None


class RequestsAnswer(Answer, frozen=True, kw_only=True):
    """Requests with a reference, the one that expires last first."""

    requests: list[RequestAnswer]


# ---- wallets ------------------------------------------------------------------------------


class HostedWalletBody(Body, frozen=True, kw_only=True):
    """A new wallet whose key the gateway keeps."""

    pin: Pin
    tier: Tier = 1
    label: Reference | None = None


class DeviceWalletBody(Body, frozen=True, kw_only=True):
    """A wallet of a device with a key of its own (COSE_Key bytes) that wants to be enrolled."""

    key: Octets
    tier: Tier = 1
    label: Reference | None = None


class WalletBody(Body, frozen=True, kw_only=True):
    """An enrolment that was brought, or a wish for one."""

    enrolment: Octets | None = None
    hosted: HostedWalletBody | None = None
    device: DeviceWalletBody | None = None

    def __post_init__(self) -> None:
        if [self.enrolment, self.hosted, self.device].count(None) != 2:
            raise ValueError("one of `enrolment`, `hosted` and `device`")


class LimitLeft(Answer, frozen=True, kw_only=True):
    """What is left of one limit, in its own unit."""

    code: str
    limit: int
    left: int


class WalletAnswer(Answer, frozen=True, kw_only=True):
    """A wallet: `state` is `pending` until the issuer's enrolment is here."""

    wallet: str
    journal: str
    epoch: int
    state: Literal["enrolled", "pending", "frozen", "expired", "locked"]
    hosted: bool
    currency: str
    balance: int
    settled: int
    unsettled: int
    next_sequence: int
    tier: int
    enrolment_expires_ms: int
    limits: list[LimitLeft]


class StatementEntry(Answer, frozen=True, kw_only=True):
    """One entry of a wallet. `amount` is negative for what left it."""

    index: int
    id: str
    kind: str
    time_ms: int
    amount: int
    state: State
    other: str | None = None
    reference: str | None = None


class StatementAnswer(Answer, frozen=True, kw_only=True):
    """Entries of a wallet, newest first; `cursor` leads to older ones."""

    wallet: str
    currency: str
    entries: list[StatementEntry]
    cursor: str | None = None


# ---- the gateway --------------------------------------------------------------------------


class ListAge(Answer, frozen=True, kw_only=True):
    """A list that is held."""

    list: str
    sequence: int
    age_s: int


class GatewayAnswer(Answer, frozen=True, kw_only=True):
    """The gateway at a glance. `cause` says why it is not open."""

    state: Literal["online", "offline", "unknown"]
    mode: str
    version: str
    time_ms: int
    id: str | None = None
    epoch: int | None = None
    currency: str | None = None
    cause: str | None = None
    clock: str | None = None
    size: int | None = None
    acknowledged: int | None = None
    settled: int | None = None
    settled_ms: int | None = None
    policy_sequence: int | None = None
    policy_left_s: int | None = None
    lists: list[ListAge] = []
    exposure: int | None = None
    exposure_limit: int | None = None
    window_exposure: int | None = None
    wallets: int | None = None
    balance_total: int | None = None
    offline_since_ms: int | None = None
    offline_left_s: int | None = None
    counter_driver: str | None = None
    counter: int | None = None
    certificate_left_s: int | None = None


class Health(Answer, frozen=True, kw_only=True):
    """Whether the process lives, or is ready for a payment now."""

    status: Literal["ok", "refusing"]
    code: str | None = None


class ReportLine(Answer, frozen=True, kw_only=True):
    """Totals of one kind of entry since the epoch began."""

    kind: str
    count: int
    amount: int
    final: int
    provisional: int
    rejected: int


class ReportAnswer(Answer, frozen=True, kw_only=True):
    """X report: totals now, nothing is closed."""

    journal: str
    epoch: int
    currency: str
    size: int
    settled: int
    lines: list[ReportLine]


# ---- pairing ------------------------------------------------------------------------------


class PairBody(Body, frozen=True, kw_only=True):
    """A terminal's wish: the code from the gateway's page and a certificate request (PEM)."""

    code: Annotated[str, Meta(min_length=8, max_length=9)]
    csr: Annotated[str, Meta(min_length=1, max_length=8192)]
    name: Reference = "terminal"


class PairAnswer(Answer, frozen=True, kw_only=True):
    """Where the certificate will be, once the technician has compared the short strings."""

    pairing: str
    state: Literal["waiting", "confirmed"]
    certificate: str | None = None
    authority: str | None = None
    terminal: str | None = None
    gateway: str | None = None
