"""Every route of the branch's interface, once: for the server, the guard and OpenAPI."""

from __future__ import annotations

from typing import Any

import msgspec

from edge.http import pair, payments, receipts, requests, status, stream, wallets
from edge.http.context import Handler
from edge.http.types import (
    BatchAnswer,
    BatchBody,
    GatewayAnswer,
    Health,
    NoteBody,
    PairAnswer,
    PairBody,
    PaymentAnswer,
    PaymentBody,
    PaymentsAnswer,
    ReceiptsAnswer,
    ReceiptsBody,
    RefundBody,
    ReportAnswer,
    RequestAnswer,
    RequestBody,
    RequestsAnswer,
    StatementAnswer,
    WalletAnswer,
    WalletBody,
)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route. `answers` maps a status to the type of its body; problems come on top.

    `closed`: to terminals alone; with `when_closed` to anybody while the gateway is not open.
    `key`: whether it takes an `Idempotency-Key`. `query`: name -> JSON schema; a name with a
    star has to be there.
    """

    method: str
    path: str
    handler: Handler
    body: type[Any] | None = None
    answers: dict[int, type[Any] | None]
    key: bool = False
    query: dict[str, dict[str, Any]] = {}
    closed: bool = True
    when_closed: bool = False

    @property
    def name(self) -> str:
        """Its name in logs and in OpenAPI."""
        return self.handler.__name__


_REFERENCE = {"*reference": {"type": "string", "minLength": 1, "maxLength": 64}}
_PAGE: dict[str, dict[str, Any]] = {
    "cursor": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
}
_PAID: dict[int, type[Any] | None] = {200: PaymentAnswer, 201: PaymentAnswer}

HEALTH = [
    Route(
        method="GET",
        path="/healthz",
        handler=status.get_health,
        answers={200: Health},
        closed=False,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=status.get_ready,
        answers={200: Health, 503: Health},
        closed=False,
    ),
    Route(
        method="GET",
        path="/statusz",
        handler=status.get_gateway,
        answers={200: GatewayAnswer},
        closed=False,
    ),
]
BRANCH = [
    Route(
        method="GET",
        path="/v1/gateway",
        handler=status.get_gateway,
        answers={200: GatewayAnswer},
        when_closed=True,
    ),
    Route(
        method="POST",
        path="/v1/payments",
        handler=payments.post_payment,
        body=PaymentBody,
        answers=_PAID,
        key=True,
    ),
    Route(
        method="POST",
        path="/v1/payments:batch",
        handler=payments.post_batch,
        body=BatchBody,
        answers={200: BatchAnswer},
        key=True,
    ),
    Route(
        method="GET",
        path="/v1/payments",
        handler=payments.get_payments,
        answers={200: PaymentsAnswer},
        query=_REFERENCE,
    ),
    Route(
        method="GET",
        path="/v1/payments/{payment}",
        handler=payments.get_payment,
        answers={200: PaymentAnswer},
    ),
    Route(
        method="POST",
        path="/v1/refunds",
        handler=payments.post_refund,
        body=RefundBody,
        answers=_PAID,
        key=True,
    ),
    Route(
        method="POST",
        path="/v1/notes",
        handler=payments.post_note,
        body=NoteBody,
        answers=_PAID,
        key=True,
    ),
    Route(
        method="POST",
        path="/v1/receipts",
        handler=receipts.post_receipts,
        body=ReceiptsBody,
        answers={200: ReceiptsAnswer},
        key=True,
    ),
    Route(
        method="POST",
        path="/v1/requests",
        handler=requests.post_request,
        body=RequestBody,
        answers={200: RequestAnswer, 201: RequestAnswer},
        key=True,
    ),
    Route(
        method="GET",
        path="/v1/requests",
        handler=requests.get_requests,
        answers={200: RequestsAnswer},
        query=_REFERENCE,
    ),
    Route(
        method="GET",
        path="/v1/requests/{request}",
        handler=requests.get_request_by_id,
        answers={200: RequestAnswer},
    ),
    Route(
        method="DELETE",
        path="/v1/requests/{request}",
        handler=requests.delete_request,
        answers={200: RequestAnswer},
    ),
    Route(
        method="POST",
        path="/v1/wallets",
        handler=wallets.post_wallet,
        body=WalletBody,
        answers={201: WalletAnswer, 202: WalletAnswer},
        key=True,
    ),
    Route(
        method="GET",
        path="/v1/wallets/{wallet}",
        handler=wallets.get_wallet,
        answers={200: WalletAnswer},
    ),
    Route(
        method="GET",
        path="/v1/wallets/{wallet}/statement",
        handler=wallets.get_statement,
        answers={200: StatementAnswer},
        query=_PAGE,
    ),
    Route(
        method="GET",
        path="/v1/reports/x",
        handler=status.get_x_report,
        answers={200: ReportAnswer},
    ),
    Route(method="GET", path="/v1/events", handler=stream.get_events, answers={200: None}),
    *HEALTH,
]
PAIRING = [
    Route(
        method="POST",
        path="/pair",
        handler=pair.post_pair,
        body=PairBody,
        answers={202: PairAnswer},
        closed=False,
    ),
    Route(
        method="GET",
        path="/pair/{pairing}",
        handler=pair.get_pair,
        answers={200: PairAnswer, 202: PairAnswer},
        closed=False,
    ),
]
METRICS = [
    *HEALTH,
    Route(
        method="GET",
        path="/metrics",
        handler=status.get_metrics,
        answers={200: None},
        closed=False,
    ),
]
