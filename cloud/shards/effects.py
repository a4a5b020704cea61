"""What messages of other shards do here, each in one transaction, once."""

from __future__ import annotations

from typing import Any

from cloud.compliance import decisions
from cloud.database import Connection
from cloud.ledger.accounts import (
    Account,
    between,
    ensure_accounts,
    loss,
    suspense,
    transit_grants,
    transit_notes,
)
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.reconciler import collected, redemption, restored
from cloud.reconciler.evidence import suspend
from cloud.reconciler.notes import judged, replayed
from cloud.reconciler.postings import Batch, note_identity
from cloud.reconciler.redemption import Came, Row
from cloud.reconciler.settling import settle_entry
from cloud.shards.homes import Here
from cloud.shards.messages import (
    Collected,
    Convicted,
    Decided,
    Fate,
    Funded,
    GrantClaimed,
    Judged,
    Message,
    PaidOnline,
    Redeemed,
    ShardError,
    send,
)
from cloud.wallets import redeem_accounts
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import decode_note
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.issued import decode_grant
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.refusals import Code

_SAID = {"early": Fate.EARLY, "redeemed": Fate.MATCHED, "compensated": Fate.BORNE}


class Effects:
    """The effects of messages in one shard."""

    def __init__(self, anchor: TrustAnchor, here: Here) -> None:
        self._anchor = anchor
        self._here = here

    async def apply(
        self, connection: Connection, source: int, message: Message, *, now_ms: int
    ) -> None:
        """Carry out one message of another shard.

        Raises: LedgerError, WalletError, ProtocolError, DatabaseError; ShardError `message-early`.
        """
        match message:
            case Redeemed():
                await self._redeemed(connection, source, message, now_ms=now_ms)
            case Judged():
                await _judged(connection, source, message, now_ms=now_ms)
            case Funded():
                place = (message.journal, message.epoch)
                identity = of_entry(place[0], epoch=place[1], index=message.index)
                await _granted(connection, source, identity, message, now_ms=now_ms)
            case GrantClaimed():
                await _granted(connection, source, message.transfer, message, now_ms=now_ms)
            case PaidOnline():
                await _paid_online(connection, source, message, now_ms=now_ms)
            case Collected():
                transfers = [(message.entry, message.receipt)]
                holding = await collected.check(self._anchor, transfers)
                await collected.keep(connection, self._anchor, holding, now_ms=now_ms)
            case Decided():
                await decisions.carry_out(connection, message, now_ms=now_ms)
            case Convicted():
                await connection.execute(
                    "INSERT INTO suspended_elsewhere VALUES ($1, $2, $3, $4)"
                    " ON CONFLICT DO NOTHING",
                    *(message.journal, message.epoch, message.evidence, message.code),
                )

    async def _redeemed(
        self, connection: Connection, source: int, message: Redeemed, *, now_ms: int
    ) -> None:
        """A note of a journal that lives here came in there."""
        row = _row_of(message, source)
        fate, is_new = await self._fate(connection, row, now_ms=now_ms)
        if fate is Fate.EARLY:
            return
        order, key = row.order, row.key
        if fate is Fate.MATCHED and is_new:
            text = journal_text(JournalId(key[0]))
            await _move(
                connection,
                transit_notes(text, currency=order.currency),
                between(source, text, currency=order.currency),
                identity=note_identity(key[0], epoch=key[1], index=key[2]),
                amount=order.amount_minor,
                kind=TransferKind.NOTE_MATCHED,
                now_ms=now_ms,
            )
        said = {
            **dict(zip(("journal", "epoch", "index"), key, strict=True)),
            "in_journal": message.journal,
            "in_epoch": message.epoch,
            "in_index": message.index,
            "in_shard": source,
            "amount": order.amount_minor,
            "currency": order.currency,
        }
        await send(connection, self._here.number, [judged(said, fate)], now_ms=now_ms)

    async def _fate(self, connection: Connection, row: Row, *, now_ms: int) -> tuple[Fate, bool]:
        """The fate, and whether it is decided now: what was told again has moved its value."""
        known = None
        if not await redemption.insert(connection, [row]):
            known = (await redemption.known_notes(connection, [row.key]))[row.key]
        source = (await redemption.told_of(connection, [row.key])).get(row.key[:2])
        # A shard that was restored may tell again of what it forgot: the answer is the same.
        if known is not None and known["leaf"] == row.leaf and _place(known) == _came(row):
            return redemption.left_to_officers(row, source, _SAID[known["state"]]), False
        fate = await redemption.judge(connection, self._anchor, row, source, known, now_ms=now_ms)
        return fate, True


def _row_of(message: Redeemed, source: int) -> Row:
    note = decode_note(message.entry, message.receipt)
    came = Came(
        journal=message.journal,
        epoch=message.epoch,
        index=message.index,
        note=note,
        shard=source,
    )
    return Row(
        key=(note.order.payer_journal, note.order.payer_epoch, note.index),
        leaf=leaf_hash(message.entry),
        order=note.order,
        window_s=message.window_s,
        came=came,
    )


def _place(known: Any) -> tuple[Any, ...]:
    return known["in_journal"], known["in_epoch"], known["in_index"]


def _came(row: Row) -> tuple[Any, ...]:
    assert row.came is not None  # it is a note that came in
    return row.came.journal, row.came.epoch, row.came.index


