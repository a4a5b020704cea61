"""Requests, refunds, enrolments and hosted wallets that are refused: each by its code."""

import secrets
from typing import Any

import pytest

from edge.http.octets import to_text
from edge.pos.purse import DeviceKey
from tests.support.live_issuer import LiveIssuer
from tests.support.refusals import (
    AMOUNT,
    FUNDS,
    TIER,
    Call,
    Case,
    Make,
    Scene,
    accepted,
    enrolment,
    flipped,
    named,
    past,
    pay,
    taken,
)
from wallet.clock import SystemClock
from wallet.protocol import issued
from wallet.protocol.codec import encode
from wallet.protocol.ids import parse_wallet, wallet_text
from wallet.protocol.keys import from_cose_key
from wallet.protocol.messages import decode_request
from wallet.protocol.refusals import Code

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUR_MS = 3_600_000
PIN, WRONG_PIN = "2580", "0000"


# ---- requests ---------------------------------------------------------------------------------
def request_of(scene: Scene, payee: DeviceKey, **changes: Any) -> bytes:
    """A request that the payee's device signed."""
    now_ms = SystemClock().now_ms()
    claims = {
        "nonce": secrets.token_bytes(16),
        "payee_journal": scene.here.opened.journal.state.journal,
        "amount_minor": AMOUNT,
        "currency": "EUR",
        "created_ms": now_ms,
        "expires_ms": now_ms + HOUR_MS,
    }
    return payee.sign_request(**claims | changes)


def brought(request: bytes) -> Call:
    """A request to be kept."""
    return Call(path="/v1/requests", body={"request": to_text(request)})


def bring(**changes: Any) -> Make:
    """A request that differs in this from one that would be kept."""

    async def make(scene: Scene) -> Call:
        return brought(request_of(scene, await scene.wallet(), **changes))

    return make


async def of_a_stranger(scene: Scene) -> Call:
    return brought(request_of(scene, DeviceKey(secrets.token_bytes(32))))


async def wrongly_signed(scene: Scene) -> Call:
    return brought(flipped(request_of(scene, await scene.wallet())))


async def an_order(scene: Scene) -> Call:
    return brought(await scene.order())


async def truncated(scene: Scene) -> Call:
    return brought(request_of(scene, await scene.wallet())[:-1])


async def voiding_what_nobody_asked(scene: Scene) -> Call:
    return Call(method="DELETE", path=f"/v1/requests/{'0' * 64}")


async def voiding_what_was_paid(scene: Scene) -> Call:
    request, _ = await _paid_request(scene)
    answer = await scene.send(brought(request))
    assert answer.status == 201
    identity = decode_request(request).identity.hex()
    return Call(method="DELETE", path=f"/v1/requests/{identity}")


async def asked_by_a_stranger(scene: Scene) -> Call:
    hosted = {"wallet": wallet_text(bytes(20)), "amount": AMOUNT, "currency": "EUR"}
    return Call(path="/v1/requests", body={"hosted": hosted})


# ---- paying them ------------------------------------------------------------------------------
async def _asked(scene: Scene, **changes: Any) -> tuple[DeviceKey, DeviceKey, bytes, bytes]:
    """(payer, payee, request, its identity)."""
    payer, payee = await scene.wallet(), await scene.wallet()
    request = request_of(scene, payee, **changes)
    return payer, payee, request, decode_request(request).identity


async def _paid_request(scene: Scene) -> tuple[bytes, DeviceKey]:
    payer, payee, request, identity = await _asked(scene)
    order = scene.here.order(payer, payee.public.id, AMOUNT, request=identity)
    await accepted(scene.http, order, request)
    return request, payee


async def without_its_request(scene: Scene) -> Call:
    payer, payee, _, identity = await _asked(scene)
    return pay(scene.here.order(payer, payee.public.id, AMOUNT, request=identity))


async def of_another_amount(scene: Scene) -> Call:
    payer, payee, request, identity = await _asked(scene)
    return pay(scene.here.order(payer, payee.public.id, 1, request=identity), request)


