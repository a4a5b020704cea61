"""Wallets' signatures on a payment, checked before it is queued: which of them hold.

Of those that do not, the rules find out in their own order, on the state of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping

from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Payment
from wallet.protocol.ids import WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.state import Wallet
from wallet.verifier import Verifier, holds, job_of

Wallets = Mapping[WalletId, Wallet]


async def held(verifier: Verifier, wallets: Wallets, payment: Payment) -> tuple[Sign1, ...]:
    """The signatures that hold, by the verifier's helpers."""
    asked = [
        (signed, verifier.holds(job_of(signed, key))) for signed, key in _named(wallets, payment)
    ]
    return tuple([signed for signed, outcome in asked if await outcome])


def held_here(wallets: Wallets, payment: Payment) -> tuple[Sign1, ...]:
    """The same on the spot, where there are no helpers."""
    return tuple([signed for signed, key in _named(wallets, payment) if holds(job_of(signed, key))])


def _named(wallets: Wallets, payment: Payment) -> list[tuple[Sign1, PublicKey]]:
    """Signatures that name the enrolled key of who should have made them."""
    signers: list[tuple[WalletId, Sign1]] = [(payment.order.payer, payment.order.signed)]
    if payment.request is not None:
        signers.append((payment.request.payee, payment.request.signed))
    found = []
    for signer, signed in signers:
        wallet = wallets.get(signer)
        if wallet is not None and wallet.key is not None and signed.names(wallet.key):
            found.append((signed, wallet.key))
    return found
