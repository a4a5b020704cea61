"""Online wallets: the accounts of holders at the issuer, and transfers between them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import WalletError
from cloud.ledger import accounts
from cloud.ledger.accounts import ensure_accounts
from cloud.ledger.posting import PostResult, Transfer, TransferKind, is_posted, post


class WalletState(enum.StrEnum):
    """A frozen wallet neither pays nor is paid; a closed one is empty and stays so."""

    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


class OnlineWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet of one currency and its balance in minor units, as of when it was read."""

    wallet: str
    holder: str
    currency: str
    account_id: int
    state: WalletState
    opened_ms: int
    balance: int

    def require_open(self) -> None:
        """Raises: WalletError `wallet-frozen`, `wallet-closed`."""
        if self.state is not WalletState.OPEN:
            raise WalletError(f"wallet-{self.state.value}", self.wallet)

    def require_receiving(self) -> None:
        """Raises: WalletError `wallet-closed`. What is owed comes into a frozen wallet too."""
        if self.state is WalletState.CLOSED:
            raise WalletError("wallet-closed", self.wallet)


class OnlineTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder orders; `identity` (32 bytes) makes ordering it again the same transfer."""

    identity: bytes
    payer: str
    payee: str
    amount: int
    reference: str | None = None


_SELECT = (
    "SELECT wallet, holder, wallets.currency, account_id, state, opened_ms, balance"
    " FROM online_wallet AS wallets JOIN ledger_account USING (account_id)"
)


async def open_wallet(
    connection: Connection, wallet: str, *, holder: str, currency: str, now_ms: int
) -> OnlineWallet:
    """Open the wallet, or answer the one that is there.

    Raises: WalletError `wallet-conflict` when it is another holder's or of another currency,
    `wallet-invalid`.
    """
    account = accounts.online(wallet, currency=currency)
    known = await _find(connection, wallet)
    if known is None:
        with constraints_as(WalletError, "wallet-invalid"):
            numbers = await ensure_accounts(connection, [account])
            await connection.execute(
                "INSERT INTO online_wallet (wallet, holder, currency, account_id, opened_ms)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                *(wallet, holder, currency, numbers[account.name], now_ms),
            )
        known = await find_wallet(connection, wallet)
    if (known.holder, known.currency) != (holder, currency):
        raise WalletError("wallet-conflict", wallet)
    return known


async def find_wallet(connection: Connection, wallet: str) -> OnlineWallet:
    """The wallet, its state kept for this transaction. Raises: WalletError `unknown-wallet`."""
    found = await _find(connection, wallet)
    if found is None:
        raise WalletError("unknown-wallet", wallet)
    return found


async def wallets_of(connection: Connection, holder: str) -> list[OnlineWallet]:
    """All wallets of a holder, oldest first."""
    rows = await connection.fetch(f"{_SELECT} WHERE holder = $1 ORDER BY account_id", holder)
    return [_wallet(row) for row in rows]


async def set_wallet_state(connection: Connection, wallet: str, state: WalletState) -> OnlineWallet:
    """Freeze, open again or close. Raises: WalletError `unknown-wallet`, `wallet-not-empty`,
    `wallet-closed` (for ever).
    """
    await connection.execute("SELECT FROM online_wallet WHERE wallet = $1 FOR UPDATE", wallet)
    found = await find_wallet(connection, wallet)
    found.require_receiving()
    if state is WalletState.CLOSED and found.balance != 0:
        raise WalletError("wallet-not-empty", wallet)
    await connection.execute(
        "UPDATE online_wallet SET state = $2 WHERE wallet = $1", wallet, state.value
    )
    return msgspec.structs.replace(found, state=state)


async def transfer_online(
    connection: Connection, order: OnlineTransfer, *, now_ms: int
) -> PostResult:
    """Move value between two wallets of one currency, once for each identity.

    Raises: WalletError `unknown-wallet`, `wallet-frozen`, `wallet-closed`, `same-wallet`,
    `wrong-currency`; LedgerError as `post`.
    """
    if order.payer == order.payee:
        raise WalletError("same-wallet", order.payer)
    payer = await find_wallet(connection, order.payer)
    payee = await find_wallet(connection, order.payee)
    if payer.currency != payee.currency:
        raise WalletError("wrong-currency", f"{payer.currency} to {payee.currency}")
    if not await is_posted(connection, order.identity):
        payer.require_open()
        payee.require_open()
    transfer = Transfer(
        identity=order.identity,
        debit=payer.account_id,
        credit=payee.account_id,
        amount=order.amount,
        currency=payer.currency,
        kind=TransferKind.ONLINE,
        created_ms=now_ms,
        reference=order.reference,
    )
    return await post(connection, [transfer])


async def set_redeem_target(connection: Connection, offline_wallet: str, wallet: str) -> None:
    """Let a wallet in a journal redeem to an online wallet of another text."""
    await connection.execute(
        "INSERT INTO redeem_target VALUES ($1, $2)"
        " ON CONFLICT (offline_wallet) DO UPDATE SET wallet = excluded.wallet",
        *(offline_wallet, wallet),
    )


async def redeem_accounts(
    connection: Connection, offline_wallets: Sequence[str], *, currency: str, now_ms: int
) -> dict[str, int]:
    """The account that a redeem of each wallet in a journal credits, by the wallet's text.

    It is the target that was set, else the online wallet of the same text, which is opened where
    there is none: what was redeemed always arrives somewhere that its holder can claim.
    Raises: WalletError `wallet-conflict` when a target is of another currency.
    """
    wanted = sorted(set(offline_wallets))
    rows = await connection.fetch(
        "SELECT offline_wallet, wallet FROM redeem_target WHERE offline_wallet = ANY ($1)", wanted
    )
    targets = {row["offline_wallet"]: row["wallet"] for row in rows}
    names = {text: targets.get(text, text) for text in wanted}
    known = await _currencies(connection, names.values())
    missing = [text for text in wanted if names[text] not in known]
    if missing:
        await _open_own(connection, missing, currency=currency, now_ms=now_ms)
        known |= await _currencies(connection, missing)
    if strange := [name for name, (_, held) in sorted(known.items()) if held != currency]:
        raise WalletError("wallet-conflict", strange[0])
    return {text: known[name][0] for text, name in names.items()}


async def _currencies(connection: Connection, wallets: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Account and currency of the wallets that exist, their states kept for this transaction."""
    rows = await connection.fetch(
        "SELECT wallet, account_id, currency FROM online_wallet WHERE wallet = ANY ($1)"
        " ORDER BY wallet FOR SHARE",
        sorted(set(wallets)),
    )
    return {row["wallet"]: (row["account_id"], row["currency"]) for row in rows}


async def _open_own(
    connection: Connection, wallets: Sequence[str], *, currency: str, now_ms: int
) -> None:
    """Wallets whose holder is known by the wallet's own text. Raises: WalletError."""
    with constraints_as(WalletError, "wallet-invalid"):
        made = [accounts.online(wallet, currency=currency) for wallet in wallets]
        numbers = await ensure_accounts(connection, made)
        await connection.execute(
            "INSERT INTO online_wallet (wallet, holder, currency, account_id, opened_ms)"
            " SELECT wallet, wallet, $2, account_id, $4"
            " FROM unnest($1::text[], $3::bigint[]) AS given (wallet, account_id)"
            " ON CONFLICT DO NOTHING",
            *(list(wallets), currency, [numbers[account.name] for account in made], now_ms),
        )


async def _find(connection: Connection, wallet: str) -> OnlineWallet | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE wallet = $1 FOR SHARE OF wallets", wallet)
    return None if row is None else _wallet(row)


def _wallet(row: Any) -> OnlineWallet:
    return msgspec.convert(dict(row), OnlineWallet)
