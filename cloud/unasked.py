"""What the issuer sends without a report: objects that say by themselves whose they are.

Lists, the policy, keys, certificates, settlements, and grants that are signed already. Nothing is
signed or decided for it but the envelope: which wallets a gateway wants, and which grants it has,
only its report says; an issuer that was restored would grant twice what it has forgotten.
"""

from __future__ import annotations

import asyncio

import msgspec

from cloud.attestation.levels import Level
from cloud.funding import granted_for
from cloud.ingest.intake import Reconciling
from cloud.issuer.desk import Desk
from cloud.issuer.enrolments import TURN_MAX
from cloud.issuer.gateways import Gateway, find_gateway, is_suspended
from cloud.issuer.lacking import lacking
from cloud.shards.homes import Site
from cloud.shards.shards import Shards
from sync.exchange import OBJECTS_BYTES_MAX, UNASKED, first_objects
from wallet.protocol.envelope import Down, down_payload
from wallet.protocol.ids import JournalId
from wallet.protocol.sealed import seal


class Unasked(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed answer to nothing, for one gateway."""

    journal: JournalId
    epoch: int
    sealed: bytes


async def unasked(
    shards: Shards, desk: Desk, reconciler: Reconciling, *, journal: bytes
) -> Unasked:
    """All that this gateway may lack. Raises: IssuerError `gateway-unknown`; DatabaseError where
    nobody can say whether its journal was convicted, because the shard that it lives at is away.
    """
    async with shards.head.transaction() as connection:
        gateway = await find_gateway(connection, journal)
    settlements = await reconciler.settlements_after(journal, gateway.epoch, 0)
    async with (
        shards.head.transaction() as connection,
        shards.site(connection, journal) as site,
    ):
        common = await lacking(connection, gateway.currency, {}, bytes_max=OBJECTS_BYTES_MAX)
        value = await value_for(site, gateway)
    objects, _ = first_objects(
        [*common.first, *settlements, *value, *common.later], bytes_max=OBJECTS_BYTES_MAX
    )
    down = Down(
        journal=JournalId(journal),
        epoch=gateway.epoch,
        exchange=UNASKED,
        acknowledged_size=0,
        objects=tuple(objects),
    )
    signed = await desk.sign_down(down_payload(down))
    sealed = await asyncio.to_thread(seal, signed, recipient=gateway.hpke_key)
    return Unasked(journal=down.journal, epoch=gateway.epoch, sealed=sealed)


async def value_for(site: Site, gateway: Gateway) -> list[bytes]:
    """Its certificates, and grants that it has not entered; a TPM has to prove itself first."""
    level = await site.head.fetchval(
        "SELECT level FROM gateway_attestation WHERE journal = $1", gateway.journal
    )
    if level == Level.TPM or await is_suspended(site.home, gateway):
        return []
    granted = await granted_for(site.head, gateway.journal, epoch=gateway.epoch)
    grants = [grant.grant_cose for grant in granted[:TURN_MAX] if grant.grant_cose is not None]
    return [*gateway.chain, *grants]
