"""Claims on a closed epoch, one by one: which count, and why the others do not."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.database import Connection, Database
from cloud.ledger.posting import TransferKind
from cloud.reconciler.hidden import set_aside
from cloud.reconciler.values import ReconcilerError
from cloud.recovery.accounting import Books
from cloud.recovery.claims import Claim, claims_of
from cloud.recovery.rejected import Origin, Rejected
from cloud.shards.homes import Site
from tests.integration.cloud.test_convictions import forged
from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank, reconciler
from tests.support.world import ANCHOR, EURO, NOW_MS, list_of, policy_of
from wallet.protocol.entry import Entry, Note, Payment
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import Limit
from wallet.protocol.refusals import Code

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")


@pytest.fixture
async def connection(database: Database) -> Any:
    """A transaction."""
    async with database.transaction() as opened_one:
        yield opened_one


class Lost:
    """A journal that wrote more than the issuer knows: its replica stands where it was."""

    def __init__(self) -> None:
        self.book = opened("north", holders={ANNA: 1_000, BERT: 0})

    def books(self, **changed: Any) -> Books:
        """The issuer's view of it."""
        given: dict[str, Any] = {"place": (self.book.journal, 1), "currency": EURO, "keys": {}}
        return Books(ANCHOR, self.book.replica, **{**given, **changed})

    def written(self, proposal: Any) -> Entry:
        """An entry that the issuer never gets; its receipt could be made."""
        entry = self.book.write(proposal)
        assert isinstance(entry, Entry), entry
        self.book.context.append(entry)
        return entry

    async def tell(self, connection: Connection) -> None:
        """The issuer holds what was accepted."""
        raws, leaves = self.book.context.entries, self.book.context.leaves
        epoch_id = await connection.fetchval(
            "INSERT INTO journal_epoch (journal, epoch, size, applied, opened_ms, changed_ms)"
            " VALUES ($1, 1, $2, $2, 0, 0) RETURNING epoch_id",
            *(self.book.journal, len(raws)),
        )
        await connection.execute(
            "INSERT INTO journal_segment (epoch_id, first, size, entries, leaves, checkpoint,"
            " received_ms) VALUES ($1, 0, $2, $3, $4, '', 0)",
            *(epoch_id, len(raws), list(raws), b"".join(leaves)),
        )


def entry_of(payment: Payment, *, kind: int = 2, index: int = 1) -> Entry:
    """An entry that a journal hides behind what it tells of."""
    return Entry(raw=b"hidden", kind=kind, index=index, time_ms=NOW_MS, clock=0, body=payment)


def claim(entry: Entry, **changed: Any) -> Claim:
    """As it comes in."""
    given = {"index": entry.index, "leaf": leaf_hash(entry.raw), "entry": entry, "receipt": None}
    return Claim(**{**given, **changed})


async def codes(connection: Connection, books: Books, *entries: Entry) -> list[str | None]:
    """What each claim comes to."""
    await books.add(Site.alone(connection), [claim(entry) for entry in entries])
    return [item.code for item in books.judged]


async def test_a_claim_counts_once_whoever_brings_the_order(connection: Connection) -> None:
    lost = Lost()
    paid = lost.written(lost.book.pay(ANNA, BERT, 300))
    books = lost.books()
    assert await codes(connection, books, paid, paid) == [None, Code.SEQUENCE_USED]
    assert books.carried() == sorted([(ANNA.public.id, 700), (BERT.public.id, 300)])


async def test_an_order_that_is_older_than_what_the_journal_told_does_not_count(
    connection: Connection,
) -> None:
    lost = Lost()
    told = lost.book.accept(lost.book.pay(ANNA, BERT, 300))
    await lost.tell(connection)
    assert await codes(connection, lost.books(), told) == [Code.SEQUENCE_USED]


async def test_who_was_paid_by_an_order_whose_sequence_another_one_spent_is_paid_by_the_issuer(
    connection: Connection,
) -> None:
    lost = Lost()
    hidden = lost.book.order(ANNA, BERT, 200)
    lost.book.accept(lost.book.pay(ANNA, BERT, 300))
    await lost.tell(connection)
    books = lost.books()
    assert await codes(connection, books, entry_of(Payment(order=hidden))) == [None]
    assert (books.borne, [move.kind for move in books.moves]) == (200, [TransferKind.COMPENSATION])
    assert books.carried() == sorted([(ANNA.public.id, 700), (BERT.public.id, 500)])


