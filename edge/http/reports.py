"""X reports: totals of the epoch so far, by kind of entry. Nothing is closed by asking."""

from __future__ import annotations

from edge.gateway import Opened
from edge.http.statement import kind_name
from edge.http.types import ReportAnswer, ReportLine
from edge.verdicts import by_index, read_verdicts, state_of
from wallet.protocol.entry import Entry, Note, Payment, decode_entry
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import Grant

PAGE = 500
_COUNTED = ("fund", "payment", "refund", "transfer-out", "transfer-in", "redeem")


class _Line:
    """Totals while they are added up."""

    def __init__(self) -> None:
        self.count = self.amount = 0
        self.by_state: dict[str, int] = {}

    def add(self, amount: int, state: str) -> None:
        self.count += 1
        self.amount += amount
        self.by_state[state] = self.by_state.get(state, 0) + amount


async def x_report(opened: Opened) -> ReportAnswer:
    """Totals now. Reads the whole epoch, page by page. Raises: StoreError."""
    journal = opened.journal
    size, settled_size = journal.state.size, journal.state.settled_size
    verdicts = by_index(await opened.database.read(read_verdicts))
    lines = {kind: _Line() for kind in _COUNTED}
    for first in range(0, size, PAGE):
        for raw in await journal.entries(first, min(PAGE, size - first)):
            entry = decode_entry(raw)
            kind = kind_name(entry)
            if kind in lines:
                verdict = verdicts.get(entry.index)
                state, _ = state_of(entry.index, settled_size=settled_size, verdict=verdict)
                lines[kind].add(_amount(entry), state)
    return ReportAnswer(
        journal=journal_text(journal.state.journal),
        epoch=journal.state.epoch,
        currency=journal.state.currency,
        size=size,
        settled=settled_size,
        lines=[_line(kind, line) for kind, line in lines.items()],
    )


def _amount(entry: Entry) -> int:
    body = entry.body
    if isinstance(body, Grant):
        return body.amount_minor
    return body.order.amount_minor if isinstance(body, Payment | Note) else 0


def _line(kind: str, line: _Line) -> ReportLine:
    final, rejected = line.by_state.get("settled", 0), line.by_state.get("rejected", 0)
    return ReportLine(
        kind=kind,
        count=line.count,
        amount=line.amount,
        final=final,
        provisional=line.amount - final - rejected,
        rejected=rejected,
    )
