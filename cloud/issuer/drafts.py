"""Drafts under four eyes: one officer proposes, another one decides, once and in time.

Each kind of draft has a table of its own, with the columns `state`, `drafted_by`, `drafted_ms`,
`decided_by` and `decided_ms`; PostgreSQL holds the rule of four eyes as well. What an approval does
is the caller's work, between `take` and `approve`, in the same transaction.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.officers import Officer, Role

# Whoever approves decides about the present: what nobody decided in this time is drafted anew.
EXPIRY_MS = 30 * 24 * 3_600_000
LIST_MAX = 200
_WAITING, _REJECTED = "draft", "rejected"
Values = Mapping[str, Any]
_NOTHING: Values = MappingProxyType({})


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What every draft has. Its own fields are columns of its table, by their names."""

    state: enum.StrEnum
    drafted_by: int
    drafted_ms: int
    decided_by: int | None


class Recorded(Protocol):
    """A draft that says of itself what the audit log is to hold."""

    @property
    def state(self) -> enum.StrEnum:
        """What became of it."""
        ...

    @property
    def drafted_by(self) -> int:
        """The officer who proposed it."""
        ...

    @property
    def drafted_ms(self) -> int:
        """When that was."""
        ...

    @property
    def decided_by(self) -> int | None:
        """The officer who decided it."""
        ...

    @property
    def subject(self) -> str:
        """What it is about."""
        ...

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What is said of it besides."""
        ...


T = TypeVar("T", bound=Recorded)


class Drafts(Generic[T]):
    """All drafts of one kind. `action` begins the words of the audit log.

    `approved`: the state of what was approved. `unknown` and `invalid`: codes of an identity that
    names no draft, and of values that the table refuses.
    """

    def __init__(
        self,
        kind: type[T],
        *,
        table: str,
        key: str = "draft_id",
        role: Role,
        action: str,
        approved: enum.StrEnum,
        unknown: str = "draft-unknown",
        invalid: str = "draft-invalid",
        read: Callable[[Any], T] | None = None,
    ) -> None:
        self._table, self._key = table, key
        self._role, self._action = role, action
        self._approved = str(approved)
        self._unknown, self._invalid = unknown, invalid
        fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
        self._columns = ", ".join(fields)
        self._read = read or (lambda row: msgspec.convert(dict(row), kind))

    # ---- proposing ------------------------------------------------------------------------
    async def propose(
        self,
        connection: Connection,
        identity: bytes,
        said: Values,
        *,
        more: Values = _NOTHING,
        officer: Officer,
        now_ms: int,
    ) -> T:
        """Store the draft, or answer the one that is there.

        `said`: columns that are the same whenever it is asked for again; `more`: the others.
        Raises: IssuerError `role-missing`, `draft-conflict` where the identity names another
        draft, or the code of values that the table refuses.
        """
        officer.require(self._role)
        given = {**said, **more, "drafted_by": officer.officer_id, "drafted_ms": now_ms}
        places = ", ".join(f"${number}" for number in range(1, len(given) + 2))
        with constraints_as(IssuerError, self._invalid):
            made = await connection.fetchval(
                f"INSERT INTO {self._table} ({self._key}, {', '.join(given)})"
                f" VALUES ({places}) ON CONFLICT ({self._key}) DO NOTHING RETURNING true",
                *(identity, *given.values()),
            )
        row = await connection.fetchrow(
            f"SELECT * FROM {self._table} WHERE {self._key} = $1 FOR UPDATE", identity
        )
        asked = {**said, "drafted_by": officer.officer_id}
        if any(row[name] != value for name, value in asked.items()):
            raise IssuerError("draft-conflict", "the identity names another draft")
        draft = self._read(row)
        if made:
            await self._record(connection, "draft", draft, officer, now_ms=now_ms)
        return draft

    # ---- looking --------------------------------------------------------------------------
    async def find(self, connection: Connection, identity: bytes) -> T:
        """The draft, locked for this transaction. Raises: IssuerError with the unknown's code."""
        found = await self.known(connection, identity)
        if found is None:
            raise IssuerError(self._unknown)
        return found

    async def known(self, connection: Connection, identity: bytes) -> T | None:
        """The draft, locked for this transaction, if there is one."""
        found = await self.where(connection, f"{self._key} = $1 FOR UPDATE", identity)
        return found[0] if found else None

    async def newest(
        self,
        connection: Connection,
        condition: str = "true",
        *values: Any,
        first: int = 0,
        limit: int = LIST_MAX,
    ) -> list[T]:
        """A page of the drafts that fit, the newest first, from the place `first` on."""
        order = (
            f"{condition} ORDER BY drafted_ms DESC, {self._key} OFFSET {first:d} LIMIT {limit:d}"
        )
        return await self.where(connection, order, *values)

    async def where(self, connection: Connection, condition: str, *values: Any) -> list[T]:
        """Drafts that fit a condition of SQL."""
        rows = await connection.fetch(
            f"SELECT {self._columns} FROM {self._table} WHERE {condition}", *values
        )
        return [self._read(row) for row in rows]

    # ---- deciding -------------------------------------------------------------------------
    async def take(
        self, connection: Connection, identity: bytes, *, officer: Officer, now_ms: int
    ) -> tuple[T, bool]:
        """The draft to approve, and whether this officer has approved it before.

        Raises: IssuerError `role-missing`, `four-eyes`, `draft-decided`, `draft-expired`, or the
        code of an unknown one.
        """
        draft, again = await self._to_decide(connection, identity, self._approved, officer)
        if not again and now_ms - draft.drafted_ms > EXPIRY_MS:
            raise IssuerError("draft-expired", "nobody decided in time; draft it anew")
        return draft, again

    async def approve(
        self,
        connection: Connection,
        draft: T,
        *,
        officer: Officer,
        now_ms: int,
        more: Values = _NOTHING,
        recorded: bool = True,
    ) -> T:
        """Note the approval of a draft that was taken. `more`: columns that it fills.

        `recorded`: false where what it did is in the audit log by itself.
        """
        identity = getattr(draft, self._key)
        decided = await self._decide(
            connection, identity, self._approved, officer, more, now_ms=now_ms
        )
        if recorded:
            await self._record(connection, "approve", decided, officer, now_ms=now_ms)
        return decided

    async def reject(
        self, connection: Connection, identity: bytes, *, officer: Officer, now_ms: int
    ) -> T:
        """Decide against the draft; rejecting it again changes nothing.

        Raises: as `take`; an expired draft can be rejected.
        """
        draft, again = await self._to_decide(connection, identity, _REJECTED, officer)
        if again:
            return draft
        decided = await self._decide(
            connection, identity, _REJECTED, officer, _NOTHING, now_ms=now_ms
        )
        await self._record(connection, "reject", decided, officer, now_ms=now_ms)
        return decided

    async def _to_decide(
        self, connection: Connection, identity: bytes, state: str, officer: Officer
    ) -> tuple[T, bool]:
        """The draft, undecided, or decided the same by the same officer before."""
        officer.require(self._role)
        draft = await self.find(connection, identity)
        if draft.drafted_by == officer.officer_id:
            raise IssuerError("four-eyes", "another officer has to decide")
        again = (draft.state, draft.decided_by) == (state, officer.officer_id)
        if draft.state != _WAITING and not again:
            raise IssuerError("draft-decided", f"the draft is {draft.state}")
        return draft, again

    async def _decide(
        self,
        connection: Connection,
        identity: bytes,
        state: str,
        officer: Officer,
        more: Values,
        *,
        now_ms: int,
    ) -> T:
        given = {"state": state, "decided_by": officer.officer_id, "decided_ms": now_ms, **more}
        changes = ", ".join(f"{name} = ${number}" for number, name in enumerate(given, 2))
        row = await connection.fetchrow(
            f"UPDATE {self._table} SET {changes} WHERE {self._key} = $1 RETURNING {self._columns}",
            *(identity, *given.values()),
        )
        return self._read(row)

    async def _record(
        self, connection: Connection, verb: str, draft: T, officer: Officer, *, now_ms: int
    ) -> None:
        await audit.record(
            connection,
            actor=officer.name,
            action=f"{self._action}.{verb}",
            subject=draft.subject,
            detail=draft.detail,
            now_ms=now_ms,
        )
