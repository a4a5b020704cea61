"""The port for terminals that have no certificate yet: it pairs, and does nothing else."""

from __future__ import annotations

from aiohttp import web

from edge.authority import authority_bundle
from edge.errors import PairingRefused
from edge.http.body import BodyType, answer
from edge.http.context import Context
from edge.http.problem import HttpCode, problem
from edge.http.types import PairAnswer, PairBody
from edge.pairing import Pairing, PairingState
from wallet.protocol.ids import journal_text

PAIR = BodyType(PairBody)


async def post_pair(context: Context, request: web.Request) -> web.Response:
    """A terminal brings the code and its certificate request."""
    body = await PAIR.read(request)
    terminals = context.opened.terminals
    try:
        pairing = await terminals.ask(code=body.code, csr=body.csr, name=body.name)
    except PairingRefused as error:
        raise problem(HttpCode.PAIRING_REFUSED, error.detail) from error
    return answer(request, _answer(context, pairing), status=202)


async def get_pair(context: Context, request: web.Request) -> web.Response:
    """The terminal asks whether the technician has confirmed."""
    terminals = context.opened.terminals
    now_ms = context.gateway.clock.monotonic_ms()
    try:
        pairing = terminals.desk.by_id(request.match_info["pairing"], now_ms)
    except PairingRefused as error:
        raise problem(HttpCode.PAIRING_REFUSED, error.detail) from error
    status = 200 if pairing.state is PairingState.CONFIRMED else 202
    return answer(request, _answer(context, pairing), status=status)


def _answer(context: Context, pairing: Pairing) -> PairAnswer:
    if pairing.state is not PairingState.CONFIRMED:
        return PairAnswer(pairing=pairing.id, state="waiting")
    return PairAnswer(
        pairing=pairing.id,
        state="confirmed",
        certificate=pairing.certificate,
        authority=authority_bundle(context.gateway.folder).decode(),
        terminal=pairing.terminal,
        gateway=journal_text(context.opened.journal.state.journal),
    )
