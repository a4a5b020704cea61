"""An issuer whose certificates are of today, and a cloud that knows enrolment alone."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.http.octets import from_text, to_text
from edge.pos.purse import DeviceKey
from tests.support.issuer import Issuer, Key, certificate, journal_uris
from wallet.protocol import issued, lists
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.keys import EDDSA, from_raw

DAY_S, DAY_MS = 86_400, 86_400_000
ENROLMENT_TOKEN = "one-time-token"
TIER = 1
_ROLES = ("grants", "policy", "lists", "enrolment", "settlement", "sync")


class LiveIssuer:
    """An issuer that certifies from now on."""

    def __init__(self, name: str = "branch", *, now_s: int | None = None) -> None:
        self.issuer = Issuer(name)
        self.now_s = int(time.time()) if now_s is None else now_s
        self.root = self.issuer.root
        self.sub = certificate(
            self.issuer.sub_key,
            subject=f"{name} sub",
            signer=self.issuer.key,
            issuer=f"{name} root",
            authority=True,
            path_length=0,
            start_s=self.now_s - DAY_S,
            end_s=self.now_s + 700 * DAY_S,
        )
        self._roles = {role: self._role(role) for role in _ROLES}

    def _role(self, role: str) -> tuple[Key, tuple[bytes, ...]]:
        key = Key(f"{self.issuer.name}-{role}")
        leaf = certificate(
            key,
            subject=f"role {role}",
            signer=self.issuer.key,
            issuer=f"{self.issuer.name} root",
            uris=[f"urn:cbdc:role:{role}"],
            start_s=self.now_s - DAY_S,
            end_s=self.now_s + 365 * DAY_S,
        )
        return key, (leaf,)

    def role_key(self, role: str) -> tuple[Key, tuple[bytes, ...]]:
        """The key of a role, and its chain."""
        return self._roles[role]

    def issue(self, type_: str, claims: dict[int, Any]) -> bytes:
        """An object of the issuer, by its role."""
        key, chain = self._roles[issued.ROLES[type_]]
        return key.sign_object(type_, issued.payload(claims), chain)

    def leaf(self, public: Any, journal: bytes, epoch: int = 1, *, days: int = 14) -> bytes:
        """A journal's certificate for a public key."""
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        names = [x509.UniformResourceIdentifier(uri) for uri in journal_uris(journal, epoch)]
        start = datetime.datetime.fromtimestamp(self.now_s - 600, datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name("journal"))
            .issuer_name(_name(f"{self.issuer.name} sub"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .sign(self.issuer.sub_key.private, None)
            .public_bytes(Encoding.DER)
        )

    def policy(
        self,
        tiers: Mapping[int, Mapping[int, int]] | None = None,
        journal: Mapping[int, int] | None = None,
        *,
        sequence: int = 0,
    ) -> bytes:
        """A policy of euros."""
        now_ms = self.now_s * 1000
        claims: dict[int, Any] = {2: sequence, 3: now_ms - DAY_MS, 4: now_ms + 365 * DAY_MS}
        claims |= {
            5: "EUR",
            6: {k: dict(v) for k, v in (tiers or {}).items()},
            7: dict(journal or {}),
        }
        return self.issue(issued.POLICY_TYPE, claims)

    def list(self, list_id: int, content: Any, *, sequence: int = 0) -> bytes:
        """A full list."""
        now_ms = self.now_s * 1000
        claims: dict[int, Any] = {2: list_id, 3: sequence, 4: now_ms, 5: now_ms + DAY_MS}
        claims[6] = None
        claims[7] = lists.content(content)
        return self.issue(issued.LIST_TYPE, claims)

    def enrolment(self, journal: bytes, key: Any, *, tier: int = TIER, days: int = 365) -> bytes:
        """A wallet's enrolment."""
        until = (self.now_s + days * DAY_S) * 1000
        fields = {1: 1, -1: 6, -2: key.raw}
        claims = {2: key.id, 3: journal, 4: fields, 5: tier, 6: until}
        return self.issue(issued.ENROLMENT_TYPE, claims)

    def grant(self, journal: bytes, wallet: bytes, amount: int, *, sequence: int) -> bytes:
        """Value for a wallet."""
        until = (self.now_s + DAY_S) * 1000
        claims = {2: journal, 3: 1, 4: sequence, 5: wallet, 6: amount, 7: "EUR", 8: until}
        return self.issue(issued.GRANT_TYPE, claims)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Enrolled(msgspec.Struct, kw_only=True):
    """One gateway that was enrolled."""

    journal: bytes
    body: dict[str, Any]
    calls: int = 1


class EnrolmentCloud:
    """A cloud that enrols, and answers the same to the same key and token."""

    def __init__(self, issuer: LiveIssuer, folder: Path) -> None:
        self.issuer = issuer
        self.enrolled: Enrolled | None = None
        self.objects: Callable[[bytes], list[bytes]] = lambda journal: [issuer.policy()]
        self.fail_next = False
        self.changes: dict[str, Any] = {}
        self.port = 0
        self._folder = folder
        self._runner: web.AppRunner | None = None
        key = self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(_name("cloud"))
            .issuer_name(_name("cloud"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([address]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.ca = folder / "cloud-ca.pem"
        self.ca.write_bytes(made.public_bytes(Encoding.PEM))
        self._pem = folder / "cloud.pem"
        self._pem.write_bytes(private + made.public_bytes(Encoding.PEM))
        (folder / "root.der").write_bytes(issuer.root)
        (folder / "token.txt").write_text(ENROLMENT_TOKEN)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/enrolment", self._enrol)
        app.router.add_post("/v1/enrolment/challenge", self._challenge)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self._pem)
        tls.load_verify_locations(self.ca)
        tls.verify_mode = ssl.CERT_OPTIONAL
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]

    def add_routes(self, app: web.Application) -> None:
        """More of what the cloud does; nothing here."""

    async def stop(self) -> None:
        """Be gone; a later start is at the same port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _challenge(self, request: web.Request) -> web.Response:
        """It asks for no proof; the real cloud's tests do."""
        return web.json_response({"level": "software"})

    async def _enrol(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["token"] != ENROLMENT_TOKEN:
            problem = {"code": "token-unknown", "detail": "no such token"}
            return web.json_response(problem, status=403)
        key = from_raw(
            body["journal_key"]["algorithm"], from_text(body["journal_key"]["public_key"])
        )
        message = b"cbdc-enrolment/1" + hashlib.sha256(ENROLMENT_TOKEN.encode()).digest()
        key.verify(from_text(body["proof"]), message)
        if self.enrolled is None:
            self.enrolled = Enrolled(journal=key.id, body=body)
        else:
            self.enrolled.calls += 1
        if self.fail_next:
            self.fail_next = False
            return web.Response(status=502)
        return web.json_response({**self._answer(key), **self.changes})

    def _answer(self, key: Any) -> dict[str, Any]:
        leaf = self.issuer.leaf(public_key(key.algorithm, key.raw), key.id)
        return {
            "journal": journal_text(key.id),
            "epoch": 1,
            "currency": "EUR",
            "chain": [to_text(leaf), to_text(self.issuer.sub)],
            "root": to_text(self.issuer.root),
            "transport_certificate": self._client_certificate(),
            "transport_ca": self.ca.read_text(),
            "objects": [to_text(raw) for raw in self.objects(key.id)],
        }

    def _client_certificate(self) -> str:
        """For the transport, by the cloud's own CA."""
        assert self.enrolled is not None
        csr = x509.load_pem_x509_csr(self.enrolled.body["tls_csr"].encode())
        journal = journal_text(JournalId(self.enrolled.journal))
        name = x509.UniformResourceIdentifier(f"urn:cbdc:gateway:{journal}")
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(_name("gateway"))
            .issuer_name(_name("cloud"))
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([name]), False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM).decode()


def public_key(algorithm: int, raw: bytes) -> Any:
    """The key as `cryptography` has it."""
    if algorithm == EDDSA:
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw)


def funded(
    keys: list[DeviceKey],
    *,
    amount: int = 100_000,
    tiers: Mapping[int, Mapping[int, int]] | None = None,
    journal: Mapping[int, int] | None = None,
) -> Callable[[LiveIssuer, bytes], list[bytes]]:
    """Objects that enrol and fund device wallets."""

    def objects(issuer: LiveIssuer, journal_id: bytes) -> list[bytes]:
        made = [issuer.policy(tiers, journal)]
        made += [issuer.list(number, []) for number in (1, 2, 5, 6)]
        made += [issuer.enrolment(journal_id, key.public) for key in keys]
        made += [
            issuer.grant(journal_id, key.public.id, amount, sequence=number)
            for number, key in enumerate(keys)
        ]
        return made

    return objects
