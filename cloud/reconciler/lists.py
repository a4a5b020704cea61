"""Lists that many replicas hold: put together once, and kept in memory once."""

from __future__ import annotations

from weakref import WeakValueDictionary

from cloud.database import Connection
from cloud.issuer.lists import put_together
from cloud.issuer.objects import list_series
from cloud.reconciler.values import ReconcilerError
from wallet.protocol.entry import ListUpdate
from wallet.protocol.issued import decode_list
from wallet.protocol.lists import Held
from wallet.protocol.snapshot import lists_apart
from wallet.protocol.state import State

# A list is what its hash says, its base included: whoever holds it may hold the same object.
_shared: WeakValueDictionary[bytes, Held] = WeakValueDictionary()


def share(state: State) -> None:
    """Hold what other replicas hold already."""
    for list_id, held in state.lists.items():
        state.lists[list_id] = _shared.setdefault(held.hash, held)


async def lists_for(connection: Connection, snapshot: bytes) -> dict[int, Held]:
    """The lists that a snapshot names. Raises: ReconcilerError `replica-broken`."""
    return {
        update.list_id: _shared.get(update.hash) or await _held(connection, update)
        for update in lists_apart(snapshot)
    }


async def _held(connection: Connection, update: ListUpdate) -> Held:
    rows = await connection.fetch(
        "SELECT object FROM issued_object WHERE series = $1 AND sequence <= $2"
        " UNION ALL SELECT object FROM recovered_list WHERE list_id = $3 AND sequence <= $2",
        *(list_series(update.list_id), update.sequence, update.list_id),
    )
    pool = {listed.hash: listed for listed in [decode_list(row["object"]) for row in rows]}
    top = pool.get(update.hash)
    found = None if top is None else put_together(top, pool)
    if found is None:
        raise ReconcilerError("replica-broken", f"list {update.list_id} is missing")
    return _shared.setdefault(found.hash, found)
