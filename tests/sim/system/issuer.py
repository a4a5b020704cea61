"""The issuer in the simulated world: the real cloud over a real PostgreSQL, in virtual time.

Keys come from the seed, officers act when the world says so, HTTP is left out: reports are handed
to `cloud.syncing.Exchange` as the connection would hand them over.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloud.attestation.enrolling import Claimed, enrol_attested
from cloud.attestation.levels import Level, set_demand
from cloud.database import Connection, Database
from cloud.funding import FundingRequest, hold
from cloud.issuer import lists, policies
from cloud.issuer.desk import Desk
from cloud.issuer.enrolments import enrol_wallet
from cloud.issuer.gateways import (
    PROOF_CONTEXT,
    Wanted,
    add_gateway,
    find_gateway,
)
from cloud.issuer.lacking import lacking
from cloud.issuer.officers import Officer, Role, add_officer, list_officers, new_token
from cloud.issuer.vault import Vault
from cloud.ledger.accounts import ensure_accounts, issuance
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.reconciler.reconciler import Reconciler
from cloud.reconciler.replica import load
from cloud.reconciler.returns import return_expired_notes
from cloud.recovery import claims
from cloud.recovery.closures import Cause, approve_closure, draft_closure
from cloud.recovery.reckoning import Hosted
from cloud.recovery.statements import approve_statement, draft_statement
from cloud.shards.homes import Site
from cloud.syncing import Exchange
from cloud.wallets import find_wallet, open_wallet
from sync.exchange import OBJECTS_BYTES_MAX
from tests.sim.system.box import Box, NoSealer
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import ListId
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.state import State

SUPPLY = 100_000_000
CURRENCY = "EUR"
DAY_S = 86_400
TIERS = {
    policies.DEVICE_CUSTOMER: {
        **policies.DEFAULT_TIERS[policies.DEVICE_CUSTOMER],
        Limit.PAYMENT_MAX: 20_000,
        Limit.IN_AMOUNT_SINCE: 60_000,
        Limit.OFFLINE_AGE_HARD_S: 15 * DAY_S,
    },
}
JOURNAL = {
    **policies.DEFAULT_JOURNAL,
    JournalLimit.EXPOSURE_HARD: 150_000,
    JournalLimit.WINDOW_ENTRIES: 25,
    JournalLimit.WINDOW_S: 12 * 3_600,
    JournalLimit.REVOCATION_AGE_SOFT_S: 4 * DAY_S,
    JournalLimit.REVOCATION_AGE_HARD_S: 10 * DAY_S,
    JournalLimit.SEGMENT_ENTRIES_MAX: 60,
    JournalLimit.CLAIMS_WINDOW_S: 40 * DAY_S,
}


class Issuer:
    """The cloud; `begin` makes it."""

    desk: Desk
    exchange: Exchange
    reconciler: Reconciler

    def __init__(
        self,
        database: Database,
        chance: random.Random,
        *,
        journal: Mapping[int, int] = JOURNAL,
    ) -> None:
        """`journal`: the policy's limits of whole journals."""
        self.database = database
        self._chance = chance
        self._journal = journal
        self._fundings = self._closures = 0
        self.hears = 0

    @property
    def anchor(self) -> TrustAnchor:
        """Its root."""
        return self.desk.anchor

    async def begin(self, *, now_ms: int) -> None:
        """Keys, policy, lists, and a bank with the whole supply."""
        async with self.database.transaction() as connection:
            self.desk = await Desk.open(
                connection,
                Vault(NoSealer()),
                organisation="Simulated",
                random=self._chance.randbytes,
                now_ms=now_ms,
            )
            await policies.publish_first(connection, self.desk, CURRENCY, now_ms=now_ms)
            await policies.next_policy(
                connection,
                self.desk,
                CURRENCY,
                tiers=TIERS,
                journal=self._journal,
                actor="world",
                now_ms=now_ms,
            )
            for list_id in ListId:
                await lists.publish_first(connection, self.desk, list_id, {}, now_ms=now_ms)
            await _fill_bank(connection, now_ms=now_ms)
        self.restart()

    def restart(self) -> None:
        """The process ends and starts: what it knew of journals is in the database alone."""
        self.reconciler = Reconciler(self.database, anchor=self.anchor, signing=self.desk)
        self.exchange = Exchange(database=self.database, desk=self.desk, reconciler=self.reconciler)

    async def refresh(self, *, now_ms: int) -> None:
        """What the cloud does by itself, now and then."""
        async with self.database.transaction() as connection:
            await self.desk.refresh(connection, now_ms=now_ms)
            await lists.refresh_lists(connection, self.desk, now_ms=now_ms)
        await return_expired_notes(self.database, now_ms=now_ms)

    async def answer(self, sealed: bytes, *, caller: bytes, now_ms: int) -> bytes:
        """One exchange."""
        self.hears += 1
        return await self.exchange.answer(sealed, caller=caller, now_ms=now_ms)

    async def give_back(self, *, now_ms: int) -> None:
        """Notes that nobody redeemed return to their payers."""
        await return_expired_notes(self.database, now_ms=now_ms)

    async def replica_of(self, connection: Connection, box: Box) -> State:
        """The state of a journal, rebuilt from what is stored alone."""
        epoch_id = await connection.fetchval(
            "SELECT epoch_id FROM journal_epoch WHERE journal = $1", box.id
        )
        replica = await load(connection, self.anchor, epoch_id=epoch_id, journal=box.id, epoch=1)
        return replica.state

    # ---- recovery -------------------------------------------------------------------------
    async def close(self, box: Box, shown: Sequence[tuple[bytes, bytes]], *, now_ms: int) -> None:
        """Two officers close a convicted journal's epoch; its holders hand in their receipts."""
        self._closures += 1
        closure_id = self._closures.to_bytes(32, "big")
        async with self.database.transaction() as connection:
            first, second = await self._officers(connection, now_ms=now_ms)
            await draft_closure(
                connection,
                closure_id=closure_id,
                journal=box.id,
                cause=Cause.COMPROMISED,
                reason="it cheated",
                officer=first,
                now_ms=now_ms,
            )
        async with self.database.transaction() as connection:
            closed = await approve_closure(
                Site.alone(connection), self.desk, closure_id, officer=second, now_ms=now_ms
            )
        async with self.database.transaction() as connection:
            given = [item for item in await claims.read(self.anchor, shown) if item is not None]
            await claims.hand_in(connection, self.anchor, given, now_ms=now_ms)
        until_ms = closed.claims_until_ms
        assert until_ms is not None
        await self._state(closure_id, first, second, now_ms=until_ms)

    async def _state(
        self, closure_id: bytes, first: Officer, second: Officer, *, now_ms: int
    ) -> None:
        """After the claims window: the statement."""
        async with self.database.transaction() as connection:
            await draft_statement(
                Site.alone(connection),
                self.desk,
                statement_id=closure_id,
                closure_id=closure_id,
                hosted=Hosted.CARRY,
                officer=first,
                now_ms=now_ms,
            )
        async with self.database.transaction() as connection:
            await approve_statement(
                Site.alone(connection), self.desk, closure_id, officer=second, now_ms=now_ms
            )

    async def _officers(self, connection: Connection, *, now_ms: int) -> tuple[Officer, Officer]:
        """Two of them."""
        found = await list_officers(connection)
        for name in () if found else ("first", "second"):
            made = await add_officer(
                connection,
                name=name,
                roles=tuple(Role),
                token=new_token(self.desk.random),
                actor="world",
                now_ms=now_ms,
            )
            found.append(made)
        return found[0], found[1]

    # ---- enrolling ------------------------------------------------------------------------
    async def admit(self, box: Box, *, now_ms: int) -> None:
        """Enrol a gateway or a device, and open its journal."""
        async with self.database.transaction() as connection:
            token = await add_gateway(
                connection,
                self.desk,
                name=box.name,
                currency=CURRENCY,
                tiers=[policies.DEVICE_CUSTOMER],
                actor="world",
                now_ms=now_ms,
            )
            await set_demand(
                connection,
                token,
                level=Level.SOFTWARE,
                pcr_policy="firmware",
                actor="world",
                now_ms=now_ms,
            )
            made = await enrol_attested(
                connection,
                self.desk,
                _wanted(box, token),
                Claimed(driver=None, proof=None),
                None,
                now_ms=now_ms,
            )
            common = await lacking(connection, CURRENCY, {}, bytes_max=OBJECTS_BYTES_MAX)
            objects = [*common.first, *common.later]
        box.anchor = self.anchor
        await box.create(made.chain, objects)

    async def enrol(self, box: Box, key: PublicKey, *, now_ms: int) -> None:
        """A wallet in a journal; it travels at the next exchange."""
        async with self.database.transaction() as connection:
            await enrol_wallet(
                connection,
                self.desk,
                await find_gateway(connection, box.id),
                key=key,
                tier=policies.DEVICE_CUSTOMER,
                label=None,
                actor="world",
                now_ms=now_ms,
            )

    async def fund(self, box: Box, wallet: bytes, amount: int, *, now_ms: int) -> None:
        """Value of the bank for a wallet; it travels likewise."""
        self._fundings += 1
        request = FundingRequest(
            funding_id=self._fundings.to_bytes(32, "big"),
            wallet="bank",
            journal=box.id,
            epoch=1,
            offline_wallet=wallet,
            amount=amount,
        )
        async with self.database.transaction() as connection:
            await hold(connection, request, now_ms=now_ms)


