"""What handlers are given, and the guard around each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from edge.courier import Courier
from edge.gateway import Gateway, Opened
from edge.heard import Heard
from edge.http.metrics import Metrics
from edge.http.problem import AnyRefusal, HttpCode, HttpRefusal, ProblemRaised, problem_response
from edge.log import Log
from hsm.api import HsmError
from sync.engine import Status
from sync.meter import Counted
from wallet.hosted import HostedError
from wallet.journal import EntryMissing, JournalError
from wallet.protocol.refusals import Code, ProtocolError, Refusal
from wallet.store.errors import DiskFull, StoreBusy, StoreClosed, StoreError, Tampered

_log = Log("http")


class Control(Protocol):
    """What the daemon around the gateway does when it is asked to."""

    def online(self) -> bool | None:
        """Whether the last exchange reached the cloud; None before there was one."""

    def line(self) -> Status:
        """The line to the cloud at a glance. Raises: ProblemRaised."""

    def neighbours(self) -> Sequence[Heard]:
        """What came of asking the gateways next door."""

    def wake_sync(self) -> None:
        """Synchronise soon."""

    async def sync_now(self) -> tuple[str, str]:
        """Synchronise and wait for it: (result, detail). Raises: ProblemRaised."""

    def counted(self) -> list[Counted]:
        """Every byte on the line, by link and purpose; nothing while the gateway is closed."""

    def courier(self) -> Courier:
        """Who makes reports for sticks and takes answers from them. Raises: ProblemRaised."""

    async def reload(self) -> None:
        """Try again to open what is not open."""

    async def renew_tls(self) -> None:
        """Let the branch's servers show and trust the certificates of now."""


class Context:
    """Shared by all handlers of one server."""

    def __init__(self, gateway: Gateway, *, control: Control) -> None:
        self.gateway = gateway
        self.metrics = Metrics(gateway, lambda: control.counted())
        self.control = control
        self.body_timeout_s = gateway.config.limits.request_timeout_s
        self.running = 0
        self.streams = 0
        self.keys_running: set[tuple[str, str]] = set()

    @property
    def opened(self) -> Opened:
        """The open gateway. Raises: ProblemRaised `sealed` or `not-provisioned`."""
        opened = self.gateway.opened
        if opened is None:
            code = Code(self.gateway.mode.value)
            raise ProblemRaised(Refusal(code=code, detail=self.gateway.cause))
        return opened


Handler = Callable[[Context, web.Request], Awaitable[web.StreamResponse]]
Plain = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal_of(error: Exception) -> AnyRefusal:
    """The refusal that a client hears for a failure of the rooms below."""
    match error:
        case ProblemRaised():
            return error.refusal
        case ProtocolError():
            return error.refusal()
        case StoreBusy() | DiskFull() | StoreClosed():
            return Refusal(code=Code.BUSY, detail="the store takes nothing now; try again")
        case Tampered():
            return Refusal(code=Code.FROZEN_TAMPER)
        case EntryMissing():
            return HttpRefusal(code=HttpCode.PAYMENT_UNKNOWN)
        case HostedError():
            return HttpRefusal(code=HttpCode.BODY_INVALID, detail=str(error))
        case HsmError():
            return Refusal(code=Code.SEALED)
        case web.HTTPRequestEntityTooLarge():
            return HttpRefusal(code=HttpCode.BODY_TOO_LARGE)
        case TimeoutError():
            return HttpRefusal(code=HttpCode.BODY_TOO_SLOW)
        case _:
            return HttpRefusal(code=HttpCode.FAULT)


EXPECTED = (
    ProblemRaised,
    ProtocolError,
    StoreError,
    JournalError,
    HostedError,
    HsmError,
    TimeoutError,
    web.HTTPRequestEntityTooLarge,
)


def guard(
    context: Context, name: str, handler: Handler, *, terminals_only: bool, when_closed: bool
) -> Plain:
    """The handler with what all have: who may call, how many at once, and what a failure says.

    `when_closed`: a gateway that is not open, and knows no terminals, answers any certificate.
    One layer, because payments pass here.
    """
    limit = context.gateway.config.limits.requests_max

    async def guarded(request: web.Request) -> web.StreamResponse:
        terminal = None
        if context.running >= limit:
            return refuse(context, name, terminal, Refusal(code=Code.BUSY, detail="too many"))
        context.running += 1
        try:
            if terminals_only and not (when_closed and context.gateway.opened is None):
                terminal = admit(context, request)
            return await handler(context, request)
        except EXPECTED as error:
            refusal = refusal_of(error)
            if refusal.code is HttpCode.FAULT:
                _log.error("request.failed", cause=error, route=name)
            return refuse(context, name, terminal, refusal)
        except Exception as error:  # noqa: BLE001 - no trace may reach a client, whatever failed
            _log.error("request.failed", cause=error, route=name)
            return refuse(context, name, terminal, HttpRefusal(code=HttpCode.FAULT))
        finally:
            context.running -= 1

    return guarded


def admit(context: Context, request: web.Request) -> str:
    """The terminal that calls; asked at every request, so that a revocation ends connections.

    Raises: ProblemRaised.
    """
    terminals = context.opened.terminals
    certificate = certificate_of(request)
    terminal = terminals.terminal_of(certificate)
    if terminal is None:
        revoked = terminals.is_revoked(certificate)
        code = HttpCode.TERMINAL_REVOKED if revoked else HttpCode.TERMINAL_UNKNOWN
        raise ProblemRaised(HttpRefusal(code=code))
    return terminal


def certificate_of(request: web.Request) -> Mapping[str, Any] | None:
    """The client's certificate as Python's ssl shows it; None without one."""
    transport = request.transport
    return None if transport is None else transport.get_extra_info("peercert")


def note_item(
    context: Context, request: web.Request, name: str, *, item: int, code: str | None
) -> None:
    """Note the refusal of one of many, which the answer tells beside what was accepted."""
    terminal = context.opened.terminals.terminal_of(certificate_of(request))
    context.metrics.refused(str(code))
    _log.info("item.refused", route=name, code=str(code), terminal=terminal, item=item)


def refuse(context: Context, name: str, terminal: str | None, refusal: AnyRefusal) -> web.Response:
    """Answer a refusal, with one line in the log and one in the metrics."""
    context.metrics.refused(str(refusal.code))
    _log.info("request.refused", route=name, code=str(refusal.code), terminal=terminal)
    response = problem_response(refusal)
    if refusal.code in (HttpCode.TERMINAL_REVOKED, HttpCode.TERMINAL_UNKNOWN):
        response.force_close()
    return response
