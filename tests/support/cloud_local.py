"""The cloud inside the test's own process: a fresh database, real keys, real ports."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud.clock import SystemClock
from cloud.config import Config, IssuerConfig, LimitsConfig, ListenConfig
from cloud.database import Database
from cloud.http.octets import to_text
from cloud.issuer.gateways import PROOF_CONTEXT
from cloud.issuer.officers import Role, add_officer, new_token
from cloud.main import serving
from cloud.reconciler.reconciler import Reconciler
from cloud.service import Cloud, open_desk
from cloud.shards.carrying import carrying
from cloud.shards.reconcilers import Reconcilers
from cloud.shards.shards import Shards, identify
from cloud.stream.local import LocalStream
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.cloud_process import Api
from tests.support.issuer import Key
from wallet.protocol.envelope import UP_TYPE, Down, Up, up_payload, verify_down
from wallet.protocol.ids import JournalId
from wallet.protocol.sealed import open_sealed, seal, short_id

# TLS libraries look at the real time: the test's time begins there.
NOW_MS = SystemClock().now_ms()
DAY_MS = 86_400_000
ISSUER = bytes(range(16))
# The test's clock stands, and no request comes back by itself.
WIDE = LimitsConfig(caller_burst=100_000, peer_burst=100_000)


class StepClock:
    """A clock that a test moves."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.wall_ms = now_ms

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self.wall_ms

    def monotonic_ms(self) -> int:
        """The same."""
        return self.wall_ms


class LocalCloud:
    """An open cloud on its ports."""

    def __init__(self, cloud: Cloud, clock: StepClock, ports: dict[str, int]) -> None:
        self.cloud = cloud
        self.clock = clock
        self.ports = ports

    @property
    def authority(self) -> bytes:
        """The CA of its certificates, in PEM."""
        return self.cloud.desk.pki.transport.certificate.public_bytes(Encoding.PEM)

    async def officer(self, name: str, *roles: Role) -> str:
        """A new officer's token; every role if none is given."""
        token = new_token(secrets.token_bytes)
        async with self.cloud.database.transaction() as connection:
            await add_officer(
                connection,
                name=name,
                roles=roles or tuple(Role),
                token=token,
                actor="test",
                now_ms=self.clock.now_ms(),
            )
        return token

    @contextlib.asynccontextmanager
    async def api(self, token: str | None = None) -> AsyncIterator[Api]:
        """Calls to officers' and holders' routes, certificates unchecked: time is the test's."""
        async with self._session(self.ports["api_port"]) as session:
            yield Api(session, token)

    @contextlib.asynccontextmanager
    async def gateways(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Calls to gateways' routes without a certificate."""
        async with self._session(self.ports["gateway_port"]) as session:
            yield session

    def _session(self, port: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=False)
        return aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector)


@contextlib.asynccontextmanager
async def local_cloud(
    database: Database,
    folder: Path,
    *,
    currencies: tuple[str, ...] = ("EUR",),
    limits: LimitsConfig | None = None,
    others: Sequence[Database] = (),
) -> AsyncIterator[LocalCloud]:
    """A new cloud on a fresh database while the block runs; its limits are wide if none is said.

    `others`: databases that are further shards.
    """
    clock = StepClock()
    listen = ListenConfig(gateway_port=0, api_port=0)
    issuer = IssuerConfig(currencies=currencies)
    config = Config(folder=folder, listen=listen, issuer=issuer, limits=limits or WIDE)
    token = await software.create(folder / "token", passphrase=b"words", cost=LIGHT)
    desk = await open_desk(config, database, token, now_ms=clock.now_ms())
    shards = await _named([database, *others])
    reconciler: Reconciler | Reconcilers
    if others:
        reconciler = Reconcilers(shards, anchor=desk.anchor, signing=desk)
    else:
        reconciler = Reconciler(database, anchor=desk.anchor, signing=desk)
    stream = LocalStream()
    try:
        cloud = Cloud(
            config=config,
            clock=clock,
            database=database,
            desk=desk,
            reconciler=reconciler,
            shards=shards,
        )
        # Messages between shards go by the real time: whatever the test's clock says.
        async with (
            carrying(shards, stream, anchor=desk.anchor, clock=SystemClock()),
            serving(cloud) as ports,
        ):
            yield LocalCloud(cloud, clock, ports)
    finally:
        await stream.close()
        await reconciler.close()
        await token.close()


async def _named(databases: Sequence[Database]) -> Shards:
    """Databases that know their numbers."""
    for number, database in enumerate(databases):
        async with database.transaction() as connection:
            await identify(connection, number, ISSUER if number else None, ISSUER)
    return Shards(databases)


class NewGateway:
    """The keys of a gateway that enrols."""

    def __init__(self, name: str) -> None:
        self.key = Key(f"gateway-{name}")
        self.hpke = X25519PrivateKey.generate()
        self.tls = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
        self.csr = csr.sign(self.tls, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        self.answer: dict[str, Any] = {}

    def body(self, token: str, **changed: Any) -> dict[str, Any]:
        """What it sends."""
        public = self.key.public
        proof = self.key.sign(PROOF_CONTEXT + hashlib.sha256(token.encode()).digest())
        return {
            "token": token,
            "journal_key": {"algorithm": public.algorithm, "public_key": to_text(public.raw)},
            "proof": to_text(proof),
            "tls_csr": self.csr,
            "hpke_key": to_text(self.hpke.public_key().public_bytes_raw()),
            "hosted_tier": 0,
            **changed,
        }

    async def enrol(self, cloud: LocalCloud, token: str, **changed: Any) -> tuple[int, Any]:
        """Over the port: (status, value)."""
        async with (
            cloud.gateways() as session,
            session.post("/v1/enrolment", json=self.body(token, **changed)) as response,
        ):
            status, value = response.status, json.loads(await response.read())
        if status == 201:
            self.answer = value
        return status, value

    @property
    def journal(self) -> JournalId:
        """Its journal."""
        return JournalId(self.key.public.id)

    @property
    def tls_pem(self) -> str:
        """Key and certificate for mutual TLS."""
        private = self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate: str = self.answer["transport_certificate"]
        return private.decode() + certificate

    def report(
        self, cloud: LocalCloud, *, chain: tuple[bytes, ...], **changed: Any
    ) -> tuple[bytes, Up]:
        """A sealed report without entries, and what is in it."""
        claims: dict[str, Any] = {
            "journal": self.journal,
            "epoch": 1,
            "exchange": secrets.token_bytes(16),
            "acknowledged_size": 0,
            "entries": (),
            "checkpoint": b"\x80",
            "newest": {},
            **changed,
        }
        up = Up(**claims)
        envelope = self.key.sign_object(UP_TYPE, up_payload(up), chain)
        private = next(iter(cloud.cloud.desk.hpke.values()))
        return seal(envelope, recipient=private.public_key().public_bytes_raw()), up

    def open(self, cloud: LocalCloud, sealed: bytes) -> Down:
        """The answer, checked."""
        public = self.hpke.public_key().public_bytes_raw()
        envelope = open_sealed(sealed, keys={short_id(public): self.hpke})
        return verify_down(envelope, root=cloud.cloud.desk.anchor).claims
