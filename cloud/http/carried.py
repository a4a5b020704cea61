"""Reports that a courier brought: an officer hands them in, and gets sealed answers to carry back.

The report says by its own signature whose it is; the officer's token only keeps strangers out.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from cloud.http.app import answer
from cloud.http.octets import to_text
from cloud.http.routes import read_body
from cloud.http.tokens import officer_of
from cloud.service import Cloud
from cloud.syncing import Answered
from sync.courier import Fate, Outcome
from wallet.protocol.ids import JournalId, journal_text

PATH = "/v1/sync/carried"


class CarriedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a report: a stable code and a sentence, whose it was, and the answer to it."""

    code: str
    sentence: str
    journal: str
    epoch: int
    first: int
    end: int
    acknowledged: int
    exchange: str
    answer: str


def add_carried(app: web.Application, cloud: Cloud) -> None:
    """Add the route."""

    async def post_carried(request: web.Request) -> web.Response:
        async with cloud.database.transaction() as connection:
            await officer_of(connection, request)
        await read_body(request, within_s=cloud.config.limits.report_timeout_s)
        now_ms = cloud.clock.now_ms()
        made = await cloud.exchange.answer_carried(await request.read(), now_ms=now_ms)
        outcome, up = outcome_of(made), made.up
        return answer(
            CarriedAnswer(
                code=outcome.code,
                sentence=outcome.sentence,
                journal=journal_text(JournalId(up.journal)),
                epoch=up.epoch,
                first=up.acknowledged_size,
                end=up.acknowledged_size + len(up.entries),
                acknowledged=made.acknowledged,
                exchange=up.exchange.hex(),
                answer=to_text(made.sealed),
            )
        )

    app.router.add_post(PATH, post_carried)


def outcome_of(made: Answered) -> Outcome:
    """What became of a report, in a sentence."""
    up, held = made.up, made.acknowledged
    end = up.acknowledged_size + len(up.entries)
    whose = f"{made.gateway}, epoch {up.epoch}: entries {up.acknowledged_size} to {end}"
    if made.problem is not None:
        return Outcome(code=Fate.REFUSED, sentence=f"{whose}: nothing is kept: {made.problem}")
    if held < end:
        missing = f"those from {held} on are missing: bring the stick with these"
        return Outcome(code=Fate.EARLY, sentence=f"{whose}: {missing}, then this one once more")
    if held == made.before:
        return Outcome(code=Fate.KNOWN, sentence=f"{whose}: nothing new, {held} were held already")
    return Outcome(code=Fate.TAKEN, sentence=f"{whose}: {held - made.before} came, {held} are held")
