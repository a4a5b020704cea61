"""Wallets that a gateway asks for in a tier that it may not enrol by itself."""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.desk import Desk
from cloud.issuer.enrolments import enrol_wallet
from cloud.issuer.gateways import find_gateway
from cloud.issuer.officers import Officer, Role
from wallet.protocol.ids import wallet_text
from wallet.protocol.keys import from_cose_key

PAGE_MAX = 200


class WaitingWish(msgspec.Struct, frozen=True, kw_only=True):
    """One wish."""

    wish_id: int
    journal: bytes
    wallet: bytes
    cose_key: bytes
    tier: int
    label: str | None
    hosted: bool
    asked_ms: int


_COLUMNS = ", ".join(WaitingWish.__struct_fields__)


async def list_wishes(connection: Connection) -> list[WaitingWish]:
    """Those that wait, the oldest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM enrolment_wish WHERE state = 'waiting' ORDER BY wish_id LIMIT $1",
        PAGE_MAX,
    )
    return [WaitingWish(**dict(row)) for row in rows]


async def decide_wish(
    connection: Connection,
    desk: Desk,
    wish_id: int,
    *,
    granted: bool,
    officer: Officer,
    now_ms: int,
) -> WaitingWish:
    """Enrol the wallet or refuse it. Raises: IssuerError `role-missing`, `wish-unknown`."""
    officer.require(Role.ENROLMENT)
    row = await connection.fetchrow(
        "UPDATE enrolment_wish SET state = $2 WHERE wish_id = $1 AND state = 'waiting'"
        f" RETURNING {_COLUMNS}",
        *(wish_id, "enrolled" if granted else "refused"),
    )
    if row is None:
        raise IssuerError("wish-unknown")
    wish = WaitingWish(**dict(row))
    if granted:
        await enrol_wallet(
            connection,
            desk,
            await find_gateway(connection, wish.journal),
            key=from_cose_key(wish.cose_key),
            tier=wish.tier,
            label=wish.label,
            actor=officer.name,
            now_ms=now_ms,
            hosted=wish.hosted,
        )
    else:
        await audit.record(
            connection,
            actor=officer.name,
            action="wish.refuse",
            subject=wallet_text(wish.wallet),
            detail={"tier": wish.tier},
            now_ms=now_ms,
        )
    return wish
