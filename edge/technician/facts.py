"""What the page tells, gathered at one moment; it is there whatever is broken."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edge.authority import has_authority, server_certificate
from edge.errors import FileUnreadable
from edge.folder import Folder
from edge.gateway import Opened
from edge.health import gateway_answer
from edge.heard import Heard
from edge.http.context import Context
from edge.http.links import LineAnswer, line_answer
from edge.http.problem import ProblemRaised
from edge.http.types import GatewayAnswer
from edge.tamper import read_mark
from edge.wear import Sample, load_samples, moves_a_year, wears_out
from wallet.protocol.lists import ListId
from wallet.protocol.policy import JournalLimit
from wallet.protocol.state import State
from wallet.store.audit import audit_anchor, audit_head
from wallet.store.connection import Connection
from wallet.store.errors import StoreError

# How long the page waits for the store before it says that it does not answer.
STORE_S = 2.0
_REVOCATIONS = (ListId.JOURNALS, ListId.WALLETS, ListId.CERTIFICATES)
_REVOCATION_AGES = (JournalLimit.REVOCATION_AGE_SOFT_S, JournalLimit.REVOCATION_AGE_HARD_S)
_SANCTION_AGES = (JournalLimit.SANCTIONS_AGE_SOFT_S, JournalLimit.SANCTIONS_AGE_HARD_S)
_POLICY_AGES = (JournalLimit.POLICY_AGE_SOFT_S, JournalLimit.POLICY_AGE_HARD_S)


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """A list or the policy: how old, and from which ages on it weighs. None is no such age.

    A list that was never held has no sequence, and counts from the opening of the epoch.
    """

    name: str
    sequence: int | None
    age_s: int
    soft_s: int | None
    hard_s: int | None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows: heads of the audit log as NUMBER:HASH, and the counter's wear."""

    audit: str
    told: str
    moves_a_year: int | None
    wear: str | None


class Journalled(msgspec.Struct, frozen=True, kw_only=True):
    """What only an open journal knows. Amounts in minor units; None is no limit."""

    waiting: int
    waiting_value: int
    settled_value: int
    exposure_soft: int | None
    entries_hard: int | None
    ages: tuple[Age, ...]
    reduced: bool
    lists_stale: bool
    policy_expired: bool
    window_entries: int | None
    window_s: int | None
    token: str
    cloud: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything; `gateway` has what every interface tells."""

    gateway: GatewayAnswer
    tripped: bool
    switch: str
    token: str
    disk_free_mib: int | None
    server_until_ms: int | None
    line: LineAnswer | None = None
    synchronised_ms: int | None = None
    journal: Journalled | None = None
    stored: Stored | None = None
    neighbours: Sequence[Heard] = ()


async def gather(context: Context) -> Facts:
    """Look at everything once."""
    gateway, control = context.gateway, context.control
    folder, opened = gateway.folder, gateway.opened
    facts = Facts(
        gateway=gateway_answer(gateway, online=control.online()),
        tripped=read_mark(folder) is not None,
        switch=gateway.config.tamper.source,
        token=gateway.config.token.driver,
        disk_free_mib=_disk_free_mib(folder.root),
        server_until_ms=_server_until_ms(folder),
        neighbours=tuple(control.neighbours()),
    )
    try:
        status = control.line()
        facts = msgspec.structs.replace(
            facts, line=line_answer(status), synchronised_ms=status.completed_ms
        )
    except ProblemRaised:
        # A gateway that is closed has no line.
        pass
    if opened is None:
        return facts
    return msgspec.structs.replace(
        facts,
        journal=_journalled(opened, context, now_ms=facts.gateway.time_ms),
        stored=await _stored(opened, now_ms=facts.gateway.time_ms),
    )


def _journalled(opened: Opened, context: Context, *, now_ms: int) -> Journalled:
    state, acknowledged = opened.journal.state, opened.journal.acknowledged
    movements = state.movements
    url = context.gateway.config.sync.url or opened.identity.cloud_url
    return Journalled(
        waiting=max(0, state.size - acknowledged),
        waiting_value=sum(movements.amounts[movements.cut(acknowledged) :]),
        settled_value=state.balance_total() - state.unsettled_total,
        exposure_soft=state.journal_limit(JournalLimit.EXPOSURE_SOFT),
        entries_hard=state.journal_limit(JournalLimit.ENTRIES_UNSYNCED_HARD),
        ages=_ages(state, now_ms=now_ms),
        reduced=now_ms > state.soft_from_ms,
        lists_stale=now_ms > state.lists_hard_from_ms,
        policy_expired=now_ms > state.policy_hard_from_ms,
        window_entries=state.journal_limit(JournalLimit.WINDOW_ENTRIES),
        window_s=state.journal_limit(JournalLimit.WINDOW_S),
        token=opened.token.driver,
        cloud=urlsplit(url).netloc,
    )


def _ages(state: State, *, now_ms: int) -> tuple[Age, ...]:
    """The policy, the lists whose age counts, and the others that are held."""
    found, policy = [], state.policy
    if policy is not None:
        since_ms = policy.valid_from_ms
        found.append(_age(state, "policy", policy.sequence, since_ms, _POLICY_AGES, now_ms))
    for list_id in ListId:
        held, bounds = state.lists.get(list_id), _bounds(list_id)
        if held is None and bounds is None:
            continue
        since_ms = state.opened_ms if held is None else held.issued_ms
        sequence = None if held is None else held.sequence
        found.append(_age(state, list_id.name.lower(), sequence, since_ms, bounds, now_ms))
    return tuple(found)


def _bounds(list_id: ListId) -> tuple[JournalLimit, JournalLimit] | None:
    if list_id in _REVOCATIONS:
        return _REVOCATION_AGES
    return _SANCTION_AGES if list_id is ListId.SANCTIONED else None


def _age(
    state: State,
    name: str,
    sequence: int | None,
    since_ms: int,
    bounds: tuple[JournalLimit, JournalLimit] | None,
    now_ms: int,
) -> Age:
    return Age(
        name=name,
        sequence=sequence,
        age_s=max(0, now_ms - since_ms) // 1000,
        soft_s=None if bounds is None else state.journal_limit(bounds[0]),
        hard_s=None if bounds is None else state.journal_limit(bounds[1]),
    )


async def _stored(opened: Opened, *, now_ms: int) -> Stored | None:
    """None when the store does not answer: the page is there all the same."""
    status = opened.journal.status()
    sample = Sample(time_ms=now_ms, counter=status.counter)

    def read(connection: Connection) -> Stored:
        moves = moves_a_year(load_samples(connection), sample)
        return Stored(
            audit=str(audit_head(connection)),
            told=str(audit_anchor(connection)),
            moves_a_year=moves,
            wear=wears_out(moves, status.counter_driver),
        )

    try:
        async with asyncio.timeout(STORE_S):
            return await opened.database.read(read)
    except (StoreError, TimeoutError):
        return None


def _disk_free_mib(root: Path) -> int | None:
    try:
        return shutil.disk_usage(root).free // 1024 // 1024
    except OSError:
        return None


def _server_until_ms(folder: Folder) -> int | None:
    try:
        if not has_authority(folder):
            return None
        until = server_certificate(folder).not_valid_after_utc
    except (FileUnreadable, OSError, ValueError):
        return None
    return int(until.timestamp()) * 1000