async def test_nobody_but_a_payee_here_gains_by_a_sequence_that_was_spent(
    connection: Connection,
) -> None:
    lost = Lost()
    away = lost.book.order(ANNA, BERT, 200, payee_journal=bytes(20))
    home = lost.book.order(ANNA, ANNA, 200, kind=OrderKind.REDEEM)
    lost.book.accept(lost.book.pay(ANNA, BERT, 300))
    await lost.tell(connection)
    made = [entry_of(Payment(order=home), kind=5, index=99)]
    made.append(entry_of(Payment(order=away), kind=3, index=99))
    assert await codes(connection, lost.books(), *made) == [Code.SEQUENCE_USED] * 2


@pytest.mark.parametrize("fault", ["listed", "asked before", "too much"])
async def test_a_payee_who_did_not_keep_to_the_policy_is_not_owed_what_was_hidden(
    connection: Connection, fault: str
) -> None:
    lost, asked = Lost(), None
    if fault == "asked before":
        asked = lost.book.request(BERT, 300)
    hidden = lost.book.pay(ANNA, BERT, 301 if fault == "too much" else 300, request=asked)
    lost.book.accept(lost.book.pay(ANNA, BERT, 300, request=asked, reference="another"))
    if fault == "listed":
        lost.book.accept(list_of(ListId.WALLETS, [BERT.public.id]))
    if fault == "too much":
        lost.book.accept(policy_of({0: {Limit.PAYMENT_MAX: 300}}, sequence=1))
    await lost.tell(connection)
    code = {
        "listed": Code.WALLET_REVOKED,
        "asked before": Code.REQUEST_PAID,
        "too much": Code.PAYMENT_ABOVE_LIMIT,
    }[fault]
    books = lost.books()
    assert await codes(connection, books, entry_of(hidden)) == [code]
    assert books.borne == 0


async def test_claims_of_another_epoch_currency_or_wallet_do_not_count(
    connection: Connection,
) -> None:
    lost = Lost()
    paid = lost.written(lost.book.pay(ANNA, BERT, 300))
    other = lost.books(place=(lost.book.journal, 2))
    assert await codes(connection, other, paid) == [Code.WRONG_JOURNAL]
    assert await codes(connection, lost.books(currency="CHF"), paid) == [Code.WRONG_CURRENCY]
    enrolled = lost.written(lost.book.enrolment(CARA))
    fresh = lost.written(lost.book.pay(ANNA, CARA, 5))
    assert await codes(connection, lost.books(), enrolled, fresh) == [
        Code.MALFORMED,
        Code.UNKNOWN_WALLET,
    ]
    # The issuer enrolled Cara, and the journal had no time to say that it knows.
    known = lost.books(keys={CARA.public.id: CARA.public})
    assert await codes(connection, known, fresh) == [None]


async def test_an_entry_of_another_kind_than_its_order_does_not_count(
    connection: Connection,
) -> None:
    lost = Lost()
    paid = lost.written(lost.book.pay(ANNA, BERT, 300))
    for kind in (3, 5):
        changed = Entry(
            raw=paid.raw,
            kind=kind,
            index=paid.index,
            time_ms=paid.time_ms,
            clock=paid.clock,
            body=paid.body,
        )
        assert await codes(connection, lost.books(), changed) == [Code.MALFORMED]
    redeem = lost.written(lost.book.pay(ANNA, ANNA, 5, kind=OrderKind.REDEEM))
    to_itself = Entry(
        raw=redeem.raw,
        kind=2,
        index=redeem.index,
        time_ms=redeem.time_ms,
        clock=redeem.clock,
        body=redeem.body,
    )
    assert await codes(connection, lost.books(), to_itself) == [Code.MALFORMED]


async def test_a_note_that_came_in_counts_once_and_only_with_its_receipt(
    connection: Connection,
) -> None:
    lost = Lost()
    south = opened("south", holders={CARA: 500})
    arrived = lost.written(_note(south, lost.book, 100))
    books = lost.books()
    assert await codes(connection, books, arrived, arrived) == [None, Code.NOTE_REDEEMED]
    assert (ANNA.public.id, 1_100) in books.carried()
    assert [change.state for change in books.notes] == ["early"]
    assert await codes(connection, lost.books(currency="CHF"), arrived) == [Code.WRONG_CURRENCY]
    elsewhere = lost.books(place=(south.journal, 1))
    assert await codes(connection, elsewhere, arrived) == [Code.NOTE_NOT_FOR_US]


