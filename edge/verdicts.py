"""What settlements say of single entries: held, pending or rejected. The rest below is settled."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from wallet.journal import Journal
from wallet.protocol.entry import decode_entry
from wallet.protocol.issued import Settlement, Verdict, VerdictState
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.meta import get_meta, put_meta
from wallet.store.objects import HeldObject, delete_object, list_objects, put_object

KIND = "verdict"
PAGE = 1_000
REPAIR_PAGE = 256


def read_verdict(connection: Connection, index: int) -> Verdict | None:
    """The verdict on one entry, if a settlement named it."""
    found = list_objects(connection, KIND, index - 1, 1)
    return _decoded(found[0]) if found and found[0].sequence == index else None


def read_verdicts(connection: Connection) -> list[Verdict]:
    """All that are in force, by index."""
    found: list[HeldObject] = []
    while True:
        page = list_objects(connection, KIND, found[-1].sequence if found else -1, PAGE)
        found += page
        if len(page) < PAGE:
            return [_decoded(held) for held in found]


def keep_verdicts(connection: Connection, settlement: Settlement) -> None:
    """Take over the verdicts of a settlement. What it covers and does not name is settled."""
    named = {verdict.index for verdict in settlement.verdicts}
    for known in read_verdicts(connection):
        if known.index < settlement.size and known.index not in named:
            delete_object(connection, KIND, known.index)
    put_meta(connection, KIND, str(settlement.size).encode())
    for verdict in settlement.verdicts:
        value = msgspec.msgpack.encode((verdict.state, verdict.code))
        put_object(connection, HeldObject(kind=KIND, sequence=verdict.index, object=value))


async def repair_verdicts(journal: Journal, database: Database) -> None:
    """Verdicts of the last settlement, should a crash have come between it and them."""
    settled_size = journal.state.settled_size
    kept = await database.read(lambda connection: get_meta(connection, KIND))
    if settled_size == int(kept or b"0"):
        return
    for end in range(journal.state.size, 0, -REPAIR_PAGE):
        first = max(0, end - REPAIR_PAGE)
        for raw in reversed(await journal.entries(first, end - first)):
            body = decode_entry(raw).body
            if isinstance(body, Settlement):
                await database.write(functools.partial(keep_verdicts, settlement=body))
                return


def _decoded(held: HeldObject) -> Verdict:
    state, code = msgspec.msgpack.decode(held.object, type=tuple[int, str])
    return Verdict(held.sequence, state, code)


def state_of(index: int, *, settled_size: int, verdict: Verdict | None) -> tuple[str, str]:
    """(state, finality) of an entry as the interface says them."""
    if index >= settled_size:
        return "accepted", "provisional"
    if verdict is None:
        return "settled", "final"
    names = {
        VerdictState.HELD: ("held", "provisional"),
        VerdictState.PENDING: ("pending", "provisional"),
        VerdictState.REJECTED: ("rejected", "final"),
    }
    return names[VerdictState(verdict.state)]


def by_index(verdicts: Sequence[Verdict]) -> dict[int, Verdict]:
    """Verdicts to look up in."""
    return {verdict.index: verdict for verdict in verdicts}
