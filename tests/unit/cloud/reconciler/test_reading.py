"""Reading reports: the quick reading of a pay is the strict one, and keys that do not fit wait."""

from __future__ import annotations

import pytest

from cloud.reconciler.reading import Signatures, read
from tests.support.issuer import ES256, Key
from tests.support.reporting import Branch
from tests.support.world import ANCHOR
from wallet.protocol.entry import Clock, Entry, Void, decode_entry
from wallet.protocol.ids import WalletId
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara", ES256)


@pytest.fixture
def branch() -> Branch:
    """A journal with entries of many kinds."""
    made = Branch("reading")
    made.enrol(ANNA, BERT, CARA)
    book = made.book
    book.accept(book.grant(ANNA, 10_000))
    book.accept(book.pay(ANNA, BERT, 1))
    book.accept(book.pay(ANNA, CARA, 10**3, reference="r" * 64, category="5411"))
    book.accept(book.pay(ANNA, BERT, 7, request=book.request(BERT, 7)))
    book.accept(Void(request=book.request(BERT, 8)))
    book.accept(book.pay(CARA, BERT, 7))
    book.clock = Clock.UNCERTAIN
    book.accept(book.pay(ANNA, BERT, 2))
    return made


def entries_of(branch: Branch) -> list[Entry]:
    """What the reconciler reads of the whole journal."""
    reading = read(branch.report(), ANCHOR, grace_s=ENDLESS_S)
    assert reading.problem is None
    return reading.entries


def test_every_entry_is_read_as_the_strict_decoder_reads_it(branch: Branch) -> None:
    assert entries_of(branch) == [decode_entry(raw) for raw in branch.book.context.entries]


@pytest.mark.parametrize("index", range(12))
def test_no_changed_byte_is_read_otherwise_than_strictly(branch: Branch, index: int) -> None:
    raws = branch.book.context.entries
    raw = raws[index % len(raws)]
    before = tuple(raws[: index % len(raws)])
    for place in range(len(raw)):
        for changed in (raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :], raw[:place]):
            up = branch.report(end=len(before) + 1, entries=(*before, changed))
            reading = read(up, ANCHOR, grace_s=ENDLESS_S)
            try:
                strict = decode_entry(changed)
            except ProtocolError as error:
                # A pay whose head is off is looked at again by the rules, which write it anew.
                quick = reading.entries[len(before) :]
                assert reading.problem == error.code or quick[0].raw == changed
            else:
                assert reading.entries[-1] == strict


def test_signatures_are_checked_under_keys_that_are_known_or_come_with_the_report(
    branch: Branch,
) -> None:
    signatures = Signatures()
    entries = entries_of(branch)
    signatures.collect(entries, {}, {})
    assert len(signatures.jobs) == 7
    trusted = signatures.trusted(b"\x01\x00" + b"\x01" * 5)
    assert len(trusted) == 6
    unknown = Signatures()
    unknown.collect(entries[4:], {}, {})
    assert unknown.jobs == []
    wrong = Signatures()
    wrong.collect(entries[4:], {}, {WalletId(ANNA.public.id): CARA.public})
    assert wrong.jobs == []
