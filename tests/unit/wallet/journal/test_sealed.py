"""A token that refuses: nothing is lost, nothing is answered that is not signed."""

import asyncio
import functools
from pathlib import Path

import pytest

from hsm.api import TokenGone
from tests.support.gateway import Gateway, gateway, mode_of, refused, taken
from wallet.journal import EntryMissing, Event, Mode
from wallet.journal.head import start_window
from wallet.protocol.checkpoint import decode_checkpoint
from wallet.protocol.refusals import Code
from wallet.store.meta import put_meta


async def test_an_entry_without_a_signature_is_kept_and_receipted_later(box: Gateway) -> None:
    heard: list[Event] = []
    box.journal.listen(heard.append)
    box.token.gone = True
    order = box.order()
    assert refused(await box.journal.pay(order)) is Code.SEALED
    assert box.journal.mode is Mode.SEALED
    # The order is recorded: sending it again says so, and is no `sequence-used`.
    assert refused(await box.journal.pay(order)) is Code.SEALED
    assert refused(await box.journal.pay(box.order(1, 2))) is Code.SEALED
    with pytest.raises(TokenGone):
        await box.journal.resume()
    box.token.gone = False
    assert await box.journal.resume() is Mode.OPEN
    again = taken(await box.journal.pay(order))
    assert again.repeated
    assert box.verified(again).index == again.index
    assert [event.name for event in heard] == ["gateway.frozen", "gateway.open"]


async def test_a_recorded_order_without_its_receipt_is_no_used_sequence(box: Gateway) -> None:
    order = box.order()
    box.token.gate = asyncio.Event()
    box.token.signing.clear()
    paying = [asyncio.create_task(box.journal.pay(order)) for _ in range(2)]
    await box.token.signing.wait()
    box.token.gone = True
    box.token.gate.set()
    assert {refused(made) for made in await asyncio.gather(*paying)} == {Code.SEALED}


async def test_what_waits_while_the_token_fails_is_refused_and_not_recorded(
    box: Gateway,
) -> None:
    box.token.gate = asyncio.Event()
    box.token.signing.clear()
    first = asyncio.create_task(box.journal.pay(box.order()))
    await box.token.signing.wait()
    waiting = box.order(1, 2)
    second = asyncio.create_task(box.journal.pay(waiting))
    # One turn of the loop: the task runs until its order is queued.
    await asyncio.sleep(0)
    size = box.journal.state.size
    box.token.gone = True
    box.token.gate.set()
    assert [refused(await first), refused(await second)] == [Code.SEALED] * 2
    assert box.journal.state.size == size
    box.token.gone, box.token.gate = False, None
    await box.journal.resume()
    assert not taken(await box.journal.pay(waiting)).repeated


async def test_a_resume_beside_a_running_commit_waits_for_it(box: Gateway) -> None:
    box.token.gate = asyncio.Event()
    box.token.signing.clear()
    first = asyncio.create_task(box.journal.pay(box.order()))
    await box.token.signing.wait()
    box.journal._engine.set_mode(Mode.SEALED)
    resuming = asyncio.create_task(box.journal.resume())
    # One turn of the loop: the task runs until it waits for its turn.
    await asyncio.sleep(0)
    box.token.gate.set()
    made = taken(await first)
    assert await resuming is Mode.OPEN
    assert await box.journal.resume() is Mode.OPEN
    found = await box.journal.segment_end(entries_max=1000)
    assert found is not None
    checkpoint = decode_checkpoint(found[1])
    assert checkpoint.root == box.verified(made).root == await box.journal.root_at(found[0])


async def test_the_probe_seals_and_opens(box: Gateway) -> None:
    await box.journal.probe()
    assert mode_of(box) is Mode.OPEN
    box.token.gone = True
    await box.journal.probe()
    assert mode_of(box) is Mode.SEALED
    await box.journal.probe()
    assert mode_of(box) is Mode.SEALED
    box.token.gone = False
    await box.journal.probe()
    assert mode_of(box) is Mode.OPEN


async def test_a_probe_that_fails_leaves_a_frozen_journal_frozen(box: Gateway) -> None:
    box.journal._engine.set_mode(Mode.FROZEN_ROLLBACK)
    box.token.gone = True
    await box.journal.probe()
    assert box.journal.mode is Mode.FROZEN_ROLLBACK
    assert await box.journal.resume() is Mode.FROZEN_ROLLBACK


