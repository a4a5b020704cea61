"""The embedded server: starts, stops, and starts again whatever ended it."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from cloud.embedded import EmbeddedPostgres
from cloud.errors import DatabaseError
from cloud.postmaster import read_postmaster
from tests.support.postgres import FAST

# A program that starts the server and waits for its own end.
OWNER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from cloud.embedded import EmbeddedPostgres
    async def main():
        server = await EmbeddedPostgres.start(Path(sys.argv[1]))
        print(server.pid, flush=True)
        await server.wait()
    asyncio.run(main())
""")
PATIENCE_S = 60


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server in a new folder."""
    server = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    yield server
    await server.stop()


async def kept(server: EmbeddedPostgres) -> list[int]:
    """Numbers in a table that is made where there is none; one more for each call."""
    dsn = await server.ensure_database("kept")
    connection = await asyncpg.connect(dsn, timeout=PATIENCE_S)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        await connection.execute("INSERT INTO numbers SELECT count(*) FROM numbers")
        return [row["n"] for row in await connection.fetch("SELECT n FROM numbers ORDER BY n")]
    finally:
        await connection.close(timeout=PATIENCE_S)


async def until_gone(pid: int) -> None:
    """Wait until a process has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0)


async def owner(folder: Path) -> tuple[asyncio.subprocess.Process, int]:
    """Another process that owns the server of the folder, and the server's number."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    return process, int(line)


async def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    for expected in ([0], [0, 1]):
        server = await EmbeddedPostgres.start(tmp_path / "postgres")
        assert await kept(server) == expected
        await server.stop()
        assert await server.wait() == 0


async def test_it_is_durable_and_opens_no_port(tmp_path: Path) -> None:
    server = await EmbeddedPostgres.start(tmp_path / "postgres")
    try:
        connection = await asyncpg.connect(server.dsn("postgres"), timeout=PATIENCE_S)
        for name, value in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("data_checksums", "on"),
            ("listen_addresses", ""),
        ):
            assert await connection.fetchval(f"SHOW {name}") == value
        await connection.close(timeout=PATIENCE_S)
    finally:
        await server.stop()


async def test_one_folder_is_served_by_one_process(
    started: EmbeddedPostgres, tmp_path: Path
) -> None:
    with pytest.raises(DatabaseError, match="database-in-use"):
        await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    assert await kept(started) == [0]


async def test_the_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    process, pid = await owner(tmp_path / "postgres")
    process.kill()
    await process.wait()
    await until_gone(pid)
    server = await EmbeddedPostgres.start(tmp_path / "postgres")
    assert await kept(server) == [0]
    await server.stop()


async def test_a_start_right_after_a_kill_waits_for_the_old_server(tmp_path: Path) -> None:
    process, _ = await owner(tmp_path / "postgres")
    process.kill()
    await process.wait()
    server = await EmbeddedPostgres.start(tmp_path / "postgres")
    assert await kept(server) == [0]
    await server.stop()


async def test_a_server_without_an_owner_is_stopped_and_replaced(
    started: EmbeddedPostgres, tmp_path: Path
) -> None:
    folder = tmp_path / "postgres"
    assert await kept(started) == [0]
    # The lock of the folder's owner is gone while the server lives: nobody owns it any more.
    (folder / "lock").unlink()
    server = await EmbeddedPostgres.start(folder, settings=FAST)
    assert server.pid != started.pid
    assert await asyncio.wait_for(started.wait(), PATIENCE_S) == 0
    assert await kept(server) == [0, 1]
    await server.stop()


async def test_a_note_with_the_number_of_a_stranger_does_not_stop_the_start(
    tmp_path: Path,
) -> None:
    server = await EmbeddedPostgres.start(tmp_path / "postgres")
    assert await kept(server) == [0]
    note = tmp_path / "postgres" / "data" / "postmaster.pid"
    lines = note.read_text().splitlines()
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    await server.stop()
    note.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    again = await EmbeddedPostgres.start(tmp_path / "postgres")
    assert await kept(again) == [0, 1]
    await again.stop()


async def test_an_interrupted_first_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    assert await kept(server) == [0]
    await server.stop()


async def test_a_start_that_is_given_up_leaves_no_server(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    server = await EmbeddedPostgres.start(folder, settings=FAST)
    await server.stop()
    attempt = asyncio.create_task(EmbeddedPostgres.start(folder, settings=FAST))
    async with asyncio.timeout(PATIENCE_S):
        while read_postmaster(folder / "data") is None:
            await asyncio.sleep(0)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    # A server that was stopped before it had its handlers leaves its file behind, never itself.
    left = read_postmaster(folder / "data")
    assert left is None or not Path(f"/proc/{left.pid}").exists()
    again = await EmbeddedPostgres.start(folder, settings=FAST)
    await again.stop()


async def test_a_start_that_takes_too_long_is_told_and_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="took too long"):
        await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST, timeout_s=0)
    server = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    await server.stop()


async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    server = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    assert await kept(server) == [0]
    os.kill(server.pid, signal.SIGSTOP)
    await server.stop(timeout_s=1)
    assert await server.wait() == -signal.SIGKILL
    again = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    assert await kept(again) == [0, 1]
    await again.stop()


async def test_a_long_path_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / "postgres"
    server = await EmbeddedPostgres.start(folder, settings=FAST)
    assert await kept(server) == [0]
    await server.stop()
    assert not (folder / "socket").exists()


async def test_a_wrong_setting_is_told_from_the_servers_log(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="shared_buffers"):
        await EmbeddedPostgres.start(
            tmp_path / "postgres", settings={**FAST, "shared_buffers": "-1"}
        )
    server = await EmbeddedPostgres.start(tmp_path / "postgres", settings=FAST)
    await server.stop()


async def test_a_folder_that_cannot_be_initialised_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    folder.mkdir()
    # A file where the folder of the data is to be made.
    (folder / "data.new").touch()
    with pytest.raises(DatabaseError, match="initdb"):
        await EmbeddedPostgres.start(folder, settings=FAST)
