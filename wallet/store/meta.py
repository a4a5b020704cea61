"""Single values under a name: the epoch, the acknowledged size, the counter's intent and such."""

from wallet.store.connection import Connection


def put_meta(conn: Connection, name: str, value: bytes) -> None:
    """Set the value, whether there was one or not."""
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def get_meta(conn: Connection, name: str) -> bytes | None:
    """The value, if it was set."""
    row = conn.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def delete_meta(conn: Connection, name: str) -> None:
    """Forget the value; nothing happens when there is none."""
    conn.execute("DELETE FROM meta WHERE name = ?", (name,))
