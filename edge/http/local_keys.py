"""Exchanging keys of the branch's network while the daemon runs, by the local socket alone."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from edge.branch_keys import begin_authority, finish_authority, rotate_server
from edge.errors import RotationRefused
from edge.http.body import BodyType, answer
from edge.http.context import Context
from edge.http.problem import HttpCode, problem
from edge.http.types import Answer, Body


class ExchangeBody(Body, frozen=True, kw_only=True):
    """Which step. `force`: shut out terminals that were not paired again."""

    step: Literal["begin", "finish"]
    force: bool = False


class ExchangedAnswer(Answer, frozen=True, kw_only=True):
    """It was done, and new connections see it."""

    state: Literal["exchanged", "begun"]


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
