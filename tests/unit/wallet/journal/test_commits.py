"""Group commit: what arrives together shares a checkpoint, and every receipt holds."""

import asyncio
import os
import signal

import pytest

from tests.support.gateway import Gateway, refused, taken
from wallet.journal import Mode
from wallet.journal.batches import TURNS_MAX
from wallet.journal.engine import WAITING_MAX, Waiting
from wallet.journal.names import FLUSH_ENTRIES
from wallet.protocol.entry import Payment
from wallet.protocol.messages import decode_order
from wallet.protocol.refusals import Code, InvariantBroken
from wallet.verifier.verifier import CHUNK


async def test_an_order_alone_gets_a_checkpoint_of_its_own(box: Gateway) -> None:
    for _ in range(3):
        made = await box.pay()
        assert box.verified(made).size == made.index + 1


async def test_orders_that_arrive_during_a_commit_share_the_next_checkpoint(box: Gateway) -> None:
    box.token.gate = asyncio.Event()
    box.token.signing.clear()
    first = asyncio.create_task(box.journal.pay(box.order()))
    await box.token.signing.wait()
    rest = [asyncio.create_task(box.journal.pay(box.order(0, 2))) for _ in range(4)]
    signed = box.token.signed
    # One turn of the loop: the tasks run until their orders are queued.
    await asyncio.sleep(0)
    box.token.gate.set()
    alone = box.verified(taken(await first))
    together = [box.verified(taken(made)) for made in await asyncio.gather(*rest)]
    assert {made.size for made in together} == {alone.size + 4}
    assert len({made.root for made in together}) == 1
    assert [made.index for made in together] == list(range(alone.size, alone.size + 4))
    assert box.token.signed == signed + 2


async def test_what_comes_with_each_turn_of_the_loop_shares_a_checkpoint_up_to_a_bound(
    box: Gateway,
) -> None:
    paying = []
    for _ in range(3 * TURNS_MAX):
        paying.append(asyncio.create_task(box.journal.pay(box.order())))
        await asyncio.sleep(0)
    made = [taken(await task) for task in paying]
    first = made[0].index
    together = box.verified(made[0]).size - first
    assert 1 < together <= TURNS_MAX + 2
    assert [one.index for one in made] == list(range(first, first + len(made)))


async def test_a_known_order_gets_its_receipt_again_under_the_newest_checkpoint(
    box: Gateway,
) -> None:
    order = box.order()
    first = taken(await box.journal.pay(order))
    await box.pay(1, 0)
    again = taken(await box.journal.pay(order))
    assert again.repeated
    assert (again.index, again.entry, again.leaf) == (first.index, first.entry, first.leaf)
    assert box.verified(again).size > box.verified(first).size
    assert box.journal.state.wallets[box.wallet(0)].next_sequence == 1


async def test_an_order_that_is_sent_twice_at_once_counts_once(box: Gateway) -> None:
    order, size = box.order(), box.journal.state.size
    made = [taken(m) for m in await asyncio.gather(*[box.journal.pay(order) for _ in range(5)])]
    assert {one.index for one in made} == {size}
    assert box.journal.state.size == size + 1
    for one in made:
        box.verified(one)


async def test_a_used_sequence_with_another_payload_is_refused(box: Gateway) -> None:
    await box.pay()
    assert (
        refused(await box.journal.pay(box.order(sequence=0, amount_minor=7))) is Code.SEQUENCE_USED
    )
    assert refused(await box.journal.pay(box.order(sequence=5))) is Code.SEQUENCE_GAP


async def test_bytes_that_are_no_order_are_refused(box: Gateway) -> None:
    assert refused(await box.journal.pay(b"\x00")) is Code.MALFORMED
    assert refused(await box.journal.pay(box.order(), b"\x00")) is Code.MALFORMED
    assert refused(await box.journal.void(b"\x00")) is Code.MALFORMED
    assert refused(await box.journal.redeem(b"\x00", b"\x00")) is Code.MALFORMED


