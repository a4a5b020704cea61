"""Payments inside a journal that it gave a receipt for and hid: whether their payees are owed.

protocol.md, "What the issuer checks": a payee who kept to the policy is paid, the loss account
carries it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from typing import Any

from cloud.database import Connection
from cloud.reconciler.stored import held_entry
from cloud.reconciler.violations import is_listed, payment_max
from wallet.protocol.entry import EntryKind, Payment, decode_entry
from wallet.protocol.messages import Order
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.state import State

# The kinds of entries that hold an order of a wallet here; an entry begins with a map of five.
_LEADS = tuple(
    bytes((0xA5, 0x01, kind)) for kind in (EntryKind.PAY, EntryKind.TRANSFER_OUT, EntryKind.DEFUND)
)
_SEGMENTS = 64


def check_payee(state: State, order: Order, *, answered: Set[bytes] = frozenset()) -> None:
    """That the payee kept to the policy, as far as a receipt shows it. `state`: of all that counts.

    The amount is what somebody may pay, the payee is on no list, and a request that the order
    answers was open. `answered`: requests that others answered, besides those of the state.
    Raises: ProtocolError.
    """
    asked = order.request
    if order.amount_minor > payment_max(state):
        raise ProtocolError(Code.PAYMENT_ABOVE_LIMIT, "no tier may pay as much")
    if is_listed(state, order.payee):
        raise ProtocolError(Code.WALLET_REVOKED, "the payee is on a list")
    if asked is not None and (asked in state.requests or asked in answered):
        raise ProtocolError(Code.REQUEST_PAID, "the request was paid or void")


async def offence_in(connection: Connection, epoch_row: Any) -> set[bytes]:
    """The order of the entry for which a journal was suspended: its payee was paid, or not owed.

    `epoch_row`: epoch_id, size and applied of `journal_epoch`.
    """
    if epoch_row["applied"] == epoch_row["size"]:
        return set()
    held = await held_entry(connection, epoch_row["epoch_id"], epoch_row["applied"])
    return set() if held is None else _orders([held[0]])


async def told_among(
    connection: Connection, place: tuple[bytes, int], orders: Set[bytes]
) -> set[bytes]:
    """Those of the orders that a journal told of itself. `place`: journal and epoch.

    Reads the whole epoch, a page at a time, where there are any: few payers sign twice.
    """
    found: set[bytes] = set()
    if not orders:
        return found
    cursor = await connection.cursor(
        "SELECT entries FROM journal_segment JOIN journal_epoch USING (epoch_id)"
        " WHERE journal = $1 AND epoch = $2 ORDER BY first",
        *place,
    )
    while rows := await cursor.fetch(_SEGMENTS):
        raws = [raw for row in rows for raw in row["entries"] if raw.startswith(_LEADS)]
        found |= await asyncio.to_thread(_orders, raws)
    return found & orders


def _orders(raws: Sequence[bytes]) -> set[bytes]:
    """Identities of the orders in entries; what cannot be read has none."""
    found = set()
    for raw in raws:
        try:
            body = decode_entry(raw).body
        except ProtocolError:
            continue
        if isinstance(body, Payment):
            found.add(body.order.identity)
    return found
