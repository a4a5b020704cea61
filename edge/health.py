"""The gateway at a glance, and whether it can take a payment now."""

from __future__ import annotations

import msgspec

from edge.gateway import Gateway, Opened
from edge.http.types import GatewayAnswer, Health, ListAge
from edge.version import version
from wallet.journal import Mode
from wallet.protocol.lists import ListId
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.state import NEVER, State

# What a technician can do about a journal that takes nothing.
_CAUSES = {
    Mode.FROZEN_ROLLBACK: "the store is older than the token's counter, as a restored copy is: it "
    "never goes on; let the issuer close this epoch, and enrol for the next one",
    Mode.FROZEN_BY_ISSUER: "the issuer revoked this journal or closed its epoch",
}


def gateway_answer(gateway: Gateway, *, online: bool | None) -> GatewayAnswer:
    """Mode, journal, ages and exposure. Being offline is not unhealthy."""
    names = {None: "unknown", True: "online", False: "offline"}
    base = GatewayAnswer(
        state=names[online],  # type: ignore[arg-type]  # one of the names that the type lists
        mode=str(gateway.mode),
        version=version(),
        time_ms=gateway.clock.now_ms(),
        cause=_cause(gateway),
    )
    opened = gateway.opened
    return base if opened is None else _with_journal(base, opened)


def _cause(gateway: Gateway) -> str | None:
    if gateway.mode is Mode.OPEN:
        return None
    if gateway.opened is None:
        return gateway.cause or None
    return _CAUSES.get(gateway.mode, gateway.cause) or None


def _with_journal(base: GatewayAnswer, opened: Opened) -> GatewayAnswer:
    status, state = opened.journal.status(), opened.journal.state
    now_ms = base.time_ms
    left_s = _offline_left_s(state, now_ms=now_ms)
    return msgspec.structs.replace(
        base,
        id=status.journal,
        epoch=status.epoch,
        currency=status.currency,
        clock=status.clock,
        size=status.size,
        acknowledged=status.acknowledged,
        settled=status.settled_size,
        settled_ms=status.settled_ms,
        policy_sequence=status.policy_sequence,
        policy_left_s=_seconds(state.policy_hard_from_ms, now_ms),
        lists=[
            ListAge(
                list=ListId(list_id).name.lower(),
                sequence=sequence,
                age_s=max(0, now_ms - issued_ms) // 1000,
            )
            for list_id, (sequence, issued_ms) in sorted(status.lists.items())
        ],
        exposure=status.exposure,
        exposure_limit=state.journal_limit(JournalLimit.EXPOSURE_HARD),
        window_exposure=status.window_exposure,
        wallets=status.wallets,
        balance_total=status.balance_total,
        offline_since_ms=None if base.state == "online" else status.settled_ms,
        offline_left_s=left_s,
        counter_driver=status.counter_driver,
        counter=status.counter,
        certificate_left_s=status.certificate_not_after_s - now_ms // 1000,
    )


def _seconds(until_ms: int, now_ms: int) -> int | None:
    return None if until_ms >= NEVER else (until_ms - now_ms) // 1000


def _offline_left_s(state: State, *, now_ms: int) -> int | None:
    """Until the strictest tier may pay no more without a settlement."""
    tiers = {} if state.policy is None else state.policy.tiers
    limits = [
        tier[Limit.OFFLINE_AGE_HARD_S]
        for tier in tiers.values()
        if Limit.OFFLINE_AGE_HARD_S in tier
    ]
    if not limits:
        return None
    return max(0, (state.settled_ms - now_ms) // 1000 + min(limits))


def readiness(gateway: Gateway) -> Health:
    """`ok` when a payment would be taken now, offline included; else the code of the refusals."""
    mode = gateway.mode
    if mode is Mode.OPEN:
        return Health(status="ok")
    return Health(status="refusing", code=str(mode))
