"""Officers: who may decide what, known by a token that only they hold."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from collections.abc import Callable, Iterable

import asyncpg
import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit

TOKEN_BYTES = 32
TOKEN_PREFIX = "cbo_"


class Role(enum.StrEnum):
    """What an officer may do. Supply, policies, recovery and officers need two of them."""

    ADMIN = "admin"
    SUPPLY = "supply"
    GRANTS = "grants"
    POLICY = "policy"
    LISTS = "lists"
    ENROLMENT = "enrolment"
    COMPLIANCE = "compliance"
    DEALER = "dealer"
    AUDITOR = "auditor"
    RECOVERY = "recovery"


class Officer(msgspec.Struct, frozen=True, kw_only=True):
    """A person who acts for the issuer."""

    officer_id: int
    name: str
    roles: frozenset[Role]

    def require(self, role: Role) -> None:
        """Raises: IssuerError `role-missing`."""
        if role not in self.roles:
            raise IssuerError("role-missing", f"{self.name} has no role {role.value}")


def new_token(random: Callable[[int], bytes]) -> str:
    """A token to hand to an officer once; `random(n)` gives n unpredictable bytes."""
    text = base64.urlsafe_b64encode(random(TOKEN_BYTES)).rstrip(b"=").decode()
    return TOKEN_PREFIX + text


def token_hash(token: str) -> bytes:
    """What is stored of a token. Raises: IssuerError `token-unknown` for a text that is none."""
    text = token.removeprefix(TOKEN_PREFIX)
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise IssuerError("token-unknown") from error
    if not token.startswith(TOKEN_PREFIX) or len(secret) != TOKEN_BYTES:
        raise IssuerError("token-unknown")
    return hashlib.sha256(secret).digest()


async def add_officer(
    connection: Connection,
    *,
    name: str,
    roles: Iterable[Role],
    token: str,
    actor: str,
    now_ms: int,
) -> Officer:
    """Add one of the first officers; all others come by drafts of two administrators.

    Raises: IssuerError `officer-exists`; the transaction is broken then.
    """
    granted = frozenset(roles)
    try:
        made = await insert_officer(
            connection, name=name, roles=granted, token_hash=token_hash(token), now_ms=now_ms
        )
    except asyncpg.UniqueViolationError as error:
        raise IssuerError("officer-exists", name) from error
    await audit.record(
        connection,
        actor=actor,
        action="officer.add",
        subject=name,
        detail={"roles": sorted(granted)},
        now_ms=now_ms,
    )
    return made


async def insert_officer(
    connection: Connection, *, name: str, roles: frozenset[Role], token_hash: bytes, now_ms: int
) -> Officer:
    """The row of a new officer. Raises: asyncpg.UniqueViolationError."""
    officer_id = await connection.fetchval(
        "INSERT INTO officer (name, token_hash, roles, created_ms) VALUES ($1, $2, $3, $4)"
        " RETURNING officer_id",
        *(name, token_hash, sorted(roles), now_ms),
    )
    return Officer(officer_id=officer_id, name=name, roles=roles)


async def list_officers(connection: Connection) -> list[Officer]:
    """Officers who may act, by name."""
    rows = await connection.fetch(
        "SELECT officer_id, name, roles FROM officer WHERE disabled_ms IS NULL ORDER BY name"
    )
    return [msgspec.convert(dict(row), Officer) for row in rows]


async def find_officer(connection: Connection, name: str) -> Officer | None:
    """The officer of a name, who may have been disabled since."""
    row = await connection.fetchrow(
        "SELECT officer_id, name, roles FROM officer WHERE name = $1", name
    )
    return None if row is None else msgspec.convert(dict(row), Officer)


async def officer_name(connection: Connection, officer_id: int | None) -> str:
    """The name of an officer's number; none of none."""
    found: str | None = await connection.fetchval(
        "SELECT name FROM officer WHERE officer_id = $1", officer_id
    )
    return found or ""


async def has_officer(connection: Connection, name: str) -> bool:
    """Was there ever an officer of this name?"""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM officer WHERE name = $1)", name
    )
    return found


async def authenticate(connection: Connection, token: str) -> Officer:
    """The officer who holds the token. Raises: IssuerError `token-unknown`."""
    row = await connection.fetchrow(
        "SELECT officer_id, name, roles FROM officer WHERE token_hash = $1 AND disabled_ms IS NULL",
        token_hash(token),
    )
    if row is None:
        raise IssuerError("token-unknown")
    roles = frozenset(Role(role) for role in row["roles"])
    return Officer(officer_id=row["officer_id"], name=row["name"], roles=roles)
