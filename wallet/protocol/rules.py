"""The rules: one pure decision for every proposal, the same on the gateway and at the issuer.

`decide` says what a proposal does, `advance` of the state carries it out, and `apply` does both
for a whole entry as the issuer receives it.
"""

from __future__ import annotations

import msgspec

from wallet.protocol.context import Context
from wallet.protocol.entry import (
    Body,
    Close,
    Entry,
    ListUpdate,
    Note,
    Open,
    Payment,
    Void,
    encode_entry,
)
from wallet.protocol.issuance import (
    decide_close,
    decide_enrolment,
    decide_grant,
    decide_list,
    decide_open,
    decide_policy,
    decide_settlement,
    decide_void,
)
from wallet.protocol.issued import Enrolment, Grant, Settlement
from wallet.protocol.lists import SignedList
from wallet.protocol.notes import decide_note
from wallet.protocol.payments import decide_payment
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Code, InvariantBroken, Refusal, refuse
from wallet.protocol.state import Decision, State

Proposal = Body | SignedList


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` did: the decision that it carried out."""

    decision: Decision


def decide(
    state: State, proposal: Proposal, context: Context, *, now_ms: int, clock: int
) -> Decision | Refusal:
    """What the proposal would do at `now_ms`, or why it is refused. The state is not touched.

    `now_ms` is the time of the entry, never below that of the entry before.
    """
    if isinstance(proposal, Payment) and state.opened and not state.closed:
        return decide_payment(state, proposal, context, now_ms=now_ms, clock=clock)
    if isinstance(proposal, Open):
        if state.opened:
            return refuse(Code.WRONG_JOURNAL, "this epoch is open already")
        return decide_open(state, proposal, context, now_ms=now_ms)
    if not state.opened:
        return refuse(Code.NOT_PROVISIONED, "the journal is not open")
    if state.closed and not isinstance(proposal, Settlement):
        return refuse(Code.WRONG_JOURNAL, "this epoch is closed")
    if isinstance(proposal, Note):
        return decide_note(state, proposal, context, now_ms=now_ms, clock=clock)
    return _decide_issued(state, proposal, context, now_ms=now_ms)


def _decide_issued(
    state: State, proposal: Proposal, context: Context, *, now_ms: int
) -> Decision | Refusal:
    match proposal:
        case Grant():
            return decide_grant(state, proposal, context, now_ms=now_ms)
        case Enrolment():
            return decide_enrolment(state, proposal, context, now_ms=now_ms)
        case Policy():
            return decide_policy(state, proposal, context)
        case SignedList():
            return decide_list(state, proposal, context)
        case ListUpdate():
            return _decide_named(state, proposal, context)
        case Settlement():
            return decide_settlement(state, proposal, context)
        case Void():
            return decide_void(state, proposal, context)
        case Close():
            return decide_close(proposal)
        case _:
            raise InvariantBroken(f"no rule for {type(proposal).__name__}")


def _decide_named(state: State, update: ListUpdate, context: Context) -> Decision | Refusal:
    """A list by its hash, as an entry names it."""
    given = context.list_named(update)
    if given is None or given.hash != update.hash:
        return refuse(Code.PARENT_MISSING, f"list {update.list_id} is not known by this hash")
    return decide_list(state, given, context)


def apply(state: State, entry: Entry, context: Context) -> Accepted | Refusal:
    """Check a whole entry as the journal's next one and carry it out.

    Raises: nothing of its own; what is refused leaves the state as it was.
    """
    if entry.index != state.size:
        return refuse(Code.MALFORMED, f"entry {entry.index} where {state.size} is next")
    if entry.time_ms < state.time_ms:
        return refuse(Code.MALFORMED, "the time falls")
    decision = decide(state, entry.body, context, now_ms=entry.time_ms, clock=entry.clock)
    if isinstance(decision, Refusal):
        return decision
    # The kind, the hop, the number of a list: all that the journal wrote is what the rules give.
    if entry_bytes(state, decision, time_ms=entry.time_ms, clock=entry.clock) != entry.raw:
        return refuse(Code.MALFORMED, "not the entry that the rules give")
    state.advance(decision, time_ms=entry.time_ms)
    return Accepted(decision=decision)


def entry_bytes(state: State, decision: Decision, *, time_ms: int, clock: int) -> bytes:
    """The entry that a decision becomes, as the next one of the state."""
    return encode_entry(
        kind=decision.kind, index=state.size, time_ms=time_ms, clock=clock, body=decision.body
    )
