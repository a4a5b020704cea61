"""The limits of limits.md, each a small check; the first one broken decides.

The limits of a tier are laid out once as `Bounds`, with a number that nothing reaches where a
policy sets no limit: every payment compares, none looks anything up.
"""

from __future__ import annotations

import functools

import msgspec

from wallet.protocol.entry import Clock
from wallet.protocol.policy import JournalLimit, Limit, Policy, shrunk
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.shapes import COUNT_MAX
from wallet.protocol.state import DAY_HOURS, HOUR_MS, NEVER, Hours, State, Wallet

_SURE = int(Clock.SURE)
_CATEGORIES = 3
_REVOKED_S = JournalLimit.REVOCATION_AGE_HARD_S
_SANCTIONED_S = JournalLimit.SANCTIONS_AGE_HARD_S


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one tier in force. `NEVER`: no limit. Seconds became milliseconds."""

    payment_max: int
    payment_min: int
    pinless_max: int
    balance_max: int
    out_amount_since_soft: int
    out_amount_since_hard: int
    out_count_since_soft: int
    out_count_since_hard: int
    in_amount_since: int
    out_amount_day: int
    out_count_day: int
    pair_amount_day: int
    hops_max: int
    offline_age_soft_ms: int
    offline_age_hard_ms: int
    refund_age_ms: int
    category_set: int
    by_day: bool
    by_pair: bool


class JournalBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The journal-wide limits that payments are held against."""

    exposure_soft: int
    exposure_hard: int
    unsynced_soft: int
    unsynced_hard: int


@functools.lru_cache(maxsize=256)
def _bounds(limits: tuple[tuple[int, int], ...], percent: int) -> Bounds:
    given = shrunk(dict(limits), percent)

    def most(limit: Limit, scale: int = 1) -> int:
        return given[limit] * scale if limit in given else NEVER

    return Bounds(
        payment_max=most(Limit.PAYMENT_MAX),
        payment_min=given.get(Limit.PAYMENT_MIN, 0),
        pinless_max=most(Limit.PINLESS_MAX),
        # What the wire's `count` holds is a limit of its own: of statements, and of hops.
        balance_max=given.get(Limit.BALANCE_MAX, COUNT_MAX),
        out_amount_since_soft=most(Limit.OUT_AMOUNT_SINCE_SOFT),
        out_amount_since_hard=most(Limit.OUT_AMOUNT_SINCE_HARD),
        out_count_since_soft=most(Limit.OUT_COUNT_SINCE_SOFT),
        out_count_since_hard=most(Limit.OUT_COUNT_SINCE_HARD),
        in_amount_since=most(Limit.IN_AMOUNT_SINCE),
        out_amount_day=most(Limit.OUT_AMOUNT_DAY),
        out_count_day=most(Limit.OUT_COUNT_DAY),
        pair_amount_day=most(Limit.PAIR_AMOUNT_DAY),
        hops_max=given.get(Limit.HOPS_MAX, COUNT_MAX),
        offline_age_soft_ms=most(Limit.OFFLINE_AGE_SOFT_S, 1000),
        offline_age_hard_ms=most(Limit.OFFLINE_AGE_HARD_S, 1000),
        refund_age_ms=most(Limit.REFUND_AGE_S, 1000),
        category_set=most(Limit.CATEGORY_SET),
        by_day=Limit.OUT_AMOUNT_DAY in given or Limit.OUT_COUNT_DAY in given,
        by_pair=Limit.PAIR_AMOUNT_DAY in given,
    )


def _laid_out(policy: Policy, tier: int, percent: int) -> Bounds:
    made = policy.laid_out.get((tier, percent))
    if made is None:
        made = _bounds(tuple(sorted(policy.tier(tier).items())), percent)
        policy.laid_out[(tier, percent)] = made
    bounds: Bounds = made
    return bounds


