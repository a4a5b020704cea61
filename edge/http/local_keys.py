"""Exchanging keys of the branch's network while the daemon runs, by the local socket alone."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from edge.branch_keys import begin_authority, finish_authority, rotate_server
from edge.errors import RotationRefused
from edge.http.body import BodyType, answer
from edge.http.context import Context
from edge.http.problem import HttpCode, ProblemRaised, problem
from edge.http.types import Answer, Body
from edge.succession import ended_epoch
from wallet.protocol.entry import Close, CloseReason
from wallet.protocol.ids import journal_text
from wallet.protocol.refusals import Refusal


class ExchangeBody(Body, frozen=True, kw_only=True):
    """Which step. `force`: shut out terminals that were not paired again."""

    step: Literal["begin", "finish"]
    force: bool = False


class ExchangedAnswer(Answer, frozen=True, kw_only=True):
    """It was done, and new connections see it."""

    state: Literal["exchanged", "begun"]


class EndedAnswer(Answer, frozen=True, kw_only=True):
    """The epoch takes nothing more; `known`: the issuer holds its last entry."""

    journal: str
    epoch: int
    known: bool


EXCHANGE = BodyType(ExchangeBody)


async def post_server_key(context: Context, request: web.Request) -> web.Response:
    """Another key for the server; terminals trust its authority and go on."""
    names = context.gateway.config.listen.names
    try:
        await rotate_server(context.gateway.folder, context.opened.token.sealer, names=names)
    except RotationRefused as error:
        raise problem(HttpCode.ROTATION_REFUSED, error.detail) from error
    await context.control.renew_tls()
    return answer(request, ExchangedAnswer(state="exchanged"))


async def post_authority(context: Context, request: web.Request) -> web.Response:
    """Another authority for terminals, in two steps."""
    body = await EXCHANGE.read(request)
    opened, folder = context.opened, context.gateway.folder
    try:
        if body.step == "begin":
            now_ms = context.gateway.clock.now_ms()
            await begin_authority(folder, opened.token.sealer, opened.database, now_ms=now_ms)
        else:
            await finish_authority(
                folder,
                opened.token.sealer,
                opened.database,
                await opened.terminals.all(),
                names=context.gateway.config.listen.names,
                force=body.force,
            )
    except RotationRefused as error:
        raise problem(HttpCode.ROTATION_REFUSED, error.detail) from error
    await context.control.renew_tls()
    state: Literal["exchanged", "begun"] = "begun" if body.step == "begin" else "exchanged"
    return answer(request, ExchangedAnswer(state=state))


async def post_end(context: Context, request: web.Request) -> web.Response:
    """End this epoch for good, while the issuer knows all of it; asking again changes nothing."""
    opened = context.opened
    journal = opened.journal
    result, detail = await context.control.sync_now()
    if not journal.state.closed:
        if result != "completed":
            raise problem(HttpCode.ROTATION_REFUSED, f"synchronise first: {detail or result}")
        outcome = await journal.submit(Close(reason=CloseReason.PLANNED))
        if isinstance(outcome, Refusal):
            raise ProblemRaised(outcome)
        await context.control.sync_now()
    ended = await opened.database.read(ended_epoch)
    state = journal.state
    return answer(
        request,
        EndedAnswer(
            journal=journal_text(state.journal), epoch=state.epoch, known=ended is not None
        ),
    )
