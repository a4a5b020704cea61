"""What is kept of the decisions on a report's entries, for the ledger and for nothing else."""

from cloud.reconciler.applying import apply_entries
from cloud.reconciler.context import Facts, ReplayContext
from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import ANCHOR, picture
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.state import State

ANNA, BERT = Key("anna"), Key("bert")
PAYMENTS, SETTLEMENTS = 20, 3


def told(book: Book) -> None:
    """Payments, and then settlements, each of a part of them."""
    first = book.state.size
    for _ in range(PAYMENTS):
        book.accept(book.pay(ANNA, BERT, 1))
    for number in range(SETTLEMENTS):
        book.accept(book.settlement(size=first + number + 1))


def test_what_settlements_leave_of_a_large_state_is_in_the_state_alone() -> None:
    book = opened("north", holders={ANNA: 1_000, BERT: 0})
    told(book)
    raws = book.context.entries
    entries, state = [decode_entry(raw) for raw in raws], State(book.journal, book.epoch)
    roots = {size: book.context.root_at(size) or b"" for size in range(1, len(entries) + 1)}
    facts = Facts(roots=roots)
    outcome = apply_entries(
        state, entries, [b""] * len(entries), ReplayContext(ANCHOR, facts), facts
    )
    assert outcome.refusal is None and picture(state) == picture(book.state)
    kinds = [decision.kind for decision in outcome.decisions]
    assert kinds.count(EntryKind.SETTLEMENT) == SETTLEMENTS
    assert [decision.fields for decision in outcome.decisions] == [None] * len(entries)