def bounds_of(state: State, wallet: Wallet, *, now_ms: int, clock: int) -> Bounds:
    """The limits in force for a wallet now.

    An uncertain clock (17) and a soft age of policy or lists (113) shrink the amount limits.
    """
    policy = state.policy_held()
    if clock == _SURE and now_ms <= state.soft_from_ms:
        made: Bounds | None = policy.laid_out.get((wallet.tier, 100))
        return _laid_out(policy, wallet.tier, 100) if made is None else made
    percent = 100
    if clock != _SURE:
        percent = policy.tier(wallet.tier).get(Limit.UNCERTAIN_CLOCK_PERCENT, 100)
    if now_ms > state.soft_from_ms:
        percent = min(percent, policy.journal.get(JournalLimit.STALE_PERCENT, 100))
    return _laid_out(policy, wallet.tier, percent)


def journal_bounds(state: State) -> JournalBounds:
    """The journal-wide limits of the policy in force."""
    policy = state.policy_held()
    made = policy.laid_out.get(None)
    if made is None:
        limits = policy.journal
        made = JournalBounds(
            exposure_soft=limits.get(JournalLimit.EXPOSURE_SOFT, NEVER),
            exposure_hard=limits.get(JournalLimit.EXPOSURE_HARD, NEVER),
            unsynced_soft=limits.get(JournalLimit.ENTRIES_UNSYNCED_SOFT, NEVER),
            unsynced_hard=limits.get(JournalLimit.ENTRIES_UNSYNCED_HARD, NEVER),
        )
        policy.laid_out[None] = made
    bounds: JournalBounds = made
    return bounds


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


def _above(code: Code, most: int, used: int) -> Refusal:
    return refuse(code, limit=most, left=max(0, most - used))


