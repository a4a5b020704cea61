"""Value from one journal to another: redeemed once, in one place."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.gateway import FUNDED_MINOR, Gateway, refused, taken
from tests.support.live_issuer import LiveIssuer
from wallet.journal import Receipted
from wallet.protocol.entry import EntryKind
from wallet.protocol.refusals import Code

NOTE_GRACE = {116: 86_400}


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two gateways of one issuer; wallet 1 lives in the second one."""
    issuer, made = LiveIssuer(), []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        box = Gateway(tmp_path / name, issuer)
        box.clock.wall_ms = issuer.now_s * 1000
        await box.create(limits=NOTE_GRACE)
        made.append(box)
    yield made[0], made[1]
    for box in made:
        await box.close()


async def sent(here: Gateway, there: Gateway) -> Receipted:
    """A payment of wallet 0 here to wallet 1 there."""
    return await here.pay(0, 1, payee_journal=there.journal.state.journal)


async def test_a_note_is_redeemed_once_and_receipted_again(pair: tuple[Gateway, Gateway]) -> None:
    here, there = pair
    made = await sent(here, there)
    assert made.kind == EntryKind.TRANSFER_OUT
    assert here.journal.state.wallets[here.wallet(0)].balance == FUNDED_MINOR - 100
    arrived = taken(await there.journal.redeem(made.entry, made.receipt))
    assert there.verified(arrived).index == arrived.index
    again = taken(await there.journal.redeem(made.entry, made.receipt))
    assert again.repeated
    assert again.index == arrived.index
    assert there.journal.state.wallets[there.wallet(1)].balance == FUNDED_MINOR + 100
    assert (await there.journal.wallet_entries(there.wallet(1)))[0] == arrived.index
    await there.reopen(crash=True)
    assert taken(await there.journal.redeem(made.entry, made.receipt)).index == arrived.index
    assert there.journal.state.wallets[there.wallet(1)].unsettled == 100


async def test_a_note_is_worth_nothing_elsewhere(pair: tuple[Gateway, Gateway]) -> None:
    here, there = pair
    made = await sent(here, there)
    assert refused(await here.journal.redeem(made.entry, made.receipt)) is Code.NOTE_NOT_FOR_US
    inside = await here.pay(0, 1)
    outcome = await there.journal.redeem(inside.entry, inside.receipt)
    assert refused(outcome) in {Code.MALFORMED, Code.NOTE_NOT_FOR_US}
    broken = made.receipt[:-1] + bytes([made.receipt[-1] ^ 1])
    assert refused(await there.journal.redeem(made.entry, broken)) is Code.PROOF_INVALID


async def test_a_redeemed_payment_can_be_refunded(pair: tuple[Gateway, Gateway]) -> None:
    here, there = pair
    made = await sent(here, there)
    arrived = taken(await there.journal.redeem(made.entry, made.receipt))
    back = there.order(
        1, here.wallet(0), kind=1, refunded=arrived.leaf, payee_journal=here.journal.state.journal
    )
    returned = taken(await there.journal.pay(back))
    taken(await here.journal.redeem(returned.entry, returned.receipt))
    assert here.journal.state.wallets[here.wallet(0)].balance == FUNDED_MINOR
