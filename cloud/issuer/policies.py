"""Policies: the one that an issuer begins with, and the next ones, signed."""

from __future__ import annotations

from collections.abc import Mapping

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit, objects
from cloud.issuer.desk import Desk
from cloud.issuer.objects import StoredObject, policy_series
from cloud.issuer.profiles import DAY_MS
from wallet.protocol.issued import POLICY_TYPE, decode_policy
from wallet.protocol.policy import JournalLimit, Limit, Policy

HOSTED_CUSTOMER, DEVICE_CUSTOMER, MERCHANT = 0, 1, 2
VALID_MS = 365 * DAY_MS
_DAY_S = 86_400

Tiers = Mapping[int, Mapping[int, int]]

# Amounts are minor units of a currency with two places: 500.00 a payment for a customer.
_CUSTOMER: Mapping[int, int] = {
    Limit.PAYMENT_MAX: 50_000,
    Limit.PAYMENT_MIN: 1,
    Limit.BALANCE_MAX: 300_000,
    Limit.OUT_AMOUNT_SINCE_SOFT: 100_000,
    Limit.OUT_AMOUNT_SINCE_HARD: 200_000,
    Limit.OUT_COUNT_SINCE_SOFT: 50,
    Limit.OUT_COUNT_SINCE_HARD: 100,
    Limit.IN_AMOUNT_SINCE: 300_000,
    Limit.OUT_AMOUNT_DAY: 150_000,
    Limit.OUT_COUNT_DAY: 50,
    Limit.PAIR_AMOUNT_DAY: 100_000,
    Limit.HOPS_MAX: 5,
    Limit.OFFLINE_AGE_SOFT_S: 7 * _DAY_S,
    Limit.OFFLINE_AGE_HARD_S: 35 * _DAY_S,
    Limit.REFUND_AGE_S: 90 * _DAY_S,
    Limit.UNCERTAIN_CLOCK_PERCENT: 50,
}
DEFAULT_TIERS: Tiers = {
    HOSTED_CUSTOMER: {**_CUSTOMER, Limit.PINLESS_MAX: 5_000},
    DEVICE_CUSTOMER: _CUSTOMER,
    MERCHANT: {
        Limit.PAYMENT_MAX: 5_000_000,
        Limit.PAYMENT_MIN: 1,
        Limit.PINLESS_MAX: 50_000,
        Limit.BALANCE_MAX: 500_000_000,
        Limit.OUT_AMOUNT_DAY: 50_000_000,
        Limit.HOPS_MAX: 5,
        Limit.OFFLINE_AGE_HARD_S: 35 * _DAY_S,
        Limit.REFUND_AGE_S: 90 * _DAY_S,
        Limit.UNCERTAIN_CLOCK_PERCENT: 50,
    },
}
# The counter's window: what a rollback could hide is one. Where each move wears a counter out, as a
# TPM's, time alone is to end it: 8,760 moves a year.
WINDOWS: Mapping[str, Mapping[int, int]] = {
    "short": {JournalLimit.WINDOW_ENTRIES: 1_000, JournalLimit.WINDOW_S: 3_600},
    "long": {JournalLimit.WINDOW_ENTRIES: 1_000_000, JournalLimit.WINDOW_S: 3_600},
}
DEFAULT_JOURNAL: Mapping[int, int] = {
    JournalLimit.EXPOSURE_SOFT: 50_000_000,
    JournalLimit.EXPOSURE_HARD: 200_000_000,
    JournalLimit.ENTRIES_UNSYNCED_SOFT: 1_000_000,
    JournalLimit.ENTRIES_UNSYNCED_HARD: 5_000_000,
    **WINDOWS["short"],
    JournalLimit.REVOCATION_AGE_SOFT_S: 7 * _DAY_S,
    JournalLimit.REVOCATION_AGE_HARD_S: 35 * _DAY_S,
    JournalLimit.SANCTIONS_AGE_SOFT_S: 7 * _DAY_S,
    JournalLimit.SANCTIONS_AGE_HARD_S: 35 * _DAY_S,
    JournalLimit.POLICY_AGE_SOFT_S: 60 * _DAY_S,
    JournalLimit.POLICY_AGE_HARD_S: 180 * _DAY_S,
    JournalLimit.STALE_PERCENT: 50,
    JournalLimit.SEGMENT_BYTES_MAX: 1_048_576,
    JournalLimit.SEGMENT_ENTRIES_MAX: 1_000,
    JournalLimit.NOTE_GRACE_S: 7 * _DAY_S,
    JournalLimit.CLAIMS_WINDOW_S: 35 * _DAY_S,
    JournalLimit.CERTIFICATE_GRACE_S: 35 * _DAY_S,
    JournalLimit.PIN_TRIES_MAX: 5,
    JournalLimit.PIN_LOCK_S: 900,
}


