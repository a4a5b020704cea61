"""A journal run again from its first entry on, by whoever holds the issuer's root.

What the rules ask beyond the state is answered from the entries themselves and the signed lists
that they name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.checkpoint import ReceiptError, decode_receipt
from wallet.protocol.context import Refundable, Source
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Entry, EntryKind, ListUpdate, Note, Payment, decode_entry
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import Settlement
from wallet.protocol.keys import PublicKey
from wallet.protocol.lists import Held, SignedList
from wallet.protocol.merkle import Batch, Frontier, leaf_hash
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.refusals import Code, ProtocolError, Refusal
from wallet.protocol.rules import apply
from wallet.protocol.state import State
from wallet.protocol.trust import check_note, check_role

_TO_WALLETS_HERE = (EntryKind.PAY, EntryKind.TRANSFER_IN)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The first entry that the rules refuse; `entry` is None where it cannot even be read.

    `is_certain`: no list or certificate that was not given and no later version makes it right.
    """

    index: int
    code: str
    detail: str
    entry: Entry | None
    is_certain: bool


class Surroundings:
    """The `Context` of a journal that is run again."""

    def __init__(
        self, anchor: TrustAnchor, *, roots: Mapping[int, bytes], lists: Iterable[SignedList]
    ) -> None:
        self._anchor = anchor
        self._roots = roots
        self._lists = {given.hash: given for given in lists}
        self._payments: dict[bytes, Refundable] = {}
        # Whether something was asked for that is not here: the journal may have held it.
        self.lacks = False

    def append(self, entry: Entry, leaf: bytes) -> None:
        """An entry that was accepted: later ones may refund it."""
        payment = refundable_of(entry)
        if payment is not None:
            self._payments[leaf] = payment

    def check_signature(self, key: PublicKey, signed: Sign1) -> None:
        """See `Context`."""
        signed.verify(key)

    def check_role(self, signed: Sign1, role: str) -> None:
        """See `Context`."""
        self.lacks = self.lacks or not signed.chain
        check_role(self._anchor, signed, role, held_chains=NO_CHAINS)

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """See `Context`."""
        # A receipt that is none is refused for what it is.
        with contextlib.suppress(ReceiptError):
            self.lacks = not decode_receipt(note.receipt).chain
        return check_note(
            self._anchor, note, lists=lists, grace_s=certificate_grace_s, held_chains=NO_CHAINS
        )

    def refundable(self, leaf: bytes) -> Refundable | None:
        """See `Context`."""
        return self._payments.get(leaf)

    def root_at(self, size: int) -> bytes | None:
        """See `Context`."""
        return self._roots.get(size)

    def list_named(self, update: ListUpdate) -> SignedList | None:
        """See `Context`."""
        self.lacks = self.lacks or update.hash not in self._lists
        return self._lists.get(update.hash)


def first_refused(
    raws: Sequence[bytes],
    *,
    journal: JournalId,
    epoch: int,
    anchor: TrustAnchor,
    lists: Sequence[SignedList],
) -> Refused | None:
    """Run an epoch again from entry 0 on, and stop at the first entry that the rules refuse."""
    entries, problem = _read(raws)
    leaves = [leaf_hash(raw) for raw in raws]
    sizes = {e.body.size for e in entries if isinstance(e.body, Settlement)}
    context = Surroundings(anchor, roots=roots_at(sizes, leaves), lists=lists)
    state = State(journal, epoch)
    for entry, leaf in zip(entries, leaves, strict=False):
        context.lacks = False
        outcome = apply(state, entry, context)
        if isinstance(outcome, Refusal):
            return Refused(
                index=state.size,
                code=outcome.code,
                detail=outcome.detail,
                entry=entry,
                is_certain=not context.lacks,
            )
        context.append(entry, leaf)
    if problem is None:
        return None
    return Refused(
        index=len(entries),
        code=problem.code,
        detail=problem.detail,
        entry=None,
        is_certain=problem.code != Code.UNKNOWN_VERSION,
    )


def _read(raws: Sequence[bytes]) -> tuple[list[Entry], ProtocolError | None]:
    """The entries up to the first one that cannot be read, and why it cannot."""
    entries: list[Entry] = []
    for raw in raws:
        try:
            entries.append(decode_entry(raw))
        except ProtocolError as error:
            return entries, error
    return entries, None


def roots_at(sizes: Set[int], leaves: Sequence[bytes]) -> dict[int, bytes]:
    """Roots of the tree at sizes up to its own."""
    found, frontier = {}, Frontier()
    for size in sorted(size for size in sizes if size <= len(leaves)):
        batch = Batch(frontier, leaves[frontier.size : size])
        found[size], frontier = batch.root, batch.frontier
    return found


def refundable_of(entry: Entry) -> Refundable | None:
    """What a refund may name of an entry; None of what is no payment to a wallet here."""
    body = entry.body
    if not isinstance(body, Payment | Note) or entry.kind not in _TO_WALLETS_HERE:
        return None
    order = body.order
    return Refundable(
        payer=order.payer,
        payee=order.payee,
        amount_minor=order.amount_minor,
        time_ms=entry.time_ms,
    )