async def _fill_bank(connection: Connection, *, now_ms: int) -> None:
    await open_wallet(connection, "bank", holder="bank", currency=CURRENCY, now_ms=now_ms)
    bank = await find_wallet(connection, "bank")
    numbers = await ensure_accounts(connection, [issuance(CURRENCY)])
    transfer = Transfer(
        identity=bytes(32),
        debit=numbers[issuance(CURRENCY).name],
        credit=bank.account_id,
        amount=SUPPLY,
        currency=CURRENCY,
        kind=TransferKind.ISSUE,
        created_ms=now_ms,
    )
    await post(connection, [transfer])


def _wanted(box: Box, token: str) -> Wanted:
    """What a new box shows. Its TLS key is the seed's too."""
    key = box.token.key
    number = int.from_bytes(hashlib.sha256(key.public.raw).digest(), "big") >> 8
    tls = ec.derive_private_key(number, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, box.name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(tls, hashes.SHA256())
    return Wanted(
        token=token,
        algorithm=key.algorithm,
        public_key=key.public.raw,
        proof=key.sign(PROOF_CONTEXT + hashlib.sha256(token.encode()).digest()),
        csr_pem=csr.public_bytes(Encoding.PEM).decode(),
        hpke_key=box.hpke.public_key().public_bytes_raw(),
        hosted_tier=None,
    )
