"""Journals that break the rules, and the parts of which evidence against them is made."""

from __future__ import annotations

import copy

from tests.support.books import Book
from wallet.protocol import rules
from wallet.protocol.checkpoint import (
    assemble_checkpoint,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.entry import Entry, encode_entry
from wallet.protocol.merkle import Batch, Frontier, cover, leaf_hash
from wallet.protocol.state import Decision


def write(book: Book, raw: bytes) -> int:
    """Bytes into the tree of a journal that keeps to no rule; their index."""
    context = book.context
    context.entries.append(raw)
    context.leaves.append(leaf_hash(raw))
    return len(context.entries) - 1


def forge(book: Book, proposal: rules.Proposal, **changed: int) -> int:
    """What a gateway writes that takes its wallets for rich."""
    loose = copy.deepcopy(book.state)
    for wallet in loose.wallets.values():
        wallet.settled += 10**6
    outcome = rules.decide(loose, proposal, book.context, now_ms=book.now_ms, clock=book.clock)
    assert isinstance(outcome, Decision)
    return write(book, place(book, outcome.kind, outcome.body, **changed))


def place(book: Book, kind: int, body: bytes, **changed: int) -> bytes:
    """An entry with this body, as the next one. `changed`: its fields by their names."""
    fields = {
        "kind": kind,
        "index": len(book.context.entries),
        "time_ms": book.now_ms,
        "clock": book.clock,
        **changed,
    }
    return encode_entry(body=body, **fields)


def body_of(entry: Entry) -> bytes:
    """The encoded body of an entry."""
    head = encode_entry(
        kind=entry.kind, index=entry.index, time_ms=entry.time_ms, clock=entry.clock, body=b""
    )
    return entry.raw[len(head) :]


def transfer(book: Book, index: int) -> tuple[bytes, bytes]:
    """Entry and receipt."""
    return book.context.entries[index], book.receipt(index)


def checkpoint(book: Book, size: int | None = None, *, root: bytes | None = None) -> bytes:
    """A checkpoint over the first entries, or over all; with another root where one is given."""
    tree = Batch(Frontier(), book.context.leaves[:size])
    protected = checkpoint_protected(
        book.identity.key.public,
        journal=book.journal,
        epoch=book.epoch,
        size=tree.frontier.size,
        counter=0,
        issued_s=-(-book.state.time_ms // 1000),
    )
    made = tree.root if root is None else root
    signature = book.identity.key.sign(checkpoint_signed_bytes(protected, made))
    return assemble_checkpoint(protected, book.identity.chain, root=made, signature=signature)


def nodes(book: Book, start: int, end: int) -> list[bytes]:
    """Hashes of the largest perfect subtrees of these entries."""
    return [
        Batch(Frontier(), book.context.leaves[at << level : (at + 1) << level]).root
        for level, at in cover(start, end)
    ]
