"""The limits of limits.md, each a small check; the first one broken decides."""

from __future__ import annotations

from wallet.protocol.entry import Clock
from wallet.protocol.policy import JournalLimit, Limit, Limits, shrunk
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.state import DAY_HOURS, HOUR_MS, Hours, State, Wallet


def percent_of(state: State, limits: Limits, *, now_ms: int, clock: int) -> int:
    """What amount limits shrink to: an uncertain clock (17) and stale lists (113) reduce them."""
    percent = 100
    if clock == Clock.UNCERTAIN:
        percent = limits.get(Limit.UNCERTAIN_CLOCK_PERCENT, 100)
    if now_ms >= state.soft_from_ms:
        percent = min(percent, state.policy_held().journal.get(JournalLimit.STALE_PERCENT, 100))
    return percent


def limits_of(state: State, wallet: Wallet, *, now_ms: int, clock: int) -> Limits:
    """The limits in force for a wallet now."""
    limits = state.policy_held().tier(wallet.tier)
    return shrunk(limits, percent_of(state, limits, now_ms=now_ms, clock=clock))


def spent_hours(hours: Hours, hour: int, amount: int) -> Hours:
    """The buckets of a rolling day with one more payment in them."""
    if hours and hours[-1][0] == hour:
        last = hours[-1]
        return (*hours[:-1], (hour, last[1] + amount, last[2] + 1))
    if hours and hours[0][0] <= hour - DAY_HOURS:
        hours = tuple([bucket for bucket in hours if bucket[0] > hour - DAY_HOURS])
    return (*hours, (hour, amount, 1))


def day_totals(hours: Hours, hour: int) -> tuple[int, int]:
    """(spent, count) of the last 24 buckets of one hour."""
    amount = count = 0
    for bucket_hour, bucket_amount, bucket_count in hours:
        if bucket_hour > hour - DAY_HOURS:
            amount += bucket_amount
            count += bucket_count
    return amount, count


def _above(limits: Limits, limit: Limit, *, used: int, more: int, code: Code) -> Refusal | None:
    most = limits.get(limit)
    if most is None or used + more <= most:
        return None
    return refuse(code, limit=most, left=max(0, most - used))