# How old lists may be before no value moves between journals.
LIST_AGES = (JournalLimit.REVOCATION_AGE_HARD_S, JournalLimit.SANCTIONS_AGE_HARD_S)
_WINDOW = JournalLimit.CLAIMS_WINDOW_S


async def publish_first(
    connection: Connection, desk: Desk, currency: str, *, window: str = "short", now_ms: int
) -> None:
    """Sign the default policy with one of WINDOWS, where the currency has none yet."""
    await objects.lock_series(connection, policy_series(currency))
    if await objects.newest(connection, policy_series(currency)) is None:
        journal = {**DEFAULT_JOURNAL, **WINDOWS[window]}
        await _publish(connection, desk, currency, 0, DEFAULT_TIERS, journal, now_ms)


async def policy_in_force(connection: Connection, currency: str) -> Policy:
    """The newest policy. Raises: IssuerError `policy-unknown`."""
    stored = await objects.newest(connection, policy_series(currency))
    if stored is None:
        raise IssuerError("policy-unknown", currency)
    return decode_policy(stored.object)


async def next_policy(
    connection: Connection,
    desk: Desk,
    currency: str,
    *,
    tiers: Tiers,
    journal: Mapping[int, int],
    actor: str,
    now_ms: int,
) -> int:
    """Sign the next policy of a currency; its sequence.

    Raises: IssuerError `policy-unknown` for a currency that has none, `limit-unknown`.
    """
    await objects.lock_series(connection, policy_series(currency))
    before = await objects.newest(connection, policy_series(currency))
    if before is None:
        raise IssuerError("policy-unknown", currency)
    check_limits(tiers, journal)
    sequence = before.sequence + 1
    await _publish(connection, desk, currency, sequence, tiers, journal, now_ms)
    await audit.record(
        connection,
        actor=actor,
        action="policy.sign",
        subject=currency,
        detail={"sequence": sequence},
        now_ms=now_ms,
    )
    return sequence


def check_limits(tiers: Tiers, journal: Mapping[int, int]) -> None:
    """Raises: IssuerError `limit-unknown`."""
    unknown = {code for limits in tiers.values() for code in limits} - set(Limit)
    unknown |= set(journal) - set(JournalLimit)
    if unknown:
        raise IssuerError("limit-unknown", ", ".join(map(str, sorted(unknown))))


def check_window(journal: Mapping[int, int]) -> None:
    """That the claims window (117) is as long as a gateway may go on without newer lists.

    A gateway takes notes in while their orders and its lists (108, 110) are good, and may tell of
    that as late: a note that had returned to its payer by then would cost the issuer. The longest
    order expiry comes on top: a note's window begins at its own order's, a closure's at the longest
    one. Raises: IssuerError `claims-window-short`.
    """
    window_s = journal.get(JournalLimit.CLAIMS_WINDOW_S)
    if window_s is None:
        # Notes never return by themselves.
        return
    for limit in LIST_AGES:
        age_s = journal.get(limit)
        if age_s is None or age_s > window_s:
            said = "no end" if age_s is None else f"{age_s} s"
            raise IssuerError(
                "claims-window-short",
                f"{window_s} s (117), and lists are good for {said} ({limit})",
            )


async def longest_window(connection: Connection, currency: str, *, now_ms: int) -> int | None:
    """The claims window of the policy in force, in seconds; None where it sets none.

    It is no shorter than the hard list ages of policies that gateways may still hold.
    """
    policies = [
        decode_policy(raw) for raw in await objects.whole(connection, policy_series(currency))
    ]
    if not policies or (window_s := policies[-1].journal.get(_WINDOW)) is None:
        return None
    held = [each.journal for each in policies if each.valid_until_ms > now_ms]
    ages = [limits[code] for limits in held for code in LIST_AGES if code in limits]
    return max([window_s, *ages])


async def _publish(
    connection: Connection,
    desk: Desk,
    currency: str,
    sequence: int,
    tiers: Tiers,
    journal: Mapping[int, int],
    now_ms: int,
) -> None:
    claims = {
        2: sequence,
        3: now_ms,
        4: now_ms + VALID_MS,
        5: currency,
        6: {int(tier): _plain(limits) for tier, limits in tiers.items()},
        7: _plain(journal),
    }
    raw = await desk.sign(POLICY_TYPE, claims)
    await objects.publish(
        connection,
        policy_series(currency),
        StoredObject(sequence=sequence, object=raw, is_full=True, issued_ms=now_ms),
    )


def _plain(limits: Mapping[int, int]) -> dict[int, int]:
    return {int(code): int(value) for code, value in limits.items()}
