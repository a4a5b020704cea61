"""Postings: what the entries of a segment move, as the columns of one batch for the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloud.database import Connection
from cloud.ledger.accounts import (
    Account,
    between,
    ensure_accounts,
    loss,
    offline,
    suspense,
    transit_grants,
    transit_notes,
)
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import BATCH_MAX, Numbered, TransferKind, post_numbered
from cloud.reconciler.values import Segment
from cloud.shards.homes import Here
from cloud.shards.messages import HEAD
from cloud.wallets import redeem_accounts
from wallet.protocol.entry import Entry, EntryKind, Note, Open, Payment
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.issued import Grant
from wallet.protocol.state import Decision

# Kinds of entries whose transfer goes between two accounts, by the kind of the transfer.
_PAY, _PAY_TRANSFER = int(EntryKind.PAY), int(TransferKind.PAY)
_EPOCH_BYTES = 4
_INDEX_BYTES = 8


class Batch:
    """Transfers of one currency, collected."""

    def __init__(self) -> None:
        self.identities: list[bytes] = []
        self.debits: list[int] = []
        self.credits: list[int] = []
        self.amounts: list[int] = []
        self.kinds: list[int] = []
        self.references: list[str | None] = []

    def add(
        self,
        identity: bytes,
        *,
        debit: int,
        credit: int,
        amount: int,
        kind: int,
        reference: str | None = None,
    ) -> None:
        """One more transfer."""
        self.identities.append(identity)
        self.debits.append(debit)
        self.credits.append(credit)
        self.amounts.append(amount)
        self.kinds.append(kind)
        self.references.append(reference)

    async def post(self, connection: Connection, *, currency: str, now_ms: int) -> None:
        """Post all of it. Raises: LedgerError."""
        for at in range(0, len(self.identities), BATCH_MAX):
            part = self._part(slice(at, at + BATCH_MAX), currency=currency, now_ms=now_ms)
            await post_numbered(connection, part)

    async def post_whole(self, connection: Connection, *, currency: str, now_ms: int) -> None:
        """Post all of it at once, however much it is: floors are checked on the net of the whole.

        Raises: LedgerError.
        """
        whole = self._part(slice(None), currency=currency, now_ms=now_ms)
        await post_numbered(connection, whole, transfers_max=len(self.identities))

    def _part(self, part: slice, *, currency: str, now_ms: int) -> Numbered:
        identities = self.identities[part]
        return Numbered(
            currency=currency,
            created_ms=now_ms,
            identities=identities,
            debits=self.debits[part],
            credits=self.credits[part],
            amounts=self.amounts[part],
            kinds=self.kinds[part],
            references=self.references[part],
            # The entries themselves are kept in the segment: here they would be twice.
            records=[None] * len(identities),
        )


class Arrival:
    """How a note that came in is posted: the account it comes from, and the transfer's kind."""

    __slots__ = ("account", "kind")

    def __init__(self, account: Account, kind: TransferKind) -> None:
        self.account = account
        self.kind = kind


async def collect(
    connection: Connection,
    segment: Segment,
    accounts: Sequence[int],
    arrivals: Mapping[int, Arrival],
    here: Here,
    *,
    now_ms: int,
) -> Batch:
    """The transfers of the accepted entries. `accounts`: numbers by the wallets' numbers."""
    others = await _other_accounts(connection, segment, arrivals, here, now_ms=now_ms)
    batch = Batch()
    lead = segment.journal + segment.epoch.to_bytes(_EPOCH_BYTES, "big")
    for entry, decision in zip(segment.entries, segment.decisions, strict=True):
        kind = decision.kind
        identity = lead + entry.index.to_bytes(_INDEX_BYTES, "big")
        if kind == _PAY and decision.movement is not None:
            payer, payee, amount, _ = decision.movement
            batch.add(
                identity,
                debit=accounts[payer],
                credit=accounts[payee],
                amount=amount,
                kind=_PAY_TRANSFER,
            )
        elif kind in _MOVING:
            _add(batch, identity, entry, decision, accounts, others, arrivals)
        elif isinstance(entry.body, Open):
            _carry(batch, identity, entry.body, decision, accounts, others)
    return batch


_MOVING = {EntryKind.FUND, EntryKind.TRANSFER_OUT, EntryKind.TRANSFER_IN, EntryKind.DEFUND}
_GRANTS, _NOTES = "grants", "notes"


