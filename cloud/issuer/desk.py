"""The issuer at work: its open keys, and the signing of objects by the key of their role."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.database import Connection
from cloud.issuer import sync_keys
from cloud.issuer.pki import Pki, Workshop, open_pki
from cloud.issuer.profiles import Random
from cloud.issuer.vault import StoredKey, Vault
from wallet.protocol import issued
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.cose import assemble
from wallet.protocol.envelope import DOWN_TYPE, SYNC_ROLE
from wallet.protocol.keys import from_raw
from wallet.protocol.messages import to_sign

_HOLDERS = "holder-tokens"
_NEVER_MS = 2**53 - 1
_SECRET_BYTES = 32


class Desk:
    """Open keys of the issuer; `open` makes one, `refresh` renews what nears its end."""

    def __init__(
        self,
        *,
        vault: Vault,
        organisation: str,
        random: Random,
        pki: Pki,
        holder_secret: bytes,
    ) -> None:
        self.vault = vault
        self.random = random
        self.pki = pki
        self.anchor = TrustAnchor(pki.root.der)
        self.hpke: Mapping[bytes, X25519PrivateKey] = {}
        self._organisation = organisation
        self._holder_secret = holder_secret

    @classmethod
    async def open(
        cls,
        connection: Connection,
        vault: Vault,
        *,
        organisation: str,
        random: Random,
        now_ms: int,
    ) -> Desk:
        """Load the keys and make what is missing. Raises: HsmError, DatabaseError."""
        workshop = Workshop(connection=connection, vault=vault, now_ms=now_ms, random=random)
        pki = await open_pki(workshop, organisation=organisation)
        desk = cls(
            vault=vault,
            organisation=organisation,
            random=random,
            pki=pki,
            holder_secret=await _holder_secret(workshop),
        )
        await desk.learn_keys(connection)
        await desk._refresh_sync_keys(connection, now_ms=now_ms)
        return desk

    async def refresh(self, connection: Connection, *, now_ms: int) -> None:
        """Renew certificates of roles and keys for envelopes whose time runs out."""
        workshop = self.workshop(connection, now_ms=now_ms)
        self.pki = await open_pki(workshop, organisation=self._organisation)
        await self._refresh_sync_keys(connection, now_ms=now_ms)

    async def _refresh_sync_keys(self, connection: Connection, *, now_ms: int) -> None:
        if await sync_keys.refresh(connection, self, now_ms=now_ms):
            await self.learn_keys(connection)

    async def learn_keys(self, connection: Connection) -> None:
        """Open the keys for envelopes that are stored now, whoever made them."""
        self.hpke = await sync_keys.open_keys(connection, self.vault)

    def workshop(self, connection: Connection, *, now_ms: int) -> Workshop:
        """Where certificates are made in a transaction."""
        return Workshop(connection=connection, vault=self.vault, now_ms=now_ms, random=self.random)

    async def sign(self, type_: str, claims: dict[int, Any]) -> bytes:
        """An object of the issuer, signed by its type's role, with the role's certificate."""
        return await self.sign_payload(type_, issued.payload(claims), role=issued.ROLES[type_])

    async def sign_down(self, payload: bytes) -> bytes:
        """An answer to a synchronisation."""
        return await self.sign_payload(DOWN_TYPE, payload, role=SYNC_ROLE)

    async def sign_payload(self, type_: str, payload: bytes, *, role: str) -> bytes:
        """A COSE_Sign1 by a role's key."""
        held = self.pki.roles[role]
        key = from_raw(held.signer.algorithm, held.signer.public_key)
        protected, message = to_sign(key, type_, payload)
        return assemble(protected, payload, await held.signer.sign(message), held.chain)

    def holder_secret_of(self, holder: str, *, generation: int) -> bytes:
        """The secret in a holder's token: the same for the same holder and generation."""
        text = f"{generation}:{holder}".encode()
        return hmac.digest(self._holder_secret, text, hashlib.sha256)


async def _holder_secret(workshop: Workshop) -> bytes:
    stored = await workshop.vault.load(workshop.connection, _HOLDERS)
    if stored is None:
        stored = StoredKey(
            name=_HOLDERS,
            private=workshop.random(_SECRET_BYTES),
            certificate=None,
            not_after_ms=_NEVER_MS,
        )
        await workshop.vault.store(workshop.connection, stored, now_ms=workshop.now_ms)
    return stored.private
