"""What the technician's page is shown: one open gateway, and every state that has a name."""

from __future__ import annotations

from typing import Any

import msgspec

from edge.heard import Heard
from edge.http.links import LineAnswer
from edge.http.types import GatewayAnswer, ListAge
from edge.technician.facts import Age, Facts, Journalled, Stored
from edge.technician.texts import LINES, TOKENS, Trouble
from sync.machine import State
from wallet.journal import Mode

NOW_MS = 1_790_000_000_000
DAY_S = 86_400

GATEWAY = GatewayAnswer(
    state="online",
    mode=Mode.OPEN,
    version="1.2.3",
    time_ms=NOW_MS,
    id="jnl1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
    epoch=1,
    currency="EUR",
    clock="sure",
    size=1_250,
    acknowledged=1_200,
    settled=1_100,
    settled_ms=NOW_MS - 3_600_000,
    policy_sequence=3,
    lists=[ListAge(list="wallets", sequence=7, age_s=600)],
    exposure=123_456,
    exposure_limit=500_000,
    window_exposure=7_890,
    wallets=12,
    balance_total=987_654,
    offline_left_s=6 * DAY_S,
    counter_driver="tpm",
    counter=42,
    certificate_left_s=9 * DAY_S,
)
LINE = LineAnswer(
    state=State.IDLE,
    since_ms=NOW_MS - 60_000,
    failures=0,
    link="eth0",
    kind="free",
    segment_bytes=65_536,
    day_bytes=12_345,
    probe_day_bytes=4_321,
    probe_day_bytes_left=50_000,
    held_s=0,
    counted=[],
)
JOURNAL = Journalled(
    waiting=50,
    waiting_value=55_500,
    settled_value=864_198,
    exposure_soft=400_000,
    entries_hard=10_000,
    ages=(
        Age(name="policy", sequence=3, age_s=DAY_S, soft_s=7 * DAY_S, hard_s=30 * DAY_S),
        Age(name="wallets", sequence=7, age_s=600, soft_s=DAY_S, hard_s=7 * DAY_S),
        Age(name="sanctioned", sequence=None, age_s=700, soft_s=DAY_S, hard_s=7 * DAY_S),
        Age(name="categories", sequence=1, age_s=800, soft_s=None, hard_s=None),
    ),
    reduced=False,
    lists_stale=False,
    policy_expired=False,
    window_entries=1_000,
    window_s=3_600,
    token="tpm",
    cloud="cloud.example:8443",
)
OPEN = Facts(
    gateway=GATEWAY,
    tripped=False,
    switch="gpio",
    token="tpm",
    disk_free_mib=40_000,
    server_until_ms=NOW_MS + 90 * DAY_S * 1000,
    line=LINE,
    synchronised_ms=NOW_MS - 60_000,
    journal=JOURNAL,
    stored=Stored(audit="12:" + "ab" * 32, told="12:" + "ab" * 32, moves_a_year=8_760, wear=None),
)


def changed(facts: Facts = OPEN, /, **changes: Any) -> Facts:
    """The facts with changes: of the gateway, the line and the journal by their prefixes."""
    parts: dict[str, dict[str, Any]] = {"gateway": {}, "line": {}, "journal": {}, "": {}}
    for name, value in changes.items():
        prefix, _, rest = name.partition("__")
        part, field = (prefix, rest) if rest else ("", name)
        parts[part][field] = value
    whole = parts.pop("")
    for part, fields in parts.items():
        if fields:
            whole[part] = msgspec.structs.replace(getattr(facts, part), **fields)
    return msgspec.structs.replace(facts, **whole)


def closed(mode: Mode, cause: str = "", **changes: Any) -> Facts:
    """A gateway that could not be opened."""
    base = GatewayAnswer(
        state="unknown", mode=mode, version="1.2.3", time_ms=NOW_MS, cause=cause or None
    )
    facts = msgspec.structs.replace(
        OPEN, gateway=base, line=None, synchronised_ms=None, journal=None, stored=None
    )
    return msgspec.structs.replace(facts, **changes)


_TROUBLES: dict[Trouble, Facts] = {
    Trouble.TAMPER_SWITCH: closed(Mode.FROZEN_TAMPER, "the tamper switch tripped", tripped=True),
    Trouble.POLICY_EXPIRED: changed(journal__policy_expired=True),
    Trouble.JOURNAL_FULL: changed(gateway__size=11_100),
    Trouble.LISTS_STALE: changed(journal__lists_stale=True, journal__reduced=True),
    Trouble.EXPOSURE_FULL: changed(gateway__exposure=500_000),
    Trouble.OFFLINE_TOO_LONG: changed(gateway__offline_left_s=0),
    Trouble.CERTIFICATE_ENDED: changed(gateway__certificate_left_s=-5),
    Trouble.REDUCED: changed(journal__reduced=True),
    Trouble.CLOCK_UNCERTAIN: changed(gateway__clock="uncertain"),
    Trouble.DISK_LOW: changed(disk_free_mib=100),
    Trouble.WORN: changed(
        stored=Stored(audit="9:" + "cd" * 32, told="8:" + "ab" * 32, moves_a_year=3, wear="soon")
    ),
    Trouble.BUDGET_SPENT: changed(line__held_s=7_200, line__day_bytes_left=0),
    Trouble.STORE_SILENT: changed(stored=None),
}
STATES: dict[str, Facts] = {
    **{str(mode): closed(mode) for mode in Mode if mode is not Mode.OPEN},
    str(Mode.OPEN): OPEN,
    "frozen-rollback, opened": changed(
        gateway__mode=Mode.FROZEN_ROLLBACK, gateway__cause="the store does not fit the counter"
    ),
    **{
        f"sealed, {code}": closed(Mode.SEALED, f"{code}: what happened. What it means.")
        for code in TOKENS
    },
    **{f"line {state}": changed(line__state=state, line__failures=2) for state in LINES},
    **{str(trouble): facts for trouble, facts in _TROUBLES.items()},
    "software": changed(
        token="software",
        journal__token="software",
        gateway__counter_driver="software",
        neighbours=(Heard(url="https://10.1.2.4:8442", failure="no answer"),),
    ),
}
