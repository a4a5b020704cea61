"""A journal at a glance, for people and their tools."""

from __future__ import annotations

from hsm.api import Counter
from wallet.journal.engine import Engine
from wallet.journal.values import JournalStatus
from wallet.protocol.entry import Clock as Certainty
from wallet.protocol.ids import journal_text


def status_of(engine: Engine, counter: Counter, *, acknowledged: int) -> JournalStatus:
    """How it stands now."""
    state, head, certainty = engine.state, engine.head, engine.clock.read()[1]
    return JournalStatus(
        journal=journal_text(state.journal),
        epoch=state.epoch,
        currency=state.currency,
        mode=engine.mode,
        clock="sure" if certainty == Certainty.SURE else "uncertain",
        size=state.size,
        acknowledged=acknowledged,
        settled_size=state.settled_size,
        settled_ms=state.settled_ms,
        exposure=state.unsettled_total,
        balance_total=state.balance_total(),
        wallets=len(state.wallets),
        policy_sequence=-1 if state.policy is None else state.policy.sequence,
        lists={held.list_id: (held.sequence, held.issued_ms) for held in state.lists.values()},
        counter_driver=counter.driver,
        counter=head.counter,
        certificate_not_after_s=head.not_after_s,
        window_exposure=_window_exposure(engine),
    )


def _window_exposure(engine: Engine) -> int:
    """Value that moved since the counter's window began: what a rollback could hide."""
    movements = engine.state.movements
    return sum(movements.amounts[movements.cut(engine.head.window_start) :])
