"""The states of a synchronisation, and what leads from one to the next: a table, and nothing else.

- `offline`: nothing has got through, at the start or the last time; it is tried again after waits
  that grow.
- `probing`: seeing whether the cloud answers, before anything is signed for it.
- `captive`: somebody else answers in the cloud's place, such as a portal that wants a log-in, or
  whoever a lying name server names. It is told nothing.
- `exchanging`: envelopes go there and come back.
- `idle`: the last session ended well.
- `metered`: likewise, on a link that costs by the byte: what can wait waits, for the next session
  that has value to carry or for the day's budget.
- `suspended`: the issuer takes nothing more from this journal and epoch. It is not asked again
  until something wakes the engine: the issuer may have lifted it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from wallet.protocol.refusals import InvariantBroken


class State(enum.StrEnum):
    """What the engine is doing; see the module."""

    OFFLINE = "offline"
    PROBING = "probing"
    CAPTIVE = "captive"
    METERED = "metered"
    EXCHANGING = "exchanging"
    IDLE = "idle"
    SUSPENDED = "suspended"


class Event(enum.Enum):
    """What happens to it.

    `BEGIN`: a session may begin. `REACHED`: the cloud itself answered the probe. `PORTAL`: somebody
    else did. `DONE`, `DONE_METERED`: the session ended well. `SPENT`: the link's budget is used up.
    `CLOSED`: the issuer closed or froze this journal. `LOST`: anything else went wrong.
    """

    BEGIN = enum.auto()
    REACHED = enum.auto()
    PORTAL = enum.auto()
    DONE = enum.auto()
    DONE_METERED = enum.auto()
    SPENT = enum.auto()
    CLOSED = enum.auto()
    LOST = enum.auto()


# Whoever was reached last time is not probed: that would cost more than it saves.
_TABLE: Mapping[State, Mapping[Event, State]] = {
    State.OFFLINE: {
        Event.BEGIN: State.PROBING,
        Event.SPENT: State.OFFLINE,
        Event.LOST: State.OFFLINE,
    },
    State.PROBING: {
        Event.REACHED: State.EXCHANGING,
        Event.PORTAL: State.CAPTIVE,
        Event.LOST: State.OFFLINE,
    },
    State.CAPTIVE: {
        Event.BEGIN: State.PROBING,
        Event.SPENT: State.CAPTIVE,
        Event.LOST: State.OFFLINE,
    },
    State.METERED: {Event.BEGIN: State.EXCHANGING, Event.SPENT: State.METERED},
    State.EXCHANGING: {
        Event.DONE: State.IDLE,
        Event.DONE_METERED: State.METERED,
        Event.SPENT: State.METERED,
        Event.CLOSED: State.SUSPENDED,
        Event.PORTAL: State.CAPTIVE,
        Event.LOST: State.OFFLINE,
    },
    State.IDLE: {Event.BEGIN: State.EXCHANGING, Event.SPENT: State.METERED},
    State.SUSPENDED: {Event.BEGIN: State.EXCHANGING, Event.SPENT: State.SUSPENDED},
}


def after(state: State, event: Event) -> State:
    """The next state. Raises: InvariantBroken for what cannot happen in this one."""
    following = _TABLE[state].get(event)
    if following is None:
        raise InvariantBroken(f"{event.name} while {state}")
    return following
