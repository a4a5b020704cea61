"""Payment requests: what a till asks for, as signed bytes and as a QR code."""

from __future__ import annotations

from aiohttp import web

from edge.gateway import Opened
from edge.http.answers import accepted
from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context
from edge.http.idempotency import once
from edge.http.octets import Octets
from edge.http.parameters import hash_of, reference_of, wallet_from
from edge.http.problem import HttpCode, ProblemRaised, problem
from edge.http.types import RequestAnswer, RequestBody, RequestsAnswer
from edge.qr import to_qr
from wallet.protocol.ids import wallet_text
from wallet.protocol.messages import Request, decode_request
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.store.requests import (
    StoredRequest,
    get_request,
    insert_request,
    requests_by_reference,
    set_request_state,
)

REQUEST = BodyType(RequestBody)
REQUESTS_MAX = 100


async def post_request(context: Context, request: web.Request) -> web.Response:
    """Make a request of a hosted wallet, or keep one that the payee's device signed."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = REQUEST.decode(raw, request)
    opened = context.opened

    async def make() -> web.Response:
        if body.request is not None:
            asked = _brought(opened, body.request.raw)
        else:
            asked = await _hosted(opened, body)
        stored = StoredRequest(
            identity=asked.identity,
            request=asked.signed.raw,
            payee=asked.payee,
            reference=asked.reference or "",
            expires_ms=asked.expires_ms,
            state="open",
        )
        new = await opened.database.write(lambda c: insert_request(c, stored))
        return answer(request, await request_answer(opened, asked), status=201 if new else 200)

    return await once(context, request, raw, make)


def _brought(opened: Opened, raw: bytes) -> Request:
    """A request signed by a wallet enrolled here. Raises: ProblemRaised, ProtocolError."""
    asked, state = decode_request(raw), opened.journal.state
    wallet = state.wallets.get(asked.payee)
    if asked.payee_journal != state.journal:
        raise ProblemRaised(refuse(Code.WRONG_JOURNAL, "the payee's journal is another"))
    _check_currency(opened, asked.currency)
    if wallet is None or wallet.key is None:
        raise ProblemRaised(refuse(Code.UNKNOWN_WALLET, "the payee is not enrolled here"))
    asked.signed.verify(wallet.key)
    return asked


def _check_currency(opened: Opened, currency: str) -> None:
    kept = opened.journal.state.currency
    if currency != kept:
        raise ProblemRaised(refuse(Code.WRONG_CURRENCY, f"this journal keeps {kept}"))


async def _hosted(opened: Opened, body: RequestBody) -> Request:
    wish = body.hosted
    if wish is None:
        raise problem(HttpCode.BODY_INVALID)
    _check_currency(opened, wish.currency)
    outcome = await opened.hosted.request(
        wallet=wallet_from(wish.wallet),
        amount_minor=wish.amount,
        currency=wish.currency,
        reference=wish.reference,
        lifetime_ms=wish.expires_s * 1000,
    )
    if isinstance(outcome, Refusal):
        raise ProblemRaised(outcome)
    return decode_request(outcome)


async def request_answer(opened: Opened, asked: Request) -> RequestAnswer:
    """A request as it stands now."""
    known = opened.journal.state.requests.get(asked.identity)
    state, payment = "open", None
    if known is not None:
        state = known[0]
    elif asked.expires_ms < opened.journal.now()[0]:
        state = "expired"
    if state != "void":
        index = await opened.journal.find(asked.identity)
        if index is not None:
            made = await opened.journal.receipted(index)
            state, payment = "paid", made.leaf.hex()
    return RequestAnswer(
        id=asked.identity.hex(),
        state=state,  # type: ignore[arg-type]  # one of the names that the type lists
        wallet=wallet_text(asked.payee),
        amount=asked.amount_minor,
        currency=asked.currency,
        created_ms=asked.created_ms,
        expires_ms=asked.expires_ms,
        request=Octets(asked.signed.raw),
        qr=to_qr(asked.signed.raw),
        reference=asked.reference,
        payment=payment,
    )


async def _stored(opened: Opened, identity: bytes) -> Request:
    found = await opened.database.read(lambda c: get_request(c, identity))
    if found is None:
        raise ProblemRaised(refuse(Code.UNKNOWN_REQUEST))
    return decode_request(found.request)


async def get_request_by_id(context: Context, request: web.Request) -> web.Response:
    """A request as it stands now."""
    opened = context.opened
    asked = await _stored(opened, hash_of(request, "request"))
    return answer(request, await request_answer(opened, asked))


async def get_requests(context: Context, request: web.Request) -> web.Response:
    """Requests with a reference."""
    opened, reference = context.opened, reference_of(request)
    found = await opened.database.read(lambda c: requests_by_reference(c, reference, REQUESTS_MAX))
    asked = [decode_request(stored.request) for stored in found]
    answers = [await request_answer(opened, item) for item in asked]
    return answer(request, RequestsAnswer(requests=answers))


async def delete_request(context: Context, request: web.Request) -> web.Response:
    """Make a request void: it cannot be paid any more."""
    opened, identity = context.opened, hash_of(request, "request")
    asked = await _stored(opened, identity)
    known = opened.journal.state.requests.get(identity)
    if known is None or known[0] != "void":
        accepted(await opened.journal.void(asked.signed.raw))
        await opened.database.write(lambda c: set_request_state(c, identity, "void"))
    return answer(request, await request_answer(opened, asked))
