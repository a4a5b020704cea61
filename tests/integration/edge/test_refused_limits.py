"""Limits of limits.md over HTTP: each says its value, what is left, and when waiting helps."""

from typing import Any

import pytest

from tests.support.refusals import (
    AMOUNT,
    FUNDS,
    Call,
    Case,
    Make,
    Scene,
    accepted,
    named,
    past,
    pay,
)
from wallet.protocol.refusals import Code

pytestmark = pytest.mark.asyncio(loop_scope="module")
# One payment of AMOUNT is above it, and this much is left of it.
LITTLE = AMOUNT - 3


def tier(limits: dict[int, int], **changes: Any) -> Make:
    """A payment under these limits of the wallets' tier."""

    async def make(scene: Scene) -> Call:
        order = await scene.order(**changes)
        await scene.rules(limits)
        return pay(order)

    return make


def spent(limits: dict[int, int]) -> Make:
    """A second payment of one wallet to another, under these limits."""

    async def make(scene: Scene) -> Call:
        payer, payee = await scene.wallet(), (await scene.wallet()).public.id
        await scene.rules(limits)
        await accepted(scene.http, scene.here.order(payer, payee, AMOUNT))
        return pay(scene.here.order(payer, payee, AMOUNT))

    return make


def journal(limits: dict[int, int]) -> Make:
    """A payment under these limits of the whole journal."""

    async def make(scene: Scene) -> Call:
        order = await scene.order()
        await scene.rules(journal=limits)
        return pay(order)

    return make


async def out_on_stale_lists(scene: Scene) -> Call:
    there = scene.other.opened.journal.state.journal
    order = await scene.order(payee=bytes(20), payee_journal=there)
    await scene.rules(journal={108: 0})
    return pay(order)


async def a_late_refund(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    order = scene.here.order(payer, payee.public.id, AMOUNT)
    paid = await accepted(scene.http, order)
    await scene.rules({16: 0})
    await past(paid["time_ms"])
    refunded = bytes.fromhex(paid["id"])
    back = scene.here.order(payee, payer.public.id, AMOUNT, kind=1, refunded=refunded)
    return pay(back)


ABOVE = [
    Case(
        code=Code.PAYMENT_ABOVE_LIMIT, what="1", make=tier({1: LITTLE}), limit=LITTLE, left=LITTLE
    ),
    Case(code=Code.PAYMENT_BELOW_LIMIT, what="2", make=tier({2: AMOUNT + 1}), limit=AMOUNT + 1),
    Case(code=Code.AUTHORISATION_REQUIRED, what="3", make=tier({3: LITTLE}), limit=LITTLE),
    Case(
        code=Code.BALANCE_ABOVE_LIMIT,
        what="4",
        make=tier({4: FUNDS + LITTLE}),
        limit=FUNDS + LITTLE,
        left=LITTLE,
    ),
    Case(
        code=Code.SPENT_ABOVE_LIMIT,
        what="6",
        make=spent({6: AMOUNT + LITTLE}),
        limit=AMOUNT + LITTLE,
        left=LITTLE,
    ),
    Case(code=Code.COUNT_ABOVE_LIMIT, what="8", make=spent({8: 1}), limit=1, left=0),
    Case(
        code=Code.RECEIVED_ABOVE_LIMIT,
        what="9",
        make=spent({9: AMOUNT + LITTLE}),
        limit=AMOUNT + LITTLE,
        left=LITTLE,
    ),
    Case(
        code=Code.DAY_AMOUNT_ABOVE_LIMIT,
        what="10",
        make=spent({10: AMOUNT + LITTLE}),
        limit=AMOUNT + LITTLE,
        left=LITTLE,
    ),
    Case(code=Code.DAY_COUNT_ABOVE_LIMIT, what="11", make=spent({11: 1}), limit=1, left=0),
    Case(
        code=Code.PAIR_ABOVE_LIMIT,
        what="12",
        make=spent({12: AMOUNT + LITTLE}),
        limit=AMOUNT + LITTLE,
        left=LITTLE,
    ),
    Case(code=Code.OFFLINE_TOO_LONG, what="15", make=tier({15: 0}), limit=0, left=0),
    Case(code=Code.REFUND_TOO_LATE, what="16", make=a_late_refund, limit=0),
    Case(code=Code.CATEGORY_NOT_ALLOWED, what="18", make=tier({18: 7}, category="5411")),
    Case(code=Code.JOURNAL_FULL, what="104", make=journal({104: 0}), limit=0, left=0, waits=True),
    Case(code=Code.LISTS_STALE, what="108", make=out_on_stale_lists, limit=0, left=0, waits=True),
    Case(code=Code.POLICY_EXPIRED, what="112", make=journal({112: 0}), limit=0, left=0, waits=True),
]


async def a_note(scene: Scene) -> Call:
    payee = await scene.wallet()
    return Call(path="/v1/notes", body=await scene.note(payee.public.id))


def note(tier: dict[int, int] | None = None, journal: dict[int, int] | None = None) -> Make:
    """A note that is redeemed under these limits."""

    async def make(scene: Scene) -> Call:
        call = await a_note(scene)
        await scene.rules(tier, journal)
        return call

    return make


NOTES = [
    Case(code=Code.HOPS_ABOVE_LIMIT, what="13", make=note({13: 0}), limit=0),
    Case(
        code=Code.BALANCE_ABOVE_LIMIT,
        what="4, by a note",
        make=note({4: FUNDS + LITTLE}),
        limit=FUNDS + LITTLE,
        left=LITTLE,
    ),
    Case(
        code=Code.GATEWAY_EXPOSURE,
        what="102",
        make=note(journal={102: LITTLE}),
        limit=LITTLE,
        left=LITTLE,
    ),
    Case(
        code=Code.JOURNAL_FULL,
        what="104, by a note",
        make=note(journal={104: 0}),
        limit=0,
        left=0,
        waits=True,
    ),
    Case(
        code=Code.LISTS_STALE,
        what="108, by a note",
        make=note(journal={108: 0}),
        limit=0,
        left=0,
        waits=True,
    ),
]
CASES = [*ABOVE, *NOTES]


@named(CASES)
async def test_a_broken_limit_says_its_value_leaves_no_entry_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check(case, caplog)


@named(ABOVE)
async def test_an_order_of_a_batch_that_breaks_a_limit_says_the_same(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check_in_batch(case, caplog)