async def of_another_payee(scene: Scene) -> Call:
    payer, _, request, identity = await _asked(scene)
    stranger = await scene.wallet()
    return pay(scene.here.order(payer, stranger.public.id, AMOUNT, request=identity), request)


async def of_an_expired_one(scene: Scene) -> Call:
    now_ms = SystemClock().now_ms()
    times = {"created_ms": now_ms - 2 * HOUR_MS, "expires_ms": now_ms - HOUR_MS}
    payer, payee, request, identity = await _asked(scene, **times)
    return pay(scene.here.order(payer, payee.public.id, AMOUNT, request=identity), request)


async def of_a_paid_one(scene: Scene) -> Call:
    request, payee = await _paid_request(scene)
    identity = decode_request(request).identity
    payer = await scene.wallet()
    return pay(scene.here.order(payer, payee.public.id, AMOUNT, request=identity), request)


async def of_a_void_one(scene: Scene) -> Call:
    payer, payee, request, identity = await _asked(scene)
    assert (await scene.send(brought(request))).status == 201
    path = f"/v1/requests/{identity.hex()}"
    assert (await scene.send(Call(method="DELETE", path=path))).status == 200
    return pay(scene.here.order(payer, payee.public.id, AMOUNT, request=identity), request)


async def of_a_forged_one(scene: Scene) -> Call:
    payer, payee, request, identity = await _asked(scene)
    order = scene.here.order(payer, payee.public.id, AMOUNT, request=identity)
    return pay(order, flipped(request))


# ---- refunds ----------------------------------------------------------------------------------
def give_back(order: bytes) -> Call:
    """A refund."""
    return Call(path="/v1/refunds", body={"order": to_text(order)})


async def of_nothing(scene: Scene) -> Call:
    return give_back(await scene.order(kind=1, refunded=bytes(32)))


async def _refund(scene: Scene, amount: int, *, by_payee: bool = True) -> Call:
    payer, payee = await scene.wallet(), await scene.wallet()
    paid = await accepted(scene.http, scene.here.order(payer, payee.public.id, AMOUNT))
    refunded = bytes.fromhex(paid["id"])
    giver, taker = (payee, payer) if by_payee else (payer, payee)
    order = scene.here.order(giver, taker.public.id, amount, kind=1, refunded=refunded)
    return give_back(order)


async def of_too_much(scene: Scene) -> Call:
    return await _refund(scene, AMOUNT + 1)


async def by_the_payer(scene: Scene) -> Call:
    return await _refund(scene, AMOUNT, by_payee=False)


async def too_late(scene: Scene) -> Call:
    call = await _refund(scene, AMOUNT)
    await scene.rules({16: 0})
    await past(SystemClock().now_ms())
    return call


# ---- wallets ----------------------------------------------------------------------------------
def enrol(raw: bytes) -> Call:
    """An enrolment that a terminal brings."""
    return Call(path="/v1/wallets", body={"enrolment": to_text(raw)})


def claims_of(key: DeviceKey, journal: bytes, *, until_ms: int) -> dict[int, Any]:
    """Claims of an enrolment."""
    fields = {1: 1, -1: 6, -2: key.public.raw}
    return {2: key.public.id, 3: journal, 4: fields, 5: TIER, 6: until_ms}


def newcomer() -> DeviceKey:
    """A key that no gateway knows."""
    return DeviceKey(secrets.token_bytes(32))


async def elsewhere(scene: Scene) -> Call:
    return enrol(enrolment(scene.other, newcomer()))


async def enrolment_of_yesterday(scene: Scene) -> Call:
    return enrol(enrolment(scene.here, newcomer(), until_ms=1))


async def forged_enrolment(scene: Scene) -> Call:
    return enrol(flipped(enrolment(scene.here, newcomer())))


