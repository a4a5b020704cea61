"""Orders that a terminal brings and the gateway refuses: each by its code, alone and in a batch."""

import secrets
from typing import Any

import pytest

from edge.pos.purse import DeviceKey
from tests.support.branch_local import DAY_MS
from tests.support.refusals import (
    AMOUNT,
    FUNDS,
    Call,
    Case,
    Make,
    Scene,
    accepted,
    changed,
    check_line,
    flipped,
    logged,
    named,
    past,
    pay,
)
from wallet.clock import SystemClock
from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.ids import wallet_text
from wallet.protocol.refusals import Code

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER_JOURNAL = bytes(20)
HOUR_MS = 3_600_000


def raw(order: bytes) -> Make:
    """These bytes in the place of an order."""

    async def make(scene: Scene) -> Call:
        return pay(order)

    return make


def order(**changes: Any) -> Make:
    """An order that differs in this from one that would be accepted."""

    async def make(scene: Scene) -> Call:
        return pay(await scene.order(**changes))

    return make


async def truncated(scene: Scene) -> Call:
    return pay((await scene.order())[:-1])


async def longer(scene: Scene) -> Call:
    return pay(await scene.order() + b"\x00")


async def of_version_two(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    signed = scene.here.order(payer, payee.public.id, AMOUNT)
    payload = decode(signed, bytes_max=len(signed))[2]
    claims = decode(payload, bytes_max=len(payload))
    return pay(payer._sign(ORDER_TYPE, encode(claims | {1: 2})))


async def a_request(scene: Scene) -> Call:
    payee, now_ms = await scene.wallet(), SystemClock().now_ms()
    return pay(
        payee.sign_request(
            nonce=secrets.token_bytes(16),
            payee_journal=scene.here.opened.journal.state.journal,
            amount_minor=AMOUNT,
            currency="EUR",
            created_ms=now_ms,
            expires_ms=now_ms + HOUR_MS,
        )
    )


async def to_oneself(scene: Scene) -> Call:
    payer = await scene.wallet()
    return pay(scene.here.order(payer, payer.public.id, AMOUNT))


async def by_a_stranger(scene: Scene) -> Call:
    payee = await scene.wallet()
    return pay(scene.here.order(DeviceKey(secrets.token_bytes(32)), payee.public.id, AMOUNT))


async def by_a_frozen_payer(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    await scene.list(5, [payer.public.id])
    return pay(scene.here.order(payer, payee.public.id, AMOUNT))


async def to_a_frozen_payee(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    await scene.list(5, [payee.public.id])
    return pay(scene.here.order(payer, payee.public.id, AMOUNT))


async def by_a_revoked_wallet(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    await scene.list(2, [payer.public.id])
    return pay(scene.here.order(payer, payee.public.id, AMOUNT))


async def to_a_sanctioned_wallet(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    await scene.list(4, [[wallet_text(payee.public.id), ["a name"]]])
    return pay(scene.here.order(payer, payee.public.id, AMOUNT))


async def after_the_enrolment(scene: Scene) -> Call:
    until_ms = SystemClock().now_ms() + 500
    payer, payee = await scene.wallet(until_ms=until_ms), await scene.wallet()
    await past(until_ms)
    return pay(scene.here.order(payer, payee.public.id, AMOUNT))


async def with_a_used_sequence(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    await accepted(scene.http, scene.here.order(payer, payee.public.id, AMOUNT))
    return pay(scene.here.order(payer, payee.public.id, AMOUNT + 1, sequence=0))


async def wrongly_signed(scene: Scene) -> Call:
    return pay(flipped(await scene.order()))


async def of_changed_words(scene: Scene) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    small = scene.here.order(payer, payee.public.id, AMOUNT)
    large = scene.here.order(payer, payee.public.id, AMOUNT * 2)
    return pay(changed(small, 2, decode(large, bytes_max=len(large))[2]))


async def by_another_key(scene: Scene) -> Call:
    payer, thief = await scene.wallet(), await scene.wallet()
    payee = await scene.wallet()
    signed = scene.here.order(payer, payee.public.id, AMOUNT)
    return pay(thief._sign(ORDER_TYPE, decode(signed, bytes_max=len(signed))[2]))


NOW_MS = SystemClock().now_ms()
EXPIRED = {"created_ms": NOW_MS - 2 * DAY_MS, "expires_ms": NOW_MS - DAY_MS}
EARLY = {"created_ms": NOW_MS + 2 * HOUR_MS, "expires_ms": NOW_MS + DAY_MS}
CASES = [
    Case(code=Code.NOT_CANONICAL, what="a longer head than needed", make=raw(b"\x18\x00")),
    Case(code=Code.MALFORMED, what="no COSE_Sign1", make=raw(b"\xf6")),
    Case(code=Code.NOT_CANONICAL, what="truncated", make=truncated),
    Case(code=Code.NOT_CANONICAL, what="more after its end", make=longer),
    Case(code=Code.MALFORMED, what="to oneself", make=to_oneself),
    Case(code=Code.MALFORMED, what="no amount", make=order(amount_minor=0)),
    Case(code=Code.TOO_LARGE, what="above 16 KiB", make=raw(bytes(16 * 1024 + 1))),
    Case(code=Code.UNKNOWN_VERSION, what="version 2", make=of_version_two),
    Case(code=Code.UNKNOWN_TYPE, what="a request", make=a_request),
    Case(code=Code.WRONG_CURRENCY, what="dollars", make=order(currency="USD")),
    Case(code=Code.WRONG_JOURNAL, what="another", make=order(payer_journal=OTHER_JOURNAL)),
    Case(code=Code.WRONG_JOURNAL, what="another epoch", make=order(payer_epoch=2)),
    Case(code=Code.UNKNOWN_WALLET, what="the payer", make=by_a_stranger),
    Case(code=Code.UNKNOWN_WALLET, what="the payee", make=order(payee=bytes(20))),
    Case(code=Code.WALLET_FROZEN, what="the payer", make=by_a_frozen_payer),
    Case(code=Code.WALLET_FROZEN, what="the payee", make=to_a_frozen_payee),
    Case(code=Code.ENROLMENT_EXPIRED, what="the payer's", make=after_the_enrolment),
    Case(code=Code.SEQUENCE_USED, what="by other words", make=with_a_used_sequence),
    Case(code=Code.SEQUENCE_GAP, what="a later one", make=order(sequence=7)),
    Case(code=Code.ORDER_EXPIRED, what="yesterday", make=order(**EXPIRED)),
    Case(code=Code.ORDER_FROM_THE_FUTURE, what="of later today", make=order(**EARLY)),
    Case(code=Code.BAD_SIGNATURE, what="another bit", make=wrongly_signed),
    Case(code=Code.BAD_SIGNATURE, what="over other words", make=of_changed_words),
    Case(code=Code.BAD_SIGNATURE, what="by another key", make=by_another_key),
    Case(
        code=Code.INSUFFICIENT_FUNDS,
        what="more than there is",
        make=order(amount_minor=FUNDS + 1),
        left=FUNDS,
    ),
    Case(code=Code.WALLET_REVOKED, what="the payer", make=by_a_revoked_wallet),
    Case(code=Code.SANCTIONED, what="the payee", make=to_a_sanctioned_wallet),
]


@named(CASES)
async def test_a_refused_order_says_why_leaves_no_entry_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check(case, caplog)


@named(CASES)
async def test_a_refused_order_of_a_batch_says_the_same_beside_what_was_accepted(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check_in_batch(case, caplog)


@pytest.mark.parametrize(("path", "code"), [("/v1/none", "route-unknown"), ("/v1/notes", None)])
async def test_a_path_or_method_that_is_none_is_logged_once_too(
    scene: Scene, caplog: pytest.LogCaptureFixture, path: str, code: str | None
) -> None:
    answer, lines = await logged(caplog, scene.send(Call(path=path, method="GET")))
    assert answer.content_type == "application/problem+json"
    check_line(lines, action="request.refused", code=code or "method-not-allowed", terminal=None)
