"""Whatever the network does, the issuer holds a prefix of the journal, and all of it in the end."""

import random

import pytest

from sync.engine import Wake
from sync.errors import Code
from sync.machine import State
from tests.support.sync_pair import Pair

STEPS = 40
RESTORED = 0.1


@pytest.mark.one_seed_of(8)
async def test_every_entry_arrives_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    async with Pair(exchanges_max=3) as pair:
        for _ in range(STEPS):
            _disturb(pair, chance)
            before = pair.journal.acknowledged
            pair.engine.wake(chance.choice(list(Wake)))
            pair.hands.over.set()
            await pair.engine.now()
            size = len(pair.cloud.entries)
            assert pair.cloud.entries == pair.journal.entries[:size], seed
            # More than the issuer holds is believed only until it has been heard again.
            assert pair.journal.acknowledged <= max(size, before), seed
        pair.cloud.away, pair.cloud.lost_at, pair.cloud.changes = None, None, {}
        await pair.engine.now()
        await pair.until(lambda: pair.journal.acknowledged == len(pair.journal.entries))
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert pair.cloud.entries == pair.journal.entries, seed
        assert pair.engine.status().failures == 0, seed


def _disturb(pair: Pair, chance: random.Random) -> None:
    """Payments come; the cloud is away, loses an answer, answers wrongly, or does as it should.

    Now and then it is restored from an older backup.
    """
    for _ in range(chance.randrange(8)):
        pair.journal.entries.append(len(pair.journal.entries).to_bytes(4))
    if chance.random() < RESTORED:
        del pair.cloud.entries[chance.randint(0, len(pair.cloud.entries)) :]
    pair.cloud.away = chance.choice([None, None, None, *Code])
    pair.cloud.lost_at = len(pair.cloud.ups) + chance.randrange(6)
    problem = chance.choice(["fork", "frozen-by-issuer", "journal-revoked"])
    answers: list[dict[str, object]] = [
        {},
        {},
        {},
        {"problem": problem, "acknowledged": 0},
        {"acknowledged": 10_000},
    ]
    pair.cloud.changes = chance.choice(answers)
