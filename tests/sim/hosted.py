"""Hosted wallets in a simulation: the real code, but for a hash of PINs that costs nothing."""

from __future__ import annotations

import hashlib

from hsm.api import Token
from wallet.hosted import HostedWallets
from wallet.journal import Journal
from wallet.protocol.ids import WalletId
from wallet.store.database import Database
from wallet.store.hosted import HostedWallet, get_hosted

PINS = ("1111", "222222")
WRONG = "0000"
TRIES_MAX, LOCK_S = 3, 3_600


class Thief:
    """Counts the wrong PINs that were looked at, and holds the store to no fewer."""

    def __init__(self, wallets: tuple[WalletId, ...]) -> None:
        self.wallets = wallets
        self._wrong = dict.fromkeys(wallets, 0)
        self._locked_until_ms = dict.fromkeys(wallets, 0)

    def see(self, held: HostedWallet) -> None:
        """What the store says must be no less than what happened, whatever happened to it."""
        wallet = WalletId(held.wallet)
        if held.locked_until_ms:
            self._locked_until_ms[wallet] = held.locked_until_ms
        else:
            assert held.tries >= self._wrong[wallet] or self._locked_until_ms[wallet]

    def look(self, held: HostedWallet, *, now_ms: int, right: bool) -> None:
        """A PIN is being looked at: that must be counted by now."""
        wallet = WalletId(held.wallet)
        if held.tries == 1 and self._locked_until_ms[wallet]:
            assert now_ms >= self._locked_until_ms[wallet], "a lock-out was cut short"
            self._wrong[wallet] = self._locked_until_ms[wallet] = 0
        self._wrong[wallet] += 1
        assert self._wrong[wallet] <= held.tries <= TRIES_MAX, "a try that was not counted"
        assert (held.tries == TRIES_MAX) == (held.locked_until_ms > now_ms)
        self._locked_until_ms[wallet] = held.locked_until_ms
        if right:
            self._wrong[wallet] = self._locked_until_ms[wallet] = 0


class SimulatedHosted(HostedWallets):
    """The hosted wallets of one start of the gateway."""

    def __init__(self, *, journal: Journal, database: Database, token: Token, thief: Thief) -> None:
        super().__init__(journal=journal, database=database, token=token)
        self.thief = thief

    async def see(self) -> None:
        """Hold the store's counts against what happened."""
        for wallet in self.thief.wallets:
            self.thief.see(await self._held(wallet))

    async def _held(self, wallet: WalletId) -> HostedWallet:
        held = await self._database.read(lambda connection: get_hosted(connection, wallet))
        assert held is not None
        return held

    async def _hash(self, pin: str) -> str:
        return _digest(pin)

    async def _fits(self, pin_hash: str, pin: str) -> bool:
        wallet = self.thief.wallets[[_digest(known) for known in PINS].index(pin_hash)]
        now_ms, _ = self._journal.now()
        right = _digest(pin) == pin_hash
        self.thief.look(await self._held(wallet), now_ms=now_ms, right=right)
        return right


def _digest(pin: str) -> str:
    return hashlib.sha256(pin.encode()).hexdigest()
