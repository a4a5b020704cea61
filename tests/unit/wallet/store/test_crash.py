"""kill -9 in the middle of commits, again and again: what was acknowledged is there."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY, all_entries, entry
from wallet.store.database import Database

CHILD = "tests.unit.wallet.store.writing_child"
PROJECT = Path(__file__).parents[4]


def write_until_killed(path: Path, *, batch: int, acknowledgements: int) -> int:
    """The last size that the child printed before or while it was killed."""
    with subprocess.Popen(
        [sys.executable, "-m", CHILD, str(path), str(batch)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.kill()
        lines += child.stdout.readlines()
    return int([line for line in lines if line.endswith("\n")][-1])


@pytest.mark.parametrize("batch", [1, 64])
async def test_every_acknowledged_batch_survives_kill_9(path: Path, batch: int) -> None:
    chance = random.Random(batch)
    for _ in range(4):
        acknowledged = write_until_killed(
            path, batch=batch, acknowledgements=chance.randrange(1, 60)
        )
        database = await Database.open(path, key=KEY)
        entries = await all_entries(database)
        await database.close()
        assert len(entries) >= acknowledged
        assert len(entries) % batch == 0, "a batch is there as a whole or not at all"
        assert entries == [entry(index) for index in range(len(entries))]
