"""Wallets whose key the gateway keeps for their holders: sealed keys, PINs, tries and lock-out.

A wrong PIN is counted before it is looked at, durably: neither a restart nor a power cut gives a
thief another try.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nacl.exceptions
import nacl.pwhash.argon2id

from hsm.api import Token
from hsm.memory import wipe
from hsm.sodium import seed_keypair, sign
from wallet.journal import Journal, Receipted
from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE, assemble
from wallet.protocol.entry import EntryKind, Note, Payment, decode_entry
from wallet.protocol.ids import JournalId, WalletId, wallet_text
from wallet.protocol.keys import EDDSA, PublicKey, from_raw
from wallet.protocol.messages import (
    Authorisation,
    Order,
    OrderKind,
    decode_request,
    order_payload,
    request_payload,
    to_sign,
)
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.state import NEVER
from wallet.store.database import Database
from wallet.store.hosted import HostedWallet, get_hosted, insert_hosted, set_hosted_tries

ORDER_LIFETIME_MS = 7 * 24 * 3_600_000
HASHES_AT_ONCE = 2
_USES = {ORDER_TYPE: "orders", REQUEST_TYPE: "requests"}
_PIN = re.compile(r"[0-9]{4,12}\Z", re.ASCII)
_OPSLIMIT = nacl.pwhash.argon2id.OPSLIMIT_INTERACTIVE
_MEMLIMIT = nacl.pwhash.argon2id.MEMLIMIT_INTERACTIVE


class HostedError(Exception):
    """Root of this module's errors; `code` is stable."""

    code = "hosted-failed"


class PinUnfit(HostedError):
    """A PIN has 4 to 12 digits."""

    code = "pin-unfit"


