"""Answers kept under an idempotency key, so that a repeated call gets the first one's answer.

Each answer costs random index pages: for calls that the protocol itself makes idempotent, such as
an order that its payer signed, none is needed.
"""

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import is_full, value_of

ANSWERS_MAX = 100_000


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one call; `body_hash` tells a repetition from another call under its key."""

    body_hash: bytes
    status: int
    answer: bytes
    expires_ms: int


def get_answer(conn: Connection, scope: str, key: str, *, now_ms: int) -> StoredAnswer | None:
    """The answer kept under the key, unless it has expired."""
    row = conn.execute(
        "SELECT body_hash, status, answer, expires_ms FROM answers"
        " WHERE scope = ? AND key = ? AND expires_ms > ?",
        (scope, key, now_ms),
    ).fetchone()
    return value_of(StoredAnswer, row)


def put_answer(
    conn: Connection,
    scope: str,
    key: str,
    stored: StoredAnswer,
    *,
    now_ms: int,
    answers_max: int = ANSWERS_MAX,
) -> bool:
    """Keep the answer in place of an expired one; false when too many unexpired ones are kept.

    Raises: Conflict (from the transaction) when the key holds an answer that has not expired.
    """
    conn.execute(
        "DELETE FROM answers WHERE scope = ? AND key = ? AND expires_ms <= ?", (scope, key, now_ms)
    )
    if is_full(conn, "answers", rows_max=answers_max):
        prune_answers(conn, now_ms=now_ms)
        if is_full(conn, "answers", rows_max=answers_max):
            return False
    conn.execute(
        "INSERT INTO answers (scope, key, body_hash, status, answer, expires_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (scope, key, *msgspec.structs.astuple(stored)),
    )
    return True


def prune_answers(conn: Connection, *, now_ms: int) -> int:
    """Forget the answers that have expired; gives how many."""
    return conn.execute("DELETE FROM answers WHERE expires_ms <= ?", (now_ms,)).rowcount