def check_payer(
    state: State, wallet: Wallet, bounds: Bounds, *, amount: int, authorisation: int, now_ms: int
) -> Refusal | None:
    """Limits 1 to 3, 6, 8, 10, 11 and 15 on what a wallet spends."""
    if amount > bounds.payment_max:
        return refuse(Code.PAYMENT_ABOVE_LIMIT, limit=bounds.payment_max, left=bounds.payment_max)
    if amount < bounds.payment_min:
        return refuse(Code.PAYMENT_BELOW_LIMIT, limit=bounds.payment_min)
    if authorisation == 0 and amount > bounds.pinless_max:
        return refuse(Code.AUTHORISATION_REQUIRED, limit=bounds.pinless_max)
    spent, count = wallet.out_amount_since, wallet.out_count_since
    if spent + amount > bounds.out_amount_since_hard:
        return _above(Code.SPENT_ABOVE_LIMIT, bounds.out_amount_since_hard, spent)
    if count >= bounds.out_count_since_hard:
        return _above(Code.COUNT_ABOVE_LIMIT, bounds.out_count_since_hard, count)
    if bounds.by_day:
        refused = _check_day(wallet, bounds, amount=amount, hour=now_ms // HOUR_MS)
        if refused is not None:
            return refused
    if now_ms - state.settled_ms > bounds.offline_age_hard_ms:
        return refuse(Code.OFFLINE_TOO_LONG, limit=bounds.offline_age_hard_ms // 1000, left=0)
    return None


def _check_day(wallet: Wallet, bounds: Bounds, *, amount: int, hour: int) -> Refusal | None:
    spent, count = day_totals(wallet.hours, hour)
    if spent + amount > bounds.out_amount_day:
        return _above(Code.DAY_AMOUNT_ABOVE_LIMIT, bounds.out_amount_day, spent)
    if count >= bounds.out_count_day:
        return _above(Code.DAY_COUNT_ABOVE_LIMIT, bounds.out_count_day, count)
    return None


def check_pair(
    state: State, bounds: Bounds, *, payer: bytes, payee: bytes, amount: int, now_ms: int
) -> Refusal | None:
    """Limit 12: what one wallet pays to one payee in a day."""
    paid, _ = day_totals(state.pairs.get((payer, payee), ()), now_ms // HOUR_MS)
    if paid + amount > bounds.pair_amount_day:
        return _above(Code.PAIR_ABOVE_LIMIT, bounds.pair_amount_day, paid)
    return None


def check_refund_age(bounds: Bounds, *, paid_ms: int, now_ms: int) -> Refusal | None:
    """Limit 16: since the refunded payment."""
    if now_ms - paid_ms > bounds.refund_age_ms:
        return refuse(Code.REFUND_TOO_LATE, limit=bounds.refund_age_ms // 1000)
    return None


def check_category(state: State, bounds: Bounds, category: str | None) -> Refusal | None:
    """Limit 18: the set of list `categories` that the wallet may pay; absent is all."""
    if bounds.category_set == NEVER:
        return None
    held = state.lists.get(_CATEGORIES)
    if held is None or (bounds.category_set, category) not in held.items:
        return refuse(Code.CATEGORY_NOT_ALLOWED, f"set {bounds.category_set}")
    return None


def check_payee(wallet: Wallet, bounds: Bounds, *, amount: int) -> Refusal | None:
    """Limits 4 and 9 on what comes into a wallet."""
    balance = wallet.settled + wallet.unsettled
    if balance + amount > bounds.balance_max:
        return _above(Code.BALANCE_ABOVE_LIMIT, bounds.balance_max, balance)
    if wallet.in_amount_since + amount > bounds.in_amount_since:
        return _above(Code.RECEIVED_ABOVE_LIMIT, bounds.in_amount_since, wallet.in_amount_since)
    return None


def check_journal(state: State, *, now_ms: int, arriving: int) -> Refusal | None:
    """Limits 102, 104 and 112: the exposure, the unsynchronised entries, the policy's age."""
    if now_ms > state.policy_hard_from_ms:
        return _policy_expired(state.policy_held(), now_ms)
    bounds = journal_bounds(state)
    if state.size - state.settled_size >= bounds.unsynced_hard:
        return refuse(Code.JOURNAL_FULL, limit=bounds.unsynced_hard, left=0)
    if arriving and state.unsettled_total + arriving > bounds.exposure_hard:
        return _above(Code.GATEWAY_EXPOSURE, bounds.exposure_hard, state.unsettled_total)
    return None


def _policy_expired(policy: Policy, now_ms: int) -> Refusal:
    """By its age, or else by its own end, which is no limit's value."""
    age_s = policy.journal.get(JournalLimit.POLICY_AGE_HARD_S)
    if age_s is None or now_ms <= policy.valid_from_ms + age_s * 1000:
        return refuse(Code.POLICY_EXPIRED, "past its own end")
    return refuse(Code.POLICY_EXPIRED, limit=age_s, left=0)


def lists_stale(state: State, *, now_ms: int) -> Refusal:
    """Limit 108 or 110, whichever is broken: no value to or from other journals."""
    limits = state.policy_held().journal
    ages = ((_REVOKED_S, state.revoked_issued_ms()), (_SANCTIONED_S, state.named_issued_ms()))
    (limit_s, *_) = [
        limits[code]
        for code, since in ages
        if code in limits and now_ms > since + limits[code] * 1000
    ]
    detail = "too old for payments to or from other journals"
    return refuse(Code.LISTS_STALE, detail, limit=limit_s, left=0)


def soft_signals(
    state: State, wallet: Wallet, bounds: Bounds, *, amount: int, now_ms: int
) -> tuple[str, ...]:
    """Names of the soft limits that this payment crosses: accepted, but the holder is told."""
    journal = journal_bounds(state)
    crossed = (
        wallet.out_amount_since + amount > bounds.out_amount_since_soft,
        wallet.out_count_since >= bounds.out_count_since_soft,
        now_ms - state.settled_ms > bounds.offline_age_soft_ms,
        state.size - state.settled_size >= journal.unsynced_soft,
        state.unsettled_total > journal.exposure_soft,
        now_ms > state.soft_from_ms,
    )
    return _names(crossed) if True in crossed else ()


def arrival_signals(state: State, bounds: Bounds, *, arriving: int, now_ms: int) -> tuple[str, ...]:
    """Likewise for a note that is redeemed: it is what raises the exposure."""
    journal = journal_bounds(state)
    return _names(
        (
            False,
            False,
            now_ms - state.settled_ms > bounds.offline_age_soft_ms,
            state.size - state.settled_size >= journal.unsynced_soft,
            state.unsettled_total + arriving > journal.exposure_soft,
            now_ms > state.soft_from_ms,
        )
    )


def _names(crossed: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple([name for name, is_crossed in zip(_SOFT, crossed, strict=True) if is_crossed])


_SOFT = (
    "out_amount_since",
    "out_count_since",
    "offline_age",
    "entries_unsynced",
    "exposure",
    "lists_age",
)
