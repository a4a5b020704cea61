"""The balances of a closed epoch, and what becomes of them once all claims are counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cloud.ledger.accounts import Account, loss, offline
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.recovery.rejected import Origin, Rejected
from cloud.recovery.total import Move, Place
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.state import State


class Balances:
    """What each wallet has, by journal and claims; a payer may be below zero for a while."""

    def __init__(self, state: State, *, place: Place, currency: str) -> None:
        self._journal, self._epoch = place
        self._text = journal_text(place[0])
        self._currency = currency
        self._accounts: dict[bytes, Account] = {}
        self._balances: defaultdict[bytes, int] = defaultdict(int)
        for wallet in state.wallets.values():
            self._balances[wallet.wallet] = wallet.balance
        self.moves: list[Move] = []
        self.borne = self.paid_out = self.taken_back = 0

    def account(self, wallet: bytes) -> Account:
        """The account of a wallet in the closed epoch."""
        known = self._accounts.get(wallet)
        if known is None:
            known = self._accounts[wallet] = offline(
                wallet_text(WalletId(wallet)),
                journal=self._text,
                epoch=self._epoch,
                currency=self._currency,
            )
        return known

    def take_back(self, rejected: Iterable[Rejected]) -> None:
        """What rejected entries brought, as far as their payees still have it.

        What a payee has spent by now is with somebody who kept to the policy.
        """
        for item in rejected:
            order = item.order
            amount = min(order.amount_minor, max(0, self._balances[order.payee]))
            if amount == 0:
                continue
            self.taken_back += amount
            self._balances[order.payee] -= amount
            credit = None
            if item.origin is Origin.HERE:
                credit = self.account(order.payer)
                self._balances[order.payer] += amount
            elif item.origin is Origin.LOSS:
                credit = loss(self._currency)
            entry = of_entry(self._journal, epoch=self._epoch, index=item.index)
            self.moves.append(
                Move(
                    identity=derived("rejected", entry),
                    debit=self.account(order.payee),
                    credit=credit,
                    to_online=order.payer if credit is None else None,
                    amount=amount,
                    kind=TransferKind.REJECTED,
                )
            )

    def bear(self) -> None:
        """What payers spent beyond what they had, as far as anybody knows."""
        place = of_entry(self._journal, epoch=self._epoch, index=0)
        for wallet, balance in sorted(self._balances.items()):
            if balance < 0:
                self._balances[wallet] = 0
                self.borne -= balance
                self.moves.append(
                    Move(
                        identity=derived("claims-borne", place, wallet),
                        debit=loss(self._currency),
                        credit=self.account(wallet),
                        amount=-balance,
                        kind=TransferKind.COMPENSATION,
                    )
                )

    def pay_out(self, wallets: Iterable[bytes]) -> None:
        """Wallets whose value goes online instead: their keys are lost with the gateway."""
        place = of_entry(self._journal, epoch=self._epoch, index=0)
        for wallet in sorted(wallets):
            balance = self._balances.pop(wallet, 0)
            if balance > 0:
                self.paid_out += balance
                self.moves.append(
                    Move(
                        identity=derived("recovered", place, wallet),
                        debit=self.account(wallet),
                        to_online=wallet,
                        amount=balance,
                        kind=TransferKind.RECOVERED,
                    )
                )

    def wallets(self) -> list[bytes]:
        """All of them."""
        return list(self._balances)

    def carried(self) -> list[tuple[bytes, int]]:
        """Balances of the statement, in the order of wallets; empty wallets need none."""
        return [(wallet, balance) for wallet, balance in sorted(self._balances.items()) if balance]
