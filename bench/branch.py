"""A journal with wallets and signed orders, for benchmarks."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from hsm import software
from hsm.api import Signer, Token
from hsm.curves import UNCOMPRESSED
from hsm.keyfile import LIGHT
from tests.support.live_issuer import LiveIssuer
from wallet.clock import SystemClock
from wallet.journal import Journal, Receipted
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.cose import ORDER_TYPE, assemble
from wallet.protocol.entry import Open
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import (
    SETTLEMENT_TYPE,
    decode_enrolment,
    decode_grant,
    decode_policy,
    decode_settlement,
)
from wallet.protocol.keys import EDDSA, from_raw
from wallet.protocol.messages import order_payload, to_sign
from wallet.protocol.refusals import Refusal
from wallet.store.database import Database

WALLETS = 200
FUNDED_MINOR = 10**10
DAY_MS = 86_400_000
# Limits that are checked at every payment and not reached.
TIER = {1: 10**6, 2: 1, 4: 10**11, 6: 10**11, 8: 10**9, 10: 10**11, 11: 10**9, 12: 10**11}
JOURNAL = {102: 10**12, 104: 10**9, 105: 10**6, 106: 86_400, 116: 86_400, 118: 86_400}
PASSPHRASE = b"bench"

MakeToken = Callable[[Path], Awaitable[Token]]


async def software_token(folder: Path) -> Token:
    """New keys in a file of this folder."""
    return await software.create(folder, passphrase=PASSPHRASE, cost=LIGHT)


class Purse:
    """A device wallet: a key, and the sequence of its next order."""

    def __init__(self, number: int) -> None:
        public, self._secret = crypto_sign_seed_keypair(number.to_bytes(32, "big"))
        self.key = from_raw(EDDSA, public)
        self.raw = public
        self.sequence = 0

    def order(
        self, payee: bytes, *, journal: JournalId, payee_journal: JournalId, amount: int = 100
    ) -> bytes:
        """The next order of this wallet."""
        now_ms = time.time_ns() // 1_000_000
        payload = order_payload(
            payer=self.key.id,
            sequence=self.sequence,
            payee=payee,
            payee_journal=payee_journal,
            amount_minor=amount,
            currency="EUR",
            created_ms=now_ms,
            expires_ms=now_ms + DAY_MS,
            kind=0,
            authorisation=0,
            payer_journal=journal,
            payer_epoch=1,
        )
        self.sequence += 1
        protected, message = to_sign(self.key, ORDER_TYPE, payload)
        return assemble(protected, payload, crypto_sign(message, self._secret)[:64])


class Bench:
    """An open journal, its issuer and its wallets."""

    def __init__(self, folder: Path, issuer: LiveIssuer) -> None:
        self.folder = folder
        self.issuer = issuer
        self.anchor = TrustAnchor(issuer.root)
        self.purses = [Purse(number) for number in range(1, WALLETS + 1)]
        self.grants: list[tuple[bytes, bytes]] = []
        self.token: Token
        self.database: Database
        self.journal: Journal

    async def create(self, make_token: MakeToken = software_token) -> None:
        """A new journal with funded wallets."""
        self.token = await make_token(self.folder / "token")
        signer = self.token.signer
        key = from_raw(int(signer.algorithm), signer.public_key)
        self.database = await Database.open(self.folder / "store.db", key=b"\x05" * 32)
        leaf = self.issuer.leaf(_certifiable(signer), key.id)
        policy = decode_policy(self.issuer.policy({1: TIER}, JOURNAL))
        self.journal = await Journal.create(
            database=self.database,
            token=self.token,
            clock=SystemClock(),
            anchor=self.anchor,
            chain=(leaf, self.issuer.sub),
            opening=Open(journal=JournalId(key.id), epoch=1, currency="EUR", policy=policy),
        )
        for number, purse in enumerate(self.purses):
            await self._fund(number, purse)

    async def _fund(self, number: int, purse: Purse) -> None:
        journal = self.journal.state.journal
        enrolment = self.issuer.enrolment(journal, purse.key)
        grant = self.issuer.grant(journal, purse.key.id, FUNDED_MINOR, sequence=number)
        self.grants.append((purse.key.id, grant))
        taken(await self.journal.submit(decode_enrolment(enrolment)))
        taken(await self.journal.submit(decode_grant(grant)))

    async def reopen(self) -> None:
        """Open what is in the folder."""
        self.token = await software.open_token(self.folder / "token", passphrase=PASSPHRASE)
        self.database = await Database.open(self.folder / "store.db", key=b"\x05" * 32)
        self.journal = await Journal.open(
            database=self.database, token=self.token, clock=SystemClock(), anchor=self.anchor
        )

    async def close(self) -> None:
        """Let go of it."""
        await self.journal.close()
        await self.database.close()
        await self.token.close()

    def orders(self, count: int, *, payee: int | None = None) -> list[bytes]:
        """Signed orders between the wallets, each wallet's in sequence.

        `payee`: the number of the one wallet that all others pay; otherwise all are paid.
        """
        journal, purses = self.journal.state.journal, self.purses
        made = []
        for number in range(count):
            payer = purses[number % WALLETS]
            paid = purses[(number * 7 + 3) % WALLETS if payee is None else payee]
            if paid is payer:
                paid = purses[(number + 1) % WALLETS]
            made.append(payer.order(paid.key.id, journal=journal, payee_journal=journal))
        return made

    async def settle(self) -> None:
        """The issuer's settlement of all that there is."""
        state = self.journal.state
        root = await self.journal.root_at(state.size)
        claims = {2: state.journal, 3: 1, 4: state.size, 5: root, 6: [], 7: state.time_ms}
        raw = self.issuer.issue(SETTLEMENT_TYPE, claims)
        taken(await self.journal.settle(decode_settlement(raw)))
        await self.journal.acknowledge(state.size)


def _certifiable(signer: Signer) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
    """The key as certificates take it."""
    if int(signer.algorithm) == EDDSA:
        return Ed25519PublicKey.from_public_bytes(signer.public_key)
    point = UNCOMPRESSED + signer.public_key
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def taken(outcome: Receipted | Refusal) -> Receipted:
    """The receipt. Raises: RuntimeError for a refusal, which no benchmark expects."""
    if isinstance(outcome, Refusal):
        raise RuntimeError(f"refused: {outcome.code} {outcome.detail}")
    return outcome


@contextlib.asynccontextmanager
async def bench_journal(
    make_token: MakeToken = software_token, *, issuer: LiveIssuer | None = None
) -> AsyncIterator[Bench]:
    """A fresh journal in a folder of its own, which goes at the end; of a new issuer, or of one."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as folder:
        bench = Bench(Path(folder), issuer or LiveIssuer())
        await bench.create(make_token)
        try:
            yield bench
        finally:
            await bench.close()
