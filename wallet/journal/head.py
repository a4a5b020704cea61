"""The signed head of a journal: one signature a batch, under the hardware counter's window.

protocol.md, "The hardware counter": the intent is written, the counter moves, then we sign.
"""

from __future__ import annotations

import msgspec

from hsm.api import Counter, CounterReplaced, Signer
from wallet.clock import Clock
from wallet.protocol.certificates import Chain, JournalCertificate, TrustAnchor, journal_chain
from wallet.protocol.checkpoint import (
    ReceiptMaker,
    assemble_checkpoint,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.keys import PublicKey, from_raw
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.state import State
from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta

_COUNTER = "counter"
_INTENT = "counter-intent"
_DRIVER = "counter-driver"
_CHAIN = "chain"


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint and all that its receipts share.

    `chain` was valid when it was signed; one that was renewed later need not have been.
    """

    chain: Chain
    size: int
    root: bytes
    protected: bytes
    signature: bytes
    checkpoint: bytes


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The counter's window as the store knows it. `intent` is 0 when none is written.

    `intent_size`: the journal's size with the batch that the intent was written with. `driver`: who
    counted; empty in a store of an earlier release, until its next window.
    """

    counter: int
    intent: int
    intent_size: int = 0
    driver: str = ""


def load_window(connection: Connection) -> Window:
    """The counter's value and intent as the store has them."""
    intent, _, size = (get_meta(connection, _INTENT) or b"0").partition(b" ")
    return Window(
        counter=int(get_meta(connection, _COUNTER) or b"0"),
        intent=int(intent),
        intent_size=int(size or b"0"),
        driver=(get_meta(connection, _DRIVER) or b"").decode(),
    )


def seen(window: Window, counter: int) -> Window:
    """The window of a store that holds, or once gave out, a checkpoint of this counter."""
    return msgspec.structs.replace(window, counter=max(window.counter, counter))


def check_driver(window: Window, counter: Counter) -> None:
    """That the counter is of the kind that this journal was counted by.

    A file that counts, put beside an older store in the place of the token's counter, would fit it.
    Raises: CounterReplaced.
    """
    if window.driver and window.driver != counter.driver:
        raise CounterReplaced(
            f"the journal was counted by {window.driver}, and {counter.driver} is in its place"
        )


def start_window(connection: Connection, counter: int, *, driver: str) -> None:
    """A new journal begins with what the counter shows."""
    put_meta(connection, _DRIVER, driver.encode())
    put_meta(connection, _COUNTER, str(counter).encode())
    put_meta(connection, _INTENT, b"0")


def rolled_back(window: Window, *, hardware: int, size: int) -> bool:
    """Whether the store is older than the hardware's counter, or from another box.

    `size`: of the journal in the store. A disk that lies may keep the page with the intent and lose
    those with the entries of its batch, or of batches before: each page is genuine.
    """
    if size < window.intent_size:
        return True
    if hardware == window.counter:
        return False
    return not (hardware == window.counter + 1 and window.intent == hardware)


def load_chain(connection: Connection) -> Chain:
    """The journal's own certificates, leaf first; empty before provisioning."""
    stored = get_meta(connection, _CHAIN)
    return () if stored is None else tuple(msgspec.msgpack.decode(stored, type=list[bytes]))


def store_chain(connection: Connection, chain: Chain) -> None:
    """Keep the journal's certificates."""
    put_meta(connection, _CHAIN, msgspec.msgpack.encode(list(chain)))


def key_of(signer: Signer) -> PublicKey:
    """The token's key as the protocol has it."""
    return from_raw(int(signer.algorithm), signer.public_key)


def own_certificate(
    chain: Chain, anchor: TrustAnchor, signer: Signer, *, journal: bytes, epoch: int
) -> JournalCertificate:
    """The certificate of this journal, epoch and key. Raises: `certificate-invalid`."""
    certificate, key = journal_chain(chain, anchor), key_of(signer)
    if (certificate.journal, certificate.epoch, certificate.key) != (journal, epoch, key):
        raise ProtocolError(Code.CERTIFICATE_INVALID, "for another journal, epoch or key")
    return certificate


class Head:
    """Signs checkpoints of one journal."""

    def __init__(
        self,
        *,
        signer: Signer,
        counter: Counter,
        clock: Clock,
        anchor: TrustAnchor,
        journal: bytes,
        epoch: int,
        chain: Chain,
        window: Window,
    ) -> None:
        self._signer = signer
        self._counter = counter
        self._clock = clock
        self._anchor = anchor
        self.key = key_of(signer)
        self.chain: Chain = ()
        self.not_before_s = self.not_after_s = 0
        self.set_chain(chain, journal=journal, epoch=epoch)
        self.counter = window.counter
        # How long the token took for its last signature.
        self.signing_ms = 0
        self._opened_size: int | None = None
        self._opened_ms = 0

    def check_chain(self, chain: Chain, *, journal: bytes, epoch: int) -> JournalCertificate:
        """That it certifies this journal, epoch and key. Raises: `certificate-invalid`."""
        return own_certificate(chain, self._anchor, self._signer, journal=journal, epoch=epoch)

    def set_chain(self, chain: Chain, *, journal: bytes, epoch: int) -> None:
        """Use these certificates from now on. Raises: ProtocolError `certificate-invalid`."""
        certificate = self.check_chain(chain, journal=journal, epoch=epoch)
        self.chain, self.not_after_s = chain, certificate.not_after_s
        self.not_before_s = certificate.not_before_s

    def window_is_due(self, state: State) -> bool:
        """Whether the next checkpoint begins a new window (policy 105 and 106)."""
        if self._opened_size is None:
            return True
        entries = state.journal_limit(JournalLimit.WINDOW_ENTRIES)
        seconds = state.journal_limit(JournalLimit.WINDOW_S)
        old_ms = self._clock.monotonic_ms() - self._opened_ms
        many = entries is not None and state.size - self._opened_size >= entries
        return many or (seconds is not None and old_ms >= seconds * 1000)

    @property
    def window_start(self) -> int:
        """Size at which the window began: what a rollback could hide lies above it."""
        return 0 if self._opened_size is None else self._opened_size

    def write_intent(self, connection: Connection, *, size: int) -> None:
        """In the batch's transaction: the value that the counter is about to take."""
        put_meta(connection, _DRIVER, self._counter.driver.encode())
        put_meta(connection, _COUNTER, str(self.counter).encode())
        put_meta(connection, _INTENT, b"%d %d" % (self.counter + 1, size))

    async def move(self, size: int) -> None:
        """Begin a window, after the intent is durable. Raises: HsmError."""
        self.counter = await self._counter.increment()
        self._opened_size, self._opened_ms = size, self._clock.monotonic_ms()

    async def sign(self, state: State, *, root: bytes) -> SignedHead:
        """The checkpoint of the state's size. Raises: HsmError."""
        chain, size = self.chain, state.size
        protected = checkpoint_protected(
            self.key,
            journal=state.journal,
            epoch=state.epoch,
            size=size,
            counter=self.counter,
            # The last entry may be older than the leaf, or the clock behind it.
            issued_s=max(-(-state.time_ms // 1000), self.not_before_s),
        )
        begun_ms = self._clock.monotonic_ms()
        signature = await self._signer.sign(checkpoint_signed_bytes(protected, root))
        self.signing_ms = self._clock.monotonic_ms() - begun_ms
        return SignedHead(
            chain=chain,
            size=size,
            root=root,
            protected=protected,
            signature=signature,
            checkpoint=assemble_checkpoint(protected, chain, root=root, signature=signature),
        )

    def maker(self, signed: SignedHead) -> ReceiptMaker:
        """What makes the receipts under a checkpoint."""
        return ReceiptMaker(
            signed.protected, signed.chain, size=signed.size, signature=signed.signature
        )