async def of_another_role(scene: Scene) -> Call:
    journal = scene.here.opened.journal.state.journal
    claims = claims_of(newcomer(), journal, until_ms=2**45)
    key, chain = scene.here.issuer.role_key("grants")
    return enrol(key.sign_object(issued.ENROLMENT_TYPE, issued.payload(claims), chain))


async def of_another_issuer(scene: Scene) -> Call:
    journal = scene.here.opened.journal.state.journal
    claims = claims_of(newcomer(), journal, until_ms=2**45)
    return enrol(LiveIssuer("stranger").issue(issued.ENROLMENT_TYPE, claims))


async def a_grant(scene: Scene) -> Call:
    state = scene.here.opened.journal.state
    wallet = (await scene.wallet()).public.id
    sequence = state.grants_next
    return enrol(scene.here.issuer.grant(state.journal, wallet, 1, sequence=sequence))


async def no_enrolment(scene: Scene) -> Call:
    return enrol(b"\x80")


async def of_a_weak_key(scene: Scene) -> Call:
    key = to_text(encode({1: 1, -1: 6, -2: bytes(32)}))
    return Call(path="/v1/wallets", body={"device": {"key": key}})


async def labelled_too_long(scene: Scene) -> Call:
    key = to_text(newcomer().public.cose_key)
    return Call(path="/v1/wallets", body={"device": {"key": key, "label": "\u20ac" * 22}})


async def labelled_by_a_bell(scene: Scene) -> Call:
    return Call(path="/v1/wallets", body={"hosted": {"pin": PIN, "label": "a\x07"}}, keyed=True)


async def that_nobody_knows(scene: Scene) -> Call:
    return Call(method="GET", path=f"/v1/wallets/{wallet_text(bytes(20))}")


# ---- hosted wallets ---------------------------------------------------------------------------
async def _hosted(scene: Scene) -> str:
    status, made = await scene.http.post("/v1/wallets", {"hosted": {"pin": PIN}}, key=True)
    assert status == 202
    wallet: str = made["wallet"]
    (wish,) = [w for w in await scene.here.wishes() if w.wallet == parse_wallet(wallet)]
    key, state = from_cose_key(wish.key), scene.here.opened.journal.state
    await taken(scene.here, scene.here.issuer.enrolment(state.journal, key))
    grant = scene.here.issuer.grant(state.journal, key.id, FUNDS, sequence=state.grants_next)
    await taken(scene.here, grant)
    return wallet


async def _hosted_payment(scene: Scene, wallet: str, **changes: Any) -> Call:
    payee = (await scene.wallet()).text
    hosted = {"wallet": wallet, "pin": PIN, "payee": payee, "amount": AMOUNT, "currency": "EUR"}
    return Call(path="/v1/payments", body={"hosted": hosted | changes}, keyed=True)


async def with_a_wrong_pin(scene: Scene) -> Call:
    return await _hosted_payment(scene, await _hosted(scene), pin=WRONG_PIN)


async def after_three_wrong_pins(scene: Scene) -> Call:
    wallet = await _hosted(scene)
    for _ in range(3):
        wrong = await _hosted_payment(scene, wallet, pin=WRONG_PIN)
        assert (await scene.send(wrong)).status == 403
    return await _hosted_payment(scene, wallet)


async def that_is_not_hosted(scene: Scene) -> Call:
    return await _hosted_payment(scene, (await scene.wallet()).text)


async def of_more_than_it_has(scene: Scene) -> Call:
    return await _hosted_payment(scene, await _hosted(scene), amount=FUNDS + 1)


async def in_dollars(scene: Scene) -> Call:
    return await _hosted_payment(scene, await _hosted(scene), currency="USD")


async def hosted_refund_of_nothing(scene: Scene) -> Call:
    hosted = {"wallet": await _hosted(scene), "pin": PIN, "payment": "0" * 64}
    return Call(path="/v1/refunds", body={"hosted": hosted}, keyed=True)


