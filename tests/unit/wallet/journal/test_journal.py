"""What the rest of the gateway asks of a journal."""

import asyncio
from pathlib import Path

import pytest

from edge.pos.purse import DeviceKey
from tests.support.gateway import FUNDED_MINOR, Gateway, gateway, mode_of, refused, taken
from wallet.journal import EntryMissing, Event, Mode
from wallet.journal.batches import BATCH_MAX
from wallet.journal.engine import CHECKPOINT_SPACING
from wallet.journal.index import prefix_of
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.checkpoint import decode_checkpoint
from wallet.protocol.entry import Clock as Certainty
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.messages import OrderKind, decode_request
from wallet.protocol.receipt import verify_checkpoint
from wallet.protocol.refusals import Code, ProtocolError
from wallet.store.checkpoints import checkpoint_for, prune_checkpoints, replace_checkpoint
from wallet.store.connection import Connection
from wallet.store.names import put_names

OTHER = b"\x09" * 32
JOURNALS = 1


# ---- clocks ----------------------------------------------------------------------------------
async def test_a_clock_that_falls_below_the_newest_entry_is_uncertain(box: Gateway) -> None:
    start_ms = box.clock.wall_ms
    box.clock.wall_ms += 60_000
    sure = await box.pay()
    box.clock.wall_ms = start_ms + 59_999
    assert box.journal.status().clock == "uncertain"
    assert box.journal.now() == (start_ms + 60_000, Certainty.UNCERTAIN)
    unsure = await box.pay()
    assert [decode_entry(made.entry).clock for made in (sure, unsure)] == [
        Certainty.SURE,
        Certainty.UNCERTAIN,
    ]
    assert unsure.time_ms == sure.time_ms
    box.clock.wall_ms = start_ms + 60_000
    assert box.journal.status().clock == "sure"


async def test_a_settlement_raises_the_floor_across_a_restart(box: Gateway) -> None:
    made = await box.settlement(box.journal.state.size, _7=box.clock.wall_ms + 5_000)
    taken(await box.journal.settle(made))
    assert box.journal.now()[1] == Certainty.UNCERTAIN
    await box.reopen()
    assert box.journal.now() == (box.clock.wall_ms + 5_000, Certainty.UNCERTAIN)
    box.clock.wall_ms += 5_000
    assert box.journal.now()[1] == Certainty.SURE


# ---- certificates ----------------------------------------------------------------------------
async def test_receipts_hold_where_the_clock_is_behind_a_renewed_certificate(box: Gateway) -> None:
    box.issuer.now_s += 2 * 86_400
    await box.journal.renew(box.chain())
    made = await box.pay()
    assert box.verified(made).certificate.not_before_s > box.clock.wall_ms // 1000
    await box.reopen()
    again = await box.journal.receipted(made.index)
    box.verified(again)


async def test_a_renewed_certificate_is_used_and_kept(box: Gateway) -> None:
    before = await box.pay()
    renewed = box.chain(days=30)
    await box.journal.renew(renewed)
    assert box.journal.chain == renewed
    # The last checkpoint keeps the chain that was valid when it was signed.
    held = box.journal._engine.signed
    assert held is not None
    assert held.chain != renewed
    box.verified(await box.journal.receipted(before.index))
    after = box.verified(await box.pay()).certificate
    assert after.not_after_s == parse_certificate(renewed[0]).not_after_s
    await box.reopen()
    assert box.journal.chain == renewed
    assert box.journal.status().certificate_not_after_s == after.not_after_s


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"journal": bytes(20)}, {"raw": OTHER}])
async def test_a_certificate_of_another_journal_is_refused(
    box: Gateway, changes: dict[str, object]
) -> None:
    if "raw" in changes:
        changes = {"raw": box.keys[0].public.raw}
    held = box.journal.chain
    with pytest.raises(ProtocolError) as caught:
        await box.journal.renew(box.chain(**changes))
    assert caught.value.code is Code.CERTIFICATE_INVALID
    assert box.journal.chain == held
    box.verified(await box.pay())
    await box.reopen()


async def test_an_expired_certificate_takes_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path, limits={118: 60}) as box:
        box.clock.wall_ms = (box.journal.status().certificate_not_after_s + 60) * 1000
        taken(await box.journal.pay(box.order()))
        box.clock.wall_ms += 1
        assert refused(await box.journal.pay(box.order())) is Code.CERTIFICATE_INVALID