async def _judged(connection: Connection, source: int, message: Judged, *, now_ms: int) -> None:
    """What becomes of a note that came in here."""
    epoch_id = await _waiting(connection, source, message)
    text, currency = journal_text(JournalId(message.in_journal)), message.currency
    waiting = suspense(text, currency=currency)
    here = of_entry(message.in_journal, epoch=message.in_epoch, index=message.in_index)
    if message.fate is Fate.MATCHED:
        sender = journal_text(JournalId(message.journal))
        paid_from = between(source, sender, currency=currency)
        identity = note_identity(message.journal, epoch=message.epoch, index=message.index)
        kind = TransferKind.NOTE_MATCHED
    else:
        # By the place where it came in: two notes of one index may both have to be borne.
        paid_from, identity = loss(currency), derived("note-borne", here)
        kind = TransferKind.COMPENSATION
    await _move(
        connection,
        paid_from,
        waiting,
        identity=identity,
        amount=message.amount,
        kind=kind,
        now_ms=now_ms,
    )
    if message.fate is Fate.REPLAYED:
        await _reject(connection, epoch_id, message.in_index, now_ms=now_ms)
    elif message.fate is Fate.HELD:
        await _decide(
            connection, epoch_id, message.in_index, "held", Code.JOURNAL_REVOKED, now_ms=now_ms
        )
    else:
        await settle_entry(connection, epoch_id=epoch_id, index=message.in_index, now_ms=now_ms)


async def _waiting(connection: Connection, source: int, message: Judged) -> int:
    """The epoch in which a note waits for its fate; it waits no more.

    Raises: ShardError `message-early` where its journal has still to tell of it again, because this
    shard was restored from a backup.
    """
    place = (message.in_journal, message.in_epoch, message.in_index)
    known = await connection.fetchval(
        "UPDATE note SET state = $8, entry = NULL, receipt = NULL WHERE journal = $1 AND epoch = $2"
        " AND index = $3 AND home = $4 AND in_journal = $5 AND in_epoch = $6 AND in_index = $7"
        " RETURNING true",
        *(message.journal, message.epoch, message.index, source, *place),
        "redeemed" if message.fate is Fate.MATCHED else "compensated",
    )
    row = await connection.fetchrow(
        "SELECT epoch_id, size, stated_ms FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *place[:2],
    )
    # What a journal never told of came in by its statement, and may have no row of its own here.
    is_told = row is not None and (row["size"] > message.in_index or row["stated_ms"] is not None)
    if row is None or not (known or is_told):
        raise ShardError("message-early", "the journal has not told of the note's arrival")
    found: int = row["epoch_id"]
    return found


async def _reject(connection: Connection, epoch_id: int, index: int, *, now_ms: int) -> None:
    """It was redeemed before, and its journal is convicted."""
    await _decide(connection, epoch_id, index, "rejected", Code.NOTE_REDEEMED, now_ms=now_ms)
    row = await connection.fetchrow(
        "SELECT checkpoint, entries[$2 - first + 1] AS entry FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(epoch_id, index),
    )
    if row is not None:
        found = replayed(index, row["entry"], row["checkpoint"])
        await suspend(connection, epoch_id, found, now_ms=now_ms)


async def _decide(
    connection: Connection, epoch_id: int, index: int, state: str, code: str, *, now_ms: int
) -> None:
    await connection.execute(
        "UPDATE verdict SET state = $3, code = $4, decided_ms = $5, told = false"
        " WHERE epoch_id = $1 AND index = $2 AND state IN ('pending', 'held')",
        *(epoch_id, index, state, code, now_ms),
    )


async def _granted(
    connection: Connection,
    source: int,
    identity: bytes,
    message: Funded | GrantClaimed,
    *,
    now_ms: int,
) -> None:
    """A journal of another shard has entered a grant, or the statement of its epoch has it."""
    grant, batch = decode_grant(message.grant), Batch()
    place = (message.journal, message.epoch)
    await restored.account_for(connection, place, [(identity, grant)], batch, now_ms=now_ms)
    text = journal_text(JournalId(message.journal))
    waits = transit_grants(text, currency=message.currency)
    leaves = between(source, text, currency=message.currency)
    numbers = await ensure_accounts(connection, [waits, leaves])
    batch.add(
        identity,
        debit=numbers[waits.name],
        credit=numbers[leaves.name],
        amount=message.amount,
        kind=TransferKind.GRANT_SENT,
    )
    await batch.post(connection, currency=message.currency, now_ms=now_ms)


async def _paid_online(
    connection: Connection, source: int, message: PaidOnline, *, now_ms: int
) -> None:
    """Value of a journal of another shard goes to an online wallet."""
    currency = message.currency
    online = await redeem_accounts(connection, [message.wallet], currency=currency, now_ms=now_ms)
    text = journal_text(JournalId(message.journal))
    arrives = between(source, text, currency=currency)
    numbers = await ensure_accounts(connection, [arrives])
    transfer = Transfer(
        identity=message.transfer,
        debit=numbers[arrives.name],
        credit=online[message.wallet],
        amount=message.amount,
        currency=currency,
        kind=TransferKind(message.transfer_kind),
        created_ms=now_ms,
        reference=message.reference,
    )
    await post(connection, [transfer])


async def _move(
    connection: Connection,
    debit: Account,
    credit: Account,
    *,
    identity: bytes,
    amount: int,
    kind: TransferKind,
    now_ms: int,
) -> None:
    numbers = await ensure_accounts(connection, [debit, credit])
    transfer = Transfer(
        identity=identity,
        debit=numbers[debit.name],
        credit=numbers[credit.name],
        amount=amount,
        currency=debit.currency,
        kind=kind,
        created_ms=now_ms,
    )
    await post(connection, [transfer])