def check_payer(
    state: State, wallet: Wallet, limits: Limits, *, amount: int, authorisation: int, now_ms: int
) -> Refusal | None:
    """Limits 1 to 3, 6, 8, 10, 11 and 15 on what a wallet spends."""
    if not limits:
        return None
    return (
        _check_payment(limits, amount=amount, authorisation=authorisation)
        or _check_since(wallet, limits, amount=amount)
        or _check_day(wallet, limits, amount=amount, hour=now_ms // HOUR_MS)
        or _check_age(state, limits, now_ms=now_ms)
    )


def _check_payment(limits: Limits, *, amount: int, authorisation: int) -> Refusal | None:
    least = limits.get(Limit.PAYMENT_MIN)
    if least is not None and amount < least:
        return refuse(Code.PAYMENT_BELOW_LIMIT, limit=least)
    pinless = limits.get(Limit.PINLESS_MAX)
    above = _above(limits, Limit.PAYMENT_MAX, used=0, more=amount, code=Code.PAYMENT_ABOVE_LIMIT)
    if above is None and pinless is not None and authorisation == 0 and amount > pinless:
        return refuse(Code.AUTHORISATION_REQUIRED, limit=pinless)
    return above


def _check_since(wallet: Wallet, limits: Limits, *, amount: int) -> Refusal | None:
    return _above(
        limits,
        Limit.OUT_AMOUNT_SINCE_HARD,
        used=wallet.out_amount_since,
        more=amount,
        code=Code.SPENT_ABOVE_LIMIT,
    ) or _above(
        limits,
        Limit.OUT_COUNT_SINCE_HARD,
        used=wallet.out_count_since,
        more=1,
        code=Code.COUNT_ABOVE_LIMIT,
    )


def _check_day(wallet: Wallet, limits: Limits, *, amount: int, hour: int) -> Refusal | None:
    if Limit.OUT_AMOUNT_DAY not in limits and Limit.OUT_COUNT_DAY not in limits:
        return None
    spent, count = day_totals(wallet.hours, hour)
    return _above(
        limits, Limit.OUT_AMOUNT_DAY, used=spent, more=amount, code=Code.DAY_AMOUNT_ABOVE_LIMIT
    ) or _above(limits, Limit.OUT_COUNT_DAY, used=count, more=1, code=Code.DAY_COUNT_ABOVE_LIMIT)


def _check_age(state: State, limits: Limits, *, now_ms: int) -> Refusal | None:
    hard_s = limits.get(Limit.OFFLINE_AGE_HARD_S)
    if hard_s is None or now_ms <= state.settled_ms + hard_s * 1000:
        return None
    return refuse(Code.OFFLINE_TOO_LONG, limit=hard_s, left=0)


def check_pair(
    state: State, *, pair: tuple[bytes, bytes], limits: Limits, amount: int, now_ms: int
) -> Refusal | None:
    """Limit 12: what one wallet pays to one payee in a day."""
    if Limit.PAIR_AMOUNT_DAY not in limits:
        return None
    paid, _ = day_totals(state.pairs.get(pair, ()), now_ms // HOUR_MS)
    return _above(limits, Limit.PAIR_AMOUNT_DAY, used=paid, more=amount, code=Code.PAIR_ABOVE_LIMIT)


def check_category(state: State, limits: Limits, category: str | None) -> Refusal | None:
    """Limit 18: the set of list `categories` that the wallet may pay."""
    allowed = limits.get(Limit.CATEGORY_SET)
    if allowed is None:
        return None
    held = state.lists.get(3)
    if held is None or (allowed, category) not in held.items:
        return refuse(Code.CATEGORY_NOT_ALLOWED, f"set {allowed}")
    return None


def check_payee(wallet: Wallet, limits: Limits, *, amount: int) -> Refusal | None:
    """Limits 4 and 9 on what comes into a wallet."""
    if not limits:
        return None
    return _above(
        limits,
        Limit.BALANCE_MAX,
        used=wallet.settled + wallet.unsettled,
        more=amount,
        code=Code.BALANCE_ABOVE_LIMIT,
    ) or _above(
        limits,
        Limit.IN_AMOUNT_SINCE,
        used=wallet.in_amount_since,
        more=amount,
        code=Code.RECEIVED_ABOVE_LIMIT,
    )


def check_journal(state: State, *, now_ms: int, arriving: int) -> Refusal | None:
    """Limits 102, 104 and 112: the exposure, the unsynchronised entries, the policy's age."""
    if now_ms > state.policy_hard_from_ms:
        return refuse(Code.POLICY_EXPIRED)
    limits = state.policy_held().journal
    most = limits.get(JournalLimit.ENTRIES_UNSYNCED_HARD)
    unsynced = state.size - state.settled_size
    if most is not None and unsynced >= most:
        return refuse(Code.JOURNAL_FULL, limit=most, left=0)
    exposure = limits.get(JournalLimit.EXPOSURE_HARD)
    if exposure is not None and arriving and state.unsettled_total + arriving > exposure:
        left = max(0, exposure - state.unsettled_total)
        return refuse(Code.GATEWAY_EXPOSURE, limit=exposure, left=left)
    return None


def soft_signals(
    state: State, wallet: Wallet, limits: Limits, *, amount: int, now_ms: int
) -> tuple[str, ...]:
    """Names of the soft limits that this payment crosses: accepted, but the holder is told."""
    names = []
    journal = state.policy_held().journal
    if wallet.out_amount_since + amount > limits.get(Limit.OUT_AMOUNT_SINCE_SOFT, 2**62):
        names.append("out_amount_since")
    if wallet.out_count_since + 1 > limits.get(Limit.OUT_COUNT_SINCE_SOFT, 2**62):
        names.append("out_count_since")
    if now_ms > state.settled_ms + 1000 * limits.get(Limit.OFFLINE_AGE_SOFT_S, 2**50):
        names.append("offline_age")
    if state.size - state.settled_size >= journal.get(JournalLimit.ENTRIES_UNSYNCED_SOFT, 2**62):
        names.append("entries_unsynced")
    if state.unsettled_total > journal.get(JournalLimit.EXPOSURE_SOFT, 2**62):
        names.append("exposure")
    if now_ms >= state.soft_from_ms:
        names.append("lists_age")
    return tuple(names)
