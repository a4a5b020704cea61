"""Turning what the journal says into answers of the interface."""

from __future__ import annotations

from edge.gateway import Opened
from edge.http.octets import Octets
from edge.http.problem import ProblemRaised, problem_of
from edge.http.types import BatchItemAnswer, PaymentAnswer
from edge.verdicts import read_verdict, state_of
from wallet.journal import Receipted
from wallet.protocol.entry import EntryKind, Payment, decode_entry
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import Verdict
from wallet.protocol.refusals import Refusal

_LEFT = int(EntryKind.TRANSFER_OUT)


def fresh(made: Receipted, *, note_for: str | None = None) -> PaymentAnswer:
    """A payment that was just accepted: nothing settled it yet."""
    return PaymentAnswer(
        id=made.leaf.hex(),
        state="accepted",
        finality="provisional",
        index=made.index,
        time_ms=made.time_ms,
        entry=Octets(made.entry),
        receipt=Octets(made.receipt),
        soft=list(made.soft),
        note_for=note_for,
    )


def reprinted(made: Receipted, verdict: Verdict | None, *, settled_size: int) -> PaymentAnswer:
    """A payment of before, as it stands now."""
    state, finality = state_of(made.index, settled_size=settled_size, verdict=verdict)
    return PaymentAnswer(
        id=made.leaf.hex(),
        state=state,  # type: ignore[arg-type]  # one of the names that the type lists
        finality=finality,  # type: ignore[arg-type]  # one of the names that the type lists
        index=made.index,
        time_ms=made.time_ms,
        entry=Octets(made.entry),
        receipt=Octets(made.receipt),
        reprint=True,
        note_for=note_for(made),
        code=None if verdict is None else verdict.code,
    )


def note_for(made: Receipted) -> str | None:
    """The journal that is to redeem the payment as a note, if it left this one."""
    if made.kind != _LEFT:
        return None
    body = decode_entry(made.entry).body
    return journal_text(body.order.payee_journal) if isinstance(body, Payment) else None


async def payment_answer(opened: Opened, made: Receipted) -> PaymentAnswer:
    """A payment, new or repeated. Raises: StoreError."""
    if not made.repeated:
        return fresh(made, note_for=note_for(made))
    verdict = await opened.database.read(lambda c: read_verdict(c, made.index))
    return reprinted(made, verdict, settled_size=opened.journal.state.settled_size)


def accepted(outcome: Receipted | Refusal) -> Receipted:
    """The accepted entry. Raises: ProblemRaised with the refusal."""
    if isinstance(outcome, Refusal):
        raise ProblemRaised(outcome)
    return outcome


async def batch_item(opened: Opened, outcome: Receipted | Refusal) -> BatchItemAnswer:
    """The answer to one order of a batch."""
    if isinstance(outcome, Refusal):
        problem = problem_of(outcome)
        return BatchItemAnswer(
            status=problem.status,
            code=problem.code,
            detail=problem.detail,
            limit=problem.limit,
            left=problem.left,
            retry_after=problem.retry_after,
        )
    status = 200 if outcome.repeated else 201
    return BatchItemAnswer(status=status, payment=await payment_answer(opened, outcome))
