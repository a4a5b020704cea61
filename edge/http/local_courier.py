"""What a courier carries, by the local socket: reports that leave, answers that come back."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from edge.http.audited import tell
from edge.http.body import BodyType, answer
from edge.http.context import Context
from edge.http.octets import Octets
from edge.http.problem import HttpCode, problem
from edge.http.types import Answer, Body
from sync.errors import SyncError

FROM_MAX = 2**53 - 1


class ExportBody(Body, frozen=True, kw_only=True):
    """Where to begin: an entry's index; without it, where the issuer is known to have stopped.

    `further`: where the sticks end that were written already.
    """

    first: Annotated[int, Meta(ge=0, le=FROM_MAX)] | None = None
    further: bool = False


class ExportedAnswer(Answer, frozen=True, kw_only=True):
    """One sealed report: what to call it, where it ends, and where the journal ends."""

    name: str
    exchange: str
    first: int
    end: int
    size: int
    sealed: Octets


class WrittenAnswer(Answer, frozen=True, kw_only=True):
    """Sticks reach up to `reached` without a gap; the journal has `size` entries."""

    reached: int
    size: int


class AnswerBody(Body, frozen=True, kw_only=True):
    """A sealed answer of the issuer."""

    sealed: Octets


class TakenAnswer(Answer, frozen=True, kw_only=True):
    """What came of it: a stable code and a sentence; what the issuer is known to hold now."""

    code: str
    sentence: str
    acknowledged: int


EXPORT = BodyType(ExportBody)
ANSWER = BodyType(AnswerBody)


async def post_export(context: Context, request: web.Request) -> web.Response:
    """Make one report for a stick."""
    body = await EXPORT.read(request)
    courier = context.control.courier()
    first = await courier.reached() if body.further else body.first
    try:
        made = await courier.export(first)
    except SyncError as error:
        raise problem(HttpCode.SYNC_UNAVAILABLE, str(error)) from error
    tell(request, first=made.label.first, end=made.label.end)
    return answer(
        request,
        ExportedAnswer(
            name=made.label.name,
            exchange=made.exchange.hex(),
            first=made.label.first,
            end=made.label.end,
            size=made.size,
            sealed=Octets(made.sealed),
        ),
        status=201,
    )


async def post_written(context: Context, request: web.Request) -> web.Response:
    """The report lies on a stick, durably."""
    courier = context.control.courier()
    try:
        exchange = bytes.fromhex(request.match_info["exchange"])
    except ValueError as error:
        raise problem(HttpCode.PARAMETER_INVALID, "an exchange is hex") from error
    if not await courier.written(exchange):
        raise problem(HttpCode.PARAMETER_INVALID, "no report with this exchange was made")
    tell(request, exchange=exchange.hex())
    size = context.opened.journal.state.size
    return answer(request, WrittenAnswer(reached=await courier.reached(), size=size))


async def post_answer(context: Context, request: web.Request) -> web.Response:
    """Take an answer; whatever came of it is said."""
    body = await ANSWER.read(request)
    outcome = await context.control.courier().take(body.sealed.raw)
    tell(request, code=outcome.code)
    acknowledged = context.opened.journal.acknowledged
    return answer(
        request,
        TakenAnswer(code=outcome.code, sentence=outcome.sentence, acknowledged=acknowledged),
    )
