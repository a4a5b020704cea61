"""Files of orders and requests."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE, assemble
from wallet.protocol.entry import Clock, Payment, Void
from wallet.protocol.ids import WalletId
from wallet.protocol.keys import PublicKey, from_cose_key
from wallet.protocol.messages import (
    Order,
    Request,
    decode_order,
    decode_request,
    order_payload,
    request_payload,
    to_sign,
)
from wallet.protocol.money import AMOUNT_MAX
from wallet.protocol.refusals import ProtocolError, Refusal
from wallet.protocol.rules import decide
from wallet.protocol.state import NEVER, Decision, State, Wallet
from wallet.protocol.vectors.identifiers import check_key
from wallet.protocol.vectors.replay import OneOrder, unlimited_state
from wallet.protocol.vectors.report import Case, Report, unhex
from wallet.protocol.vectors.signing import VectorKey, keys_by_name

MEMBERS = frozenset({"requests", "invalid_requests", "signed_again", "context"})
_BYTES = {"payer", "payee", "payee_journal", "payer_journal", "request", "refunded", "nonce"}
_RENAMED = {
    "amount": "amount_minor",
    "request_hash": "request",
    "refund_of": "refunded",
    "merchant_category": "category",
}
_WORDS = {"version", "kind_name", "authorisation_name"}


class Gateway:
    """What the gateway of `context` holds; all else about an order is in order."""

    def __init__(self, context: dict[str, Any]) -> None:
        self._context = context
        self._clock = Clock.SURE if context.get("clock", "sure") == "sure" else Clock.UNCERTAIN

    def state(self, payer: bytes, key: PublicKey, *, sequence: int, payee: bytes) -> State:
        """A journal where the payer is enrolled with this key, and the payee too."""
        state = unlimited_state(
            unhex(self._context["journal"]), self._context["epoch"], self._context["currency"]
        )
        for number, wallet in enumerate((payee, payer)):
            state.wallets[WalletId(wallet)] = Wallet(
                wallet=WalletId(wallet),
                number=number,
                key=key,
                enrolment_expires_ms=NEVER,
                settled=AMOUNT_MAX if wallet == payer else 0,
                next_sequence=sequence,
            )
            state.numbers[number] = WalletId(wallet)
        return state

    def state_for(self, order: Order, key: PublicKey) -> State:
        """The journal to which this order is the payer's next."""
        return self.state(order.payer, key, sequence=order.sequence, payee=order.payee)

    def decide(self, state: State, order: Order) -> Decision | Refusal:
        """The order there. A request that it names is taken to have come along."""
        alone = msgspec.structs.replace(order, request=None)
        return decide(
            state,
            Payment(order=alone),
            OneOrder(order),
            now_ms=self._context["now_ms"],
            clock=self._clock,
        )

    def accept(self, order: Order, key: PublicKey) -> None:
        """Raises: ProtocolError with the code of the refusal."""
        _accepted(self.decide(self.state_for(order, key), order))

    def accept_request(self, request: Request, key: PublicKey) -> None:
        """A request of a payee here, judged as when its payee takes it back."""
        state = self.state(request.payee, key, sequence=0, payee=request.payee)
        moved = msgspec.structs.replace(request, payee_journal=state.journal)
        context = OneOrder(None)
        now_ms = self._context["now_ms"]
        _accepted(decide(state, Void(request=moved), context, now_ms=now_ms, clock=self._clock))


def _accepted(outcome: Decision | Refusal) -> Decision:
    if isinstance(outcome, Refusal):
        raise ProtocolError(outcome.code, outcome.detail)
    return outcome


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    for entry, given in report.cases(document, "keys"):
        with entry as case:
            check_key(case, given)
    with report.frame("keys and context", "all"):
        gateway = Gateway(document["context"])
        keys = keys_by_name(document.get("keys", []))
        _orders(document, report, gateway, keys)
        _requests(document, report, gateway, keys)


