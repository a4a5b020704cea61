"""The audit trail: notes that wait for the store, each once, whatever falls between."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.audit import FILES_MAX, NOTES_MAX, TEXT_MAX, Audit, Note, leave_note
from edge.config import Config, ListenConfig
from edge.settings import flat_settings, note_settings
from tests.support.disk import small_disk
from tests.unit.wallet.store.stores import KEY
from wallet.clock import SystemClock
from wallet.store.audit import AuditRow, page_audit, verify_audit
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import DiskFull


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "store.db", key=KEY)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def audit_of(folder: Path) -> Audit:
    return Audit(folder, SystemClock())


async def rows(database: Database) -> list[AuditRow]:
    await database.read(verify_audit)
    return await database.read(lambda c: page_audit(c, 0, 100_000))


async def actions(database: Database) -> list[str]:
    return [row.action for row in await rows(database)]


async def test_what_was_recorded_is_in_the_store_when_record_returns(
    folder: Path, database: Database
) -> None:
    audit = audit_of(folder)
    await audit.attach(database)
    audit.note("first")
    await audit.record("second", terminal="t-1", tries=2, paired=True, name=None)
    assert await actions(database) == ["first", "second"]
    details = json.loads((await rows(database))[1].details)
    assert details == {"terminal": "t-1", "tries": 2, "paired": True, "name": None}


async def test_notes_before_the_store_is_open_wait_and_come_first(
    folder: Path, database: Database
) -> None:
    audit = audit_of(folder)
    audit.note("token.refused", code="token-pin-wrong")
    await audit.record("gateway.not-open")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    await audit.attach(database)
    await audit.record("gateway.opened")
    assert await actions(database) == ["token.refused", "gateway.not-open", "gateway.opened"]
    waited = [json.loads(row.details).get("waited") for row in await rows(database)]
    assert waited == [True, True, None]
    assert not list(folder.iterdir())


async def test_a_note_that_waited_counts_once_when_the_power_fails_before_its_file_is_gone(
    folder: Path, database: Database
) -> None:
    leave_note(folder, Note(time_ms=1, action="key.shown"))
    (path,) = folder.iterdir()
    content = path.read_bytes()
    await audit_of(folder).attach(database)
    path.write_bytes(content)
    leave_note(folder, Note(time_ms=2, action="later"))
    await audit_of(folder).attach(database)
    assert await actions(database) == ["key.shown", "later"]


async def test_a_note_that_cannot_be_read_is_told_and_stops_nothing(
    folder: Path, database: Database
) -> None:
    leave_note(folder, Note(time_ms=5, action="key.shown"))
    (folder / "000-bad.json").write_bytes(b"\xff{")
    await audit_of(folder).attach(database)
    assert await actions(database) == ["audit.note-unreadable", "key.shown"]


async def test_notes_that_wait_are_bounded(folder: Path, database: Database) -> None:
    folder.mkdir()
    for number in range(FILES_MAX):
        (folder / f"{number}.json").write_bytes(b'{"time_ms": 1, "action": "a"}')
    leave_note(folder, Note(time_ms=1, action="one too many"))
    assert len(list(folder.iterdir())) == FILES_MAX
    audit = audit_of(folder)
    await audit.attach(database)
    for _ in range(NOTES_MAX + 1):
        audit.note("b")
    await audit.detach()
    assert len(await rows(database)) == FILES_MAX + NOTES_MAX


async def test_a_long_text_is_cut(folder: Path, database: Database) -> None:
    audit = audit_of(folder)
    await audit.attach(database)
    await audit.record("gateway.not-open", cause="x" * 5 * TEXT_MAX)
    assert json.loads((await rows(database))[0].details) == {"cause": "x" * TEXT_MAX}


async def test_notes_are_written_by_and_by_without_anybody_waiting(
    folder: Path, database: Database
) -> None:
    audit = audit_of(folder)
    await audit.attach(database)
    task = asyncio.create_task(audit.run())
    audit.note("gateway.mode", mode="sealed")
    async with asyncio.timeout(20):
        while not await actions(database):
            await asyncio.sleep(0.02)
    task.cancel()


async def test_what_a_full_disk_refused_is_written_once_there_is_room(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with small_disk(place, size_bytes=4 * 1024 * 1024) as disk:
        database = await Database.open(place / "store.db", key=KEY)
        audit = audit_of(tmp_path / "audit")
        await audit.attach(database)
        disk.fill()
        with pytest.raises(DiskFull):
            for number in range(10_000):
                await audit.record("technician", number=number, text="x" * TEXT_MAX)
        task = asyncio.create_task(audit.run())
        count = number + 1
        disk.free()
        async with asyncio.timeout(20):
            while len(await actions(database)) < count:
                await asyncio.sleep(0.02)
        task.cancel()
        await database.close()


async def test_what_cannot_be_written_at_the_end_waits_as_files(
    folder: Path, database: Database
) -> None:
    audit = audit_of(folder)
    await audit.attach(database)
    audit.note("gateway.closed")
    await database.close()
    await audit.detach()
    assert [json.loads(path.read_bytes())["action"] for path in folder.iterdir()] == [
        "gateway.closed"
    ]


async def test_a_note_that_no_disk_takes_stops_nobody_and_a_record_says_so(
    folder: Path,
) -> None:
    folder.write_text("no folder")
    audit = audit_of(folder)
    audit.note("gateway.not-open")
    with pytest.raises(OSError, match="audit"):
        await audit.record("technician")


async def test_the_trail_is_pruned_only_while_its_store_is_open(
    folder: Path, database: Database
) -> None:
    audit = audit_of(folder)
    await audit.prune()
    await audit.attach(database)
    await audit.record("a")
    await audit.prune()
    assert await actions(database) == ["a"]


async def test_a_start_tells_what_changed_in_the_configuration(
    tmp_path: Path, database: Database
) -> None:
    first = Config(folder=tmp_path)
    other = Config(folder=tmp_path, listen=ListenConfig(port=1))

    async def told(config: Config) -> object:
        def note(connection: Connection) -> object:
            return note_settings(connection, config)["changed"]

        return await database.write(note)

    assert [await told(first), await told(first)] == [None, None]
    assert await told(other) == "listen.port: 8440 -> 1"
    assert flat_settings(first)["listen.names"] == '["localhost","127.0.0.1"]'