async def test_a_full_queue_refuses_at_once(box: Gateway) -> None:
    box.token.gate = asyncio.Event()
    box.token.signing.clear()
    first = asyncio.create_task(box.journal.pay(box.order()))
    await box.token.signing.wait()
    payment = Payment(order=decode_order(box.order()), request=None)
    loop, engine = asyncio.get_running_loop(), box.journal._engine
    futures = [loop.create_future() for _ in range(WAITING_MAX + 1)]
    for future in futures:
        engine.submit(Waiting(payment, future))
    assert refused(futures[-1].result()) is Code.BUSY
    assert futures[-1].result().retry_after_ms
    assert not futures[-2].done()
    for future in futures[:-2]:
        future.cancel()
    box.token.gate.set()
    taken(await first)
    # Who gave up is passed over; the order itself stands, once.
    assert refused(await futures[-2]) is Code.SEQUENCE_USED
    assert box.journal.state.size == box.verified(await box.journal.receipted(0)).size


async def test_a_closed_journal_is_busy(box: Gateway) -> None:
    await box.journal.close()
    assert refused(await box.journal.pay(box.order())) is Code.BUSY


async def test_work_that_comes_with_an_entry_stands_or_falls_with_it(box: Gateway) -> None:
    def broken(connection: object) -> None:
        raise InvariantBroken("made up")

    payment = Payment(order=decode_order(box.order()), request=None)
    behind = box.order(1, 2)
    paid, other = await asyncio.gather(
        box.journal.pay_decoded(payment, with_commit=broken), box.journal.pay(behind)
    )
    # The engine stops, everybody is told, and the daemon hears of it.
    assert refused(paid) is Code.BUSY
    assert refused(other) is Code.BUSY
    assert refused(await box.journal.pay(behind)) is Code.BUSY
    with pytest.raises(InvariantBroken):
        await box.journal._engine.failed
    with pytest.raises(InvariantBroken):
        await box.journal.close()
    box.clock.wall_ms += 1
    await box.crash()
    journal = await box.open()
    assert await journal.find(payment.order.identity) is None
    assert journal.mode is Mode.OPEN
    assert not taken(await journal.pay(behind)).repeated


async def test_orders_of_one_wallet_stay_in_order_with_a_helper(box: Gateway) -> None:
    journal = await box.reopen(verifying_processes=1)
    # While the helper starts, and once it answers.
    for _ in range(2):
        orders = [box.order(0, 1 + number % 2) for number in range(41)]
        forged = bytearray(box.order(2, 0, sequence=0))
        forged[-1] ^= 1
        answers = await asyncio.gather(
            *[journal.pay(order) for order in orders], journal.pay(bytes(forged))
        )
        made = [taken(answer) for answer in answers[:-1]]
        assert [item.index for item in made] == list(range(made[0].index, made[0].index + 41))
        assert refused(answers[-1]) is Code.BAD_SIGNATURE
        async with asyncio.timeout(30):
            while not journal._verifier.pids():
                # Nothing tells that a process is up: it is asked for, within the time above.
                await asyncio.sleep(0.05)
    await box.reopen()
    assert box.journal.state.size == journal.state.size


async def test_who_gives_up_while_a_signature_is_checked_disturbs_nobody(box: Gateway) -> None:
    journal = await box.reopen(verifying_processes=1)
    async with asyncio.timeout(30):
        while not journal._verifier.pids():
            # Nothing tells that a process is up: it is asked for, within the time above.
            await asyncio.gather(*[journal.pay(box.order(0, 1)) for _ in range(2)])
            await asyncio.sleep(0.05)
        (pid,) = journal._verifier.pids()
        os.kill(pid, signal.SIGSTOP)
        paying = [asyncio.create_task(journal.pay(box.order(0, 1))) for _ in range(CHUNK)]
        while journal._verifier._helpers[0].jobs < CHUNK:
            await asyncio.sleep(0)
        paying[0].cancel()
        # The journal closes first, so that each of the others is told that it is too late.
        closing = asyncio.create_task(journal.close())
        told = await asyncio.gather(*paying[1:])
        os.kill(pid, signal.SIGCONT)
        await closing
    assert {refused(answer) for answer in told} == {Code.BUSY}


async def test_a_flush_that_breaks_is_reported_and_its_names_stay(box: Gateway) -> None:
    engine = box.journal._engine
    made = await box.pay()
    engine.names.recent.name_records.append(b"no record")
    engine.names.recent.entries = FLUSH_ENTRIES
    await box.pay()
    with pytest.raises(ValueError, match="one width"):
        async with asyncio.timeout(10):
            await engine.failed
    assert await box.journal.find(made.leaf) == made.index
    engine.names.recent.name_records.remove(b"no record")
    await box.reopen()
    assert await box.journal.find(made.leaf) == made.index
