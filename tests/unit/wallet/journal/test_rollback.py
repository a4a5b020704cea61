"""A store that was put back or copied: frozen for good, unless it is of the counter's window.

protocol.md, "The hardware counter". The counter lives in the token; here it is a file that stays
where it is while the store is exchanged.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm import software
from hsm.api import CounterReplaced
from tests.support.gateway import PASSPHRASE, FragileToken, Gateway, gateway, mode_of, refused
from tests.support.world import picture
from wallet.journal import Journal, Mode
from wallet.protocol.entry import Open
from wallet.protocol.issued import STATEMENT_TYPE, Statement, decode_policy, decode_statement
from wallet.protocol.refusals import Code
from wallet.store.journal import clear_journal
from wallet.store.meta import delete_meta

WINDOW = {105: 3}


async def stop(box: Gateway) -> None:
    """In good order, so that a folder may be copied."""
    await box.journal.close()
    await box.crash()


async def frozen(box: Gateway) -> None:
    """It is frozen, and whatever comes but a new epoch leaves it so and changes nothing."""
    journal, before = box.journal, picture(box.journal.state)
    signed, counter = box.token.signed, await box.token.read()
    assert journal.status().mode is Mode.FROZEN_ROLLBACK
    assert refused(await journal.pay(box.order(1, 2, sequence=0))) is Code.FROZEN_ROLLBACK
    assert refused(await box.take_list(5, [], sequence=9)) is Code.FROZEN_ROLLBACK
    settlement = await box.settlement(journal.state.size)
    assert refused(await journal.settle(settlement)) is Code.FROZEN_ROLLBACK
    await journal.renew(box.chain(days=20))
    await journal.acknowledge(journal.state.size)
    await journal.probe()
    assert await journal.resume() is Mode.FROZEN_ROLLBACK
    await box.reopen()
    assert mode_of(box) is Mode.FROZEN_ROLLBACK
    assert picture(box.journal.state) == before
    assert (box.token.signed, await box.token.read()) == (signed, counter)


async def test_a_copy_from_before_the_last_window_is_frozen(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box", limits=WINDOW) as box:
        await box.pay()
        box.copy_store(tmp_path / "copy")
        start = box.journal.status().counter
        while box.journal.status().counter == start:
            await box.pay()
        await stop(box)
        box.put_back(tmp_path / "copy")
        await box.open()
        await frozen(box)


async def test_a_rollback_within_the_window_hides_what_the_status_said(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box", limits=WINDOW) as box:
        start = box.journal.status().counter
        while box.journal.status().counter == start:
            await box.pay()
        assert box.journal.status().window_exposure == 0
        box.copy_store(tmp_path / "copy")
        lost = [await box.pay(amount_minor=30), await box.pay(1, 2, amount_minor=12)]
        assert box.journal.status().window_exposure == 42
        await box.crash()
        box.put_back(tmp_path / "copy")
        journal = await box.open()
        assert journal.mode is Mode.OPEN
        assert journal.state.size == lost[0].index
        # Nobody here can tell; the first receipt that the issuer collects convicts the journal.
        other = box.verified(await box.pay(2, 0, amount_minor=7))
        assert (other.index, other.size) == (lost[0].index, box.verified(lost[0]).size)
        assert other.root != box.verified(lost[0]).root


@pytest.mark.parametrize("moved", [-1, 2])
async def test_a_copy_beside_a_second_token_with_the_key_is_frozen(
    tmp_path: Path, moved: int
) -> None:
    """As an HSM's backup makes one: the same key, and a counter that went its own way."""
    async with gateway(tmp_path / "box") as box:
        await box.pay()
        await stop(box)
        shutil.copytree(tmp_path / "box", tmp_path / "second")
        counter = await box.token.read() + moved
        (tmp_path / "second" / "token" / "counter").write_text(f"{counter}\n")
        second = Gateway(tmp_path / "second", box.issuer)
        opened = await software.open_token(second.folder / "token", passphrase=PASSPHRASE)
        second.token = FragileToken(opened)
        await second.open()
        await frozen(second)
        await second.close()
        await box.open()
        assert box.journal.mode is Mode.OPEN


async def test_a_copy_of_the_epoch_before_is_frozen(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box") as box:
        await box.pay()
        await stop(box)
        box.copy_store(tmp_path / "copy")
        await box.open()
        await new_epoch(box)
        await stop(box)
        box.put_back(tmp_path / "copy")
        await box.open()
        assert box.journal.state.epoch == 1
        await frozen(box)


async def test_an_epoch_that_the_issuer_opens_thaws(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box") as box:
        await box.pay()
        box.copy_store(tmp_path / "copy")
        for _ in range(2):
            await box.reopen()
        await stop(box)
        box.put_back(tmp_path / "copy")
        await box.open()
        await frozen(box)
        await new_epoch(box)
        await box.reopen()
        assert mode_of(box) is Mode.OPEN
        assert box.journal.state.epoch == 2
        box.verified(await box.journal.receipted(0))


async def new_epoch(box: Gateway) -> None:
    """The store is emptied and opened anew, under the issuer's statement of the epoch before."""
    statement = await statement_of(box)
    opening = Open(
        journal=box.journal.state.journal,
        epoch=2,
        currency="EUR",
        policy=decode_policy(box.issuer.policy({1: {}})),
        statement=statement,
    )
    await box.journal.close()
    await box.database.write(clear_journal)
    box.journal = await Journal.create(
        database=box.database,
        token=box.token,
        clock=box.clock,
        anchor=box.anchor,
        chain=box.chain(epoch=2),
        opening=opening,
    )


async def statement_of(box: Gateway) -> Statement:
    """What the issuer carries over."""
    state = box.journal.state
    root = await box.journal.root_at(state.size)
    carried = [[wallet, held.balance] for wallet, held in sorted(state.wallets.items())]
    claims = {2: state.journal, 3: 1, 4: state.size, 5: root, 6: carried, 7: []}
    return decode_statement(box.issuer.issue(STATEMENT_TYPE, claims))


async def test_a_counter_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box") as box:
        await stop(box)
        box.token.driver = "pkcs11"
        with pytest.raises(CounterReplaced, match="counted by software, and pkcs11"):
            await box.open()
        await box.database.close()
        box.token.driver = "software"
        await box.open()
        assert box.journal.mode is Mode.OPEN


async def test_a_store_that_does_not_know_who_counted_learns_it(tmp_path: Path) -> None:
    async with gateway(tmp_path / "box") as box:
        # As an earlier release left it.
        await box.database.write(lambda connection: delete_meta(connection, "counter-driver"))
        await stop(box)
        await box.open()
        assert box.journal.mode is Mode.OPEN
        await stop(box)
        box.token.driver = "tpm"
        with pytest.raises(CounterReplaced):
            await box.open()
        await box.database.close()
        box.token.driver = "software"
        await box.open()
