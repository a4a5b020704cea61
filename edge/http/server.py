"""The servers: the branch by mutual TLS, pairing by TLS, metrics on loopback, administration."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Sequence
from typing import cast

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.authority import has_authority, server_context
from edge.folder import Folder
from edge.http.context import Context, Plain, guard, refuse
from edge.http.door import Door, bounds_of
from edge.http.openapi import describe
from edge.http.problem import HttpCode, HttpRefusal
from edge.http.routes import Route

_encode = msgspec.json.Encoder().encode


class Server:
    """One port, or one local socket, with its routes."""

    def __init__(
        self,
        context: Context,
        routes: Sequence[Route],
        *,
        described: bool,
        body_bytes_max: int | None = None,
    ) -> None:
        """`described`: the terminals' own port, with a description of its routes."""
        self._context = context
        config = context.gateway.config
        self._bounds = bounds_of(config.limits, terminals=described)
        self._door: Door | None = None
        bytes_max = body_bytes_max or config.limits.body_bytes_max
        self._direct: dict[tuple[str, str], Plain] = {}
        self._app = web.Application(client_max_size=bytes_max)
        for route in routes:
            handler = guard(
                context,
                route.name,
                route.handler,
                terminals_only=route.closed,
                when_closed=route.when_closed,
            )
            self._app.router.add_route(route.method, route.path, handler)
            if "{" not in route.path:
                self._direct[route.method, route.path] = handler
        if described:
            self._app.router.add_route("GET", "/v1/openapi.json", _description(routes))
        self._app.router.add_route("*", "/{path:.*}", _nowhere(context, routes))
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, *, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen on a port; 0 is any free one. Raises: OSError."""
        runner = await self._set_up()
        # A runner that was set up has a server.
        server = cast(web.Server, runner.server)
        self._door = Door(self._context, self._bounds, server=server, tls=tls, direct=self._direct)
        self.port = await self._door.open(host=host, port=port)

    async def start_local(self, bound: socket.socket) -> None:
        """Listen on a socket that is bound already. Raises: OSError."""
        runner = await self._set_up()
        await web.SockSite(runner, bound, backlog=16).start()

    async def _set_up(self) -> web.AppRunner:
        limits = self._context.gateway.config.limits
        self._runner = web.AppRunner(
            self._app,
            handle_signals=False,
            **self._bounds.options,
            shutdown_timeout=limits.request_timeout_s,
        )
        await self._runner.setup()
        return self._runner

    async def stop(self) -> None:
        """Answer what is being worked on, then close every connection."""
        if self._door is not None:
            await self._door.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _description(routes: Sequence[Route]) -> Plain:
    body = _encode(describe(routes))

    async def get_openapi(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return get_openapi


def _nowhere(context: Context, routes: Sequence[Route]) -> Plain:
    """What no route takes: another method of a known path, or an unknown path."""
    methods: dict[str, set[str]] = {}
    for route in routes:
        methods.setdefault(route.path, set()).add(route.method)

    async def nowhere(request: web.Request) -> web.Response:
        allowed = {
            method
            for path, known in methods.items()
            for method in known
            if _matches(path, request.path)
        }
        code = HttpCode.METHOD_UNKNOWN if allowed else HttpCode.ROUTE_UNKNOWN
        response = refuse(context, "nowhere", None, HttpRefusal(code=code))
        if allowed:
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response

    return nowhere


def _matches(pattern: str, path: str) -> bool:
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        want == got or (want.startswith("{") and got)
        for want, got in zip(wanted, given, strict=True)
    )


def branch_tls(folder: Folder, *, clients: bool) -> ssl.SSLContext:
    """The TLS of the branch; before provisioning one that lives as long as the process.

    Raises: FileUnreadable, OSError.
    """
    if has_authority(folder):
        return server_context(folder, clients=clients)
    return _passing_context(folder)


def _passing_context(folder: Folder) -> ssl.SSLContext:
    """A certificate that nobody trusts, to say `not-provisioned` under."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway, not provisioned")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=10))
        .not_valid_after(now + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    path = folder.tls / "passing.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Python's ssl reads certificates from files alone.
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    path.chmod(0o600)
    context.load_cert_chain(path)
    path.unlink()
    return context
