"""Who calls: officers and holders, by bearer token."""

from __future__ import annotations

from aiohttp import web

from cloud.database import Connection
from cloud.http.problem import RequestRefused
from cloud.issuer import officers
from cloud.issuer.desk import Desk
from cloud.issuer.officers import Officer, token_hash

_BEARER = "Bearer "


def bearer(request: web.Request) -> str:
    """The token of the request. Raises: RequestRefused `token-missing`."""
    header = request.headers.get("Authorization", "")
    if not header.startswith(_BEARER):
        raise RequestRefused("token-missing", "Authorization: Bearer TOKEN")
    return header.removeprefix(_BEARER).strip()


async def officer_of(connection: Connection, request: web.Request) -> Officer:
    """The officer who calls. Raises: RequestRefused, IssuerError `token-unknown`."""
    return await officers.authenticate(connection, bearer(request))


async def make_holder(connection: Connection, desk: Desk, holder: str, *, now_ms: int) -> str:
    """A holder of online wallets and its token: the same token for the same holder."""
    await connection.execute(
        "INSERT INTO holder (holder, token_hash, created_ms) VALUES ($1, $2, $3)"
        " ON CONFLICT (holder) DO NOTHING",
        *(holder, token_hash(_token(desk, holder, 0)), now_ms),
    )
    generation = await connection.fetchval(
        "SELECT generation FROM holder WHERE holder = $1", holder
    )
    return _token(desk, holder, generation)


def _token(desk: Desk, holder: str, generation: int) -> str:
    secret = desk.holder_secret_of(holder, generation=generation)
    return officers.new_token(lambda size: secret[:size])


async def holder_of(connection: Connection, request: web.Request) -> str:
    """The holder who calls. Raises: RequestRefused `token-missing`, `token-unknown`."""
    found: str | None = await connection.fetchval(
        "SELECT holder FROM holder WHERE token_hash = $1", token_hash(bearer(request))
    )
    if found is None:
        raise RequestRefused("token-unknown")
    return found