class _Turn:
    """One at a time for a wallet; it is forgotten when nobody holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class HostedWallets:
    """The hosted wallets of one gateway."""

    def __init__(
        self, *, journal: Journal, database: Database, token: Token, opslimit: int = _OPSLIMIT
    ) -> None:
        self._journal = journal
        self._database = database
        self._token = token
        self._opslimit = opslimit
        # Each hash takes 64 MiB for a moment: a few at once, whatever comes.
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._turns: dict[WalletId, _Turn] = {}
        self._uses: Counter[str] = Counter()

    def take_uses(self) -> dict[str, int]:
        """How often wallets' keys signed `orders` and `requests` since this was asked last."""
        uses, self._uses = dict(self._uses), Counter()
        return uses

    async def create(self, pin: str) -> PublicKey:
        """A new key, sealed by the token; the wallet exists once the issuer has enrolled it.

        Raises: PinUnfit, HsmError, StoreError.
        """
        if not _PIN.match(pin):
            raise PinUnfit("a PIN has 4 to 12 digits")
        seed = secrets.token_bytes(32)
        public, pair = seed_keypair(seed)
        pair.wipe()
        key = from_raw(EDDSA, public)
        hosted = HostedWallet(
            wallet=key.id,
            sealed_key=await self._token.sealer.seal(seed, label=seal_label(key.id)),
            pin_hash=await self._hash(pin),
            tries=0,
            locked_until_ms=0,
            created_ms=self._journal.now()[0],
        )
        wipe(seed)
        await self._database.write(lambda connection: insert_hosted(connection, hosted))
        return key

    async def pay(
        self,
        *,
        wallet: WalletId,
        pin: str | None,
        payee: WalletId,
        payee_journal: JournalId,
        amount_minor: int,
        reference: str | None = None,
        request: bytes | None = None,
        category: str | None = None,
    ) -> Receipted | Refusal:
        """Pay from a hosted wallet. Without a PIN it is authorised by the device alone.

        Raises: HsmError, StoreError, ProtocolError for a request that is none.
        """
        asked = None if request is None else decode_request(request)
        return await self._order(
            wallet,
            pin,
            payee=payee,
            payee_journal=payee_journal,
            amount_minor=amount_minor,
            kind=int(OrderKind.PAY),
            reference=reference,
            request=None if asked is None else asked.identity,
            category=category,
            with_request=request,
        )

    async def refund(
        self,
        *,
        wallet: WalletId,
        pin: str | None,
        payment: bytes,
        amount_minor: int | None = None,
        reference: str | None = None,
    ) -> Receipted | Refusal:
        """Give back a payment, or a part of it, that this wallet received.

        `payment` is its leaf hash. Raises: HsmError, StoreError.
        """
        paid = await self._paid(payment)
        if paid is None:
            return refuse(Code.REFUND_UNKNOWN)
        left = paid.amount_minor - self._journal.state.refunds.get(payment, 0)
        return await self._order(
            wallet,
            pin,
            payee=paid.payer,
            payee_journal=paid.payer_journal,
            amount_minor=max(left, 1) if amount_minor is None else amount_minor,
            kind=int(OrderKind.REFUND),
            reference=reference,
            refunded=payment,
        )

    async def request(
        self,
        *,
        wallet: WalletId,
        amount_minor: int,
        currency: str,
        reference: str | None = None,
        lifetime_ms: int,
    ) -> bytes | Refusal:
        """A signed request of a hosted payee; asking needs no PIN.

        Raises: HsmError, StoreError.
        """
        hosted = await self._database.read(lambda connection: get_hosted(connection, wallet))
        if hosted is None:
            return refuse(Code.UNKNOWN_WALLET, "no hosted wallet")
        now_ms, _ = self._journal.now()
        payload = request_payload(
            nonce=secrets.token_bytes(16),
            payee=wallet,
            payee_journal=self._journal.state.journal,
            amount_minor=amount_minor,
            currency=currency,
            created_ms=now_ms,
            expires_ms=now_ms + lifetime_ms,
            reference=reference,
        )
        return await self._signed(hosted, REQUEST_TYPE, payload)

    # ---- below ----------------------------------------------------------------------------
    async def _paid(self, leaf: bytes) -> Order | None:
        index = await self._journal.find(leaf)
        if index is None:
            return None
        entry = decode_entry((await self._journal.entries(index, 1))[0])
        if entry.kind not in (EntryKind.PAY, EntryKind.TRANSFER_IN):
            return None
        return entry.body.order if isinstance(entry.body, Payment | Note) else None

    async def _order(
        self,
        wallet: WalletId,
        pin: str | None,
        *,
        with_request: bytes | None = None,
        **claims: object,
    ) -> Receipted | Refusal:
        hosted = await self._database.read(lambda connection: get_hosted(connection, wallet))
        if hosted is None:
            return refuse(Code.UNKNOWN_WALLET, "no hosted wallet")
        if pin is not None:
            refused = await self._check_pin(wallet, pin)
            if refused is not None:
                return refused
        # One order of a wallet at a time: each needs the sequence that the last one left.
        async with self._one_at_a_time(wallet):
            order = await self._signed(hosted, ORDER_TYPE, self._payload(wallet, pin, claims))
            return await self._journal.pay(order, with_request)

    def _payload(self, wallet: WalletId, pin: str | None, claims: dict[str, object]) -> bytes:
        state = self._journal.state
        known = state.wallets.get(wallet)
        now_ms, _ = self._journal.now()
        authorisation = Authorisation.DEVICE_KEY if pin is None else Authorisation.PIN
        return order_payload(
            payer=wallet,
            sequence=0 if known is None else known.next_sequence,
            currency=state.currency,
            created_ms=now_ms,
            expires_ms=now_ms + ORDER_LIFETIME_MS,
            authorisation=int(authorisation),
            payer_journal=state.journal,
            payer_epoch=state.epoch,
            **claims,
        )

    async def _signed(self, hosted: HostedWallet, type_: str, payload: bytes) -> bytes:
        seed = await self._token.sealer.unseal(hosted.sealed_key, label=seal_label(hosted.wallet))
        self._uses[_USES[type_]] += 1
        public, pair = seed_keypair(seed)
        wipe(seed)
        try:
            protected, message = to_sign(from_raw(EDDSA, public), type_, payload)
            return assemble(protected, payload, sign(pair, message))
        finally:
            pair.wipe()

    @asynccontextmanager
    async def _one_at_a_time(self, wallet: WalletId) -> AsyncIterator[None]:
        turn = self._turns.setdefault(wallet, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[wallet]

    async def _check_pin(self, wallet: WalletId, pin: str) -> Refusal | None:
        async with self._one_at_a_time(wallet):
            hosted = await self._database.read(lambda connection: get_hosted(connection, wallet))
            if hosted is None:
                return refuse(Code.UNKNOWN_WALLET, "no hosted wallet")
            now_ms, _ = self._journal.now()
            if now_ms < hosted.locked_until_ms:
                return Refusal(
                    code=Code.WALLET_LOCKED, retry_after_ms=hosted.locked_until_ms - now_ms
                )
            tries = (0 if hosted.locked_until_ms else hosted.tries) + 1
            await self._set_tries(wallet, tries, self._lock_end(tries, now_ms))
            if await self._fits(hosted.pin_hash, pin):
                await self._set_tries(wallet, 0, 0)
                return None
            return self._pin_wrong(tries)

    def _lock_end(self, tries: int, now_ms: int) -> int:
        """When the lock-out that this try would begin ends; 0 for none (policy 119 and 120)."""
        state = self._journal.state
        most = state.journal_limit(JournalLimit.PIN_TRIES_MAX)
        if most is None or tries < most:
            return 0
        lock_s = state.journal_limit(JournalLimit.PIN_LOCK_S)
        return NEVER if lock_s is None else now_ms + lock_s * 1000

    def _pin_wrong(self, tries: int) -> Refusal:
        most = self._journal.state.journal_limit(JournalLimit.PIN_TRIES_MAX)
        left = None if most is None else max(0, most - tries)
        return refuse(Code.PIN_WRONG, limit=most, left=left)

    async def _set_tries(self, wallet: WalletId, tries: int, locked_until_ms: int) -> None:
        await self._database.write(
            lambda connection: set_hosted_tries(
                connection, wallet, tries=tries, locked_until_ms=locked_until_ms
            )
        )

    async def _hash(self, pin: str) -> str:
        encoded = pin.encode()
        async with self._hashing:
            made = await asyncio.to_thread(
                nacl.pwhash.argon2id.str,
                encoded,
                opslimit=self._opslimit,
                memlimit=_MEMLIMIT,
            )
        wipe(encoded)
        return made.decode()

    async def _fits(self, pin_hash: str, pin: str) -> bool:
        async with self._hashing:
            return await asyncio.to_thread(_verify, pin_hash.encode(), pin)


def _verify(pin_hash: bytes, pin: str) -> bool:
    encoded = pin.encode()
    try:
        return nacl.pwhash.argon2id.verify(pin_hash, encoded)
    except nacl.exceptions.InvalidkeyError:
        return False
    finally:
        wipe(encoded)


def seal_label(wallet: bytes) -> str:
    """The label under which a token seals a hosted wallet's key."""
    return f"hosted/{wallet_text(wallet)}"
