"""What an issuer that was restored from an older backup takes back into its own series.

Journals enter what the issuer signed: policies and enrolments whole, lists by their hash, which the
reconciler has the journal show (ADR 6). Whatever is taken back here has been applied by the rules,
and so has the issuer's signature.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.database import Connection
from cloud.issuer import lists, objects
from cloud.issuer.desk import Desk
from cloud.issuer.objects import StoredObject, list_series, policy_series
from cloud.log import Log
from wallet.protocol.issued import Enrolment, decode_list
from wallet.protocol.lists import ListId, SignedList
from wallet.protocol.policy import Policy

_log = Log("restored")


async def take_back(
    connection: Connection, entered: Iterable[Enrolment | Policy], *, now_ms: int
) -> None:
    """Remember policies and enrolments that a journal has entered, where they were forgotten."""
    for body in entered:
        if isinstance(body, Policy):
            await _take_policy(connection, body)
        else:
            await _take_enrolment(connection, body, now_ms=now_ms)


async def _take_policy(connection: Connection, policy: Policy) -> None:
    series = policy_series(policy.currency)
    await objects.lock_series(connection, series)
    newest = await objects.newest(connection, series)
    if newest is not None and newest.sequence >= policy.sequence:
        return
    stored = StoredObject(
        sequence=policy.sequence,
        object=policy.signed.raw,
        is_full=True,
        issued_ms=policy.valid_from_ms,
    )
    await objects.publish(connection, series, stored)
    _log.warning("policy.recovered", currency=policy.currency, sequence=policy.sequence)


async def _take_enrolment(connection: Connection, enrolment: Enrolment, *, now_ms: int) -> None:
    made = await connection.fetchval(
        "INSERT INTO wallet_enrolment (journal, wallet, cose_key, tier, label, object, expires_ms,"
        " made_by, created_ms, applied) SELECT $1, $2, $3, $4, $5, $6, $7, 'journal', $8, true"
        " WHERE NOT EXISTS (SELECT FROM wallet_enrolment WHERE journal = $1 AND wallet = $2"
        "  AND tier = $4 AND expires_ms = $7) RETURNING true",
        *(enrolment.journal, enrolment.wallet, enrolment.key.cose_key, enrolment.tier),
        *(enrolment.label, enrolment.signed.raw, enrolment.expires_ms, now_ms),
    )
    if made:
        _log.warning("enrolment.recovered", tier=enrolment.tier)


async def merge_lists(connection: Connection, desk: Desk, *, now_ms: int) -> None:
    """Sign lists anew of which journals hold others, above both, saying what either one says.

    Nobody whom the forgotten list named goes free by the restoration; what was taken out of it
    since the backup is in again, for officers to see. Journals may hold another base: it is full.
    """
    rows = await connection.fetch("SELECT DISTINCT list_id FROM recovered_list WHERE NOT merged")
    for list_id in sorted(ListId(row["list_id"]) for row in rows):
        await objects.lock_series(connection, list_series(list_id))
        await _merge(connection, desk, list_id, now_ms=now_ms)


async def _merge(connection: Connection, desk: Desk, list_id: ListId, *, now_ms: int) -> None:
    recovered = await connection.fetch(
        "UPDATE recovered_list SET merged = true WHERE list_id = $1 AND NOT merged"
        " RETURNING sequence, object",
        int(list_id),
    )
    if not recovered:
        return
    top = decode_list(max(recovered, key=lambda row: int(row["sequence"]))["object"])
    forgotten = lists.put_together(top, await _pool(connection, list_id))
    sequence = await lists.publish_union(
        connection, desk, list_id, forgotten, above=top.sequence, now_ms=now_ms
    )
    _log.warning("list.merged", list=int(list_id), recovered=top.sequence, sequence=sequence)


async def _pool(connection: Connection, list_id: ListId) -> dict[bytes, SignedList]:
    rows = await connection.fetch(
        "SELECT object FROM recovered_list WHERE list_id = $1 UNION ALL"
        " SELECT object FROM issued_object WHERE series = $2",
        *(int(list_id), list_series(list_id)),
    )
    found = [decode_list(row["object"]) for row in rows]
    return {listed.hash: listed for listed in found}
