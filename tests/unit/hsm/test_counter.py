"""The counter in a file, and the files that survive a power cut."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hsm.api import TokenRefused
from hsm.counter import SoftwareCounter
from hsm.files import create_durably, make_folder, replace_durably
from tests.support.tokens import nothing_can_be_stored

PROJECT = Path(__file__).parents[3]


def prepared(folder: Path) -> SoftwareCounter:
    counter = SoftwareCounter(folder)
    counter.prepare()
    return counter


async def test_it_begins_at_nought_and_counts_on(tmp_path: Path) -> None:
    counter = prepared(tmp_path)
    assert counter.driver == "software"
    assert await counter.read() == 0
    assert [await counter.increment() for _ in range(3)] == [1, 2, 3]
    assert await SoftwareCounter(tmp_path).read() == 3


async def test_preparing_again_never_sets_it_back(tmp_path: Path) -> None:
    await prepared(tmp_path).increment()
    assert await prepared(tmp_path).read() == 1


async def test_many_at_once_each_get_a_count_of_their_own(tmp_path: Path) -> None:
    counter = prepared(tmp_path)
    counts = await asyncio.gather(*(counter.increment() for _ in range(50)))
    assert sorted(counts) == list(range(1, 51))


async def test_one_that_was_given_up_still_counts_once(tmp_path: Path) -> None:
    counter = prepared(tmp_path)
    given_up = [asyncio.create_task(counter.increment()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    counts = [await counter.increment() for _ in range(10)]
    assert len(set(counts)) == 10
    assert counts == sorted(counts)


COUNT_FOREVER = """
import asyncio, sys
from pathlib import Path
from hsm.counter import SoftwareCounter

async def count():
    counter = SoftwareCounter(Path(sys.argv[1]))
    while True:
        print(await counter.increment(), flush=True)

asyncio.run(count())
"""


def test_a_count_that_was_told_survives_a_kill(tmp_path: Path) -> None:
    counter = prepared(tmp_path)
    for _ in range(3):
        command = [sys.executable, "-c", COUNT_FOREVER, str(tmp_path)]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as counting:
            assert counting.stdout is not None
            told = [int(counting.stdout.readline()) for _ in range(5)]
            counting.kill()
        assert asyncio.run(counter.read()) >= told[-1]


async def test_a_full_disk_does_not_count(tmp_path: Path) -> None:
    counter = prepared(tmp_path)
    with nothing_can_be_stored(), pytest.raises(TokenRefused, match="not stored"):
        await counter.increment()
    assert await counter.read() == 0
    assert await counter.increment() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


async def test_a_lost_count_is_not_taken_for_nought(tmp_path: Path) -> None:
    counter = SoftwareCounter(tmp_path)
    with pytest.raises(TokenRefused, match="not readable"):
        await counter.read()
    with pytest.raises(TokenRefused, match="not readable"):
        await counter.increment()


@pytest.mark.parametrize(
    "content", [b"", b"-1\n", b"12 \n", b"1\n\n", b"x\n", b"9" * 20, "٣".encode()]
)
async def test_what_is_no_count_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "counter").write_bytes(content)
    with pytest.raises(TokenRefused, match="no count"):
        await SoftwareCounter(tmp_path).read()


def test_creating_leaves_what_stands_there(tmp_path: Path) -> None:
    create_durably(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        create_durably(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_replacing_leaves_one_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    path.chmod(0o644)
    replace_durably(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    make_folder(tmp_path / "a" / "b")
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
