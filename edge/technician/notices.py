"""Which states the gateway is in, the most urgent first. Pure."""

from __future__ import annotations

import msgspec

from edge.technician.facts import Facts, Journalled
from edge.technician.texts import (
    LINES,
    MODES,
    OPEN_BUT,
    TOKENS,
    TROUBLES,
    Advice,
    Level,
    Trouble,
)
from sync.machine import State
from wallet.journal import Mode

# Below this many MiB the disk is worth a look, as `doctor` has it.
DISK_FREE_MIB_MIN = 512
# With these an open gateway takes no payment at all.
STOPPING = (Trouble.POLICY_EXPIRED, Trouble.JOURNAL_FULL)
_ORDER = {Level.BAD: 0, Level.LOOK: 1, Level.WELL: 2}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One state that the gateway is in. `cause` is what it knows beyond the advice."""

    name: str
    advice: Advice
    cause: str = ""


def notices(facts: Facts) -> list[Notice]:
    """The mode first, then what else is the matter."""
    found = troubles(facts)
    rest = [*_line(facts), *(Notice(name=name, advice=TROUBLES[name]) for name in found)]
    rest.sort(key=lambda notice: (notice.name not in STOPPING, _ORDER[notice.advice.level]))
    mode = _mode(facts)
    if mode.name != Mode.OPEN or not rest:
        return [mode, *rest]
    # What stops all payments stands in the place of a mode that says the contrary.
    stopped = rest[0].name in STOPPING
    return rest if stopped else [Notice(name=mode.name, advice=OPEN_BUT), *rest]


def _mode(facts: Facts) -> Notice:
    mode, cause = Mode(facts.gateway.mode), facts.gateway.cause or ""
    if mode is Mode.FROZEN_TAMPER and facts.tripped:
        return Notice(name=mode, advice=TROUBLES[Trouble.TAMPER_SWITCH], cause=cause)
    code = cause.partition(":")[0]
    if mode is Mode.SEALED and code in TOKENS:
        return Notice(name=code, advice=TOKENS[code], cause=cause)
    return Notice(name=mode, advice=MODES[mode], cause=cause)


def _line(facts: Facts) -> list[Notice]:
    """The synchronisation, where somebody has to do something about it."""
    if facts.line is None:
        return []
    advice = LINES[State(facts.line.state)]
    # Whoever has not tried yet has not failed.
    tried = facts.line.state != State.OFFLINE or facts.line.failures
    if advice.level is Level.WELL or not tried:
        return []
    return [Notice(name=facts.line.state, advice=advice)]


def troubles(facts: Facts) -> list[Trouble]:
    """What else is the matter with it."""
    found = []
    if facts.disk_free_mib is not None and facts.disk_free_mib < DISK_FREE_MIB_MIN:
        found.append(Trouble.DISK_LOW)
    if facts.line is not None and facts.line.held_s:
        found.append(Trouble.BUDGET_SPENT)
    if facts.journal is None:
        return found
    if facts.stored is None:
        found.append(Trouble.STORE_SILENT)
    elif facts.stored.wear is not None:
        found.append(Trouble.WORN)
    if facts.gateway.clock != "sure":
        found.append(Trouble.CLOCK_UNCERTAIN)
    if (facts.gateway.certificate_left_s or 0) <= 0:
        found.append(Trouble.CERTIFICATE_ENDED)
    return [*found, *_limits(facts, facts.journal)]


def _limits(facts: Facts, journal: Journalled) -> list[Trouble]:
    gateway, found = facts.gateway, []
    unsettled = (gateway.size or 0) - (gateway.settled or 0)
    if journal.policy_expired:
        found.append(Trouble.POLICY_EXPIRED)
    if journal.entries_hard is not None and unsettled >= journal.entries_hard:
        found.append(Trouble.JOURNAL_FULL)
    if gateway.exposure_limit is not None and (gateway.exposure or 0) >= gateway.exposure_limit:
        found.append(Trouble.EXPOSURE_FULL)
    if gateway.offline_left_s == 0:
        found.append(Trouble.OFFLINE_TOO_LONG)
    if journal.lists_stale:
        found.append(Trouble.LISTS_STALE)
    elif journal.reduced:
        found.append(Trouble.REDUCED)
    return found
