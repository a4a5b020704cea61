"""The page's tables: what the gateway has and does, in figures and plain words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge.moments import duration, moment
from edge.technician.facts import Age, Facts, Journalled
from edge.technician.notices import DISK_FREE_MIB_MIN
from edge.technician.texts import LINES, Level
from edge.wear import WEARING
from sync.machine import State
from wallet.protocol.money import Currency, decimal_text

COUNTERS = {
    "software": "a file on this disk (software): an older disk that is put back is not noticed",
    "pkcs11": "in the hardware (pkcs11 token)",
    "tpm": "in the hardware (TPM)",
}
KEYS = {
    "software": "a sealed file on this disk (software)",
    "pkcs11": "in a PKCS#11 token",
    "tpm": "in the TPM",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing: its name, what is said of it, and a verdict where there is one."""

    name: str
    text: str
    level: Level | None = None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under one heading."""

    title: str
    rows: Sequence[Row]


def tables(facts: Facts) -> list[Table]:
    """All of them; of a gateway that is not open, what can be known."""
    made = [
        Table(title="Exposure", rows=_exposure(facts)),
        Table(title="Key hardware", rows=_hardware(facts)),
        Table(title="Journal", rows=_journal(facts)),
        Table(title="Line to the cloud", rows=_line(facts)),
        Table(title="The box", rows=_box(facts)),
    ]
    return [table for table in made if table.rows]


def money(minor: int | None, facts: Facts) -> str:
    """An amount with its currency; what has no limit says so."""
    code = facts.gateway.currency
    if minor is None or code is None:
        return "no limit"
    return f"{decimal_text(minor, Currency(code))} {code}"


def _exposure(facts: Facts) -> list[Row]:
    gateway, journal = facts.gateway, facts.journal
    if journal is None:
        return []
    used = gateway.exposure or 0
    over = journal.exposure_soft is not None and used >= journal.exposure_soft
    return [
        Row(
            name="Unsettled value that came in",
            text=money(used, facts),
            level=Level.LOOK if over else Level.WELL,
        ),
        Row(name="Most that the issuer allows", text=money(gateway.exposure_limit, facts)),
        Row(
            name="What putting back an older disk could hide",
            text=f"{money(gateway.window_exposure, facts)} (the counter moves {_window(journal)})",
        ),
        Row(name="Value in wallets here", text=money(gateway.balance_total, facts)),
    ]


def _window(journal: Journalled) -> str:
    """When the counter's window ends, by the policy (limits.md 105 and 106)."""
    ends = [] if journal.window_entries is None else [f"after {journal.window_entries:,} entries"]
    if journal.window_s is not None:
        ends.append(f"after {duration(journal.window_s)}")
    return " or ".join(ends) or "at a start alone"


def _hardware(facts: Facts) -> list[Row]:
    journal = facts.journal
    if journal is None:
        return [Row(name="Keys", text=KEYS[facts.token], level=_soft(facts.token))]
    driver = facts.gateway.counter_driver or "software"
    rows = [
        Row(name="Keys", text=KEYS[journal.token], level=_soft(journal.token)),
        Row(name="Counter against older disks", text=COUNTERS[driver], level=_soft(driver)),
        Row(name="Counter shows", text=str(facts.gateway.counter)),
    ]
    return [*rows, _wear(facts)] if driver in WEARING else rows


def _soft(driver: str) -> Level:
    return Level.LOOK if driver == "software" else Level.WELL


def _wear(facts: Facts) -> Row:
    stored = facts.stored
    if stored is not None and stored.wear is not None:
        return Row(name="Counter's wear", text=stored.wear, level=Level.LOOK)
    moves = None if stored is None else stored.moves_a_year
    known = "known after a day" if moves is None else f"{moves:,} moves a year: it will last"
    return Row(name="Counter's wear", text=known, level=None if moves is None else Level.WELL)


def _journal(facts: Facts) -> list[Row]:
    gateway, journal = facts.gateway, facts.journal
    if journal is None:
        return []
    return [
        Row(name="Gateway", text=f"{gateway.id}, epoch {gateway.epoch}"),
        Row(name="Entries", text=f"{gateway.size:,}"),
        Row(name="Entries that the issuer does not hold yet", text=_waiting(journal, facts)),
        Row(name="Last settlement", text=moment(gateway.settled_ms)),
        Row(name="Audit log's head", text=_audit(facts)),
    ]


