"""Step 5: the rules on the replica of the state, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.reconciler.context import Facts, IssuerContext
from cloud.reconciler.facts import refunds
from cloud.reconciler.lists import share
from wallet.protocol.entry import Entry
from wallet.protocol.refusals import Refusal
from wallet.protocol.replaying import refundable_of
from wallet.protocol.rules import apply
from wallet.protocol.state import Decision, State


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions on the entries that were accepted, and why the one after them was not.

    Of a decision that is carried out, `fields` are not kept.
    """

    decisions: list[Decision]
    refusal: Refusal | None


def apply_entries(
    state: State,
    entries: Sequence[Entry],
    leaves: Sequence[bytes],
    context: IssuerContext,
    facts: Facts,
) -> Outcome:
    """Carry out the entries until one is refused, which leaves no trace in the state."""
    decisions: list[Decision] = []
    refunded = refunds(entries)
    for entry, leaf in zip(entries, leaves, strict=False):
        outcome = apply(state, entry, context)
        if isinstance(outcome, Refusal):
            return Outcome(decisions=decisions, refusal=outcome)
        decisions.append(_carried_out(outcome.decision))
        if refunded and (payment := refundable_of(entry)) is not None:
            facts.payments[leaf] = payment
    if facts.lists:
        share(state)
    return Outcome(decisions=decisions, refusal=None)


def _carried_out(decision: Decision) -> Decision:
    """Without what the state has already: a settlement's part of it is as large as the state, and a
    branch that was away for a month tells of hundreds of settlements at once."""
    return decision if decision.fields is None else msgspec.structs.replace(decision, fields=None)