def _add(
    batch: Batch,
    identity: bytes,
    entry: Entry,
    decision: Decision,
    accounts: Sequence[int],
    others: Mapping[str, int],
    arrivals: Mapping[int, Arrival],
) -> None:
    wallet = accounts[decision.wallets[0].number]
    body, amount = entry.body, _amount(entry)
    match decision.kind:
        case EntryKind.FUND:
            batch.add(
                identity,
                debit=others[_GRANTS],
                credit=wallet,
                amount=amount,
                kind=TransferKind.FUND,
            )
        case EntryKind.TRANSFER_OUT:
            batch.add(
                identity,
                debit=wallet,
                credit=others[_NOTES],
                amount=amount,
                kind=TransferKind.NOTE_OUT,
            )
        case EntryKind.TRANSFER_IN:
            arrival = arrivals[entry.index]
            batch.add(
                identity,
                debit=others[arrival.account.name],
                credit=wallet,
                amount=amount,
                kind=arrival.kind,
            )
        case _:
            batch.add(
                identity,
                debit=wallet,
                credit=others[wallet_text(decision.wallets[0].wallet)],
                amount=amount,
                kind=TransferKind.DEFUND,
                reference=body.order.reference if isinstance(body, Payment) else None,
            )


def _amount(entry: Entry) -> int:
    body = entry.body
    if isinstance(body, Payment | Note):
        return body.order.amount_minor
    return body.amount_minor if isinstance(body, Grant) else 0


def _carry(
    batch: Batch,
    identity: bytes,
    opening: Open,
    decision: Decision,
    accounts: Sequence[int],
    others: Mapping[str, int],
) -> None:
    """What a statement carries over leaves the account of the epoch that it closes."""
    statement = opening.statement
    if statement is None:
        return
    for wallet in decision.wallets:
        if wallet.settled:
            source = _carried_from(opening, wallet.wallet)
            batch.add(
                derived("carried", identity, wallet.wallet),
                debit=others[source.name],
                credit=accounts[wallet.number],
                amount=wallet.settled,
                kind=TransferKind.CARRIED,
            )


def _carried_from(opening: Open, wallet: bytes) -> Account:
    statement = opening.statement
    assert statement is not None  # the caller has looked
    return offline(
        wallet_text(wallet),
        journal=journal_text(statement.journal),
        epoch=statement.epoch,
        currency=opening.currency,
    )


async def _other_accounts(
    connection: Connection,
    segment: Segment,
    arrivals: Mapping[int, Arrival],
    here: Here,
    *,
    now_ms: int,
) -> dict[str, int]:
    """Accounts that are no wallet's here, by short names; online ones by the wallet's text."""
    currency, text = segment.currency, journal_text(segment.journal)
    kinds = {decision.kind for decision in segment.decisions}
    wanted: dict[str, Account] = {a.account.name: a.account for a in arrivals.values()}
    if EntryKind.FUND in kinds:
        grants = transit_grants(text, currency=currency)
        wanted[_GRANTS] = grants if here.is_head else to_head(segment.journal, currency)
    if EntryKind.TRANSFER_OUT in kinds:
        wanted[_NOTES] = transit_notes(text, currency=currency)
    if EntryKind.OPEN in kinds:
        opening = segment.entries[0].body
        if isinstance(opening, Open) and opening.statement is not None:
            for wallet, _ in opening.statement.carried:
                account = _carried_from(opening, wallet)
                wanted[account.name] = account
    numbers = await ensure_accounts(connection, wanted.values()) if wanted else {}
    found = {key: numbers[account.name] for key, account in wanted.items()}
    if EntryKind.DEFUND in kinds:
        redeeming = [
            wallet_text(decision.wallets[0].wallet)
            for decision in segment.decisions
            if decision.kind == EntryKind.DEFUND
        ]
        found |= await online_accounts(
            connection, redeeming, segment.journal, here, currency=currency, now_ms=now_ms
        )
    return found


async def online_accounts(
    connection: Connection,
    wallets: Sequence[str],
    journal: bytes,
    here: Here,
    *,
    currency: str,
    now_ms: int,
) -> dict[str, int]:
    """What is credited where value of a journal's wallets goes online, by the wallets' texts.

    Online wallets are at the head alone: elsewhere it is the way to there.
    """
    if here.is_head:
        return await redeem_accounts(connection, wallets, currency=currency, now_ms=now_ms)
    way = to_head(journal, currency)
    number = (await ensure_accounts(connection, [way]))[way.name]
    return dict.fromkeys(wallets, number)


def to_head(journal: bytes, currency: str) -> Account:
    """Between a journal's shard and the head."""
    return between(HEAD, journal_text(journal), currency=currency)


def source_of_note(journal: bytes, currency: str) -> Arrival:
    """A note whose parent is known."""
    account = transit_notes(journal_text(journal), currency=currency)
    return Arrival(account, TransferKind.NOTE_IN)


def early_note(segment: Segment) -> Arrival:
    """A note that came before its parent."""
    account = suspense(journal_text(segment.journal), currency=segment.currency)
    return Arrival(account, TransferKind.NOTE_IN_EARLY)


def borne_note(currency: str) -> Arrival:
    """A note that the issuer pays for."""
    return Arrival(loss(currency), TransferKind.COMPENSATION)


def note_identity(journal: bytes, *, epoch: int, index: int) -> bytes:
    """The identity of the match of an early note with its parent."""
    return derived("note-matched", of_entry(journal, epoch=epoch, index=index))