def _orders(
    document: dict[str, Any], report: Report, gateway: Gateway, keys: dict[str, VectorKey]
) -> None:
    for entry, given in report.cases(document, "valid"):
        with entry as case:
            _valid(case, given, gateway, keys[given["signer"]])
    for entry, given in report.cases(document, "invalid"):
        with entry as case:
            case.refused(given, _order, given, gateway)
    for entry, given in report.cases(document, "ambiguous"):
        with entry as case:
            if given["by_the_words"] == "accepted":
                _order(given, gateway)
            else:
                case.refused(given, _order, given, gateway)
    for entry, given in report.cases(document, "signed_again"):
        with entry as case:
            _signed_again(case, given, gateway)


def _order(given: dict[str, Any], gateway: Gateway) -> None:
    key = from_cose_key(unhex(given["payer_cose_key"]))
    gateway.accept(decode_order(unhex(given["cose"])), key)


def named_claims(claims: dict[str, Any]) -> dict[str, Any]:
    """Claims of a file by the names that the protocol's code gives them."""
    renamed = {_RENAMED.get(name, name): value for name, value in claims.items()}
    return {
        name: unhex(value) if name in _BYTES and value is not None else value
        for name, value in renamed.items()
        if name not in _WORDS
    }


def _valid(case: Case, given: dict[str, Any], gateway: Gateway, signer: VectorKey) -> None:
    claims = named_claims(given["claims"])
    payload = order_payload(**claims)
    case.equal("payload", payload, given["payload"])
    protected, signed = to_sign(signer.public, ORDER_TYPE, payload)
    case.equal("protected", protected, given["protected"])
    case.equal("sig_structure", signed, given["sig_structure"])
    signature = unhex(given["signature"])
    signer.check(case, signed, signature)
    case.equal("cose", assemble(protected, payload, signature), given["cose"])
    order = decode_order(unhex(given["cose"]))
    case.equal("order_id", order.identity, given["order_id"])
    for name, value in claims.items():
        case.equal(name, getattr(order, name), value)
    gateway.accept(order, signer.public)


def _signed_again(case: Case, given: dict[str, Any], gateway: Gateway) -> None:
    key = from_cose_key(unhex(given["payer_cose_key"]))
    first, same, other = (
        decode_order(unhex(given[name])) for name in ("first", "same_order", "other_order")
    )
    case.equal("order_id", first.identity, given["order_id"])
    case.equal("order_id of the same order", same.identity, given["order_id"])
    same.signed.verify(key)
    state = gateway.state_for(first, key)
    before = copy.copy(state.wallets)
    decision = _accepted(gateway.decide(state, first))
    state.advance(decision, time_ms=first.created_ms)
    outcome = gateway.decide(state, other)
    wanted = {"expected_code": given["expected_code_of_other_order"]}
    case.refused(wanted, _accepted, outcome)
    case.equal("balance", state.balance_total(), sum([w.balance for w in before.values()]))


def _requests(
    document: dict[str, Any], report: Report, gateway: Gateway, keys: dict[str, VectorKey]
) -> None:
    for entry, given in report.cases(document, "requests"):
        with entry as case:
            _request(case, given, keys[given["signer"]])
    for entry, given in report.cases(document, "invalid_requests"):
        with entry as case:
            case.refused(given, _invalid_request, given, gateway)


def _request(case: Case, given: dict[str, Any], signer: VectorKey) -> None:
    claims = named_claims(given["claims"])
    payload = request_payload(**claims)
    case.equal("payload", payload, given["payload"])
    protected, signed = to_sign(signer.public, REQUEST_TYPE, payload)
    request = decode_request(unhex(given["cose"]))
    signer.check(case, signed, request.signed.signature)
    case.equal("cose", assemble(protected, payload, request.signed.signature), given["cose"])
    case.equal("request_id", request.identity, given["request_id"])
    for name, value in claims.items():
        case.equal(name, getattr(request, name), value)


def _invalid_request(given: dict[str, Any], gateway: Gateway) -> None:
    key = from_cose_key(unhex(given["payee_cose_key"]))
    gateway.accept_request(decode_request(unhex(given["cose"])), key)