# ---- the issuer's word -----------------------------------------------------------------------
async def test_a_list_that_names_the_journal_freezes_and_a_newer_one_thaws_it(
    box: Gateway,
) -> None:
    heard: list[Event] = []
    box.journal.listen(heard.append)
    own = [box.journal.state.journal, 1]
    taken(await box.take_list(JOURNALS, [own], sequence=0))
    assert mode_of(box) is Mode.FROZEN_BY_ISSUER
    assert refused(await box.journal.pay(box.order(sequence=0))) is Code.FROZEN_BY_ISSUER
    taken(await box.journal.settle(await box.settlement(box.journal.state.size)))
    await box.reopen()
    assert mode_of(box) is Mode.FROZEN_BY_ISSUER
    box.token.gone = True
    assert refused(await box.take_list(6, [], sequence=0)) is Code.SEALED
    box.token.gone = False
    assert await box.journal.resume() is Mode.FROZEN_BY_ISSUER
    taken(await box.take_list(JOURNALS, [], sequence=1))
    assert mode_of(box) is Mode.OPEN
    await box.pay()
    assert [event.name for event in heard] == ["gateway.frozen", "payment.settled"]


async def test_a_settlement_of_a_size_that_never_was_is_refused(box: Gateway) -> None:
    size = box.journal.state.size
    for wrong in (0, size + 1):
        outcome = await box.journal.settle(await box.settlement(wrong))
        assert refused(outcome) is Code.PROOF_INVALID
    false = await box.settlement(size, _5=OTHER)
    assert refused(await box.journal.settle(false)) is Code.PROOF_INVALID
    made = await box.settlement(size - 2)
    taken(await box.journal.settle(made))
    assert box.journal.status().settled_size == size - 2


async def test_listeners_hear_of_payments(tmp_path: Path) -> None:
    async with gateway(tmp_path, tiers={1: {7: 1}}) as box:
        heard: list[Event] = []
        await box.pay(amount_minor=1)
        box.journal.listen(heard.append)
        made = await box.pay()
        assert made.soft
        taken(await box.journal.settle(await box.settlement(box.journal.state.size)))
    assert heard[0] == Event(
        name="payment.accepted", data={"index": made.index, "id": made.leaf.hex()}
    )
    assert [event.name for event in heard] == [
        "payment.accepted",
        "limit.soft",
        "payment.settled",
    ]


# ---- looking up ------------------------------------------------------------------------------
async def test_entries_are_found_by_their_names_before_and_after_a_flush(box: Gateway) -> None:
    made = [await box.pay(reference="invoice 7"), await box.pay(1, 2, reference="invoice 7")]
    for _ in range(2):
        assert await box.journal.find_reference("invoice 7") == [one.index for one in made]
        assert await box.journal.find_reference("invoice 8") == []
        for one in made:
            assert await box.journal.find(one.leaf) == one.index
        newest, oldest = made[1].index, made[0].index
        payee = box.wallet(1)
        assert (await box.journal.wallet_entries(payee))[:2] == [newest, oldest]
        assert await box.journal.wallet_entries(payee, limit=1) == [newest]
        assert (await box.journal.wallet_entries(payee, before=newest))[0] == oldest
        assert len(await box.journal.wallet_entries(payee)) == 4
        await box.reopen()
    made.append(await box.pay(1, 0, reference="invoice 7"))
    assert await box.journal.find_reference("invoice 7") == [one.index for one in made]
    assert (await box.journal.wallet_entries(payee))[:3] == [one.index for one in reversed(made)]


async def test_what_does_not_exist_is_missing(box: Gateway) -> None:
    size = box.journal.state.size
    for asked in (box.journal.entries(size, 1), box.journal.receipted(size)):
        with pytest.raises(EntryMissing):
            await asked
    assert await box.journal.find(OTHER) is None


async def test_a_refund_names_a_payment_of_this_journal(box: Gateway) -> None:
    made, refund = await box.pay(), int(OrderKind.REFUND)
    grant = (await box.journal.receipted(1)).leaf
    identity = decode_entry(made.entry).body.order.identity  # type: ignore[union-attr]  # a payment
    moved = taken(await box.journal.pay(box.order(2, 2, kind=2, payee_journal=OTHER[:20])))
    for unknown in (OTHER, grant, identity, moved.leaf):
        order = box.order(1, 0, sequence=0, kind=refund, refunded=unknown)
        assert refused(await box.journal.pay(order)) is Code.REFUND_UNKNOWN
    back = taken(await box.journal.pay(box.order(1, 0, kind=refund, refunded=made.leaf)))
    assert back.kind == EntryKind.PAY


async def test_requests_are_paid_once_and_void_for_good(box: Gateway) -> None:
    def request(nonce: bytes) -> bytes:
        return box.keys[1].sign_request(
            nonce=nonce * 16,
            payee_journal=box.journal.state.journal,
            amount_minor=100,
            currency="EUR",
            created_ms=box.clock.wall_ms,
            expires_ms=box.clock.wall_ms + 60_000,
        )

    asked, voided = request(b"a"), request(b"b")
    order = box.order(request=decode_request(asked).identity)
    made = taken(await box.journal.pay(order, asked))
    assert await box.journal.find(decode_request(asked).identity) == made.index
    taken(await box.journal.void(voided))
    late = box.order(sequence=1, request=decode_request(voided).identity)
    assert isinstance(refused(await box.journal.pay(late, voided)), Code)
    unknown = request(b"c")[:-1] + b"\xff"
    forged = box.order(sequence=1, request=decode_request(unknown).identity)
    assert refused(await box.journal.pay(forged, unknown)) is Code.BAD_SIGNATURE


