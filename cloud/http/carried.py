"""What couriers carry: reports that officers hand in, with sealed answers, and answers unasked.

The report says by its own signature whose it is; the officer's token only keeps strangers out.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from cloud.http.app import answer
from cloud.http.octets import to_text
from cloud.http.routes import read_body
from cloud.http.tokens import officer_of
from cloud.issuer.gateways import CLOSED, list_gateways
from cloud.service import Cloud
from cloud.syncing import Answered
from cloud.unasked import unasked
from sync.courier import Fate, Outcome
from sync.exchange import UNASKED
from wallet.protocol.ids import JournalId, journal_text, parse_journal

PATH = "/v1/sync/carried"
UNASKED_PATH = "/v1/sync/unasked"


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


class Addressee(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway to which something may be carried."""

    journal: str
    name: str


class Addressees(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, by name."""

    gateways: list[Addressee]


class UnaskedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway may lack, sealed for it."""

    journal: str
    epoch: int
    exchange: str
    answer: str


def add_carried(app: web.Application, cloud: Cloud) -> None:
    """Add the routes."""

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

    async def get_unasked(request: web.Request) -> web.Response:
        async with cloud.database.transaction() as connection:
            await officer_of(connection, request)
            found = await list_gateways(connection)
        named = request.query.get("journal")
        if named is None:
            gateways = [
                Addressee(journal=journal_text(JournalId(one.journal)), name=one.name)
                for one in found
                if one.state != CLOSED
            ]
            return answer(Addressees(gateways=gateways))
        made = await unasked(
            cloud.shards, cloud.desk, cloud.reconciler, journal=parse_journal(named)
        )
        return answer(
            UnaskedAnswer(
                journal=named,
                epoch=made.epoch,
                exchange=UNASKED.hex(),
                answer=to_text(made.sealed),
            )
        )

    app.router.add_post(PATH, post_carried)
    app.router.add_get(UNASKED_PATH, get_unasked)


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