@pytest.mark.parametrize(
    ("told", "code", "kind"),
    [
        ({"applied": 9}, None, "COMPENSATION"),
        ({"applied": 9, "stated_ms": 1}, None, "COMPENSATION"),
        ({"leaf": bytes(32)}, None, "COMPENSATION"),
        ({"leaf": bytes(32), "aside": True}, Code.NOTE_REDEEMED, None),
        ({"state": "out"}, None, "NOTE_IN"),
        ({"state": "returned"}, None, "COMPENSATION"),
        ({"state": "redeemed"}, Code.NOTE_REDEEMED, None),
    ],
)
async def test_a_note_is_held_against_what_its_own_journal_told(
    connection: Connection, told: dict[str, Any], code: str | None, kind: str | None
) -> None:
    lost = Lost()
    south = opened("south", holders={CARA: 500})
    arrived = lost.written(_note(south, lost.book, 100))
    assert isinstance(arrived.body, Note)
    if "applied" in told:
        await connection.execute(
            "INSERT INTO journal_epoch (journal, epoch, size, applied, stated_ms, opened_ms,"
            " changed_ms) VALUES ($1, 1, 9, $2, $3, 0, 0)",
            *(south.journal, told["applied"], told.get("stated_ms")),
        )
    else:
        await connection.execute(
            "INSERT INTO note (journal, epoch, index, leaf, state, payer, payee_journal, amount,"
            " currency, expires_ms) VALUES ($1, 1, $2, $3, $4, $5, $6, 100, 'EUR', 0)",
            *(south.journal, arrived.body.index),
            told.get("leaf", leaf_hash(arrived.body.entry)),
            *(told.get("state", "out"), CARA.public.id, lost.book.journal),
        )
    if "aside" in told:
        key = (south.journal, 1, arrived.body.index)
        leaf = leaf_hash(arrived.body.entry)
        assert await set_aside(connection, key, leaf, arrived=(lost.book.journal, 1, 0))
        assert not await set_aside(connection, key, leaf, arrived=(lost.book.journal, 1, 9))
    books = lost.books()
    assert await codes(connection, books, arrived) == [code]
    assert [move.kind.name for move in books.moves] == ([] if kind is None else [kind])


def _note(source: Book, target: Book, amount: int) -> Note:
    left = source.accept(source.pay(CARA, ANNA, amount, payee_journal=target.journal))
    return source.note(left.index)


async def test_what_a_payee_has_not_any_more_is_not_taken_back() -> None:
    lost = Lost()
    books = lost.books()
    order = lost.book.order(ANNA, BERT, 300)
    books.take_back([Rejected(index=9, order=order, origin=Origin.HERE)])
    assert (books.moves, books.taken_back) == ([], 0)
    assert books.carried() == [(ANNA.public.id, 1_000)]


async def test_what_a_suspended_journal_told_after_its_offence_is_claimed_by_itself(
    database: Database,
) -> None:
    await open_bank(database)
    north, reconciling = Branch("north"), reconciler(database)
    north.enrol(ANNA, BERT)
    await north.fund(database, ANNA, 1_000)
    bad = forged(north, north.book.pay(ANNA, BERT, 5_000))
    after = forged(north, north.book.pay(BERT, ANNA, 10))
    await north.sync(reconciling)
    async with database.transaction() as connection:
        row = await connection.fetchrow("SELECT * FROM journal_epoch")
        found = [item async for page in claims_of(connection, row) for item in page]
    assert bad.index == row["applied"]
    assert [item.index for item in found] == [after.index]


async def test_a_statement_opens_no_journal_but_the_one_that_the_issuer_let_go_on(
    database: Database,
) -> None:
    await open_bank(database)
    north, reconciling = Branch("north"), reconciler(database)
    north.enrol(ANNA)
    await north.fund(database, ANNA, 1_000)
    await north.sync(reconciling)
    statement = north.book.statement([(ANNA.public.id, 1_000)])
    thief = Branch("west", epoch=2, statement=statement)
    with pytest.raises(ReconcilerError, match="statement-foreign"):
        await thief.sync(reconciling, now_ms=NOW_MS)
