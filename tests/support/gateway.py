"""A real journal on a real store, with a token and a clock that tests can make fail."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.pos.purse import DeviceKey
from hsm import software
from hsm.api import Algorithm, TokenGone
from tests.support.live_issuer import LiveIssuer
from tests.support.tokens import FEEBLE
from wallet.faults import NO_FAULTS, Faults
from wallet.journal import Journal, Mode, Receipted
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Open
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.issued import (
    SETTLEMENT_TYPE,
    decode_enrolment,
    decode_grant,
    decode_list,
    decode_policy,
    decode_settlement,
)
from wallet.protocol.keys import EDDSA, from_raw
from wallet.protocol.receipt import NOTHING_REVOKED, VerifiedReceipt, verify_receipt
from wallet.protocol.refusals import Code, Refusal
from wallet.store.database import Database

STORE_KEY = b"\x07" * 32
PASSPHRASE = b"of a test"
FUNDED_MINOR = 1_000_000
DAY_MS = 86_400_000


class SetClock:
    """A clock that stands until it is moved; it starts at the issuer's time."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms
        self.steady_ms = 0

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self.wall_ms

    def monotonic_ms(self) -> int:
        """Milliseconds that never fall."""
        return self.steady_ms


class FragileToken:
    """A software token that refuses when told to. `before_*` run first, and may raise."""

    driver = "software"
    algorithm = Algorithm.EDDSA

    def __init__(self, inner: software.SoftwareToken) -> None:
        self.inner = inner
        self.signer = self
        self.counter = self
        self.sealer = inner.sealer
        self.public_key = inner.signer.public_key
        self.gone = False
        self.before_sign: Callable[[], None] = lambda: None
        self.after_sign: Callable[[], None] = lambda: None
        self.gate: asyncio.Event | None = None
        self.signing = asyncio.Event()
        self.signed = 0

    def _check(self) -> None:
        if self.gone:
            raise TokenGone("pulled out")

    async def sign(self, message: bytes) -> bytes:
        """As the token does, when it is there."""
        self.signing.set()
        if self.gate is not None:
            await self.gate.wait()
        self._check()
        self.before_sign()
        signature = await self.inner.signer.sign(message)
        self.signed += 1
        self.after_sign()
        return signature

    async def read(self) -> int:
        """The counter."""
        self._check()
        return await self.inner.counter.read()

    async def increment(self) -> int:
        """The counter, one on."""
        self._check()
        return await self.inner.counter.increment()

    async def probe(self) -> None:
        """Whether it is there."""
        self._check()
        await self.inner.probe()

    async def close(self) -> None:
        """For good."""
        await self.inner.close()


