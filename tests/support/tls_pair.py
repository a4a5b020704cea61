"""A server that asks for certificates, and the credentials that fit it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sync.transport import ANY_TIME, PATH, Credentials

WAIT_S = 20


class Authority:
    """A CA that is its own server's leaf as well."""

    def __init__(
        self, name: str = "cloud", *, age_days: float = 0, host: str | None = None
    ) -> None:
        """`age_days`: how long ago all of its certificates were made, each for a day.

        `host`: the name of the server, beside its address on loopback.
        """
        self._age = datetime.timedelta(days=age_days)
        self._hosts: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            *([] if host is None else [x509.DNSName(host)]),
        ]
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._made = self._certify(self._key, self._name, authority=True)

    @property
    def certificate(self) -> str:
        """PEM."""
        return _pem(self._made)

    @property
    def pair(self) -> str:
        """Its key and certificate in PEM."""
        return _private(self._key) + self.certificate

    def credentials(self) -> Credentials:
        """A client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        made = self._certify(key, subject, authority=False)
        return Credentials(authority=self.certificate, certificate=_pem(made), key=_private(key))

    def _certify(
        self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC) - self._age
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(self._hosts), False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
            .sign(self._key, hashes.SHA256())
        )


class TlsServer:
    """Answers the exchange's address as a test tells it to."""

    def __init__(
        self,
        folder: Path,
        *,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        age_days: int = 0,
    ) -> None:
        self.authority = Authority(age_days=age_days)
        self.connections = 0
        # Bytes of the answer one by one, and the seconds between them.
        self.trickle: tuple[int, float] | None = None
        self.received: list[bytes] = []
        self.peers: list[str] = []
        self.body, self.status = b"answer", 200
        self.port = 0
        pem = folder / "server.pem"
        pem.write_text(self.authority.pair)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.maximum_version = newest
        self._tls.load_cert_chain(pem)
        self._tls.load_verify_locations(cadata=self.authority.certificate)
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._tls.verify_flags |= ANY_TIME
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post(PATH, self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        handler = self._runner.server
        assert handler is not None
        loop = asyncio.get_running_loop()

        def connected() -> asyncio.Protocol:
            self.connections += 1
            return handler()

        self._listening = await loop.create_server(connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone; a second time is no harm."""
        await self._runner.cleanup()
        if self._listening is not None:
            await gone(self._listening)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        self.peers.append(certificate["subject"][0][0][1])
        self.received.append(await request.read())
        if self.trickle is not None:
            return await self._trickle(request, *self.trickle)
        headers = {"Location": "/elsewhere"} if self.status == 307 else None
        return web.Response(body=self.body, status=self.status, headers=headers)

    async def _trickle(
        self, request: web.Request, count: int, every_s: float
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(count):
            await response.write(b"\x00")
            await asyncio.sleep(every_s)
        return response


async def gone(server: asyncio.Server) -> None:
    """Close a server, and wait until it has let go of every connection.

    Connections whose handshake failed belong to no request, and only the server counts them.
    """
    server.close()
    async with asyncio.timeout(WAIT_S):
        while getattr(server, "_active_count", 0):
            await asyncio.sleep(0.01)


def _pem(made: x509.Certificate) -> str:
    return made.public_bytes(Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
