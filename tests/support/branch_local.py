"""The daemon inside the test's own process, with its real ports, store and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.authority import authority_certificate, open_authority
from edge.config import Config, ListenConfig, SyncConfig, TechnicianConfig
from edge.folder import Folder
from edge.gateway import Opened
from edge.http.octets import to_text
from edge.intake import Intake, take_objects
from edge.main import Daemon
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from edge.pos.terminal import Terminal
from edge.provision import Wish, provision
from edge.wishes import Wish as EnrolmentWish
from edge.wishes import read_wishes
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.live_issuer import ENROLMENT_TOKEN, EnrolmentCloud, LiveIssuer
from wallet.clock import Clock, SystemClock
from wallet.protocol.ids import WalletId, journal_text
from wallet.store.terminals import Terminal as StoredTerminal
from wallet.store.terminals import insert_terminal

PASSPHRASE = b"correct horse"
WAIT_S = 40
DAY_MS = 86_400_000


def config_of(folder: Path, **changes: Any) -> Config:
    """A configuration with free ports and a synchronisation that does not come by itself."""
    listen = ListenConfig(port=0, pairing_port=0, metrics_port=0)
    page, sync = TechnicianConfig(listen="127.0.0.1:0"), SyncConfig(interval_s=86_400)
    base = Config(folder=folder, listen=listen, technician=page, sync=sync)
    return msgspec.structs.replace(base, **changes)


async def provision_light(folder: Path, cloud: EnrolmentCloud) -> None:
    """A provisioned folder whose token opens fast."""
    Folder(folder).prepare()
    token = await software.create(Folder(folder).token, passphrase=PASSPHRASE, cost=LIGHT)
    await token.close()
    wish = Wish(cloud=cloud.url, cloud_ca=cloud.ca.read_text(), enrolment_token=ENROLMENT_TOKEN)
    await provision(
        config_of(folder), wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None
    )


class Branch:
    """A running gateway and what tests do with it."""

    def __init__(
        self, daemon: Daemon, config: Config, issuer: LiveIssuer, task: asyncio.Task[None]
    ) -> None:
        self.task = task
        self.daemon = daemon
        self.config = config
        self.issuer = issuer
        self.folder = Folder(config.folder)

    @property
    def opened(self) -> Opened:
        """The open gateway."""
        return self.daemon.context.opened

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens."""
        found: dict[str, int] = json.loads(self.folder.ports.read_text())
        return found

    async def terminal(self, name: str = "till") -> Terminal:
        """A terminal that is known, without the ceremony."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        authority = await open_authority(self.folder, self.opened.token.sealer)
        issued = authority.sign_terminal(builder.sign(key, hashes.SHA256()), terminal=name)
        stored = StoredTerminal(id=name, name=name, certificate_serial=issued.serial, created_ms=1)
        await self.opened.database.write(lambda c: insert_terminal(c, stored))
        await self.opened.terminals.load()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        ca = authority_certificate(self.folder).public_bytes(Encoding.PEM)
        return Terminal(
            url=f"https://127.0.0.1:{self.ports['port']}",
            gateway=journal_text(self.opened.journal.state.journal),
            terminal=name,
            authority=ca.decode(),
            certificate=issued.pem,
            key=private.decode(),
        )

    async def ended(self) -> None:
        """Wait until the daemon has ended."""
        async with asyncio.timeout(WAIT_S):
            await self.task

    async def wishes(self) -> list[EnrolmentWish]:
        """Wallets that wait to be enrolled."""
        return await self.opened.database.read(read_wishes)

    async def take(self, *objects: bytes) -> Intake:
        """Objects of the issuer, as an exchange brings them."""
        return await take_objects(self.opened.journal, self.opened.database, objects)

    def order(self, payer: DeviceKey, to: bytes, amount: int, **changes: Any) -> bytes:
        """The payer's next order."""
        state = self.opened.journal.state
        now = SystemClock().now_ms()
        wallet = state.wallets.get(WalletId(payer.public.id))
        claims: dict[str, Any] = {
            "sequence": 0 if wallet is None else wallet.next_sequence,
            "payee": to,
            "payee_journal": state.journal,
            "amount_minor": amount,
            "currency": "EUR",
            "created_ms": now,
            "expires_ms": now + DAY_MS,
            "kind": 0,
            "authorisation": 0,
            "payer_journal": state.journal,
            "payer_epoch": state.epoch,
        }
        return payer.sign_order(**{**claims, **changes})


@contextlib.asynccontextmanager
async def running(
    config: Config, issuer: LiveIssuer, *, clock: Clock | None = None
) -> AsyncIterator[Branch]:
    """The daemon of a folder while the block runs; by the system's clock if no other is given."""
    daemon = Daemon(config, secret=PASSPHRASE, clock=clock)
    task = asyncio.create_task(daemon.run())
    ready = asyncio.create_task(daemon.ready.wait())
    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield Branch(daemon, config, issuer, task)
    finally:
        ready.cancel()
        daemon.stop()
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def copied(
    template: Path, folder: Path, issuer: LiveIssuer, **changes: Any
) -> AsyncIterator[Branch]:
    """A gateway that runs on a copy of a provisioned folder."""
    shutil.copytree(template, folder)
    async with running(config_of(folder, **changes), issuer) as branch:
        yield branch


class Http:
    """Calls of a terminal as bytes of JSON: (status, value)."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def get(self, path: str) -> tuple[int, Any]:
        """A GET."""
        status, raw = await self.client.raw("GET", path, None)
        return status, json.loads(raw)

    async def post(self, path: str, body: Any, *, key: bool = False) -> tuple[int, Any]:
        """A POST of JSON."""
        status, raw = await self.client.raw("POST", path, json.dumps(body).encode(), keyed=key)
        return status, json.loads(raw)

    async def pay(self, order: bytes, request: bytes | None = None) -> tuple[int, Any]:
        """A payment."""
        body = {"order": to_text(order)}
        if request is not None:
            body["request"] = to_text(request)
        return await self.post("/v1/payments", body)
