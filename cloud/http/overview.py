"""What officers look at: the account of all value, journals, lists, the audit log."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from cloud.errors import IssuerError
from cloud.http import types
from cloud.http.octets import journal_of, wallet_of
from cloud.http.problem import RequestRefused
from cloud.http.routes import Call, Route
from cloud.issuer import audit, lists
from cloud.issuer.officers import Role
from cloud.ledger.conservation import Conservation
from cloud.service import Cloud
from cloud.shards.account import account_of_all
from wallet.protocol.ids import journal_text
from wallet.protocol.lists import Held, ListId

SERIAL_BYTES_MAX = 20
_CATEGORY_LENGTH = 4


def overview_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer that show, and those of the lists."""
    window = Window(cloud)
    get = partial(Route, method="GET")
    return [
        get(path="/v1/issuer/account", work=window.account, answer=types.AccountAnswer),
        get(path="/v1/issuer/journals", work=window.journals, answer=types.JournalsAnswer),
        get(
            path="/v1/issuer/audit",
            work=window.audit,
            answer=types.AuditAnswer,
            role=Role.AUDITOR,
            query=("after",),
        ),
        get(path="/v1/issuer/lists", work=window.lists, answer=types.ListsAnswer),
        Route(
            method="POST",
            path="/v1/issuer/lists/{list}",
            work=window.change_list,
            body=types.ListBody,
            answer=types.ListAnswer,
            role=Role.LISTS,
        ),
    ]


class Window:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def account(self, call: Call) -> types.AccountAnswer:
        """Where all value is: issued = online + offline + in transit + suspense + loss."""
        found = await account_of_all(self._cloud.shards, call.connection)
        return types.AccountAnswer(currencies=[account_line(item) for item in found])

    async def journals(self, call: Call) -> types.JournalsAnswer:
        """Journals as the reconciler holds them."""
        rows = await call.connection.fetch(
            "SELECT journal, epoch, count(*) AS count FROM lost_grant"
            " WHERE NOT EXISTS (SELECT FROM lost_grant_closing AS closing"
            "  WHERE closing.state = 'approved' AND (closing.journal, closing.epoch,"
            "  closing.sequence) = (lost_grant.journal, lost_grant.epoch, lost_grant.sequence))"
            " GROUP BY journal, epoch"
        )
        lost = {(row["journal"], row["epoch"]): row["count"] for row in rows}
        found: list[types.JournalAnswer] = []
        for number, _ in self._cloud.shards:
            async with self._cloud.shards.beside(call.connection, number) as there:
                held = await there.fetch(
                    "SELECT journal, epoch, state, reason, size FROM journal_epoch"
                    " ORDER BY epoch_id"
                )
            found += [_journal(row, lost.get((row["journal"], row["epoch"]), 0)) for row in held]
        return types.JournalsAnswer(journals=found)

    async def audit(self, call: Call) -> types.AuditAnswer:
        """The audit log after a sequence."""
        found = await audit.read(call.connection, after=call.number("after", default=0))
        return types.AuditAnswer(
            lines=[types.AuditLine(**msgspec.structs.asdict(line)) for line in found]
        )

    async def lists(self, call: Call) -> types.ListsAnswer:
        """All lists as they are signed now."""
        found = [await lists.held(call.connection, list_id) for list_id in ListId]
        return types.ListsAnswer(lists=[_list(held) for held in found if held is not None])

    async def change_list(self, call: Call) -> types.ListAnswer:
        """Sign the next list with these changes; gateways get it at their next exchange."""
        name = call.path["list"]
        try:
            list_id = ListId[name.upper()]
        except KeyError as error:
            raise IssuerError("list-unknown", name) from error
        change = lists.ListChange(
            added={list_key(list_id, item): tuple(item.names) for item in call.body.add},
            removed={list_key(list_id, item): () for item in call.body.remove},
        )
        held = await lists.change_list(
            call.connection,
            self._cloud.desk,
            list_id,
            change,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        return _list(held)


def _journal(row: Any, lost_grants: int) -> types.JournalAnswer:
    journal = journal_text(row["journal"])
    return types.JournalAnswer(**{**dict(row), "journal": journal, "lost_grants": lost_grants})


def list_key(list_id: ListId, item: types.ListItem) -> object:
    """The item as `Held` keeps it. Raises: RequestRefused `body-invalid`."""
    match list_id:
        case ListId.JOURNALS:
            return journal_of(item.id), _needed(item.epoch, "epoch")
        case ListId.CATEGORIES:
            if len(item.id) != _CATEGORY_LENGTH or not (item.id.isascii() and item.id.isdigit()):
                raise RequestRefused("body-invalid", "a category has four digits")
            return _needed(item.set, "set"), item.id
        case ListId.CERTIFICATES:
            return _serial(item.id)
        case ListId.SANCTIONED:
            return item.id
        case ListId.WALLETS | ListId.FROZEN:
            return wallet_of(item.id)


def _serial(text: str) -> bytes:
    try:
        serial = bytes.fromhex(text)
    except ValueError as error:
        raise RequestRefused("body-invalid", "a serial is hex") from error
    if not 1 <= len(serial) <= SERIAL_BYTES_MAX:
        raise RequestRefused("body-invalid", "a serial has 1 to 20 bytes")
    return serial


def _needed(value: int | None, name: str) -> int:
    if value is None:
        raise RequestRefused("body-invalid", f"this list needs `{name}`")
    return value


def account_line(item: Conservation) -> types.AccountLine:
    """The conservation of one currency."""
    return types.AccountLine(
        currency=item.currency,
        issued=item.issued,
        online=item.online,
        offline=item.offline,
        in_transit=item.in_transit,
        suspense=item.suspense,
        loss=item.loss,
        difference=item.difference,
    )


def _list(held: Held) -> types.ListAnswer:
    return types.ListAnswer(
        list=ListId(held.list_id).name.lower(),
        sequence=held.sequence,
        issued_ms=held.issued_ms,
        next_update_ms=held.next_update_ms,
        items=len(held.items),
    )
