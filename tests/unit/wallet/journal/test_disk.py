"""A full disk: `busy`, nothing lost, and on it goes when there is room."""

from pathlib import Path

from tests.support.disk import small_disk
from tests.support.gateway import Gateway, refused, taken
from tests.support.world import picture
from wallet.journal import Mode, Receipted
from wallet.protocol.refusals import Code, Refusal

DISK_BYTES = 6 * 1024 * 1024


async def test_a_full_disk_is_busy_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path, size_bytes=DISK_BYTES) as disk:
        box = Gateway(tmp_path)
        await box.create()
        made = [await box.pay()]
        disk.fill()
        while True:
            order, before = box.order(), picture(box.journal.state)
            outcome = await box.journal.pay(order)
            if isinstance(outcome, Refusal):
                break
            made.append(outcome)
        assert outcome.code is Code.BUSY
        assert outcome.retry_after_ms
        assert picture(box.journal.state) == before
        assert refused(await box.journal.pay(order)) is Code.BUSY
        assert box.journal.mode is Mode.OPEN
        # Without room there is no snapshot either, and the entries do without.
        await box.journal.close()
        disk.free()
        await box.crash()
        journal = await box.open()
        assert picture(journal.state) == before
        made.append(taken(await journal.pay(order)))
        for one in made:
            await _is_there(box, one)
        await box.close()


async def _is_there(box: Gateway, made: Receipted) -> None:
    box.verified(made)
    assert await box.journal.find(made.leaf) == made.index
    again = await box.journal.receipted(made.index)
    assert box.verified(again).leaf == made.leaf


async def test_a_disk_with_room_again_needs_no_restart(tmp_path: Path) -> None:
    with small_disk(tmp_path, size_bytes=DISK_BYTES) as disk:
        box = Gateway(tmp_path)
        await box.create()
        disk.fill()
        order = box.order()
        while not isinstance(await box.journal.pay(order), Refusal):
            order = box.order()
        disk.free()
        made = taken(await box.journal.pay(order))
        assert not made.repeated
        box.verified(made)
        await box.close()
