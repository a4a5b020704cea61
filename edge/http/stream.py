"""Events as a stream (server-sent events), from where a client left off."""

from __future__ import annotations

from aiohttp import web

from edge.http.context import Context
from edge.http.parameters import number_from
from edge.http.problem import HttpCode, ProblemRaised, problem
from wallet.protocol.refusals import Code, Refusal
from wallet.store.events import StoredEvent, last_event_id

RETRY_MS = 2_000


async def get_events(context: Context, request: web.Request) -> web.StreamResponse:
    """Events after `Last-Event-ID`, or from now on."""
    opened = context.opened
    if context.streams >= context.gateway.config.limits.event_streams_max:
        raise ProblemRaised(Refusal(code=Code.BUSY, detail="too many listen"))
    after = _position(request)
    if after is None:
        after = await opened.database.read(last_event_id)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    context.streams += 1
    try:
        await response.prepare(request)
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        async for page in opened.events.stream(after):
            await response.write(b"".join(map(encode_event, page)) or b": alive\n\n")
    except (ConnectionResetError, TimeoutError):
        # The listener left; it will say where it was when it comes back.
        return response
    finally:
        context.streams -= 1
    return response


def _position(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID")
    if text is None:
        return None
    number = number_from(text)
    if number is None:
        raise problem(HttpCode.PARAMETER_INVALID, "Last-Event-ID")
    return number


def encode_event(event: StoredEvent) -> bytes:
    """One event of the stream; the body is one line of JSON."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.name.encode(), event.body)
