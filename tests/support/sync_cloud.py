"""A cloud that synchronises: it keeps every entry, settles it, and enrols who wishes.

It checks no rules; the reconciler has tests of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.http.octets import from_text
from sync.exchange import build_down, open_up
from tests.support.live_issuer import DAY_MS, EnrolmentCloud, LiveIssuer
from wallet.protocol import issued
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import DOWN_TYPE, Up
from wallet.protocol.keys import from_cose_key
from wallet.protocol.receipt import verify_checkpoint
from wallet.protocol.sealed import seal, short_id


class SyncCloud(EnrolmentCloud):
    """Enrols and synchronises one gateway."""

    def __init__(self, issuer: LiveIssuer, folder: Path) -> None:
        super().__init__(issuer, folder)
        self._hpke = X25519PrivateKey.generate()
        self.entries: list[bytes] = []
        self.ups: list[Up] = []
        self.send: list[bytes] = []
        self.problem: str | None = None
        self.status = 200
        self.stuck = False
        self.other_exchange = False

    def keys(self) -> bytes:
        """The signed keys to seal to."""
        public = self._hpke.public_key().public_bytes_raw()
        until = self.issuer.now_s * 1000 + 365 * DAY_MS
        return self.issuer.issue(issued.KEYS_TYPE, {2: 0, 3: [[short_id(public), public, until]]})

    def add_routes(self, app: web.Application) -> None:
        """The exchange."""
        app.router.add_post("/v1/sync", self._sync)

    async def _sync(self, request: web.Request) -> web.Response:
        transport = request.transport
        if transport is None or transport.get_extra_info("peercert") is None:
            return web.Response(status=403)
        if self.status != 200:
            return web.Response(status=self.status)
        anchor = TrustAnchor(self.issuer.root)
        up = open_up(await request.read(), keys=self.hpke, root=anchor).claims
        self.ups.append(up)
        return web.Response(body=self.answer(up))

    @property
    def hpke(self) -> dict[bytes, X25519PrivateKey]:
        """Its key by short id."""
        return {short_id(self._hpke.public_key().public_bytes_raw()): self._hpke}

    def answer(self, up: Up, *, keep: bool = True, issuer: LiveIssuer | None = None) -> bytes:
        """The sealed answer to a report; `issuer`: who signs it, if not its own."""
        anchor, objects = TrustAnchor(self.issuer.root), list(self.send)
        self.send.clear()
        if keep and self.problem is None and not self.stuck:
            assert up.acknowledged_size <= len(self.entries)
            self.entries[up.acknowledged_size :] = up.entries
            head = verify_checkpoint(up.checkpoint, root=anchor, grace_s=0)
            assert head.size == len(self.entries)
            objects += self._enrolments(up)
            objects.append(self._settlement(up, head.root))
        payload = build_down(
            up, acknowledged=len(self.entries), objects=objects, problem=self.problem
        )
        if self.other_exchange:
            payload = payload.replace(up.exchange, bytes(16))
        key, chain = (issuer or self.issuer).role_key("sync")
        envelope = key.sign_object(DOWN_TYPE, payload, chain)
        assert self.enrolled is not None
        return seal(envelope, recipient=from_text(self.enrolled.body["hpke_key"]))

    def _settlement(self, up: Up, root: bytes) -> bytes:
        claims: dict[int, Any] = {2: up.journal, 3: up.epoch, 4: len(self.entries), 5: root, 6: []}
        claims[7] = self.issuer.now_s * 1000
        return self.issuer.issue(issued.SETTLEMENT_TYPE, claims)

    def _enrolments(self, up: Up) -> list[bytes]:
        wishes = (up.health or {}).get("enrol", [])
        return [
            self.issuer.enrolment(up.journal, from_cose_key(wish["key"]), tier=wish["tier"])
            for wish in wishes
        ]
