"""How fast the hardware counter wears, on the local socket."""

from __future__ import annotations

from aiohttp import web

from edge.http.body import answer
from edge.http.context import Context
from edge.http.types import Answer
from edge.wear import Sample, load_samples, moves_a_year, wears_out


class WearAnswer(Answer, frozen=True, kw_only=True):
    """Moves of the counter in a year at the rate of the last days; `warning` is for people."""

    driver: str
    counter: int
    moves_a_year: int | None = None
    warning: str | None = None


async def get_wear(context: Context, request: web.Request) -> web.Response:
    """By what was remembered from day to day."""
    opened, now_ms = context.opened, context.gateway.clock.now_ms()
    status = opened.journal.status()
    samples = await opened.database.read(load_samples)
    moves = moves_a_year(samples, Sample(time_ms=now_ms, counter=status.counter))
    found = WearAnswer(
        driver=status.counter_driver,
        counter=status.counter,
        moves_a_year=moves,
        warning=wears_out(moves, status.counter_driver),
    )
    return answer(request, found)
