"""Journals that travel in a pocket: both sides' commands as processes, on real folders and sticks.

No line is used but where a test says so.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from edge.folder import Folder
from sync.courier import Kind, read_label
from tests.support.branch import Command
from tests.support.branch_local import Branch
from tests.support.cloud_process import CloudProcess
from tests.support.recovery import ANNA, BERT, Box, Story, balance, exchanged, paid
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.policy import JournalLimit
from wallet.protocol.sealed import seal

DAY_MS = 86_400_000
PAYMENTS = 5
SEGMENT = 2
# Runs what follows with a file system of $1 bytes on $2, and brings what lies on it to $3.
MOUNTED = """
size=$1 stick=$2 copy=$3; shift 3
mount -t tmpfs -o size="$size" none "$stick" || exit 99
"$@"; code=$?
ls -A "$stick" > "$copy/names"
cp "$stick"/*.cbs "$copy"
exit $code
"""
Done = tuple[int, str, str]


class Route:
    """A gateway without a line, its issuer, and the commands of both."""

    def __init__(self, story: Story, box: Box, token: Path) -> None:
        self.story = story
        self.box = box
        self.token = token
        self._running = contextlib.AsyncExitStack()
        self._branch: Branch | None = None

    @property
    def branch(self) -> Branch:
        """The gateway, which runs."""
        assert self._branch is not None
        return self._branch

    async def start(self, *, offline: bool = True) -> None:
        """Run the gateway."""
        running = self.box.running(offline=offline)
        self._branch = await self._running.enter_async_context(running)

    async def stop(self) -> None:
        """End it."""
        await self._running.aclose()

    async def edge(self, *arguments: str) -> Done:
        """A command of the gateway."""
        return await Command(self.box.folder).edge(*arguments)

    async def cloud(self, *sticks: Path, more: tuple[str, ...] = ()) -> Done:
        """The cloud takes what lies on sticks."""
        process = CloudProcess(self.story.cloud.cloud.config.folder)
        words = ("sync", "import", *map(str, sticks), "--officer-file", str(self.token), *more)
        return await process.command(*words)

    async def pay(self, count: int = PAYMENTS) -> None:
        """Anna pays Bert."""
        for _ in range(count):
            await paid(self.branch, ANNA, BERT, 10)

    @property
    def acknowledged(self) -> int:
        """What the gateway knows that the issuer holds."""
        return self.branch.opened.journal.acknowledged

    @property
    def size(self) -> int:
        """The journal's size."""
        return self.branch.opened.journal.state.size

    async def held(self) -> int:
        """How much the issuer holds."""
        async with self.story.database.transaction() as connection:
            found: int = await connection.fetchval(
                "SELECT size FROM journal_epoch WHERE journal = $1", self.box.journal
            )
        return found


@pytest.fixture
async def route(story: Story, north: Box, tmp_path: Path) -> AsyncIterator[Route]:
    """Segments of two entries, so that a few payments fill several files."""
    folder = story.cloud.cloud.config.folder
    authority = story.cloud.cloud.desk.pki.transport.certificate.public_bytes(Encoding.PEM)
    (folder / "transport-ca.pem").write_bytes(authority)
    token = tmp_path / "auditor.token"
    token.write_text(await story.cloud.officer("auditor"))
    await story.policy({JournalLimit.SEGMENT_ENTRIES_MAX: SEGMENT})
    await north.sync()
    route = Route(story, north, token)
    await route.start()
    yield route
    await route.stop()


def stick(folder: Path) -> Path:
    """An empty one."""
    folder.mkdir()
    return folder


def files(folder: Path, kind: Kind = Kind.REPORT) -> list[Path]:
    """What lies on it."""
    return sorted(folder.glob(f"*.{kind}.cbs"))


def codes(done: Done) -> list[str]:
    """The code of each file, in order."""
    return [line.split(": ")[1] for line in done[1].splitlines()]


async def test_several_sticks_in_any_order_settle_a_branch_that_never_had_a_line(
    route: Route, tmp_path: Path
) -> None:
    early, late = stick(tmp_path / "early"), stick(tmp_path / "late")
    await route.pay()
    held, size = await route.held(), route.size
    code, out, errors = await route.edge("sync", "export", str(early))
    assert (code, f"all {size} entries" in out) == (0, True), errors
    reports = files(early)
    assert len(reports) == -(-(size - held) // SEGMENT)
    label = read_label(reports[0].name)
    assert label is not None
    assert (label.journal, label.epoch, label.first) == (route.box.journal, 1, held)
    for report in reports[1:]:
        shutil.move(report, late)
    # The later entries came first: nothing is kept, and the sentence says what is missing.
    done = await route.cloud(late)
    assert (done[0], set(codes(done))) == (1, {"courier-early"})
    assert f"from {held} on are missing" in done[1]
    done = await route.edge("sync", "import", str(late))
    assert (done[0], set(codes(done))) == (1, {"courier-early"}), done
    done = await route.cloud(late, early)
    assert (done[0], set(codes(done))) == (0, {"courier-taken"}), done
    assert await route.held() == size
    # Answers, likewise; the first stick's may come last.
    done = await route.edge("sync", "import", str(late))
    assert (done[0], route.acknowledged) == (0, size), done
    done = await route.edge("sync", "import", str(early))
    assert done[0] == 0, done
    assert route.branch.opened.journal.state.settled_size == size
    assert balance(route.branch, BERT) == PAYMENTS * 10
    await route.story.where()
    # Both once more: all of it is known, on both sides.
    done = await route.cloud(early, late)
    assert (done[0], set(codes(done))) == (0, {"courier-known"}), done
    done = await route.edge("sync", "import", str(early))
    assert (done[0], set(codes(done))) == (0, {"courier-known"}), done
    assert await route.held() == size
    await route.story.where()
    # Whatever came when: the audit log contradicts itself nowhere.
    async with route.story.database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM trail_finding") == 0
        assert await connection.fetchval("SELECT count(*) FROM gateway_trail") == 1


async def test_a_stick_from_last_month_changes_nothing(route: Route, tmp_path: Path) -> None:
    old = stick(tmp_path / "old")
    await route.pay()
    assert (await route.edge("sync", "export", str(old)))[0] == 0
    # The line came back, and more than once.
    await route.stop()
    await route.start(offline=False)
    await exchanged(route.branch)
    await route.pay(1)
    await exchanged(route.branch)
    held, known = await route.held(), route.acknowledged
    route.story.cloud.clock.wall_ms += 30 * DAY_MS
    done = await route.cloud(old)
    assert (done[0], set(codes(done))) == (0, {"courier-known"}), done
    done = await route.edge("sync", "import", str(old))
    assert (done[0], route.acknowledged) == (0, known), done
    assert await route.held() == held
    await exchanged(route.branch)
    async with route.story.database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM journal_evidence") == 0
    await route.story.where()


async def test_each_file_that_is_not_right_is_named_and_the_right_ones_are_taken(
    route: Route, tmp_path: Path
) -> None:
    mixed, answers = stick(tmp_path / "mixed"), stick(tmp_path / "answers")
    await route.pay(2)
    assert (await route.edge("sync", "export", str(mixed)))[0] == 0
    good, *_ = files(mixed)
    content = good.read_bytes()
    cut = good.name.replace("-e000001-", "-e000000-")
    (mixed / cut).write_bytes(content[: len(content) // 2])
    (mixed / "x altered.cbs").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (mixed / "y foreign.cbs").write_bytes(
        seal(b"x", recipient=X25519PrivateKey.generate().public_key().public_bytes_raw())
    )
    (mixed / "z holiday.cbs").write_bytes(b"\xff\xd8 a picture")
    code, out, _ = await route.cloud(mixed, more=("--answers", str(answers)))
    assert code == 3
    told = dict(line.split(": ", 1) for line in out.splitlines())
    assert told[cut].startswith("courier-file-cut")
    assert told["x altered.cbs"].startswith("not-opened: it was cut off or altered")
    assert told["y foreign.cbs"] == "unknown-key: it is sealed for another issuer"
    assert told["z holiday.cbs"] == "malformed: it is no sealed report"
    assert told[good.name].startswith("courier-taken: north, epoch 1")
    assert len(files(answers, Kind.ANSWER)) == len(files(mixed)) - 1
    (answers / "other.cbs").write_bytes(content)
    code, out, _ = await route.edge("sync", "import", str(answers))
    assert (code, "unknown-key: it is sealed for another gateway" in out) == (3, True)
    assert route.acknowledged == await route.held()


async def test_another_gateways_answer_is_not_taken(
    route: Route, south: Box, tmp_path: Path
) -> None:
    here = stick(tmp_path / "here")
    assert (await route.edge("sync", "export", str(here)))[0] == 0
    assert (await route.cloud(here))[0] == 0
    async with south.running(offline=True):
        done = await Command(south.folder).edge("sync", "import", str(here))
    assert (done[0], set(codes(done))) == (1, {"unknown-key"}), done


async def test_folders_that_are_empty_or_gone_are_told(route: Route, tmp_path: Path) -> None:
    empty, gone = stick(tmp_path / "empty"), tmp_path / "gone"
    assert "courier-no-files" in (await route.edge("sync", "import", str(empty)))[2]
    assert "courier-folder-gone" in (await route.edge("sync", "import", str(gone)))[2]
    assert "courier-folder-gone" in (await route.edge("sync", "export", str(gone)))[2]
    code, _, errors = await route.cloud(empty)
    assert (code, "courier-no-files" in errors) == (1, True)
    assert "courier-folder-gone" in (await route.cloud(gone))[2]
    route.token.write_text("nobody")
    (empty / "a.cbs").write_bytes(b"x")
    assert "token-unknown" in (await route.cloud(empty))[2]


async def test_a_stick_that_is_full_says_so_and_the_next_one_goes_on(
    route: Route, tmp_path: Path
) -> None:
    small, copy, next_ = (stick(tmp_path / name) for name in ("small", "copy", "next"))
    await route.pay()
    before = await route.held()
    # Room for two files of a page each, and for no third.
    arguments = (str(2 * 4096), str(small), str(copy))
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh", *arguments)
    done = await Command(route.box.folder, prefix=prefix).edge("sync", "export", str(small))
    assert (done[0], "courier-folder-full" in done[2]) == (1, True), done
    written = files(copy)
    assert [path.name for path in written] == (copy / "names").read_text().split()
    assert len(written) == 2
    done = await route.edge("sync", "export", "--further", str(next_))
    assert (done[0], "lie on sticks" in done[1]) == (0, True), done
    first, last = read_label(files(next_)[0].name), read_label(written[-1].name)
    assert first is not None and last is not None
    assert first.first == last.end > before
    assert (await route.cloud(copy, next_))[0] == 0
    assert await route.held() == route.size


async def test_a_wipe_needs_the_issuer_or_a_stick_to_have_all(route: Route, tmp_path: Path) -> None:
    away = stick(tmp_path / "away")
    await route.pay()
    folder = Folder(route.box.folder)
    wipe = ("reset", "--journal", journal_text(JournalId(route.box.journal)))
    assert "store-in-use" in (await route.edge(*wipe))[2]
    await route.stop()
    code, _, errors = await route.edge(*wipe)
    assert (code, "edge-reset-refused: the issuer holds" in errors) == (1, True), errors
    other = journal_text(JournalId(bytes(20)))
    assert f"not {other}" in (await route.edge("reset", "--journal", other))[2]
    await route.start()
    assert (await route.edge("sync", "export", str(away)))[0] == 0
    await route.pay(1)
    await route.stop()
    # One more entry came after the stick left.
    assert "edge-reset-refused" in (await route.edge(*wipe))[2]
    await route.start()
    assert (await route.edge("sync", "export", "--further", str(away)))[0] == 0
    size = route.size
    await route.stop()
    code, out, errors = await route.edge(*wipe)
    assert (code, "on the stick alone" in out) == (0, True), errors
    assert {path.name for path in folder.root.iterdir()} <= {"audit", "provision.lock"}
    code, _, errors = await route.edge(*wipe)
    assert (code, "edge-not-provisioned" in errors) == (4, True)
    # What was on the stick settles all the same.
    assert (await route.cloud(away))[0] == 0
    assert await route.held() == size
    await route.story.where()
