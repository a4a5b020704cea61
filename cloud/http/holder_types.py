"""Bodies and answers of what wallet apps call."""

from __future__ import annotations

from typing import Literal

from cloud.http.types import (
    Amount,
    Answer,
    Body,
    CurrencyCode,
    Identity,
    Name,
    Octets,
    Text,
)


class WalletAnswer(Answer, frozen=True, kw_only=True):
    """An online wallet."""

    wallet: str
    currency: CurrencyCode
    balance: int
    state: str
    finality: Literal["final"] = "final"


class WalletsAnswer(Answer, frozen=True, kw_only=True):
    """All wallets of a holder."""

    wallets: list[WalletAnswer]


class StatementLine(Answer, frozen=True, kw_only=True):
    """One transfer: `change` is positive where value came in."""

    id: int
    change: int
    kind: str
    reference: str | None
    created_ms: int


class StatementAnswer(Answer, frozen=True, kw_only=True):
    """What happened to a wallet, the newest first; `cursor` leads to what is older."""

    lines: list[StatementLine]
    cursor: str | None


class FundBody(Body, frozen=True, kw_only=True):
    """Value of an online wallet for a wallet in a journal."""

    funding_id: Identity
    journal: Name
    offline_wallet: Name
    amount: Amount


class FundAnswer(Answer, frozen=True, kw_only=True):
    """Value on its way into a journal: held, granted, applied or returned."""

    funding_id: Identity
    journal: str
    offline_wallet: str
    amount: Amount
    currency: CurrencyCode
    state: str


class TransferBody(Body, frozen=True, kw_only=True):
    """A transfer between two online wallets."""

    identity: Identity
    payee: Name
    amount: Amount
    reference: Text | None = None


class TransferAnswer(Answer, frozen=True, kw_only=True):
    """It happened, for good."""

    identity: Identity
    state: Literal["settled"] = "settled"
    finality: Literal["final"] = "final"


class TargetBody(Body, frozen=True, kw_only=True):
    """A wallet in a journal whose redeemed value comes here: its COSE_Key, and its consent.

    `proof` is the key's signature over TARGET_CONTEXT and the SHA-256 of this wallet's name.
    """

    key: Octets
    proof: Octets


class QuoteBody(Body, frozen=True, kw_only=True):
    """An amount of this wallet for value in another wallet of the same holder."""

    quote_id: Identity
    target: Name
    amount: Amount


class QuoteAnswer(Answer, frozen=True, kw_only=True):
    """What the amount gives, exactly, and until when; `remainder` in parts of `denominator`."""

    quote_id: Identity
    source: str
    target: str
    source_amount: Amount
    target_amount: Amount
    numerator: int
    denominator: int
    remainder: int
    valid_until_ms: int
    accepted_ms: int | None
