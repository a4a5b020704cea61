"""Gateways whose clock is wrong, or whose certificate expired while nobody could renew it."""

from __future__ import annotations

import pytest

from cloud.database import Database
from cloud.reconciler.clocks import list_ahead
from tests.support.branch_local import Branch
from tests.support.cloud_commands import Commands
from tests.support.cloud_local import StepClock
from tests.support.issuer import Key
from tests.support.recovery import ANNA, BERT, Box, Story, balance
from tests.support.reporting import Branch as Written
from tests.support.reporting import open_bank, reconciler
from tests.support.world import NOW_MS
from wallet.journal import Receipted
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.entry import Clock
from wallet.protocol.ids import journal_text
from wallet.protocol.payments import FUTURE_MS

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# A leaf is good for 14 days, and the policy's grace (118) for 35 more.
SESSIONS_MAX = 4


async def pay(branch: Branch, clock: StepClock, amount: int = 10) -> object:
    """Anna pays Bert, by the gateway's clock."""
    now_ms = clock.now_ms()
    order = branch.order(
        ANNA, BERT.public.id, amount, created_ms=now_ms, expires_ms=now_ms + DAY_MS
    )
    return await branch.opened.journal.pay(order)


def left_s(branch: Branch, clock: StepClock) -> int:
    """How long the leaf is good for."""
    leaf = parse_certificate(branch.opened.journal.chain[0])
    return leaf.not_after_s - clock.now_ms() // 1000


async def settled(branch: Branch) -> list[tuple[str, str]]:
    """Sessions until one goes well; what came of each."""
    outcomes: list[tuple[str, str]] = []
    while not outcomes or outcomes[-1][0] != "completed":
        assert len(outcomes) < SESSIONS_MAX, outcomes
        outcomes.append(await branch.daemon.sync_now())
    return outcomes


@pytest.mark.parametrize("wrong_ms", [-HOUR_MS, HOUR_MS])
async def test_an_hour_wrong_keeps_no_gateway_from_its_issuer(
    story: Story, north: Box, wrong_ms: int
) -> None:
    clock = StepClock(story.cloud.clock.wall_ms + wrong_ms)
    async with north.running(clock=clock) as branch:
        assert isinstance(await pay(branch, clock), Receipted)
        await settled(branch)
        # A leaf that is newer than the gateway's own clock.
        for step in range(3):
            story.cloud.clock.wall_ms += 8 * DAY_MS
            clock.wall_ms += 8 * DAY_MS
            assert len(await settled(branch)) == 1
            assert left_s(branch, clock) > 7 * 86_400, step
            assert isinstance(await pay(branch, clock), Receipted), step
            assert len(await settled(branch)) == 1
        state = branch.opened.journal.state
        assert branch.opened.journal.acknowledged >= state.size - 1
        assert balance(branch, BERT) == 40
    await no_evidence(story)
    # The cloud's clock stands, and other boxes' are the machine's: minutes are the test's own.
    far = [
        line for line in await ahead(story) if line["entry_ms"] - line["received_ms"] > HOUR_MS / 2
    ]
    assert len(far) == (1 if wrong_ms > 0 else 0)


@pytest.mark.parametrize("days", [20, 48, 60, 400])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_certificate_that_expired_offline_is_renewed_by_the_first_line(
    story: Story, north: Box, days: int, restarted: bool
) -> None:
    clock = StepClock(story.cloud.clock.wall_ms)
    async with north.running(offline=True, clock=clock) as branch:
        assert isinstance(await pay(branch, clock), Receipted)
        if not restarted:
            clock.wall_ms += days * DAY_MS
            assert left_s(branch, clock) < 0
    clock.wall_ms = story.cloud.clock.wall_ms = story.cloud.clock.wall_ms + days * DAY_MS
    await story.policy({})
    await story.cloud.cloud.refresh()
    async with north.running(clock=clock) as branch:
        outcomes = await settled(branch)
        assert left_s(branch, clock) > 13 * 86_400, outcomes
        await settled(branch)
        assert isinstance(await pay(branch, clock), Receipted)
        await settled(branch)
        assert balance(branch, BERT) == 20
    await no_evidence(story)
    await story.where()


async def test_a_start_after_a_renewal_signs_nothing_that_is_older_than_its_certificate(
    story: Story, north: Box
) -> None:
    clock = StepClock(story.cloud.clock.wall_ms)
    async with north.running(clock=clock) as branch:
        assert isinstance(await pay(branch, clock), Receipted)
        await settled(branch)
        # A box whose clock stopped: the new leaf begins days after its last entry.
        story.cloud.clock.wall_ms += 8 * DAY_MS
        await settled(branch)
        assert left_s(branch, clock) > 20 * 86_400
    async with north.running(clock=clock) as branch:
        assert len(await settled(branch)) == 1
    await no_evidence(story)


async def ahead(story: Story) -> list[dict[str, int]]:
    """What an auditor reads of clocks."""
    _, page = await story.first.get("/v1/issuer/clocks")
    found: list[dict[str, int]] = page["clocks"]
    assert (await story.first.get(f"/v1/issuer/clocks?first={len(found)}"))[1] == {"clocks": []}
    return found


async def test_of_a_clock_that_runs_ahead_the_furthest_entry_is_kept_and_told_once(
    database: Database,
) -> None:
    await open_bank(database)
    branch, anna, bert = Written("north"), Key("anna"), Key("bert")
    branch.enrol(anna, bert)
    await branch.fund(database, anna, 1_000)
    reconciling, found = reconciler(database), []
    late_ms = NOW_MS + FUTURE_MS
    for time_ms, clock, heard_ms in (
        (late_ms, Clock.SURE, NOW_MS),
        (late_ms + 1, Clock.SURE, NOW_MS),
        (late_ms + 2, Clock.UNCERTAIN, NOW_MS + 1),
        (late_ms + 9, Clock.SURE, NOW_MS),
        (late_ms + 10, Clock.SURE, NOW_MS + 2),
        (late_ms + 11, Clock.UNCERTAIN, NOW_MS + 1),
    ):
        branch.book.now_ms, branch.book.clock = time_ms, clock
        branch.book.accept(branch.book.pay(anna, bert, 1))
        assert (await branch.sync(reconciling, now_ms=heard_ms)).problem is None
        async with database.transaction() as connection:
            found.append([item.entry_ms for item in await list_ahead(connection, limit=9)])
            told = await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE topic = 'journal.clock-ahead'"
            )
        assert told == (1 if found[-1] else 0)
    first, most = [late_ms + 1], [late_ms + 9]
    assert found == [[], first, first, most, most, most]


async def test_clocks_that_run_ahead_are_listed_by_a_command(story: Story, north: Box) -> None:
    clock = StepClock(story.cloud.clock.wall_ms + HOUR_MS)
    async with north.running(clock=clock) as branch:
        assert isinstance(await pay(branch, clock), Receipted)
        await settled(branch)
    commands = await Commands.by(story.cloud, "ada")
    (line,) = (await commands.typed("ada", "evidence", "clocks")).splitlines()
    assert line.startswith(f"{journal_text(north.journal)}  epoch 1  entry ")
    assert 3_500 < int(line.split()[-3]) <= 3_600


async def no_evidence(story: Story) -> None:
    """Nobody was convicted of a wrong clock."""
    async with story.database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM journal_evidence") == 0
