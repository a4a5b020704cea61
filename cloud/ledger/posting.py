"""Posting transfers: in batches, each identity exactly once, in one statement of PostgreSQL.

The rules live in the function `ledger_post` of cloud/sql/0001_ledger.sql.
"""

from __future__ import annotations

import contextlib
import enum
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import asyncpg
import msgspec

from cloud.database import Connection
from cloud.errors import LedgerError

BATCH_MAX = 10_000
T = TypeVar("T")


class TransferKind(enum.IntEnum):
    """Why value moved; numbers keep their meaning. From 100 on: inside and between journals."""

    ISSUE = 1
    BURN = 2
    ONLINE = 3
    EXCHANGE = 4
    GRANT_HOLD = 5
    GRANT_RETURN = 6
    DEFUND = 7
    NOTE_RETURN = 8
    COMPENSATION = 9
    RECOVERED = 10
    REJECTED = 11
    GRANT_FOUND = 12
    FUND = 100
    PAY = 101
    NOTE_OUT = 102
    NOTE_IN = 103
    NOTE_IN_EARLY = 104
    NOTE_MATCHED = 105
    CARRIED = 106
    GRANT_LOST = 107
    GRANT_SENT = 108


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` minor units from the debit account to the credit account, by their numbers.

    `identity` (32 bytes) makes it happen once. `record` is the evidence, such as a journal's entry.
    """

    identity: bytes
    debit: int
    credit: int
    amount: int
    currency: str
    kind: TransferKind
    created_ms: int
    reference: str | None = None
    record: bytes | None = None


class Numbered(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of one currency as columns of one length; what the reconciler builds."""

    currency: str
    created_ms: int
    identities: Sequence[bytes]
    debits: Sequence[int]
    credits: Sequence[int]
    amounts: Sequence[int]
    kinds: Sequence[int]
    references: Sequence[str | None]
    records: Sequence[bytes | None]


class PostResult(msgspec.Struct, frozen=True, kw_only=True):
    """How many transfers were new, and how many had been posted before."""

    posted: int
    known: int


# Columns travel in few large values: identities one behind the other, numbers as the text of an
# array. The driver takes a microsecond for each element of an array, and a transfer has seven.
_POST = """
SELECT ledger_post($1,
    ARRAY(SELECT substr($2::bytea, 32 * place + 1, 32)
          FROM generate_series(0, octet_length($2::bytea) / 32 - 1) AS place ORDER BY place),
    $3::text::bigint[], $4::text::bigint[], $5::text::bigint[], $6::text::smallint[], $7, $8, $9)
"""
_IDENTITY_BYTES = 32
_BIGINT_END = 2**63
_CODES = {
    "CB001": "transfer-conflict",
    "CB002": "unknown-account",
    "CB003": "wrong-currency",
}


async def post(connection: Connection, transfers: Sequence[Transfer]) -> PostResult:
    """Post transfers of any currencies, all or none; an identity that was posted is left as it is.

    The floor of an account is checked on the net of the batch. After an error the surrounding
    transaction is broken and has to be rolled back.
    Raises: LedgerError `insufficient-funds`, `transfer-conflict` (the identity was used for
    another transfer), `wrong-currency`, `unknown-account`, `transfer-invalid`.
    """
    groups: dict[tuple[str, int], list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        groups[transfer.currency, transfer.created_ms].append(transfer)
    # Always in one order, so that two posters of several currencies do not deadlock.
    posted = 0
    for key in sorted(groups):
        posted += await post_numbered(connection, _columns(groups[key]))
    return PostResult(posted=posted, known=len(transfers) - posted)


async def post_numbered(
    connection: Connection, batch: Numbered, *, transfers_max: int = BATCH_MAX
) -> int:
    """Post a batch of columns and answer how many transfers were new. Raises: as `post`."""
    if len(batch.identities) > transfers_max:
        raise LedgerError("batch-too-large", f"{len(batch.identities)} transfers")
    if any(len(identity) != _IDENTITY_BYTES for identity in batch.identities):
        raise LedgerError("transfer-invalid", f"an identity is not {_IDENTITY_BYTES} bytes")
    with _refusals():
        posted: int = await connection.fetchval(
            _POST,
            batch.currency,
            b"".join(batch.identities),
            _numbers(batch.debits),
            _numbers(batch.credits),
            _numbers(batch.amounts),
            _numbers(batch.kinds),
            _unless_empty(batch.references),
            batch.created_ms,
            _unless_empty(batch.records),
        )
    return posted


def _numbers(values: Sequence[int]) -> str:
    """An array of PostgreSQL as text. Raises: LedgerError `transfer-invalid` past 64 bits."""
    if values and not (min(values) >= -_BIGINT_END and max(values) < _BIGINT_END):
        raise LedgerError("transfer-invalid", "a number that does not fit 64 bits")
    return "{" + ",".join(map(str, values)) + "}"


def _unless_empty(values: Sequence[T | None]) -> Sequence[T | None] | None:
    """A column of nulls alone is left out: unnest fills it up."""
    return None if values.count(None) == len(values) else values


async def is_posted(connection: Connection, identity: bytes) -> bool:
    """Whether a transfer of this identity was posted, by a transaction that has committed."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM ledger_transfer WHERE identity = $1)", identity
    )
    return found


def _columns(transfers: Sequence[Transfer]) -> Numbered:
    return Numbered(
        currency=transfers[0].currency,
        created_ms=transfers[0].created_ms,
        identities=[transfer.identity for transfer in transfers],
        debits=[transfer.debit for transfer in transfers],
        credits=[transfer.credit for transfer in transfers],
        amounts=[transfer.amount for transfer in transfers],
        kinds=[transfer.kind for transfer in transfers],
        references=[transfer.reference for transfer in transfers],
        records=[transfer.record for transfer in transfers],
    )


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Give PostgreSQL's refusals the ledger's codes."""
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name == "ledger_account_floor":
            raise LedgerError("insufficient-funds") from error
        raise LedgerError("transfer-invalid", str(error.constraint_name)) from error
    except asyncpg.NumericValueOutOfRangeError as error:
        raise LedgerError("balance-out-of-range") from error
    except (asyncpg.NotNullViolationError, asyncpg.DataError) as error:
        raise LedgerError("transfer-invalid", type(error).__name__) from error
    except asyncpg.PostgresError as error:
        code = _CODES.get(error.sqlstate)
        if code is None:
            raise
        raise LedgerError(code, error.args[0]) from error
