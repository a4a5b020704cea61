"""Start-up: the same state by snapshot and by replay; a store that was changed is named."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm import software
from tests.support.gateway import PASSPHRASE, FragileToken, Gateway, mode_of, refused, taken
from tests.support.tokens import FEEBLE
from tests.support.world import picture
from wallet.journal import Journal, JournalTampered, JournalUnopened, Mode
from wallet.journal.head import store_chain
from wallet.journal.names import FLUSH_ENTRIES
from wallet.journal.recovery import keep_list, list_kind
from wallet.protocol.entry import Open, Payment
from wallet.protocol.issued import LIST_TYPE, decode_list, decode_policy
from wallet.protocol.lists import ListId, SignedList, content
from wallet.protocol.merkle import EMPTY_ROOT
from wallet.protocol.messages import OrderKind, decode_order
from wallet.protocol.refusals import Code, ProtocolError
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import OutOfOrder, StoreError, Tampered
from wallet.store.journal import last_checkpoint, last_snapshot
from wallet.store.meta import put_meta

Change = Callable[[Connection], object]


async def everything(box: Gateway) -> None:
    """One of each kind of entry that replay treats specially."""
    made = await box.pay()
    await box.take_list(5, [], sequence=0)
    await box.take_list(1, [], sequence=0)
    order = box.order(
        1, 0, kind=int(OrderKind.REFUND), refunded=made.leaf, amount_minor=40, reference="back"
    )
    taken(await box.journal.pay(order))
    settlement = await box.settlement(box.journal.state.size)
    box.clock.wall_ms += 1000
    taken(await box.journal.settle(settlement))
    await box.pay(2, 0)


async def test_snapshot_and_replay_give_the_same_state(box: Gateway) -> None:
    await everything(box)
    before = picture(box.journal.state)
    root = await box.journal.root_at(box.journal.state.size)
    await box.reopen(crash=True)
    assert picture(box.journal.state) == before
    await box.reopen()
    assert picture(box.journal.state) == before
    await box.pay()
    after = picture(box.journal.state)
    await box.reopen(crash=True)
    assert picture(box.journal.state) == after
    assert await box.journal.root_at(before["size"]) == root
    assert await box.journal.root_at(0) == EMPTY_ROOT


async def test_progress_is_told(box: Gateway) -> None:
    told: list[tuple[int, int]] = []
    await box.crash()
    box.database = await Database.open(box.folder / "store.db", key=b"\x07" * 32)
    box.journal = await Journal.open(
        database=box.database,
        token=box.token,
        clock=box.clock,
        anchor=box.anchor,
        progress=lambda done, size: told.append((done, size)),
    )
    assert told == [(7, 7)]


async def test_a_sealed_journal_keeps_a_snapshot_above_its_last_checkpoint(box: Gateway) -> None:
    order = box.order()
    box.token.gone = True
    refused(await box.journal.pay(order))
    await box.journal.close()
    box.token.gone = False
    await box.crash()
    journal = await box.open()
    assert journal.mode is Mode.OPEN
    box.verified(taken(await journal.pay(order)))


async def test_an_empty_store_is_unopened(box: Gateway, tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "other.db", key=bytes(32))
    with pytest.raises(JournalUnopened):
        await Journal.open(database=database, token=box.token, clock=box.clock, anchor=box.anchor)
    await database.close()


async def test_a_store_takes_one_opening(box: Gateway) -> None:
    policy = decode_policy(box.issuer.policy())
    opening = Open(journal=box.journal.state.journal, epoch=1, currency="EUR", policy=policy)

    async def create(**changes: object) -> Journal:
        given = {
            "database": box.database,
            "token": box.token,
            "clock": box.clock,
            "anchor": box.anchor,
            "chain": box.chain(),
            "opening": opening,
        } | changes
        return await Journal.create(**given)  # type: ignore[arg-type]  # the changes are of right types

    with pytest.raises(OutOfOrder):
        await create()
    with pytest.raises(ProtocolError) as caught:
        await create(chain=box.chain(epoch=2))
    assert caught.value.code is Code.CERTIFICATE_INVALID
    with pytest.raises(ProtocolError):
        await create(opening=Open(journal=opening.journal, epoch=1, currency="USD", policy=policy))


async def _opens_as_tampered(box: Gateway, *, change: Change) -> str:
    await box.database.write(change)
    with pytest.raises(JournalTampered) as caught:
        await box.open(database=False)
    return str(caught.value)


def _sql(statement: str, *values: int | str | bytes) -> Change:
    return lambda connection: connection.execute(statement, values)


def _replace(index: int, *, by: int) -> Change:
    return _sql(
        "UPDATE entries SET entry = (SELECT entry FROM entries WHERE idx = ?) WHERE idx = ?",
        by,
        index,
    )


def _chain(box: Gateway) -> Change:
    return lambda connection: store_chain(connection, box.chain(epoch=2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_sql("UPDATE entries SET entry = x'00' WHERE idx = 3"), "an entry cannot be read"),
        (_sql("UPDATE entries SET entry = x'00' WHERE idx = 0"), "an entry cannot be read"),
        (_replace(5, by=3), "breaks the rules"),
        (_replace(0, by=3), "the first entry opens no epoch"),
        (_sql("DELETE FROM entries WHERE idx = 0"), "entry 0 is missing"),
        (_sql("DELETE FROM entries WHERE idx = 4"), "breaks the rules"),
        (_sql("DELETE FROM entries WHERE idx > 3"), "that the last checkpoint covers are missing"),
        (_sql("DELETE FROM entries"), "all entries are missing"),
        (_sql("UPDATE checkpoints SET checkpoint = x'00'"), "the last checkpoint cannot be read"),
        (_sql("INSERT INTO snapshots VALUES (3, x'00')"), "snapshot"),
        (_sql("DELETE FROM objects"), "list 5 of sequence 0 is missing"),
        (_sql("UPDATE objects SET object = x'00'"), "a stored list cannot be read"),
    ],
)
async def test_a_changed_store_is_named(box: Gateway, change: Change, says: str) -> None:
    await box.take_list(5, [], sequence=0)
    for _ in range(3):
        await box.pay()
    assert says in await _opens_as_tampered(box, change=change)


async def test_another_genuine_history_is_named(box: Gateway) -> None:
    """Entries that follow the rules, and are not those that were signed."""
    for _ in range(3):
        await box.pay()
    stored = await box.database.read(lambda c: last_checkpoint(c))
    assert stored is not None
    change = _sql("UPDATE checkpoints SET size = ? WHERE size = ?", stored[0] - 1, stored[0])
    assert "do not give the root" in await _opens_as_tampered(box, change=change)


async def test_a_snapshot_above_the_entries_is_named(box: Gateway) -> None:
    await box.pay()
    await box.journal.close()
    change = _sql("DELETE FROM entries WHERE idx > 5")
    assert "the snapshot is newer" in await _opens_as_tampered(box, change=change)


async def test_an_entry_that_is_missing_below_the_snapshot_is_named(box: Gateway) -> None:
    """As a disk leaves it that kept an older version of one page."""
    for _ in range(3):
        await box.pay()
    await box.journal.close()
    change = _sql("DELETE FROM entries WHERE idx = 4")
    assert "that the snapshot covers are missing" in await _opens_as_tampered(box, change=change)


async def test_a_list_of_another_content_is_named(box: Gateway) -> None:
    await box.take_list(5, [], sequence=0)
    other = box.issuer.list(5, [bytes(20)], sequence=0)
    change = _sql("UPDATE objects SET object = ? WHERE kind = ?", other, list_kind(5))
    assert "list 5 of sequence 0 is missing" in await _opens_as_tampered(box, change=change)


async def test_certificates_of_another_epoch_are_named(box: Gateway) -> None:
    assert "certificate" in await _opens_as_tampered(box, change=_chain(box))


async def test_a_store_without_certificates_is_unopened(box: Gateway) -> None:
    await box.database.write(lambda c: put_meta(c, "chain", b"\x90"))
    with pytest.raises(JournalUnopened):
        await box.open(database=False)


async def test_a_copy_beside_another_token_is_refused(box: Gateway, tmp_path: Path) -> None:
    """Even when both counters happen to show the same."""
    made = await software.create(tmp_path / "thief", passphrase=PASSPHRASE, cost=FEEBLE)
    own, box.token = box.token, FragileToken(made)
    with pytest.raises(JournalTampered, match="certificate"):
        await box.open(database=False)
    await made.close()
    box.token = own


async def test_flipped_bytes_of_the_file_are_found(box: Gateway) -> None:
    for _ in range(5):
        await box.pay()
    await box.journal.close()
    await box.crash()
    path = box.folder / "store.db"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await box.open()
    assert caught.value.code == "store-tampered"


async def test_entries_that_moved_away_are_missing(box: Gateway) -> None:
    last = (await box.pay()).index
    change = _sql("UPDATE entries SET idx = ? WHERE idx = ?", last + 5000, last)
    assert f"entry {last} is missing" in await _opens_as_tampered(box, change=change)


async def test_a_page_that_fails_while_serving_freezes(box: Gateway) -> None:
    def fails(connection: Connection) -> None:
        raise Tampered("page 9")

    payment = Payment(order=decode_order(box.order()), request=None)
    outcome = await box.journal.pay_decoded(payment, with_commit=fails)
    assert refused(outcome) is Code.FROZEN_TAMPER
    assert box.journal.mode is Mode.FROZEN_TAMPER
    assert refused(await box.journal.pay(box.order(1, 2))) is Code.FROZEN_TAMPER
    # It leaves no snapshot of what it cannot trust, and the next start decides anew.
    await box.reopen()
    assert mode_of(box) is Mode.OPEN


async def test_a_snapshot_is_written_after_many_entries(box: Gateway) -> None:
    made = await box.pay()
    box.journal._engine.names.recent.entries = FLUSH_ENTRIES
    await box.pay()
    async with asyncio.timeout(10):
        while (found := await box.database.read(last_snapshot)) is None:
            await asyncio.sleep(0.01)
    assert found[0] == box.journal.state.size
    assert await box.journal.find(made.leaf) == made.index


async def test_a_page_that_fails_under_the_snapshot_freezes(box: Gateway) -> None:
    # What the store does after the engine met a page that failed its HMAC.
    box.database._tampered = "page 9"
    await box.journal.close()
    assert mode_of(box) is Mode.FROZEN_TAMPER


async def test_what_was_released_when_a_page_failed_has_to_be_there_at_the_next_start(
    box: Gateway,
) -> None:
    await box.pay()
    order = box.order()

    def fails(connection: Connection) -> None:
        raise Tampered("page 9")

    with pytest.raises(Tampered):
        # A look is enough, and nothing has to be written.
        await box.database.read(fails)
    assert box.journal.mode is Mode.FROZEN_TAMPER
    assert refused(await box.journal.pay(order)) is Code.FROZEN_TAMPER
    size = box.journal.state.size
    assert box.database.least() == size
    # All of it is there: the disk is whole.
    await box.reopen(crash=True)
    assert mode_of(box) is Mode.OPEN
    # The log was cut below a page that failed, as if it were the end of a power cut.
    change = _sql("DELETE FROM entries WHERE idx = ?", size - 1)
    assert "entries are missing that were here" in await _opens_as_tampered(box, change=change)


async def test_the_number_beside_the_store_is_one(box: Gateway) -> None:
    (box.folder / "store.db.least").write_bytes(b"many")
    with pytest.raises(Tampered):
        box.database.least()


# ---- lists that a snapshot names --------------------------------------------------------------


async def revoke_many(box: Gateway) -> list[SignedList]:
    """A list that is too large for a snapshot: a full one, and a change."""
    ids = [number.to_bytes(20, "big") for number in range(5_000)]
    full = decode_list(box.issuer.list(ListId.WALLETS, ids, sequence=3))
    now_ms = box.issuer.now_s * 1000
    claims = {2: int(ListId.WALLETS), 3: 4, 4: now_ms, 5: now_ms, 6: full.hash}
    changed = {**claims, 7: content([[b"\xff" * 20], ids[:2]])}
    chain = [full, decode_list(box.issuer.issue(LIST_TYPE, changed))]
    for listed in chain:
        taken(await box.journal.take_list(listed))
    return chain


async def test_a_snapshot_names_a_large_list_and_the_store_has_it(box: Gateway) -> None:
    await revoke_many(box)
    before = picture(box.journal.state)
    for crash in (False, True):
        await box.reopen(crash=crash)
        assert picture(box.journal.state) == before
        assert len(box.journal.state.lists[ListId.WALLETS].items) == 4_999
    stored = await box.database.read(last_snapshot)
    assert stored is not None and len(stored[1]) < 10_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_sql("DELETE FROM objects WHERE sequence = 3"), "list 2 of sequence 4 is missing"),
        (_sql("DELETE FROM objects WHERE sequence = 4"), "list 2 of sequence 4 is missing"),
        (_sql("UPDATE objects SET object = x'00' WHERE sequence = 3"), "malformed"),
    ],
)
async def test_a_start_needs_every_part_of_a_list_that_the_snapshot_names(
    box: Gateway, change: Change, says: str
) -> None:
    await revoke_many(box)
    await box.journal.close()
    assert says in await _opens_as_tampered(box, change=change)


async def test_parts_of_a_list_that_do_not_follow_one_another_are_none(box: Gateway) -> None:
    await revoke_many(box)
    await box.journal.close()
    other = decode_list(box.issuer.list(ListId.WALLETS, [], sequence=3))
    said = await _opens_as_tampered(box, change=lambda c: keep_list(c, other))
    assert "not the base of the next" in said
