"""The journal of one device: what the rest of the gateway calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hsm.api import HsmError, Token
from wallet.clock import Clock, FlooredClock
from wallet.faults import NO_FAULTS, Faults, Point
from wallet.journal.engine import Engine, Waiting, Work
from wallet.journal.errors import JournalTampered
from wallet.journal.head import check_driver, load_window, rolled_back, seen, store_chain
from wallet.journal.lookups import Lookups
from wallet.journal.opening import engine_of, write_opening
from wallet.journal.recovery import Progress, keep_list, recover
from wallet.journal.signatures import check_signatures
from wallet.journal.status import status_of
from wallet.journal.trust import NO_FACTS, Facts
from wallet.journal.values import Event, JournalStatus, Listener, Mode, Receipted
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import EntryKind, Open, Payment, Void, decode_note
from wallet.protocol.issued import Settlement
from wallet.protocol.lists import SignedList
from wallet.protocol.messages import decode_order, decode_request
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code, ProtocolError, Refusal, refuse
from wallet.protocol.rules import Proposal
from wallet.store.acknowledged import keep_acknowledged, load_acknowledged
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreError
from wallet.verifier import Verifier

_PAYMENTS = frozenset(
    (EntryKind.PAY, EntryKind.TRANSFER_OUT, EntryKind.TRANSFER_IN, EntryKind.DEFUND)
)
_SETTLEMENT = int(EntryKind.SETTLEMENT)
# Asked for at every payment, where a member of an enum costs ten times what a global does.
_OPEN, _CERTIFICATE_GRACE_S = Mode.OPEN, JournalLimit.CERTIFICATE_GRACE_S


class Journal(Lookups):
    """One open epoch of one journal. `open` makes it, `close` ends it."""

    def __init__(
        self,
        *,
        engine: Engine,
        token: Token,
        anchor: TrustAnchor,
        clock: FlooredClock,
        acknowledged: int,
        verifier: Verifier,
    ) -> None:
        super().__init__(engine, acknowledged=acknowledged)
        self._token = token
        self.anchor = anchor
        self._clock = clock
        self._verifier = verifier
        self._listeners: list[Listener] = []
        engine.on_entries = self._entries_written
        engine.on_mode = self._mode_changed

    @classmethod
    async def open(
        cls,
        *,
        database: Database,
        token: Token,
        clock: Clock,
        anchor: TrustAnchor,
        progress: Progress = lambda done, size: None,
        verifying_processes: int = 0,
        faults: Faults = NO_FAULTS,
    ) -> Journal:
        """Rebuild the state and serve.

        `verifying_processes`: how many processes beside this one check wallets' signatures.
        A store that is older than the hardware counter opens `frozen-rollback`: it can be looked
        at, and takes nothing. Raises: JournalTampered, JournalUnopened, StoreError, HsmError.
        """
        found = await recover(database, anchor, progress=progress)
        check_driver(found.window, token.counter)
        hardware = await token.counter.read()
        acknowledged = await database.read(load_acknowledged)
        try:
            engine = engine_of(database, token, clock, anchor, found, faults)
        except ProtocolError as error:
            # A copy beside another token, or certificates that were exchanged.
            raise JournalTampered(f"the journal's certificate: {error}") from error
        journal = cls(
            engine=engine,
            token=token,
            anchor=anchor,
            clock=engine.clock,
            acknowledged=acknowledged,
            verifier=Verifier(processes=verifying_processes),
        )
        if rolled_back(found.window, hardware=hardware, size=found.frontier.size):
            engine.set_mode(Mode.FROZEN_ROLLBACK)
        else:
            await journal._sign_head(hardware)
        engine.start()
        return journal

    @classmethod
    async def create(
        cls,
        *,
        database: Database,
        token: Token,
        clock: Clock,
        anchor: TrustAnchor,
        chain: Chain,
        opening: Open,
        faults: Faults = NO_FAULTS,
    ) -> Journal:
        """Open an epoch in an empty store: its first entry, its certificates, the counter's value.

        Raises: ProtocolError when the issuer's objects do not hold, OutOfOrder when the store
        holds a journal already, and as `open` does.
        """
        await write_opening(
            database=database,
            token=token,
            clock=clock,
            anchor=anchor,
            chain=chain,
            opening=opening,
            faults=faults,
        )
        return await cls.open(
            database=database, token=token, clock=clock, anchor=anchor, faults=faults
        )

    async def _sign_head(self, hardware: int) -> None:
        """A checkpoint of all that is recorded, in a window of its own."""
        engine = self._engine
        engine.head.counter = hardware
        await self._database.write(engine.write_intent)
        if await engine.sign(engine.frontier.root(), window=True) is not None:
            engine.set_mode(Mode.OPEN)
            engine.follow_issuer()

    async def close(self) -> None:
        """Finish what waits and leave a snapshot. The database stays open."""
        try:
            await self._engine.close()
        finally:
            await self._verifier.close()

    # ---- what it is -----------------------------------------------------------------------
    @property
    def mode(self) -> Mode:
        """What the journal can do now."""
        return self._engine.mode

    @property
    def chain(self) -> Chain:
        """The journal's certificates, leaf first."""
        return self._engine.head.chain

    def now(self) -> tuple[int, int]:
        """(time in milliseconds that the next entry may bear, SURE or UNCERTAIN)."""
        now_ms, certainty = self._clock.read()
        return max(now_ms, self.state.time_ms), certainty

    def status(self) -> JournalStatus:
        """The journal at a glance."""
        return status_of(self._engine, self._token.counter, acknowledged=self.acknowledged)

    def listen(self, listener: Listener) -> None:
        """Be told of accepted payments, settlements and changes of mode."""
        self._listeners.append(listener)

    def _tell(self, name: str, **data: object) -> None:
        for listener in self._listeners:
            listener(Event(name=name, data=data))

    def _mode_changed(self, mode: Mode) -> None:
        self._tell("gateway.frozen" if mode is not Mode.OPEN else "gateway.open", mode=str(mode))

    def _entries_written(self, receipted: Sequence[Receipted]) -> None:
        if not self._listeners:
            return
        for made in receipted:
            if made.kind in _PAYMENTS:
                self._tell("payment.accepted", index=made.index, id=made.leaf.hex())
            if made.soft:
                self._tell("limit.soft", index=made.index, limits=list(made.soft))
            if made.kind == _SETTLEMENT:
                self._tell("payment.settled", below=self.state.settled_size)

    def freeze(self) -> None:
        """Take nothing more: somebody opened the box. What is being committed gets its receipt."""
        self._engine.set_mode(Mode.FROZEN_TAMPER)

    # ---- proposals ------------------------------------------------------------------------
    async def pay(self, order: bytes, request: bytes | None = None) -> Receipted | Refusal:
        """Accept a signed order. A known one gets its receipt again."""
        try:
            payment = Payment(
                order=decode_order(order),
                request=None if request is None else decode_request(request),
            )
        except ProtocolError as error:
            return error.refusal()
        return await self.pay_decoded(payment)

    async def pay_decoded(
        self, payment: Payment, *, with_commit: Work | None = None
    ) -> Receipted | Refusal:
        """`pay` for who has decoded the order already."""
        named = payment.order.refunded
        refundable = None if named is None else await self._refundable(named)
        outcome: Receipted | Refusal | None = self._refused(payment)
        if outcome is None:
            future: asyncio.Future[Receipted | Refusal] = asyncio.get_running_loop().create_future()

            def queue(trusted: tuple[Sign1, ...]) -> None:
                facts = Facts(trusted=trusted, refundable=refundable)
                self._engine.submit(Waiting(payment, future, facts, with_commit))

            check_signatures(self._verifier, self.state.wallets, payment, queue)
            outcome = await future
        if isinstance(outcome, Refusal):
            return await self._known(payment.order.identity) or outcome
        return outcome

    async def redeem(self, entry: bytes, receipt: bytes) -> Receipted | Refusal:
        """Redeem a note: `transfer-in`. A note redeemed here gets its receipt again."""
        try:
            note = decode_note(entry, receipt)
        except ProtocolError as error:
            return error.refusal()
        outcome = await self.submit(note)
        if isinstance(outcome, Refusal) and outcome.code is Code.NOTE_REDEEMED:
            return await self._known(note.order.identity) or outcome
        return outcome

    async def void(self, request: bytes) -> Receipted | Refusal:
        """Make a request of a payee here unpayable."""
        try:
            return await self.submit(Void(request=decode_request(request)))
        except ProtocolError as error:
            return error.refusal()

    async def take_list(self, listed: SignedList) -> Receipted | Refusal:
        """Hold a newer list; the signed list itself is stored with the entry."""
        return await self.submit(listed, with_commit=lambda c: keep_list(c, listed))

    async def settle(self, settlement: Settlement) -> Receipted | Refusal:
        """Record the issuer's settlement."""
        if not 0 < settlement.size <= self._engine.frontier.size:
            return refuse(Code.PROOF_INVALID, "a settlement of a size that this journal never had")
        root = await self.root_at(settlement.size)
        outcome = await self.submit(settlement, facts=Facts(root=root))
        # Only what the issuer did sign is a signed time.
        if isinstance(outcome, Receipted):
            self._clock.raise_floor(settlement.time_ms)
        return outcome

    async def submit(
        self, proposal: Proposal, *, facts: Facts = NO_FACTS, with_commit: Work | None = None
    ) -> Receipted | Refusal:
        """Have a proposal decided and, if it is accepted, stored and receipted."""
        refused = self._refused(proposal)
        if refused is not None:
            return refused
        future: asyncio.Future[Receipted | Refusal] = asyncio.get_running_loop().create_future()
        self._engine.submit(Waiting(proposal, future, facts, with_commit))
        return await future

    def _refused(self, proposal: Proposal) -> Refusal | None:
        """Why nothing is taken now.

        A journal whose certificate has expired for longer than the grace takes nothing: nobody
        could verify its receipts.
        """
        if self.mode is not _OPEN and not self._thaws(proposal):
            return refuse(Code(self.mode.value))
        if self._certificate_expired():
            return refuse(Code.CERTIFICATE_INVALID, "this journal's own certificate has expired")
        return None

    def _thaws(self, proposal: Proposal) -> bool:
        """A gateway that the issuer froze still takes the issuer's settlements and lists."""
        return self.mode is Mode.FROZEN_BY_ISSUER and isinstance(proposal, Settlement | SignedList)

    def _certificate_expired(self) -> bool:
        grace_s = self.state.journal_limit(_CERTIFICATE_GRACE_S)
        if grace_s is None:
            return False
        return self._clock.read()[0] > (self._engine.head.not_after_s + grace_s) * 1000

    async def resume(self) -> Mode:
        """The token is back: sign what was recorded meanwhile and go on, if nothing was moved.

        Raises: HsmError while it is not, StoreError.
        """
        async with self._engine.turn:
            if self.mode is not Mode.SEALED:
                return self.mode
            await self._token.probe()
            hardware = await self._token.counter.read()
            window = await self._database.read(load_window)
            known = seen(window, self._engine.head.counter)
            if rolled_back(known, hardware=hardware, size=self.state.size):
                self._engine.set_mode(Mode.FROZEN_ROLLBACK)
            else:
                await self._sign_head(hardware)
            return self.mode

    async def probe(self) -> None:
        """Ask the token; one that is gone seals the journal, one that is back opens it."""
        try:
            if self.mode is Mode.SEALED:
                await self.resume()
            else:
                await self._token.probe()
        except (HsmError, StoreError):
            if self.mode is Mode.OPEN:
                self._engine.set_mode(Mode.SEALED)

    # ---- synchronisation ------------------------------------------------------------------
    async def acknowledge(self, size: int) -> None:
        """The issuer holds the entries below `size`."""
        if self.acknowledged <= size <= self._engine.frontier.size:
            await self._keep_acknowledged(size)

    async def go_back(self, size: int) -> None:
        """The issuer has lost the entries from `size` on, below what it had acknowledged.

        This is the safe direction: whoever asks what is acknowledged waits longer.
        """
        if 0 <= size < self.acknowledged:
            await self._keep_acknowledged(size)

    async def _keep_acknowledged(self, size: int) -> None:
        faults = self._engine.faults
        faults.at(Point.BEFORE_ACKNOWLEDGEMENT)
        await self._database.write(lambda c: keep_acknowledged(c, size, faults=faults))
        faults.at(Point.ACKNOWLEDGED)
        self.acknowledged = size

    async def renew(self, chain: Chain) -> None:
        """Use a renewed certificate of this journal, epoch and key.

        Raises: ProtocolError `certificate-invalid`, StoreError.
        """
        head, journal, epoch = self._engine.head, self.state.journal, self.state.epoch
        head.check_chain(chain, journal=journal, epoch=epoch)
        at = self._engine.faults.at

        def store(connection: Connection) -> None:
            store_chain(connection, chain)
            at(Point.CERTIFICATES_WRITTEN)

        at(Point.BEFORE_RENEWAL)
        await self._database.write(store)
        at(Point.RENEWED)
        head.set_chain(chain, journal=journal, epoch=epoch)