async def test_an_order_of_an_unknown_wallet_is_refused(box: Gateway) -> None:
    box.keys.append(DeviceKey(OTHER))
    assert refused(await box.journal.pay(box.order(3, 0))) is Code.UNKNOWN_WALLET


# ---- segments --------------------------------------------------------------------------------
async def _pay_many(box: Gateway, count: int) -> None:
    orders = [box.order(number % 3, (number + 1) % 3) for number in range(count)]
    for made in await asyncio.gather(*[box.journal.pay(order) for order in orders]):
        taken(made)


async def _check_segment(box: Gateway, *, entries_max: int) -> int:
    found = await box.journal.segment_end(entries_max=entries_max)
    assert found is not None
    size, checkpoint = found
    assert 0 < size - box.journal.acknowledged <= entries_max + BATCH_MAX
    signed = decode_checkpoint(checkpoint)
    verify_checkpoint(checkpoint, root=box.anchor, grace_s=0)
    assert (signed.head.size, signed.root) == (size, await box.journal.root_at(size))
    return size


@pytest.mark.parametrize("entries_max", [1, 50, 100, 1000])
async def test_segments_end_at_checkpoints_within_the_bound(box: Gateway, entries_max: int) -> None:
    for count in (*[1] * 70, 130, *[1] * 70, 300, 3):
        await _pay_many(box, count)
    box.clock.wall_ms += 1
    await box.reopen(crash=True)
    await _pay_many(box, 5)
    while box.journal.acknowledged < box.journal.state.size:
        await box.journal.acknowledge(await _check_segment(box, entries_max=entries_max))
    assert box.journal.status().acknowledged == box.journal.state.size
    # An issuer that lost all of it gets the same segments again.
    await box.journal.go_back(0)
    while box.journal.acknowledged < box.journal.state.size:
        await box.journal.acknowledge(await _check_segment(box, entries_max=entries_max))


async def test_single_payments_keep_one_checkpoint_in_many(box: Gateway) -> None:
    for _ in range(150):
        await box.pay()
    sizes = await box.database.read(
        lambda c: [s for (s,) in c.execute("SELECT size FROM checkpoints ORDER BY size")]
    )
    assert len(sizes) <= 150 // CHECKPOINT_SPACING + 2
    assert max(b - a for a, b in zip([0, *sizes], sizes, strict=False)) <= CHECKPOINT_SPACING
    found = await box.database.read(lambda c: checkpoint_for(c, above=sizes[-1], at_most=10**6))
    assert found is None


async def test_an_acknowledgement_never_falls_nor_passes_the_journal(box: Gateway) -> None:
    await box.journal.acknowledge(4)
    await box.journal.acknowledge(2)
    await box.journal.acknowledge(box.journal.state.size + 1)
    assert box.journal.acknowledged == 4
    await box.reopen()
    assert box.journal.acknowledged == 4


async def test_going_back_stays_so_and_leads_to_a_smaller_size_alone(box: Gateway) -> None:
    await box.journal.acknowledge(4)
    for size in (5, 4, -1):
        await box.journal.go_back(size)
        assert box.journal.acknowledged == 4
    await box.journal.go_back(2)
    await box.reopen()
    assert box.journal.acknowledged == 2


async def test_checkpoints_far_below_what_is_acknowledged_are_forgotten(box: Gateway) -> None:
    def fill(connection: Connection) -> None:
        for size in (1, 2, 3):
            replace_checkpoint(connection, size=size, checkpoint=b"c", replaced=None)
        prune_checkpoints(connection, below=3)

    await box.database.write(fill)
    kept = await box.database.read(
        lambda c: [s for (s,) in c.execute("SELECT size FROM checkpoints ORDER BY size")]
    )
    assert kept[0] == 3


async def test_a_gap_in_the_stored_checkpoints_ends_at_the_newest(box: Gateway) -> None:
    await _pay_many(box, 20)
    await box.database.write(lambda c: c.execute("DELETE FROM checkpoints"))
    assert await _check_segment(box, entries_max=2) == box.journal.state.size


async def test_the_status_tells(box: Gateway) -> None:
    await box.take_list(5, [], sequence=3)
    status = box.journal.status()
    assert (status.mode, status.currency, status.epoch) == (Mode.OPEN, "EUR", 1)
    assert (status.size, status.wallets) == (box.journal.state.size, 3)
    assert status.balance_total == 3 * FUNDED_MINOR
    assert status.lists[5][0] == 3
    assert status.counter_driver == "software"


async def test_a_name_that_shares_its_prefix_is_not_found(box: Gateway) -> None:
    made = await box.pay()
    await box.database.write(lambda c: put_names(c, [(prefix_of(made.leaf), 1)]))
    assert await box.journal.find(made.leaf) == made.index
