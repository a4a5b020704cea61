"""The engine's states, and what each failure leads to. Nothing here waits for time to pass."""

import asyncio
import random
from collections.abc import Callable

import pytest

from hsm.api import TokenGone
from sync.backoff import longest_ms
from sync.engine import Wake, wait_for
from sync.errors import Code
from sync.machine import State
from sync.pace import FIRST_BYTES
from tests.support.sync_pair import LISTED, NOW_MS, WAIT_S, Pair
from wallet.protocol.refusals import Code as Refused


async def test_a_session_sends_all_that_was_there_segment_by_segment() -> None:
    async with Pair(entries=8) as pair:
        assert (pair.engine.state, pair.engine.online) == (State.OFFLINE, None)
        pair.cloud.objects = [b"object"]
        assert await pair.engine.now() == ("completed", "exchanges: 3")
        assert pair.cloud.entries == pair.journal.entries
        assert (pair.journal.taken, pair.journal.handed) == ([b"object"] * 3, [b"leaf"] * 3)
        assert pair.names == [
            "sync.started",
            "connectivity.changed",
            "sync.progress",
            "sync.progress",
            "sync.completed",
        ]
        assert pair.events[2][1] == {"acknowledged": 3, "size": 8}
        assert pair.events[-1][1] == {"acknowledged": 8}
        assert (pair.engine.state, pair.engine.online) == (State.IDLE, True)
        status = pair.engine.status()
        assert (status.state, status.online, status.failures) == (State.IDLE, True, 0)
        assert (status.completed_ms, status.since_ms) == (NOW_MS, NOW_MS)


async def test_each_exchange_has_a_number_of_its_own() -> None:
    async with Pair(entries=8) as pair:
        await pair.engine.now()
        assert len({up.exchange for up in pair.cloud.ups}) == 3


async def test_a_journal_with_nothing_new_still_asks_what_there_is() -> None:
    async with Pair() as pair:
        pair.cloud.objects = [b"grant"]
        assert await pair.engine.now() == ("completed", "exchanges: 1")
        assert pair.journal.taken == [b"grant"]


async def test_what_an_answer_adds_travels_with_the_next_session() -> None:
    async with Pair(entries=2) as pair:
        pair.cloud.meanwhile = lambda: pair.journal.entries.append(b"settlement")
        assert await pair.engine.now() == ("completed", "exchanges: 1")
        assert len(pair.cloud.entries) == 2
        pair.cloud.meanwhile = lambda: None
        assert await pair.engine.now() == ("completed", "exchanges: 1")
        assert len(pair.cloud.entries) == 3


async def test_what_an_answer_had_no_room_for_is_fetched_in_the_same_session() -> None:
    async with Pair(entries=2) as pair:
        chance = random.Random(1)
        pair.cloud.lists = [LISTED + chance.randbytes(FIRST_BYTES - 4) for _ in range(9)]
        assert (await pair.engine.now())[0] == "completed"
        assert pair.journal.lists == pair.cloud.lists
        # The line is fast: each answer may have four times as much as the one before.
        assert pair.cloud.told == [FIRST_BYTES, 4 * FIRST_BYTES, 4 * FIRST_BYTES]


async def test_what_waits_is_not_asked_for_again_and_again_where_nothing_is_taken() -> None:
    async with Pair(entries=2) as pair:
        pair.cloud.lists = [LISTED + bytes(FIRST_BYTES)] * 2
        pair.journal.refuses_lists = True
        assert await pair.engine.now() == ("completed", "exchanges: 1")


async def test_entries_that_are_not_signed_yet_are_no_failure() -> None:
    async with Pair(entries=2) as pair:
        pair.journal.unsigned = 1
        assert await pair.engine.now() == ("completed", "exchanges: 2")
        assert pair.engine.state is State.IDLE


async def test_a_session_is_bounded_and_the_next_goes_on_by_itself() -> None:
    async with Pair(entries=12, exchanges_max=2) as pair:
        assert await pair.engine.now() == ("completed", "exchanges: 2")
        await pair.until(lambda: pair.journal.acknowledged == 12)
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert pair.names.count("sync.completed") == 2


