"""Refusal codes of limits.md, the refusal as a value, and the error that verification raises."""

from __future__ import annotations

import enum

import msgspec


class Code(enum.StrEnum):
    """Every refusal code of limits.md. A code keeps its meaning for ever."""

    # By wallet tier, in the order of the policy's numbers.
    PAYMENT_ABOVE_LIMIT = "payment-above-limit"
    PAYMENT_BELOW_LIMIT = "payment-below-limit"
    AUTHORISATION_REQUIRED = "authorisation-required"
    BALANCE_ABOVE_LIMIT = "balance-above-limit"
    SPENT_ABOVE_LIMIT = "spent-above-limit"
    COUNT_ABOVE_LIMIT = "count-above-limit"
    RECEIVED_ABOVE_LIMIT = "received-above-limit"
    DAY_AMOUNT_ABOVE_LIMIT = "day-amount-above-limit"
    DAY_COUNT_ABOVE_LIMIT = "day-count-above-limit"
    PAIR_ABOVE_LIMIT = "pair-above-limit"
    HOPS_ABOVE_LIMIT = "hops-above-limit"
    OFFLINE_TOO_LONG = "offline-too-long"
    REFUND_TOO_LATE = "refund-too-late"
    CATEGORY_NOT_ALLOWED = "category-not-allowed"
    # Journal-wide.
    GATEWAY_EXPOSURE = "gateway-exposure"
    JOURNAL_FULL = "journal-full"
    LISTS_STALE = "lists-stale"
    POLICY_EXPIRED = "policy-expired"
    WALLET_LOCKED = "wallet-locked"
    # Bytes and shapes.
    NOT_CANONICAL = "not-canonical"
    MALFORMED = "malformed"
    WEAK_KEY = "weak-key"
    PARENT_MISSING = "parent-missing"
    NOT_PROVEN = "not-proven"
    UNKNOWN_KEY = "unknown-key"
    NOT_OPENED = "not-opened"
    TOO_LARGE = "too-large"
    UNKNOWN_VERSION = "unknown-version"
    UNKNOWN_TYPE = "unknown-type"
    # Orders.
    WRONG_CURRENCY = "wrong-currency"
    UNKNOWN_WALLET = "unknown-wallet"
    WALLET_FROZEN = "wallet-frozen"
    ENROLMENT_EXPIRED = "enrolment-expired"
    WRONG_JOURNAL = "wrong-journal"
    SEQUENCE_USED = "sequence-used"
    SEQUENCE_GAP = "sequence-gap"
    ORDER_EXPIRED = "order-expired"
    ORDER_FROM_THE_FUTURE = "order-from-the-future"
    BAD_SIGNATURE = "bad-signature"
    WRONG_ROLE = "wrong-role"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    UNKNOWN_REQUEST = "unknown-request"
    REQUEST_PAID = "request-paid"
    REQUEST_VOID = "request-void"
    REQUEST_EXPIRED = "request-expired"
    REQUEST_MISMATCH = "request-mismatch"
    REFUND_UNKNOWN = "refund-unknown"
    REFUND_ABOVE_PAYMENT = "refund-above-payment"
    # Notes, receipts and grants.
    NOTE_NOT_FOR_US = "note-not-for-us"
    NOTE_REDEEMED = "note-redeemed"
    NOTE_EXPIRED = "note-expired"
    JOURNAL_REVOKED = "journal-revoked"
    WALLET_REVOKED = "wallet-revoked"
    SANCTIONED = "sanctioned"
    CERTIFICATE_INVALID = "certificate-invalid"
    PROOF_INVALID = "proof-invalid"
    GRANT_REPLAYED = "grant-replayed"
    GRANT_GAP = "grant-gap"
    GRANT_EXPIRED = "grant-expired"
    # The box.
    PIN_WRONG = "pin-wrong"
    FROZEN_ROLLBACK = "frozen-rollback"
    FROZEN_TAMPER = "frozen-tamper"
    FROZEN_BY_ISSUER = "frozen-by-issuer"
    NOT_PROVISIONED = "not-provisioned"
    SEALED = "sealed"
    BUSY = "busy"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why something was not accepted: a value, never an exception.

    `limit` and `left` are in the limit's own unit (minor units, entries or seconds).
    """

    code: Code
    detail: str = ""
    limit: int | None = None
    left: int | None = None
    retry_after_ms: int | None = None


class ProtocolError(Exception):
    """Root of what decoding and verification raise; `code` is stable, `detail` is for people."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail

    def refusal(self) -> Refusal:
        """The same, as a value."""
        return Refusal(code=self.code, detail=self.detail)


class InvariantBroken(Exception):
    """The program contradicts itself: it must stop rather than go on with money."""


def refuse(
    code: Code, detail: str = "", *, limit: int | None = None, left: int | None = None
) -> Refusal:
    """A refusal in one short line."""
    return Refusal(code=code, detail=detail, limit=limit, left=left)
