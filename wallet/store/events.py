"""The outbox of events that terminals and tools read as a stream, by rising id."""

from collections.abc import Iterable

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import values_of


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; the body is JSON."""

    id: int
    name: str
    body: bytes
    time_ms: int


def append_events(conn: Connection, events: Iterable[tuple[str, bytes, int]]) -> int:
    """Store events as (name, JSON body, time); gives the last id, 0 when there never was one."""
    conn.executemany("INSERT INTO events (name, body, time_ms) VALUES (?, ?, ?)", events)
    return last_event_id(conn)


def last_event_id(conn: Connection) -> int:
    """The id of the newest event, pruned or not; ids are never used twice."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def events_after(conn: Connection, event_id: int, limit: int) -> list[StoredEvent]:
    """Up to `limit` events in order, from the one after this id."""
    rows = conn.execute(
        "SELECT id, name, body, time_ms FROM events WHERE id > ? ORDER BY id LIMIT ?",
        (event_id, limit),
    )
    return values_of(StoredEvent, rows)


def prune_events(conn: Connection, keep: int) -> int:
    """Forget all but the newest `keep` events; gives how many went."""
    return conn.execute("DELETE FROM events WHERE id <= ?", (last_event_id(conn) - keep,)).rowcount