async def test_it_is_probed_from_offline_alone() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.gate.clear()
        asked = asyncio.create_task(pair.engine.now())
        await pair.until(lambda: pair.engine.state is State.EXCHANGING)
        pair.cloud.gate.set()
        await asked
        await pair.engine.now()
        assert (pair.cloud.probes, len(pair.cloud.ups)) == (1, 2)


async def test_a_cloud_that_is_away_gets_no_report_and_is_tried_after_growing_waits() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.away = Code.UNREACHABLE
        assert await pair.engine.now() == ("failed", "transport-unreachable: away")
        assert (pair.engine.state, pair.engine.online) == (State.OFFLINE, False)
        assert pair.states[-1] == State.OFFLINE
        failed = {"code": "transport-unreachable", "problem": None, "failures": 1}
        assert pair.events[-1] == ("sync.failed", failed)
        for failures in (2, 3):
            await pair.until(lambda: pair.hands.waits[-1] is not None)
            pair.hands.over.set()
            await pair.until(_failed(pair, failures))
        await pair.until(lambda: len(pair.hands.waits) == 4)
        assert pair.hands.waits == [None, *[longest_ms(n) // 2 for n in (1, 2, 3)]]
        assert pair.cloud.ups == []
        pair.cloud.away = None
        pair.hands.over.set()
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert (pair.engine.online, pair.engine.status().failures) == (True, 0)
        assert pair.names.count("connectivity.changed") == 2
        await pair.until(lambda: pair.hands.waits[-1] is None)


def _failed(pair: Pair, failures: int) -> Callable[[], bool]:
    return lambda: pair.engine.status().failures == failures


async def test_a_timer_does_not_cut_a_wait_after_a_failure_short_and_people_do() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.away = Code.TIMEOUT
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: pair.engine.status().failures == 1)
        await pair.until(lambda: len(pair.hands.waits) == 2)
        pair.engine.wake(Wake.TIMER)
        # Turns of the loop in which a probe would be made, were it to be made.
        for _ in range(20):
            await asyncio.sleep(0)
        assert pair.cloud.probes == 1
        pair.cloud.away = None
        pair.engine.wake(Wake.WORK)
        await pair.until(lambda: pair.engine.state is State.IDLE)
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: len(pair.cloud.ups) == 2)


async def test_a_lost_answer_costs_nothing_but_the_repetition() -> None:
    async with Pair(entries=8) as pair:
        pair.cloud.lost_at = 2
        assert (await pair.engine.now())[0] == "failed"
        assert (pair.journal.acknowledged, len(pair.cloud.entries)) == (3, 6)
        assert await pair.engine.now() == ("completed", "exchanges: 2")
        assert pair.cloud.entries == pair.journal.entries


@pytest.mark.parametrize("kept", [0, 4])
async def test_an_issuer_that_lost_its_newest_books_gets_them_again_in_one_session(
    kept: int,
) -> None:
    async with Pair(entries=8) as pair:
        await pair.engine.now()
        handed = len(pair.journal.handed)
        del pair.cloud.entries[kept:]
        result, _ = await pair.engine.now()
        assert result == "completed"
        assert pair.cloud.entries == pair.journal.entries
        assert pair.journal.acknowledged == 8
        rewound = [data for name, data in pair.events if name == "sync.rewound"]
        assert rewound == [{"acknowledged": kept, "before": 8}]
        # What the report carried beside its entries was not taken: it is not forgotten either.
        assert len(pair.journal.handed) - handed == len(pair.cloud.ups) - 3 - 1
        assert pair.engine.state is State.IDLE


