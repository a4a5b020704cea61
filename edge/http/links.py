"""The line to the cloud, as the technician sees it: state, link, budget, and every byte."""

from __future__ import annotations

from aiohttp import web

from edge.http.body import answer
from edge.http.context import Context
from edge.http.types import Answer
from sync.engine import Status


class BytesLine(Answer, frozen=True, kw_only=True):
    """What one link carried for one purpose, since the gateway was provisioned."""

    link: str
    purpose: str
    sent: int
    received: int


class LineAnswer(Answer, frozen=True, kw_only=True):
    """`held_s`: how long the budget holds the next session back. A day counts both ways.

    What is for probes is part of the whole, and has a budget of its own.
    """

    state: str
    since_ms: int
    failures: int
    link: str
    kind: str
    segment_bytes: int
    day_bytes: int
    day_bytes_left: int | None = None
    probe_day_bytes: int = 0
    probe_day_bytes_left: int | None = None
    held_s: int
    counted: list[BytesLine]


async def get_line(context: Context, request: web.Request) -> web.Response:
    """The line at a glance."""
    return answer(request, line_answer(context.control.line()))


def line_answer(status: Status) -> LineAnswer:
    """The same, of the engine."""
    return LineAnswer(
        state=status.state,
        since_ms=status.since_ms,
        failures=status.failures,
        link=status.link.name,
        kind=status.link.kind,
        segment_bytes=status.segment_bytes,
        day_bytes=status.day_bytes,
        day_bytes_left=status.day_bytes_left,
        probe_day_bytes=status.probe_day_bytes,
        probe_day_bytes_left=status.probe_day_bytes_left,
        held_s=-(-status.held_ms // 1000),
        counted=[
            BytesLine(
                link=one.link,
                purpose=one.purpose,
                sent=one.sent,
                received=one.received,
            )
            for one in status.counted
        ],
    )