class Gateway:
    """A journal in a folder: `token/` and `store.db`."""

    token: FragileToken
    database: Database
    journal: Journal

    def __init__(self, folder: Path, issuer: LiveIssuer | None = None) -> None:
        self.folder = folder
        self.issuer = issuer or LiveIssuer()
        self.anchor = TrustAnchor(self.issuer.root)
        self.clock = SetClock(self.issuer.now_s * 1000)
        self.keys = [DeviceKey(number.to_bytes(32, "big")) for number in (1, 2, 3)]
        self.sequences: dict[bytes, int] = {}

    # ---- life -----------------------------------------------------------------------------
    async def create(
        self,
        tiers: dict[int, dict[int, int]] | None = None,
        limits: dict[int, int] | None = None,
    ) -> None:
        """A new journal with three funded wallets."""
        token = await software.create(self.folder / "token", passphrase=PASSPHRASE, cost=FEEBLE)
        self.token = FragileToken(token)
        self.database = await Database.open(self.folder / "store.db", key=STORE_KEY)
        await self.begin(tiers, limits)
        await self.fund()

    async def begin(
        self,
        tiers: dict[int, dict[int, int]] | None = None,
        limits: dict[int, int] | None = None,
        *,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """The first epoch, in a store that is open and empty."""
        key = from_raw(EDDSA, self.token.public_key)
        self.journal = await Journal.create(
            database=self.database,
            token=self.token,
            clock=self.clock,
            anchor=self.anchor,
            chain=self.chain(),
            opening=Open(
                journal=JournalId(key.id),
                epoch=1,
                currency="EUR",
                policy=decode_policy(self.issuer.policy(tiers or {1: {}}, limits)),
            ),
            faults=faults,
        )

    async def fund(self) -> None:
        """Three wallets with money."""
        for number, wallet in enumerate(self.keys):
            await self.enrol(wallet.public, sequence=number)

    async def enrol(self, key: Any, *, sequence: int, amount: int = FUNDED_MINOR) -> None:
        """A wallet with money."""
        journal = self.journal.state.journal
        enrolment = self.issuer.enrolment(journal, key)
        taken(await self.journal.submit(decode_enrolment(enrolment)))
        grant = self.issuer.grant(journal, key.id, amount, sequence=sequence)
        taken(await self.journal.submit(decode_grant(grant)))

    def chain(self, **changes: Any) -> tuple[bytes, bytes]:
        """Certificates of the token's key."""
        key = from_raw(EDDSA, self.token.public_key)
        names: dict[str, Any] = {"journal": key.id, "epoch": 1, "days": 14} | changes
        raw = names.pop("raw", key.raw)
        public = Ed25519PublicKey.from_public_bytes(raw)
        return self.issuer.leaf(public, **names), self.issuer.sub

    async def open(
        self,
        *,
        database: bool = True,
        verifying_processes: int = 0,
        faults: Faults = NO_FAULTS,
    ) -> Journal:
        """Open what the folder holds."""
        if database:
            self.database = await Database.open(self.folder / "store.db", key=STORE_KEY)
        self.journal = await Journal.open(
            database=self.database,
            token=self.token,
            clock=self.clock,
            anchor=self.anchor,
            verifying_processes=verifying_processes,
            faults=faults,
        )
        return self.journal

    async def crash(self) -> None:
        """Let the store go without a snapshot, as when the power fails."""
        serving = self.journal._engine._task
        serving.cancel()
        await asyncio.wait([serving])
        await self.database.close()

    async def reopen(
        self, *, crash: bool = False, verifying_processes: int = 0, faults: Faults = NO_FAULTS
    ) -> Journal:
        """Stop and start."""
        if not crash:
            await self.journal.close()
        await self.crash()
        return await self.open(verifying_processes=verifying_processes, faults=faults)

    async def close(self) -> None:
        """Let go of it all."""
        with contextlib.suppress(AttributeError):
            await self.journal.close()
        await self.database.close()
        await self.token.close()

    # ---- payments -------------------------------------------------------------------------
    def wallet(self, number: int) -> WalletId:
        """The identifier of a wallet."""
        return WalletId(self.keys[number].public.id)

    def order(self, payer: int = 0, payee: int | bytes = 1, **changes: Any) -> bytes:
        """The next order of a wallet, to another one or to a stranger."""
        key = self.keys[payer]
        state = self.journal.state
        sequence = self.sequences.get(key.public.id, 0)
        claims = {
            "sequence": sequence,
            "payee": self.wallet(payee) if isinstance(payee, int) else payee,
            "payee_journal": state.journal,
            "amount_minor": 100,
            "currency": "EUR",
            "created_ms": self.clock.wall_ms,
            "expires_ms": self.clock.wall_ms + DAY_MS,
            "kind": 0,
            "authorisation": 0,
            "payer_journal": state.journal,
            "payer_epoch": 1,
        } | changes
        if "sequence" not in changes:
            self.sequences[key.public.id] = sequence + 1
        return key.sign_order(**claims)

    async def pay(self, payer: int = 0, payee: int | bytes = 1, **changes: Any) -> Receipted:
        """A payment that is expected to pass."""
        return taken(await self.journal.pay(self.order(payer, payee, **changes)))

    async def take_list(self, list_id: int, content: Any, *, sequence: int) -> Receipted | Refusal:
        """A list of the issuer."""
        made = self.issuer.list(list_id, content, sequence=sequence)
        return await self.journal.take_list(decode_list(made))

    async def settlement(self, size: int, **changes: Any) -> Any:
        """The issuer's settlement of all below a size."""
        state = self.journal.state
        root = await self.journal.root_at(min(size, state.size)) if size else bytes(32)
        claims = {2: state.journal, 3: 1, 4: size, 5: root, 6: [], 7: self.clock.wall_ms}
        claims |= {int(name[1:]): value for name, value in changes.items()}
        return decode_settlement(self.issuer.issue(SETTLEMENT_TYPE, claims))

    def verified(self, made: Receipted) -> VerifiedReceipt:
        """The receipt as anybody checks it."""
        return verify_receipt(
            made.receipt, made.entry, root=self.anchor, grace_s=0, revoked=NOTHING_REVOKED
        )

    def copy_store(self, to: Path) -> None:
        """The store's files as they are now."""
        to.mkdir(exist_ok=True)
        for path in self.folder.glob("store.db*"):
            shutil.copy2(path, to / path.name)

    def put_back(self, copy: Path) -> None:
        """An older store in the place of this one."""
        for path in self.folder.glob("store.db*"):
            path.unlink()
        for path in copy.iterdir():
            shutil.copy2(path, self.folder / path.name)


def mode_of(box: Gateway) -> Mode:
    """What its journal can do now."""
    return box.journal.mode


def taken(outcome: object) -> Receipted:
    """The receipt, or a failed test."""
    assert isinstance(outcome, Receipted), outcome
    return outcome


def refused(outcome: object) -> Code:
    """The refusal's code, or a failed test."""
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


@contextlib.asynccontextmanager
async def gateway(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """A new journal; closed at the end."""
    made = Gateway(folder)
    await made.create(**settings)
    try:
        yield made
    finally:
        await made.close()
