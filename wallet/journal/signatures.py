"""Wallets' signatures on a payment, checked before it is queued: which of them hold.

Of those that do not, the rules find out in their own order, on the state of that moment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Payment
from wallet.protocol.ids import WalletId
from wallet.protocol.keys import PublicKey
from wallet.protocol.state import Wallet
from wallet.verifier import Verifier, holds, job_of

Wallets = Mapping[WalletId, Wallet]
Then = Callable[[tuple[Sign1, ...]], None]


def check_signatures(verifier: Verifier, wallets: Wallets, payment: Payment, then: Then) -> None:
    """Have the signatures checked: `then` hears which hold, at once or later.

    Those of payments that were asked for one after the other are told in that order. Nobody waits
    in between: a payment wakes its caller once, when it has its receipt.
    """
    named = _named(wallets, payment)
    if verifier.alone or not named:
        then(tuple([signed for signed, key in named if holds(job_of(signed, key))]))
        return
    held: list[Sign1] = []
    left = len(named)

    def tell(signed: Sign1, outcome: bool) -> None:
        nonlocal left
        left -= 1
        if outcome:
            held.append(signed)
        if left == 0:
            then(tuple(held))

    for signed, key in named:
        verifier.ask(job_of(signed, key), functools.partial(tell, signed))


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
