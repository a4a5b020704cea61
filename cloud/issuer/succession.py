"""Gateways that go on where another one ended: the token that binds them to a closure.

The next epoch may be on another token, with another journal, or on the same one: in both cases its
number is one more, and it opens with the statement of the epoch before.
"""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError


class Succession(msgspec.Struct, frozen=True, kw_only=True):
    """A closure that a gateway enrols to; `statement` is None until it is signed.

    `hosted`: whether wallets whose keys the gateway keeps are carried, or were paid out online.
    `carried_to`: the wallet up to which they are enrolled where it goes on.
    """

    closure_id: bytes
    journal: bytes
    epoch: int
    claims_until_ms: int | None
    successor: bytes | None
    statement: bytes | None
    hosted: str | None
    carried_to: bytes | None


_SELECT = (
    "SELECT closure_id, journal, epoch, claims_until_ms, successor, object AS statement,"
    " hosted, carried_to FROM epoch_closure LEFT JOIN"
    " (SELECT closure_id, object, hosted FROM epoch_statement WHERE state = 'signed')"
    " AS signed USING (closure_id)"
)


async def succession_of(connection: Connection, closure_id: bytes) -> Succession:
    """The closure that a token names. Raises: IssuerError `closure-unknown`."""
    row = await connection.fetchrow(
        f"{_SELECT} WHERE closure_id = $1 FOR UPDATE OF epoch_closure", closure_id
    )
    if row is None:
        raise IssuerError("closure-unknown")
    return Succession(**dict(row))


async def followed_by(connection: Connection, journal: bytes, *, epoch: int) -> Succession | None:
    """The closure whose statement an epoch of a journal opens with, if it follows another one."""
    row = await connection.fetchrow(
        f"{_SELECT} WHERE successor = $1 AND epoch = $2", journal, epoch - 1
    )
    return None if row is None else Succession(**dict(row))


async def succeed(connection: Connection, succession: Succession, journal: bytes) -> None:
    """Let this journal open with the statement, and no other from now on.

    Raises: IssuerError `statement-pending` before it is signed, `closure-used`.
    """
    if succession.statement is None:
        until = succession.claims_until_ms
        raise IssuerError("statement-pending", f"claims until {until} ms, then two officers sign")
    if succession.successor not in (None, journal):
        raise IssuerError("closure-used", "another gateway went on where this one ended")
    await connection.execute(
        "UPDATE epoch_closure SET successor = $2 WHERE closure_id = $1",
        *(succession.closure_id, journal),
    )


async def set_carried(connection: Connection, succession: Succession, wallet: bytes) -> None:
    """Wallets up to this one are enrolled in the journal that goes on."""
    await connection.execute(
        "UPDATE epoch_closure SET carried_to = $2 WHERE closure_id = $1",
        *(succession.closure_id, wallet),
    )
