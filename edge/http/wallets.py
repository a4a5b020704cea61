"""Wallets: balance, what is left of the limits, statements, enrolment."""

from __future__ import annotations

from aiohttp import web

from edge.gateway import Opened
from edge.http.answers import accepted
from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context
from edge.http.idempotency import once
from edge.http.parameters import limit_of, number_from, wallet_of
from edge.http.problem import HttpCode, ProblemRaised, problem
from edge.http.statement import statement_entry
from edge.http.types import (
    LimitLeft,
    StatementAnswer,
    WalletAnswer,
    WalletBody,
)
from edge.verdicts import by_index, read_verdicts
from edge.wishes import Wish, add_wish, drop_wish, find_wish
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.issued import decode_enrolment
from wallet.protocol.keys import from_cose_key
from wallet.protocol.limits import bounds_of, day_totals
from wallet.protocol.lists import ListId
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.shapes import COUNT_MAX, reference
from wallet.protocol.state import HOUR_MS, State, Wallet
from wallet.store.hosted import HostedWallet, get_hosted

WALLET = BodyType(WalletBody)


async def get_wallet(context: Context, request: web.Request) -> web.Response:
    """A wallet: balance settled and unsettled, and what is left of each limit."""
    opened = context.opened
    return answer(request, await wallet_answer(opened, wallet_of(request)))


async def wallet_answer(opened: Opened, wallet_id: WalletId) -> WalletAnswer:
    """A wallet that is enrolled here or waits for it. Raises: ProblemRaised `unknown-wallet`."""
    hosted = await opened.database.read(lambda c: get_hosted(c, wallet_id))
    state = opened.journal.state
    wallet = state.wallets.get(wallet_id)
    if wallet is None or wallet.key is None:
        wish = await opened.database.read(lambda c: find_wish(c, wallet_id))
        if wish is None and wallet is None and hosted is None:
            raise ProblemRaised(refuse(Code.UNKNOWN_WALLET))
        # A statement may have carried value over for a holder who is not enrolled anew yet.
        carried = 0 if wallet is None else wallet.balance
        return WalletAnswer(
            wallet=wallet_text(wallet_id),
            journal=journal_text(state.journal),
            epoch=state.epoch,
            state="pending",
            hosted=hosted is not None,
            currency=state.currency,
            balance=carried,
            settled=carried,
            unsettled=0,
            next_sequence=0,
            tier=0 if wish is None else wish.tier,
            enrolment_expires_ms=0,
            limits=[],
        )
    return _enrolled(opened, wallet, hosted)


def _enrolled(opened: Opened, wallet: Wallet, hosted: HostedWallet | None) -> WalletAnswer:
    state = opened.journal.state
    now_ms, clock = opened.journal.now()
    return WalletAnswer(
        wallet=wallet_text(wallet.wallet),
        journal=journal_text(state.journal),
        epoch=state.epoch,
        state=_state_of(state, wallet, hosted, now_ms=now_ms),  # type: ignore[arg-type]  # a name that the type lists
        hosted=hosted is not None,
        currency=state.currency,
        balance=wallet.balance,
        settled=wallet.settled,
        unsettled=wallet.unsettled,
        next_sequence=wallet.next_sequence,
        tier=wallet.tier,
        enrolment_expires_ms=wallet.enrolment_expires_ms,
        limits=limits_left(state, wallet, now_ms=now_ms, clock=clock),
    )


def _state_of(state: State, wallet: Wallet, hosted: HostedWallet | None, *, now_ms: int) -> str:
    frozen = state.lists.get(ListId.FROZEN)
    if frozen is not None and wallet.wallet in frozen.items:
        return "frozen"
    if now_ms > wallet.enrolment_expires_ms:
        return "expired"
    return "locked" if hosted is not None and hosted.locked_until_ms > now_ms else "enrolled"


