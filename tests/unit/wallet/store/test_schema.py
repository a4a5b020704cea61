"""Migrations: every step once, in order, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.connection import Connection, EngineError, connect
from wallet.store.errors import SchemaTooNew
from wallet.store.schema import migrate, migrations, schema_version

STEPS = ["CREATE TABLE one (a)", "CREATE TABLE two (b); INSERT INTO two VALUES (2)"]


@pytest.fixture
def conn(path: Path) -> Iterator[Connection]:
    connection = connect(path, key=KEY, query_only=False)
    yield connection
    connection.close()


def tables(conn: Connection) -> set[str]:
    return {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_an_empty_store_gets_every_step_and_keeps_its_version(conn: Connection) -> None:
    assert schema_version(conn) == 0
    migrate(conn, STEPS)
    migrate(conn, STEPS)
    assert schema_version(conn) == 2
    assert tables(conn) == {"schema_version", "one", "two"}
    assert conn.execute("SELECT * FROM two").fetchall() == [(2,)]


def test_an_older_store_gets_only_what_it_lacks(conn: Connection) -> None:
    migrate(conn, STEPS[:1])
    conn.execute("INSERT INTO one VALUES (1)")
    migrate(conn, STEPS)
    assert conn.execute("SELECT * FROM one").fetchall() == [(1,)]
    assert schema_version(conn) == 2


def test_a_step_that_fails_leaves_the_step_before(conn: Connection) -> None:
    with pytest.raises(EngineError):
        migrate(conn, [STEPS[0], "CREATE TABLE two (b); CREATE TABLE one (a)"])
    assert schema_version(conn) == 1
    assert tables(conn) == {"schema_version", "one"}
    migrate(conn, STEPS)
    assert schema_version(conn) == 2


def test_a_store_with_more_steps_than_known_is_refused(conn: Connection) -> None:
    migrate(conn, STEPS)
    with pytest.raises(SchemaTooNew):
        migrate(conn, STEPS[:1])
    assert schema_version(conn) == 2


def test_the_steps_of_this_release_apply(conn: Connection) -> None:
    migrate(conn, migrations())
    assert schema_version(conn) == len(migrations())
    assert {"entries", "meta", "events"} < tables(conn)