REQUESTS = [
    Case(code=Code.WRONG_JOURNAL, what="kept", make=bring(payee_journal=bytes(20))),
    Case(code=Code.WRONG_CURRENCY, what="kept", make=bring(currency="USD")),
    Case(code=Code.UNKNOWN_WALLET, what="a stranger asks", make=of_a_stranger),
    Case(code=Code.UNKNOWN_WALLET, what="a hosted stranger asks", make=asked_by_a_stranger),
    Case(code=Code.BAD_SIGNATURE, what="kept", make=wrongly_signed),
    Case(code=Code.UNKNOWN_TYPE, what="an order is kept", make=an_order),
    Case(code=Code.NOT_CANONICAL, what="kept", make=truncated),
    Case(code=Code.UNKNOWN_REQUEST, what="void", make=voiding_what_nobody_asked),
    Case(code=Code.REQUEST_PAID, what="void", make=voiding_what_was_paid),
    Case(code=Code.UNKNOWN_REQUEST, what="paid without it", make=without_its_request),
    Case(code=Code.REQUEST_MISMATCH, what="the amount", make=of_another_amount),
    Case(code=Code.REQUEST_MISMATCH, what="the payee", make=of_another_payee),
    Case(code=Code.REQUEST_EXPIRED, what="paid", make=of_an_expired_one),
    Case(code=Code.REQUEST_PAID, what="paid twice", make=of_a_paid_one),
    Case(code=Code.REQUEST_VOID, what="paid", make=of_a_void_one),
    Case(code=Code.BAD_SIGNATURE, what="paid", make=of_a_forged_one),
]
REFUNDS = [
    Case(code=Code.REFUND_UNKNOWN, what="nothing", make=of_nothing),
    Case(code=Code.REFUND_UNKNOWN, what="by the payer", make=by_the_payer),
    Case(
        code=Code.REFUND_ABOVE_PAYMENT,
        what="too much",
        make=of_too_much,
        limit=AMOUNT,
        left=AMOUNT,
    ),
    Case(code=Code.REFUND_TOO_LATE, what="given back", make=too_late, limit=0),
]
WALLETS = [
    Case(code=Code.WRONG_JOURNAL, what="enrolled elsewhere", make=elsewhere),
    Case(code=Code.ENROLMENT_EXPIRED, what="brought", make=enrolment_of_yesterday),
    Case(code=Code.BAD_SIGNATURE, what="enrolment", make=forged_enrolment),
    Case(code=Code.WRONG_ROLE, what="grants do not enrol", make=of_another_role),
    Case(code=Code.CERTIFICATE_INVALID, what="another issuer", make=of_another_issuer),
    Case(code=Code.UNKNOWN_TYPE, what="a grant", make=a_grant),
    Case(code=Code.MALFORMED, what="no enrolment", make=no_enrolment),
    Case(code=Code.MALFORMED, what="a label of 66 bytes", make=labelled_too_long),
    Case(code=Code.MALFORMED, what="a label that rings", make=labelled_by_a_bell),
    Case(code=Code.WEAK_KEY, what="of small order", make=of_a_weak_key),
    Case(code=Code.UNKNOWN_WALLET, what="looked up", make=that_nobody_knows),
]
HOSTED = [
    Case(code=Code.PIN_WRONG, what="once", make=with_a_wrong_pin, limit=3, left=2),
    Case(code=Code.WALLET_LOCKED, what="for a minute", make=after_three_wrong_pins, waits=True),
    Case(code=Code.UNKNOWN_WALLET, what="not hosted", make=that_is_not_hosted),
    Case(code=Code.INSUFFICIENT_FUNDS, what="hosted", make=of_more_than_it_has, left=FUNDS),
    Case(code=Code.WRONG_CURRENCY, what="hosted", make=in_dollars),
    Case(code=Code.REFUND_UNKNOWN, what="hosted", make=hosted_refund_of_nothing),
]
CASES = [*REQUESTS, *REFUNDS, *WALLETS, *HOSTED]


@named(CASES)
async def test_what_is_refused_says_why_leaves_no_entry_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check(case, caplog)
