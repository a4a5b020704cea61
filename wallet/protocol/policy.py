"""Policies: limits by wallet tier and for the whole journal, by the codes of limits.md."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.cose import Sign1


class Limit(enum.IntEnum):
    """Limits of a wallet tier (policy item 6)."""

    PAYMENT_MAX = 1
    PAYMENT_MIN = 2
    PINLESS_MAX = 3
    BALANCE_MAX = 4
    OUT_AMOUNT_SINCE_SOFT = 5
    OUT_AMOUNT_SINCE_HARD = 6
    OUT_COUNT_SINCE_SOFT = 7
    OUT_COUNT_SINCE_HARD = 8
    IN_AMOUNT_SINCE = 9
    OUT_AMOUNT_DAY = 10
    OUT_COUNT_DAY = 11
    PAIR_AMOUNT_DAY = 12
    HOPS_MAX = 13
    OFFLINE_AGE_SOFT_S = 14
    OFFLINE_AGE_HARD_S = 15
    REFUND_AGE_S = 16
    UNCERTAIN_CLOCK_PERCENT = 17
    CATEGORY_SET = 18


class JournalLimit(enum.IntEnum):
    """Limits of the whole journal (policy item 7)."""

    EXPOSURE_SOFT = 101
    EXPOSURE_HARD = 102
    ENTRIES_UNSYNCED_SOFT = 103
    ENTRIES_UNSYNCED_HARD = 104
    WINDOW_ENTRIES = 105
    WINDOW_S = 106
    REVOCATION_AGE_SOFT_S = 107
    REVOCATION_AGE_HARD_S = 108
    SANCTIONS_AGE_SOFT_S = 109
    SANCTIONS_AGE_HARD_S = 110
    POLICY_AGE_SOFT_S = 111
    POLICY_AGE_HARD_S = 112
    STALE_PERCENT = 113
    SEGMENT_BYTES_MAX = 114
    SEGMENT_ENTRIES_MAX = 115
    NOTE_GRACE_S = 116
    CLAIMS_WINDOW_S = 117
    CERTIFICATE_GRACE_S = 118
    PIN_TRIES_MAX = 119
    PIN_LOCK_S = 120


# What "all amount limits shrink" means (limits.md 17 and 113): upper bounds on amounts.
AMOUNT_LIMITS = frozenset(
    {
        Limit.PAYMENT_MAX,
        Limit.PINLESS_MAX,
        Limit.BALANCE_MAX,
        Limit.OUT_AMOUNT_SINCE_SOFT,
        Limit.OUT_AMOUNT_SINCE_HARD,
        Limit.IN_AMOUNT_SINCE,
        Limit.OUT_AMOUNT_DAY,
        Limit.PAIR_AMOUNT_DAY,
    }
)
Limits = Mapping[int, int]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A signed policy. `tiers` and `journal` map the codes of limits.md to values.

    `laid_out` is the room in which wallet.protocol.limits keeps what it made of them.
    """

    signed: Sign1
    sequence: int
    valid_from_ms: int
    valid_until_ms: int
    currency: str
    tiers: dict[int, dict[int, int]]
    journal: dict[int, int]
    laid_out: dict[Any, Any] = msgspec.field(default_factory=dict)

    def tier(self, tier: int) -> Limits:
        """Limits of one tier; a tier that the policy leaves out has none of its own."""
        return self.tiers.get(tier, {})


_limits = shapes.mapping(shapes.count, shapes.count)
POLICY_CLAIMS = {
    1: shapes.count,
    2: shapes.count,
    3: shapes.count,
    4: shapes.count,
    5: shapes.currency,
    6: shapes.mapping(shapes.count, _limits),
    7: _limits,
}


def policy_of(signed: Sign1, claims: Any) -> Policy:
    """The policy of decoded claims. Raises: ProtocolError `malformed`."""
    fields = shapes.record(claims, POLICY_CLAIMS)
    return Policy(
        signed=signed,
        sequence=fields[2],
        valid_from_ms=fields[3],
        valid_until_ms=fields[4],
        currency=fields[5],
        tiers=fields[6],
        journal=fields[7],
    )


def shrunk(limits: Limits, percent: int) -> Limits:
    """The limits with every amount limit at `percent` of itself, rounded down."""
    if percent >= 100:
        return limits
    return {
        code: value * percent // 100 if code in AMOUNT_LIMITS else value
        for code, value in limits.items()
    }
