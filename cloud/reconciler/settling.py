"""Verdicts and settlements: the issuer's countersigned word on what journals reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cloud.database import Connection
from cloud.reconciler.stored import held_root
from wallet.protocol.codec import encode
from wallet.protocol.issued import SETTLEMENT_TYPE, VerdictState

RESETTLED_MS = 60_000
# Of a settlement's 1 MiB: the rest is its signature, its certificates and where it stands.
NAMED_BYTES_MAX = 1000 * 1024
_VERDICT_BYTES_MIN = 4
_STATES = {
    "held": VerdictState.HELD,
    "pending": VerdictState.PENDING,
    "rejected": VerdictState.REJECTED,
}


class Signing(Protocol):
    """Signs objects by the key of their type's role."""

    async def sign(self, type_: str, claims: dict[int, Any]) -> bytes:
        """A COSE_Sign1 with its certificate."""
        ...


async def add_verdicts(
    connection: Connection,
    epoch_id: int,
    verdicts: Mapping[int, tuple[VerdictState, str]],
    *,
    now_ms: int,
) -> None:
    """Name entries that are not settled; a verdict that is there stays."""
    if not verdicts:
        return
    await connection.execute(
        "INSERT INTO verdict (epoch_id, index, state, code, decided_ms)"
        " SELECT $1, index, state, code, $5"
        " FROM unnest($2::bigint[], $3::text[], $4::text[]) AS given (index, state, code)"
        " ON CONFLICT DO NOTHING",
        epoch_id,
        list(verdicts),
        [state.name.lower() for state, _ in verdicts.values()],
        [code for _, code in verdicts.values()],
        now_ms,
    )


async def settle_entry(connection: Connection, *, epoch_id: int, index: int, now_ms: int) -> bool:
    """What waited for its parent is settled from now on; false where it did not."""
    found = await connection.fetchval(
        "UPDATE verdict SET state = 'settled', decided_ms = $3, told = false"
        " WHERE epoch_id = $1 AND index = $2 AND state = 'pending' RETURNING true",
        *(epoch_id, index, now_ms),
    )
    return bool(found)


async def settle_entries(
    connection: Connection, places: Sequence[tuple[bytes, int, int]], *, now_ms: int
) -> None:
    """As `settle_entry`, for many: journal, epoch and index of each."""
    columns = [list(column) for column in zip(*places, strict=True)] or [[], [], []]
    await connection.execute(
        "UPDATE verdict SET state = 'settled', decided_ms = $4, told = false"
        " FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS given (journal, epoch, index)"
        " JOIN journal_epoch USING (journal, epoch)"
        " WHERE verdict.epoch_id = journal_epoch.epoch_id AND verdict.index = given.index"
        " AND verdict.state = 'pending'",
        *(*columns, now_ms),
    )


async def settle(connection: Connection, signing: Signing, epoch_id: int, *, now_ms: int) -> None:
    """Sign the settlement of all that an epoch's journal has told, and keep it.

    It names what it does not settle, of which it has room for some 40,000: where there are more, it
    ends before the first one that it cannot name, and waits for officers to decide.
    """
    row = await connection.fetchrow(
        "SELECT journal, epoch, made.size, root, last.size AS last_size, last.time_ms AS last_ms"
        " FROM journal_epoch AS made LEFT JOIN LATERAL (SELECT size, time_ms"
        "  FROM settlement WHERE settlement.epoch_id = made.epoch_id"
        "  ORDER BY size DESC, time_ms DESC LIMIT 1) AS last ON true WHERE epoch_id = $1",
        epoch_id,
    )
    named, size = await _named(connection, epoch_id, row["size"])
    root = row["root"]
    if size < row["size"]:
        if size == row["last_size"] and not await _untold(connection, epoch_id, below=size):
            return
        root = await held_root(connection, epoch_id, size)
    # Of one size, only a later settlement counts: time never stands still between two.
    time_ms = max(now_ms, (row["last_ms"] or 0) + 1)
    claims = {2: row["journal"], 3: row["epoch"], 4: size, 5: root, 6: named, 7: time_ms}
    signed = await signing.sign(SETTLEMENT_TYPE, claims)
    await connection.execute(
        "UPDATE verdict SET told = true WHERE epoch_id = $1 AND NOT told", epoch_id
    )
    await connection.execute(
        "INSERT INTO settlement (epoch_id, size, root, time_ms, object)"
        " VALUES ($1, $2, $3, $4, $5)",
        *(epoch_id, size, root, time_ms, signed),
    )


async def _named(
    connection: Connection, epoch_id: int, size: int
) -> tuple[list[list[int | str]], int]:
    """What a settlement names, in order, and the size up to which there is room for all of it."""
    rows = await connection.fetch(
        "SELECT index, state, code FROM verdict"
        " WHERE epoch_id = $1 AND state <> 'settled' ORDER BY index LIMIT $2",
        *(epoch_id, NAMED_BYTES_MAX // _VERDICT_BYTES_MIN),
    )
    named: list[list[int | str]] = []
    room = NAMED_BYTES_MAX
    for row in rows:
        verdict = [row["index"], int(_STATES[row["state"]]), row["code"]]
        room -= len(encode(verdict))
        if room < 0:
            return named, row["index"]
        named.append(verdict)
    return named, size


async def _untold(connection: Connection, epoch_id: int, *, below: int) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM verdict WHERE epoch_id = $1 AND NOT told AND index < $2)",
        *(epoch_id, below),
    )
    return found


async def is_due(connection: Connection, epoch_id: int, *, told: bool, now_ms: int) -> bool:
    """Whether there is something to say. `told`: whether the journal told more than settlements.

    Entering a settlement is no reason for another one, or the two would answer each other for ever;
    that the last one is old is a reason, because a journal's age counts from it.
    """
    row = await connection.fetchrow(
        "SELECT (SELECT max(time_ms) FROM settlement WHERE epoch_id = $1) AS last_ms,"
        " EXISTS (SELECT FROM verdict WHERE epoch_id = $1 AND NOT told) AS untold",
        epoch_id,
    )
    last_ms = row["last_ms"]
    return told or row["untold"] or last_ms is None or now_ms - last_ms >= RESETTLED_MS