async def test_a_token_that_refuses_the_signature_alone_stays_sealed(box: Gateway) -> None:
    def refuse() -> None:
        raise TokenGone("not now")

    order = box.order()
    box.token.before_sign = refuse
    assert refused(await box.journal.pay(order)) is Code.SEALED
    assert await box.journal.resume() is Mode.SEALED
    box.token.before_sign = lambda: None
    assert await box.journal.resume() is Mode.OPEN
    box.verified(taken(await box.journal.pay(order)))
    counter = box.journal.status().counter
    await box.reopen(crash=True)
    assert (box.journal.mode, box.journal.status().counter) == (Mode.OPEN, counter + 1)


async def test_a_counter_that_moved_elsewhere_freezes_the_resume(box: Gateway) -> None:
    box.token.gone = True
    await box.journal.probe()
    box.token.gone = False
    for _ in range(2):
        await box.token.inner.counter.increment()
    assert await box.journal.resume() is Mode.FROZEN_ROLLBACK
    assert refused(await box.journal.pay(box.order())) is Code.FROZEN_ROLLBACK


async def test_a_window_that_the_token_refuses_is_no_rollback(tmp_path: Path) -> None:
    async with gateway(tmp_path, limits={105: 2}) as box:
        orders = [box.order() for _ in range(4)]
        for order in orders[:2]:
            await box.journal.pay(order)
        box.token.gone = True
        for order in orders[2:]:
            assert refused(await box.journal.pay(order)) is Code.SEALED
        box.token.gone = False
        await box.reopen(crash=True)
        assert box.journal.mode is Mode.OPEN
        for order in orders:
            box.verified(taken(await box.journal.pay(order)))


async def test_windows_end_after_entries_or_seconds(tmp_path: Path) -> None:
    async with gateway(tmp_path, limits={105: 3, 106: 60}) as box:
        await box.reopen()
        start = box.journal.status().counter
        counters = []
        for _ in range(7):
            counters.append(box.verified(await box.pay()).counter - start)
        assert counters == [0, 0, 1, 1, 1, 2, 2]
        # The last window began with the sixth payment; a rollback could hide the seventh.
        assert box.journal.status().window_exposure == 100
        box.clock.steady_ms += 60_000
        assert box.verified(await box.pay()).counter == start + 3


async def test_an_older_copy_of_the_store_is_frozen(box: Gateway, tmp_path: Path) -> None:
    await box.reopen()
    box.copy_store(tmp_path / "copy")
    await box.pay()
    for _ in range(2):
        await box.reopen()
    await box.journal.close()
    await box.crash()
    box.put_back(tmp_path / "copy")
    journal = await box.open()
    assert journal.mode is Mode.FROZEN_ROLLBACK
    assert refused(await journal.pay(box.order(1, 2))) is Code.FROZEN_ROLLBACK
    assert journal.status().mode is Mode.FROZEN_ROLLBACK
    assert journal.status().window_exposure == 0
    assert journal._engine.head.window_is_due(journal.state)
    assert len(await journal.entries(0, 100)) == journal.state.size
    assert await journal.segment_end(entries_max=10) is None


async def test_a_store_ahead_of_the_counter_is_frozen(box: Gateway) -> None:
    counter = box.journal.status().counter
    await box.journal.close()
    await box.database.write(lambda c: start_window(c, counter + 5, driver="software"))
    journal = await box.open(database=False)
    assert journal.mode is Mode.FROZEN_ROLLBACK


async def test_an_intent_of_a_larger_journal_than_there_is_is_a_rollback(box: Gateway) -> None:
    # A disk that lied kept the page with the intent, and lost pages of entries before it.
    await box.pay()
    status = box.journal.status()
    await box.journal.close()
    for beyond, mode in ((0, Mode.OPEN), (1, Mode.FROZEN_ROLLBACK)):
        intent = b"%d %d" % (status.counter + 1, status.size + beyond)
        await box.database.write(functools.partial(put_meta, name="counter-intent", value=intent))
        assert (await box.open(database=False)).mode is mode
        status = box.journal.status()
        await box.journal.close()


async def test_a_token_that_refuses_at_the_start_seals(box: Gateway) -> None:
    def refuse() -> None:
        raise TokenGone("not yet")

    made = await box.pay()
    box.token.before_sign = refuse
    await box.reopen(crash=True)
    assert mode_of(box) is Mode.SEALED
    with pytest.raises(EntryMissing):
        await box.journal.receipted(made.index)
    box.token.before_sign = lambda: None
    await box.journal.probe()
    assert mode_of(box) is Mode.OPEN
    box.verified(await box.journal.receipted(made.index))