def _waiting(journal: Journalled, facts: Facts) -> str:
    return f"{journal.waiting:,}, worth {money(journal.waiting_value, facts)}"


def _audit(facts: Facts) -> str:
    if facts.stored is None:
        return "the store does not answer"
    same = facts.stored.audit == facts.stored.told
    told = "the issuer was told it" if same else "the issuer is told the newest rows next time"
    return f"{facts.stored.audit} ({told})"


def _line(facts: Facts) -> list[Row]:
    line, gateway, journal = facts.line, facts.gateway, facts.journal
    if line is None or journal is None:
        return []
    advice = LINES[State(line.state)]
    left = "no budget" if line.day_bytes_left is None else f"{line.day_bytes_left:,} bytes left"
    offline_left = gateway.offline_left_s
    rows = [
        Row(name="State", text=f"{advice.title} ({line.state})", level=advice.level),
        Row(name="In this state since", text=moment(line.since_ms)),
        Row(name="Last complete exchange", text=_since_start(facts.synchronised_ms)),
        Row(name="Failures in a row", text=str(line.failures)),
        Row(name="Cloud", text=journal.cloud),
        Row(name="Link", text=f"{line.link} ({line.kind})"),
        Row(name="Bytes in a day", text=f"{line.day_bytes:,} used, {left}"),
        Row(
            name="May stay without a settlement for",
            text="any time" if offline_left is None else duration(offline_left),
            level=Level.LOOK if offline_left is not None and offline_left < 86_400 else Level.WELL,
        ),
    ]
    if line.probe_day_bytes_left is not None:
        probes = f"{line.probe_day_bytes:,} used, {line.probe_day_bytes_left:,} bytes left"
        rows.append(Row(name="Of them to see whether the cloud answers", text=probes))
    if line.held_s:
        rows.append(Row(name="Held back by the budget for", text=duration(line.held_s)))
    return rows + [_neighbour(heard.url, heard.failure) for heard in facts.neighbours]


def _since_start(at_ms: int | None) -> str:
    return "none since the start" if at_ms is None else moment(at_ms)


def _neighbour(url: str, failure: str | None) -> Row:
    level = Level.WELL if failure is None else Level.LOOK
    return Row(name=f"Neighbour {url}", text=failure or "answers, or is asked soon", level=level)


def _box(facts: Facts) -> list[Row]:
    free = facts.disk_free_mib
    rows = [
        Row(name="Time of the box", text=moment(facts.gateway.time_ms)),
        Row(
            name="Disk",
            text="cannot be looked at" if free is None else f"{free:,} MiB free",
            level=Level.LOOK if free is None or free < DISK_FREE_MIB_MIN else Level.WELL,
        ),
        Row(
            name="Tamper switch",
            text="tripped" if facts.tripped else _SWITCHES[facts.switch],
            level=_switch_level(facts),
        ),
        Row(name="Certificate for the tills ends", text=_until(facts.server_until_ms)),
        Row(name="Version", text=facts.gateway.version),
    ]
    if facts.journal is None:
        return rows
    clock = facts.gateway.clock
    sure = Row(
        name="Clock",
        text="certain" if clock == "sure" else "uncertain: behind a time that the issuer signed",
        level=Level.WELL if clock == "sure" else Level.LOOK,
    )
    left_s = facts.gateway.certificate_left_s or 0
    own = Row(
        name="Certificate of the gateway's key ends",
        text=moment(facts.gateway.time_ms + left_s * 1000),
        level=Level.WELL if left_s > 0 else Level.BAD,
    )
    return [rows[0], sure, *rows[1:3], own, *rows[3:]]


_SWITCHES = {
    "none": "none: nothing tells that the box is opened",
    "gpio": "not tripped (GPIO line)",
    "file": "not tripped (file)",
}


def _switch_level(facts: Facts) -> Level:
    if facts.tripped:
        return Level.BAD
    return Level.LOOK if facts.switch == "none" else Level.WELL


def _until(at_ms: int | None) -> str:
    return "none yet" if at_ms is None else moment(at_ms)


def age_level(age: Age) -> Level:
    """By the ages of limits.md 107 to 112."""
    if age.hard_s is not None and age.age_s > age.hard_s:
        return Level.BAD
    return Level.LOOK if age.soft_s is not None and age.age_s > age.soft_s else Level.WELL