@pytest.mark.parametrize(
    "problem", [Refused.JOURNAL_REVOKED, Refused.FROZEN_BY_ISSUER, Refused.WRONG_JOURNAL]
)
async def test_a_journal_that_the_issuer_closed_is_suspended_until_something_wakes_it(
    problem: str,
) -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.changes = {"problem": str(problem), "acknowledged": 0}
        pair.cloud.objects = [b"list"]
        assert await pair.engine.now() == ("failed", f"exchange-problem: {problem}")
        assert (pair.engine.state, pair.engine.online) == (State.SUSPENDED, True)
        assert (pair.journal.taken, pair.journal.handed) == ([b"list"], [])
        failed = {"code": "exchange-problem", "problem": problem, "failures": 0}
        assert pair.events[-1] == ("sync.failed", failed)
        await pair.until(lambda: len(pair.hands.waits) == 2)
        assert pair.hands.waits == [None, None]
        pair.cloud.changes = {}
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert pair.cloud.probes == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"problem": "fork"}, Code.PROBLEM),
        ({"exchange": bytes(16)}, Code.FOREIGN_ANSWER),
        ({"acknowledged": 2}, Code.ACKNOWLEDGED_BEYOND),
        ({"acknowledged": 0}, Code.NOTHING_TAKEN),
    ],
    ids=str,
)
async def test_an_answer_that_does_not_hold_fails_and_the_cloud_was_reached(
    changes: dict[str, object], code: Code
) -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.changes = changes
        assert (await pair.engine.now())[0] == "failed"
        assert pair.events[-1][1]["code"] == code
        assert (pair.engine.state, pair.engine.online) == (State.OFFLINE, True)
        assert (pair.journal.acknowledged, pair.journal.handed) == (0, [])


async def test_an_answer_by_another_role_does_not_show_that_the_cloud_was_reached() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.role = "grants"
        pair.cloud.objects = [b"object"]
        assert (await pair.engine.now())[0] == "failed"
        assert pair.events[-1][1]["code"] == "wrong-role"
        assert (pair.engine.state, pair.engine.online) == (State.OFFLINE, None)
        assert pair.journal.taken == []


async def test_a_box_that_is_not_ready_says_so_without_asking_the_cloud() -> None:
    async with Pair(entries=1) as pair:
        pair.journal.signed = False
        assert "no checkpoint" in (await pair.engine.now())[1]
        key, pair.journal.to = pair.journal.to, None
        probes = pair.cloud.probes
        assert "no key of the issuer" in (await pair.engine.now())[1]
        assert (pair.cloud.probes, pair.engine.online) == (probes, None)
        pair.journal.signed, pair.journal.to = True, key
        assert (await pair.engine.now())[0] == "completed"


@pytest.mark.parametrize(
    ("error", "code"),
    [(TokenGone("gone"), "token-gone"), (OSError("disk"), "os-error")],
    ids=["token", "disk"],
)
async def test_trouble_of_the_box_itself_is_tried_again_and_says_nothing_of_the_cloud(
    error: Exception, code: str
) -> None:
    async with Pair(entries=1) as pair:
        pair.journal.error = error
        assert (await pair.engine.now())[0] == "failed"
        assert pair.events[-1][1]["code"] == code
        assert (pair.engine.state, pair.engine.online) == (State.OFFLINE, None)


async def test_all_who_ask_share_one_session_and_those_who_ask_during_it_the_next() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.gate.clear()
        first = [asyncio.create_task(pair.engine.now()) for _ in range(3)]
        await pair.until(lambda: len(pair.cloud.ups) == 1)
        later = asyncio.create_task(pair.engine.now())
        first[0].cancel()
        await pair.until(lambda: first[0].done())
        pair.cloud.gate.set()
        assert await asyncio.gather(*first[1:]) == [("completed", "exchanges: 1")] * 2
        assert await later == ("completed", "exchanges: 1")
        assert len(pair.cloud.ups) == 2


async def test_the_end_of_the_task_answers_everybody_who_asked() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.gate.clear()
        running = asyncio.create_task(pair.engine.now())
        await pair.until(lambda: len(pair.cloud.ups) == 1)
        waiting = asyncio.create_task(pair.engine.now())
        # One turn of the loop: the wish is made before the engine ends.
        await asyncio.sleep(0)
    ended = ("failed", "the synchronisation has ended")
    assert [await running, await waiting, await pair.engine.now()] == [ended] * 3


async def test_a_wait_ends_with_the_event_or_with_its_time() -> None:
    event = asyncio.Event()
    await wait_for(event, 0)
    event.set()
    async with asyncio.timeout(WAIT_S):
        await wait_for(event, None)
        await wait_for(event, 3_600_000)
