"""The small files of a token's driver on the simulated disk: whole, the old one or the new one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm.api import TokenRefused
from hsm.counter import SoftwareCounter
from hsm.files import replace_durably
from tests.sim.disk import Disk, PowerCut
from tests.sim.files import SmallFiles


@contextmanager
def folder(path: Path, seed: int) -> Iterator[tuple[Disk, SmallFiles]]:
    """A folder on a simulated disk, in which a file stands."""
    path.mkdir()
    disk, chance = Disk(random.Random(seed)), random.Random(seed)
    files = SmallFiles(path, disk, chance)
    files.place("file", b"old")
    with files.watched():
        yield disk, files


def cut(disk: Disk, files: SmallFiles) -> None:
    """The power fails, and comes back."""
    disk.restart()
    files.restart()


def test_a_file_that_was_replaced_is_there_after_a_power_cut(tmp_path: Path) -> None:
    for seed in range(20):
        with folder(tmp_path / str(seed), seed) as (disk, files):
            replace_durably(tmp_path / str(seed) / "file", b"new")
            cut(disk, files)
            assert [path.name for path in (tmp_path / str(seed)).iterdir()] == ["file"]
            assert (tmp_path / str(seed) / "file").read_bytes() == b"new"


def test_a_power_cut_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    left = set()
    for seed in range(40):
        with folder(tmp_path / str(seed), seed) as (disk, files):
            disk.steps_left = seed % 4
            try:
                replace_durably(tmp_path / str(seed) / "file", b"new")
            except PowerCut:
                cut(disk, files)
            left.add((seed % 4, (tmp_path / str(seed) / "file").read_bytes()))
    # Without a step left it is synced, renamed, and the folder not yet; then all is done.
    assert left == {(0, b"old"), (1, b"old"), (2, b"old"), (2, b"new"), (3, b"new")}


def test_a_file_that_was_not_synced_may_be_torn(tmp_path: Path) -> None:
    left = set()
    for seed in range(40):
        with folder(tmp_path / str(seed), seed) as (disk, files):
            draft = tmp_path / str(seed) / "draft"
            draft.write_bytes(b"new")
            files.replace(draft, tmp_path / str(seed) / "file")
            cut(disk, files)
            left.add((tmp_path / str(seed) / "file").read_bytes())
    assert left == {b"old", b"", b"n", b"ne", b"new"}


def test_a_lie_about_a_sync_is_seen_after_a_power_cut(tmp_path: Path) -> None:
    left = set()
    for seed in range(40):
        with folder(tmp_path / str(seed), seed) as (disk, files):
            disk.lies = True
            replace_durably(tmp_path / str(seed) / "file", b"new")
            cut(disk, files)
            left.add((tmp_path / str(seed) / "file").read_bytes())
    assert left == {b"old", b"", b"n", b"ne", b"new"}


async def test_a_counter_on_a_full_or_failing_disk_refuses_and_stays(tmp_path: Path) -> None:
    with folder(tmp_path / "folder", 1) as (disk, files):
        files.place("counter", b"7\n")
        counter = SoftwareCounter(tmp_path / "folder")
        disk.room_bytes = 0
        with pytest.raises(TokenRefused, match="no room"):
            counter._increment()
        disk.room_bytes, disk.sync_fails = None, True
        with pytest.raises(TokenRefused, match="the disk fails"):
            counter._increment()
        assert counter.check() == 7
        assert counter._increment() == 8
        cut(disk, files)
        assert counter.check() == 8