def limits_left(state: State, wallet: Wallet, *, now_ms: int, clock: int) -> list[LimitLeft]:
    """What is left of each limit that the wallet has, as the rules count it."""
    bounds = bounds_of(state, wallet, now_ms=now_ms, clock=clock)
    spent, count = day_totals(wallet.hours, now_ms // HOUR_MS)
    used = {
        "payment_max": (bounds.payment_max, 0),
        "balance_max": (bounds.balance_max, wallet.balance),
        "out_amount_since_hard": (bounds.out_amount_since_hard, wallet.out_amount_since),
        "out_count_since_hard": (bounds.out_count_since_hard, wallet.out_count_since),
        "in_amount_since": (bounds.in_amount_since, wallet.in_amount_since),
        "out_amount_day": (bounds.out_amount_day, spent),
        "out_count_day": (bounds.out_count_day, count),
    }
    return [
        LimitLeft(code=code, limit=limit, left=max(0, limit - done))
        for code, (limit, done) in used.items()
        if limit < COUNT_MAX
    ]


async def get_statement(context: Context, request: web.Request) -> web.Response:
    """A wallet's entries, newest first, page by page."""
    opened, wallet = context.opened, wallet_of(request)
    if wallet not in opened.journal.state.wallets:
        raise ProblemRaised(refuse(Code.UNKNOWN_WALLET))
    before, limit = _cursor(request), limit_of(request)
    indexes = await opened.journal.wallet_entries(wallet, before=before, limit=limit)
    verdicts = by_index(await opened.database.read(read_verdicts))
    settled_size = opened.journal.state.settled_size
    entries = []
    for index in indexes:
        raw = (await opened.journal.entries(index, 1))[0]
        entries.append(
            statement_entry(raw, wallet, settled_size=settled_size, verdict=verdicts.get(index))
        )
    return answer(
        request,
        StatementAnswer(
            wallet=wallet_text(wallet),
            currency=opened.journal.state.currency,
            entries=entries,
            cursor=f"e{indexes[-1]}" if len(indexes) == limit and indexes[-1] > 0 else None,
        ),
    )


def _cursor(request: web.Request) -> int | None:
    text = request.query.get("cursor")
    if text is None:
        return None
    number = number_from(text[1:]) if text[:1] == "e" else None
    if number is None:
        raise problem(HttpCode.CURSOR_INVALID, "use the cursor of the page before")
    return number


async def post_wallet(context: Context, request: web.Request) -> web.Response:
    """Bring an enrolment, or wish for one: 202 until the issuer's answer is here."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = WALLET.decode(raw, request)

    async def make() -> web.Response:
        opened = context.opened
        if body.enrolment is not None:
            enrolment = decode_enrolment(body.enrolment.raw)
            accepted(await opened.journal.submit(enrolment))
            await opened.database.write(lambda c: drop_wish(c, enrolment.wallet))
            await opened.audit.record("wallet.brought", wallet=wallet_text(enrolment.wallet))
            made = await wallet_answer(opened, enrolment.wallet)
            return answer(request, made, status=201)
        wallet = await _wish(opened, body)
        context.control.wake_sync()
        return answer(request, await wallet_answer(opened, wallet), status=202)

    return await once(context, request, raw, make, needed=body.hosted is not None)


async def _wish(opened: Opened, body: WalletBody) -> WalletId:
    if body.hosted is not None:
        return await wish_hosted(
            opened, pin=body.hosted.pin, tier=body.hosted.tier, label=body.hosted.label
        )
    if body.device is None:
        raise problem(HttpCode.BODY_INVALID)
    _check_label(body.device.label)
    key = from_cose_key(body.device.key.raw)
    wish = Wish(key=key.cose_key, tier=body.device.tier, label=body.device.label, hosted=False)
    await _keep(opened, wish)
    return WalletId(key.id)


async def wish_hosted(opened: Opened, *, pin: str, tier: int, label: str | None) -> WalletId:
    """A new hosted wallet, to be enrolled at the next exchange.

    Raises: ProblemRaised, ProtocolError for a label that no enrolment may bear, HsmError.
    """
    _check_label(label)
    key = await opened.hosted.create(pin)
    await _keep(opened, Wish(key=key.cose_key, tier=tier, label=label, hosted=True))
    return WalletId(key.id)


def _check_label(label: str | None) -> None:
    """The issuer drops a wish with another label, and its wallet would wait for ever."""
    if label is not None:
        reference(label)


async def _keep(opened: Opened, wish: Wish) -> None:
    if not await opened.database.write(lambda c: add_wish(c, wish)):
        raise ProblemRaised(Refusal(code=Code.BUSY, detail="too many wallets wait"))
    await opened.audit.record(
        "wallet.wished",
        wallet=wallet_text(WalletId(wish.wallet)),
        tier=wish.tier,
        hosted=wish.hosted,
    )
