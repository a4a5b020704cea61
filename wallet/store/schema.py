"""Brings a store to the schema that this release knows, one numbered SQL file at a time."""

from collections.abc import Sequence
from importlib import resources

from wallet.store.connection import Connection
from wallet.store.errors import SchemaTooNew

VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY) STRICT"


def migrations() -> list[str]:
    """The SQL of every step; step n, counted from 1, is the file whose name starts with n."""
    folder = resources.files("wallet.store.migrations")
    steps = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return [folder.joinpath(name).read_text("utf-8") for name in steps]


def schema_version(connection: Connection) -> int:
    """The version that the store has; 0 for an empty one."""
    known = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'"
    ).fetchone()
    if known == (0,):
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    return int(row[0]) if row else 0


def migrate(connection: Connection, steps: Sequence[str]) -> None:
    """Apply the steps that the store lacks, each in a transaction of its own.

    Raises: SchemaTooNew when the store has more steps behind it than there are.
    """
    version = schema_version(connection)
    if version > len(steps):
        raise SchemaTooNew(f"the store has version {version}, this release knows {len(steps)}")
    for number, sql in enumerate(steps[version:], start=version + 1):
        _apply(connection, number=number, sql=sql)


def _apply(connection: Connection, *, number: int, sql: str) -> None:
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {VERSION_TABLE}; {sql};"
            f" INSERT INTO schema_version VALUES ({int(number)}); COMMIT;"
        )
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
