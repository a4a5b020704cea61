"""`cbdc-cloud run`: the cloud as a process, with its two ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.clock import SystemClock
from cloud.config import Config
from cloud.errors import CloudError
from cloud.http.app import application
from cloud.http.compliance import compliance_routes
from cloud.http.door import Door
from cloud.http.evidence import evidence_routes
from cloud.http.gateways import gateway_application
from cloud.http.late_payments import late_payment_routes
from cloud.http.lost_grants import lost_grant_routes
from cloud.http.officers import officer_routes
from cloud.http.overview import overview_routes
from cloud.http.people import people_routes
from cloud.http.rates import limited
from cloud.http.recovery import recovery_routes
from cloud.http.routes import add_routes
from cloud.http.trails import trail_routes
from cloud.http.trust import trust_routes
from cloud.http.wallets import wallet_routes
from cloud.http.watch import add_watch
from cloud.issuer.pki import server_credentials
from cloud.log import Log, start_logging
from cloud.service import Cloud, open_cloud
from cloud.streaming import handing_on
from hsm.api import HsmError
from hsm.files import replace_durably
from sync.transport import ANY_TIME
from wallet.memory import collect_seldom

REFRESH_S = 900
PORTS_FILE = "ports.json"
_log = Log("main")


def api_application(cloud: Cloud) -> web.Application:
    """Officers, wallet apps, and what watches over the process."""
    app = application(limited(cloud.config.limits, cloud.clock))
    routes = [
        *officer_routes(cloud),
        *evidence_routes(cloud),
        *people_routes(),
        *overview_routes(cloud),
        *recovery_routes(cloud),
        *late_payment_routes(cloud),
        *lost_grant_routes(),
        *trust_routes(cloud),
        *trail_routes(),
        *compliance_routes(cloud),
        *wallet_routes(cloud),
    ]
    add_watch(app, cloud, routes)
    add_routes(app, cloud, routes)
    return app


def _contexts(cloud: Cloud) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(for gateways, with their certificates asked for; for people and apps)."""
    gateways, people = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (gateways, people):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    authority = cloud.desk.pki.transport.certificate.public_bytes(Encoding.PEM).decode()
    gateways.load_verify_locations(cadata=authority)
    # Enrolment comes without a certificate; synchronisation asks for one itself.
    gateways.verify_mode = ssl.CERT_OPTIONAL
    gateways.verify_flags |= ANY_TIME
    return gateways, people


async def _certify(cloud: Cloud, contexts: Sequence[ssl.SSLContext]) -> None:
    """Show the server's certificate of now to whoever connects from now on."""
    async with cloud.database.transaction() as connection:
        held = await server_credentials(
            cloud.desk.workshop(connection, now_ms=cloud.clock.now_ms()),
            cloud.desk.pki,
            hosts=cloud.config.listen.names,
        )
    # Python's ssl reads certificates from files alone: one for a moment, mode 0600.
    with tempfile.NamedTemporaryFile() as file:
        file.write(held.key_pem + held.certificate_pem)
        file.flush()
        for context in contexts:
            context.load_cert_chain(file.name)


@contextlib.asynccontextmanager
async def serving(cloud: Cloud) -> AsyncIterator[dict[str, int]]:
    """Both ports while the block runs; gives their numbers."""
    listen = cloud.config.listen
    gateways, people = _contexts(cloud)
    renew = partial(_certify, cloud, (gateways, people))
    await renew()
    cloud.renewals.append(renew)
    doors, ports = [], {}
    try:
        for name, app, tls, port in (
            ("gateway_port", gateway_application(cloud), gateways, listen.gateway_port),
            ("api_port", api_application(cloud), people, listen.api_port),
        ):
            door = Door(app, tls=tls, limits=cloud.config.limits, name=name)
            doors.append(door)
            ports[name] = await door.open(host=listen.host, port=port)
        path = cloud.config.folder / PORTS_FILE
        replace_durably(path, json.dumps(ports).encode())
        yield ports
    finally:
        cloud.renewals.remove(renew)
        for door in doors:
            await door.close()


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, or until the embedded database ends."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with (
        open_cloud(config, clock=SystemClock(), patient=True) as cloud,
        handing_on(cloud),
        serving(cloud) as ports,
    ):
        collect_seldom()
        _log.info("cloud.ready", **ports)
        async with asyncio.TaskGroup() as group:
            refreshing = group.create_task(_refresh(cloud))
            watched: list[asyncio.Task[Any]] = [group.create_task(stopping.wait())]
            if cloud.database.server is not None:
                watched.append(group.create_task(cloud.database.server.wait()))
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in (refreshing, *watched):
                task.cancel()
        _log.info("cloud.stopped")
    if not stopping.is_set():
        raise CloudError("database-ended", "the embedded PostgreSQL ended")


async def _refresh(cloud: Cloud) -> None:
    """Renew what grows old; a failure is tried again at the next turn."""
    while True:
        try:
            await cloud.refresh()
        except (CloudError, HsmError, OSError) as error:
            code = "disk-failed" if isinstance(error, OSError) else error.code
            _log.warning("refresh.failed", code=code)
        await asyncio.sleep(REFRESH_S)


def run_cloud(config: Config) -> None:
    """Run the loop. Raises: CloudError, HsmError, OSError."""
    start_logging("info")
    uvloop.run(run(config))
