"""Gateways whose clock is wrong, or whose certificate expired while nobody could renew it."""

from __future__ import annotations

import pytest

from tests.support.branch_local import Branch
from tests.support.cloud_local import StepClock
from tests.support.recovery import ANNA, BERT, Box, Story, balance
from wallet.journal import Receipted
from wallet.protocol.certificates import parse_certificate

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


async def no_evidence(story: Story) -> None:
    """Nobody was convicted of a wrong clock."""
    async with story.database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM journal_evidence") == 0
