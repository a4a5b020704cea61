"""The local administration: a socket in the data folder that only its user may open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta

from edge.backup import make_backup
from edge.errors import FileUnreadable, PairingRefused
from edge.health import gateway_answer
from edge.heard import Heard
from edge.http.audited import audited, tell
from edge.http.body import BodyType, answer
from edge.http.context import Context, Handler
from edge.http.hygiene import HygieneAnswer, get_hygiene
from edge.http.links import LineAnswer, get_line
from edge.http.local_courier import (
    ExportedAnswer,
    TakenAnswer,
    WrittenAnswer,
    post_answer,
    post_export,
    post_written,
)
from edge.http.local_keys import (
    EndedAnswer,
    ExchangedAnswer,
    post_authority,
    post_end,
    post_server_key,
)
from edge.http.octets import Octets
from edge.http.problem import HttpCode, problem
from edge.http.reports import x_report
from edge.http.routes import METRICS, Route
from edge.http.trail import AuditCheck, AuditPage, get_audit, get_audit_check
from edge.http.types import Answer, Body, GatewayAnswer, Pin, ReportAnswer, Tier, WalletAnswer
from edge.http.wallets import wallet_answer, wish_hosted
from edge.pairing import Pairing, PairingState
from wallet.journal import JournalUnopened
from wallet.protocol.ids import JournalId, WalletId, journal_text
from wallet.store.errors import StoreError
from wallet.store.hosted import list_hosted

WALLETS_MAX = 10_000


class ConfirmBody(Body, frozen=True, kw_only=True):
    """The short string as the terminal shows it."""

    sas: Annotated[str, Meta(min_length=8, max_length=9)]


class NewWalletBody(Body, frozen=True, kw_only=True):
    """A hosted wallet."""

    pin: Pin
    tier: Tier = 1
    label: str | None = None


class PairingView(Answer, frozen=True, kw_only=True):
    """The pairing of this moment; `code` until a terminal came, `sas` from then on."""

    state: Literal["open", "met", "waiting", "confirmed", "refused", "none"]
    code: str | None = None
    name: str | None = None
    sas: str | None = None
    terminal: str | None = None
    left_s: int | None = None


class TerminalView(Answer, frozen=True, kw_only=True):
    """One terminal."""

    id: str
    name: str
    created_ms: int
    revoked_ms: int | None = None


class TerminalsAnswer(Answer, frozen=True, kw_only=True):
    """All terminals."""

    terminals: list[TerminalView]


class WalletsAnswer(Answer, frozen=True, kw_only=True):
    """All wallets of this journal, and those that wait to be."""

    wallets: list[WalletAnswer]


class SyncAnswer(Answer, frozen=True, kw_only=True):
    """What an exchange came to."""

    result: str
    detail: str | None = None
    acknowledged: int | None = None


class BackupBody(Body, frozen=True, kw_only=True):
    """Where to, by the file system of this machine; the key that a passphrase gave."""

    path: Annotated[str, Meta(min_length=1, max_length=4096, pattern="^/")]
    key: Octets
    salt: Octets


class BackupAnswer(Answer, frozen=True, kw_only=True):
    """A backup that was made: it holds entries up to `size`, of which the issuer has some."""

    journal: str
    epoch: int
    size: int
    acknowledged: int


CONFIRM = BodyType(ConfirmBody)
BACKUP = BodyType(BackupBody)
NEW_WALLET = BodyType(NewWalletBody)


class NeighboursAnswer(Answer, frozen=True, kw_only=True):
    """The gateways next door that this one asks for newer lists."""

    neighbours: list[Heard]


async def get_neighbours(context: Context, request: web.Request) -> web.Response:
    """What came of asking them."""
    return answer(request, NeighboursAnswer(neighbours=list(context.control.neighbours())))


async def get_local_status(context: Context, request: web.Request) -> web.Response:
    """The gateway at a glance."""
    return answer(request, gateway_answer(context.gateway, online=context.control.online()))


async def post_reload(context: Context, request: web.Request) -> web.Response:
    """Try again to open what is not open, as after provisioning."""
    await context.control.reload()
    return answer(request, gateway_answer(context.gateway, online=context.control.online()))


async def post_sync(context: Context, request: web.Request) -> web.Response:
    """Synchronise now, and say what came of it."""
    result, detail = await context.control.sync_now()
    tell(request, result=result)
    acknowledged = context.opened.journal.acknowledged
    return answer(
        request, SyncAnswer(result=result, detail=detail or None, acknowledged=acknowledged)
    )


async def post_pairing(context: Context, request: web.Request) -> web.Response:
    """Open a pairing: the answer has the code."""
    now_ms = context.gateway.clock.monotonic_ms()
    pairing = context.opened.terminals.desk.open(now_ms)
    return answer(request, _view(pairing, now_ms), status=201)


async def get_pairing(context: Context, request: web.Request) -> web.Response:
    """The pairing of this moment."""
    now_ms = context.gateway.clock.monotonic_ms()
    return answer(request, _view(context.opened.terminals.desk.current(now_ms), now_ms))


async def delete_pairing(context: Context, request: web.Request) -> web.Response:
    """Refuse it."""
    now_ms = context.gateway.clock.monotonic_ms()
    desk = context.opened.terminals.desk
    desk.refuse(now_ms)
    return answer(request, _view(desk.current(now_ms), now_ms))


async def post_confirm(context: Context, request: web.Request) -> web.Response:
    """Both strings are the same: let the terminal in."""
    body = await CONFIRM.read(request)
    try:
        terminal = await context.opened.terminals.confirm(sas=body.sas)
    except PairingRefused as error:
        raise problem(HttpCode.PAIRING_REFUSED, error.detail) from error
    tell(request, terminal=terminal.id, name=terminal.name)
    return answer(
        request,
        TerminalView(id=terminal.id, name=terminal.name, created_ms=terminal.created_ms),
        status=201,
    )


def _view(pairing: Pairing | None, now_ms: int) -> PairingView:
    if pairing is None:
        return PairingView(state="none")
    return PairingView(
        state=pairing.state.value,
        code=pairing.code if pairing.state is PairingState.OPEN else None,
        name=pairing.name or None,
        sas=pairing.sas or None,
        terminal=pairing.terminal or None,
        left_s=(pairing.expires_ms - now_ms) // 1000,
    )


async def get_terminals(context: Context, request: web.Request) -> web.Response:
    """All terminals, revoked ones too."""
    found = await context.opened.terminals.all()
    views = [
        TerminalView(
            id=terminal.id,
            name=terminal.name,
            created_ms=terminal.created_ms,
            revoked_ms=terminal.revoked_ms,
        )
        for terminal in found
    ]
    return answer(request, TerminalsAnswer(terminals=views))


async def delete_terminal(context: Context, request: web.Request) -> web.Response:
    """Revoke a terminal."""
    tell(request, terminal=request.match_info["terminal"])
    if not await context.opened.terminals.revoke(request.match_info["terminal"]):
        raise problem(HttpCode.TERMINAL_UNKNOWN)
    return await get_terminals(context, request)


async def get_wallets(context: Context, request: web.Request) -> web.Response:
    """Wallets of this journal."""
    opened = context.opened
    hosted = await opened.database.read(lambda c: list_hosted(c, b"", WALLETS_MAX))
    known = dict.fromkeys([WalletId(item.wallet) for item in hosted])
    known |= dict.fromkeys(list(opened.journal.state.wallets)[:WALLETS_MAX])
    answers = [await wallet_answer(opened, wallet) for wallet in known]
    return answer(request, WalletsAnswer(wallets=answers))


async def post_hosted_wallet(context: Context, request: web.Request) -> web.Response:
    """Make a hosted wallet; the issuer enrols it at the next exchange."""
    body = await NEW_WALLET.read(request)
    opened = context.opened
    wallet = await wish_hosted(opened, pin=body.pin, tier=body.tier, label=body.label)
    context.control.wake_sync()
    return answer(request, await wallet_answer(opened, wallet), status=202)


async def post_backup(context: Context, request: web.Request) -> web.Response:
    """Copy the store under another key while payments go on."""
    body = await BACKUP.read(request)
    try:
        made = await make_backup(
            context.opened,
            Path(body.path),
            folder=context.gateway.folder,
            key=body.key.raw,
            salt=body.salt.raw,
        )
    except (StoreError, JournalUnopened, FileUnreadable) as error:
        raise problem(HttpCode.BACKUP_FAILED, str(error)) from error
    return answer(
        request,
        BackupAnswer(
            journal=journal_text(JournalId(made.journal)),
            epoch=made.epoch,
            size=made.size,
            acknowledged=made.acknowledged,
        ),
        status=201,
    )


async def get_local_x_report(context: Context, request: web.Request) -> web.Response:
    """Totals of the epoch so far."""
    return answer(request, await x_report(context.opened))


def _route(method: str, path: str, handler: Handler, kind: type[Answer]) -> Route:
    """What only looks goes as it is; every other act of a technician leaves a record."""
    if method != "GET":
        handler = audited(handler, f"technician {method} {path}")
    return Route(method=method, path=path, handler=handler, answers={200: kind}, closed=False)


LOCAL = [
    _route("GET", "/status", get_local_status, GatewayAnswer),
    _route("GET", "/neighbours", get_neighbours, NeighboursAnswer),
    _route("POST", "/reload", post_reload, GatewayAnswer),
    _route("POST", "/sync", post_sync, SyncAnswer),
    _route("GET", "/line", get_line, LineAnswer),
    _route("POST", "/courier/reports", post_export, ExportedAnswer),
    _route("POST", "/courier/reports/{exchange}/written", post_written, WrittenAnswer),
    _route("POST", "/courier/answers", post_answer, TakenAnswer),
    _route("POST", "/pairing", post_pairing, PairingView),
    _route("GET", "/pairing", get_pairing, PairingView),
    _route("DELETE", "/pairing", delete_pairing, PairingView),
    _route("POST", "/pairing/confirm", post_confirm, TerminalView),
    _route("GET", "/terminals", get_terminals, TerminalsAnswer),
    _route("DELETE", "/terminals/{terminal}", delete_terminal, TerminalsAnswer),
    _route("GET", "/wallets", get_wallets, WalletsAnswer),
    _route("POST", "/wallets", post_hosted_wallet, WalletAnswer),
    _route("POST", "/backup", post_backup, BackupAnswer),
    _route("POST", "/keys/server", post_server_key, ExchangedAnswer),
    _route("POST", "/keys/authority", post_authority, ExchangedAnswer),
    _route("POST", "/epoch/end", post_end, EndedAnswer),
    _route("GET", "/reports/x", get_local_x_report, ReportAnswer),
    _route("GET", "/audit", get_audit, AuditPage),
    _route("GET", "/hygiene", get_hygiene, HygieneAnswer),
    _route("GET", "/audit/check", get_audit_check, AuditCheck),
    *[route for route in METRICS if route.path != "/statusz"],
]
