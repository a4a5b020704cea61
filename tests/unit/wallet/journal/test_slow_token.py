"""A token that signs slowly: one signature is shared by all that waits, within bounds.

A signature takes a time of the set clock, and as long as the test holds it back.
"""

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.support.gateway import Gateway, gateway, refused, taken
from wallet.journal import Mode, Receipted
from wallet.journal.batches import BATCH_MAX, SLOW_BATCH_MAX, SLOW_SIGNING_MS
from wallet.protocol.refusals import Code

# A signature of this length lets the engine gather for longer than any test runs.
ENDLESS_MS = 4_000_000
PATIENCE_S = 60


async def slow_down(box: Gateway, signing_ms: int) -> None:
    """Let each signature take so long, and the engine know it."""

    def pass_time() -> None:
        box.clock.steady_ms += signing_ms

    box.token.before_sign = pass_time
    await box.pay()


class Signature:
    """A signature that the test holds back, for an order of wallet 2."""

    def __init__(self, box: Gateway) -> None:
        self.box = box
        self.first: asyncio.Task[Receipted]

    async def __aenter__(self) -> "Signature":
        self.box.token.gate = asyncio.Event()
        self.box.token.signing.clear()
        self.first = asyncio.create_task(self.box.pay(2, 0))
        await self.box.token.signing.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let this signature and those after it come."""
        gate, self.box.token.gate = self.box.token.gate, None
        if gate is not None:
            gate.set()


async def queued(box: Gateway, count: int) -> list[asyncio.Task[Receipted]]:
    """Orders that wait in the queue."""
    before = len(box.journal._engine._queue)
    paying = [asyncio.create_task(box.pay(number % 2, 2)) for number in range(count)]
    while len(box.journal._engine._queue) < before + count:
        await asyncio.sleep(0)
    return paying


async def sizes_of(box: Gateway, paying: list[asyncio.Task[Receipted]]) -> list[int]:
    """How many entries share each of their checkpoints, in order."""
    async with asyncio.timeout(PATIENCE_S):
        made = await asyncio.gather(*paying)
    trees = [box.verified(one).size for one in made]
    return [len(list(group)) for _, group in itertools.groupby(trees)]


@pytest.mark.parametrize(
    ("signing_ms", "count", "batches"),
    [
        (0, 300, [BATCH_MAX, BATCH_MAX, 300 - 2 * BATCH_MAX]),
        (SLOW_SIGNING_MS - 1, 300, [BATCH_MAX, BATCH_MAX, 300 - 2 * BATCH_MAX]),
        (SLOW_SIGNING_MS, 300, [300]),
        (SLOW_SIGNING_MS, SLOW_BATCH_MAX + 7, [SLOW_BATCH_MAX, 7]),
    ],
)
async def test_what_waits_shares_a_slow_signature_up_to_a_bound_and_a_fast_one_in_small_batches(
    box: Gateway, signing_ms: int, count: int, batches: list[int]
) -> None:
    await slow_down(box, signing_ms)
    async with Signature(box):
        paying = await queued(box, count)
    assert await sizes_of(box, paying) == batches


async def test_a_batch_ends_with_the_entry_that_reaches_the_bound_of_bytes(box: Gateway) -> None:
    await slow_down(box, SLOW_SIGNING_MS)
    entry_bytes = len((await box.pay()).entry)
    box.journal._engine.batch_bytes_max = 2 * entry_bytes + 1
    async with Signature(box):
        paying = await queued(box, 8)
    assert await sizes_of(box, paying) == [3, 3, 2]
    indexes = [(await one).index for one in paying]
    assert indexes == sorted(indexes)


async def test_an_entry_larger_than_the_bound_goes_alone(box: Gateway) -> None:
    box.journal._engine.batch_bytes_max = 1
    async with Signature(box):
        paying = await queued(box, 3)
    assert await sizes_of(box, paying) == [1, 1, 1]


async def test_who_was_just_answered_shares_the_next_signature_with_who_waited(
    box: Gateway,
) -> None:
    await slow_down(box, ENDLESS_MS)
    async with Signature(box) as signature:
        waited = await queued(box, 3)
        signature.release()
        await signature.first
        again = asyncio.create_task(box.pay(2, 0))
    assert await sizes_of(box, [*waited, again]) == [4]


async def test_terminals_that_pay_again_at_once_are_all_signed_for_together(box: Gateway) -> None:
    await slow_down(box, ENDLESS_MS)
    signed = box.token.signed

    async def till() -> None:
        for _ in range(5):
            await box.pay()

    async with Signature(box):
        tills = [asyncio.create_task(till()) for _ in range(6)]
        while len(box.journal._engine._queue) < len(tills):
            await asyncio.sleep(0)
        # Nobody else comes: the one that is signed for now is not waited for again.
        box.clock.steady_ms -= ENDLESS_MS - SLOW_SIGNING_MS
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*tills)
    assert box.token.signed == signed + 1 + 5


async def test_an_order_alone_waits_for_nobody_behind_a_slow_signature(box: Gateway) -> None:
    await slow_down(box, ENDLESS_MS)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            made = await box.pay()
            assert box.verified(made).size == made.index + 1


async def test_who_does_not_come_again_is_waited_for_a_part_of_the_signature_alone(
    box: Gateway,
) -> None:
    await slow_down(box, 8 * SLOW_SIGNING_MS)
    async with Signature(box):
        waited = await queued(box, 2)
    assert await sizes_of(box, waited) == [2]


async def test_a_journal_that_closes_waits_for_nobody(box: Gateway) -> None:
    await slow_down(box, ENDLESS_MS)
    async with Signature(box) as signature:
        waited = await queued(box, 2)
        signature.release()
        await signature.first
        async with asyncio.timeout(PATIENCE_S):
            await box.journal.close()
    assert await sizes_of(box, waited) == [2]


async def test_a_large_batch_that_the_token_refuses_is_sealed_and_receipted_later(
    box: Gateway,
) -> None:
    await slow_down(box, SLOW_SIGNING_MS)
    size = box.journal.state.size
    orders = [box.order(number % 2, 2) for number in range(200)]
    async with Signature(box) as signature:
        paying = [asyncio.create_task(box.journal.pay(order)) for order in orders]
        while len(box.journal._engine._queue) < len(orders):
            await asyncio.sleep(0)
        signature.release()
        await signature.first
        box.token.gone = True
    assert {refused(one) for one in await asyncio.gather(*paying)} == {Code.SEALED}
    assert box.journal.state.size == size + 201
    box.token.gone = False
    assert await box.journal.resume() is Mode.OPEN
    again = [taken(await box.journal.pay(order)) for order in orders[::50]]
    assert all(one.repeated for one in again)


async def test_the_counter_moves_once_for_a_large_batch_that_ends_the_window(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, limits={105: 50}) as box:
        await slow_down(box, SLOW_SIGNING_MS)
        counter = box.journal.status().counter
        for moved in (1, 2):
            async with Signature(box) as signature:
                paying = await queued(box, 150)
            await signature.first
            assert await sizes_of(box, paying) == [150]
            assert box.journal.status().counter == counter + moved
