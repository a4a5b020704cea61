"""What officers call when a gateway is lost or replaced, and what holders hand in."""

from __future__ import annotations

from functools import partial

from cloud.attestation.levels import inherit_demand
from cloud.http import recovery_types as types
from cloud.http.octets import from_text, journal_of, to_text
from cloud.http.routes import Call, Route
from cloud.http.types import TokenAnswer
from cloud.issuer import gateways
from cloud.issuer.officers import Role
from cloud.issuer.suspensions import list_suspended
from cloud.recovery import claims, closures, statements
from cloud.recovery.closures import Cause, Closure
from cloud.recovery.statements import Hosted, StatementDraft
from cloud.recovery.total import Judged
from cloud.service import Cloud
from wallet.protocol.entry import EntryKind, Note, Payment
from wallet.protocol.ids import JournalId, journal_text

_get = partial(Route, method="GET", role=Role.RECOVERY)
_post = partial(Route, method="POST", role=Role.RECOVERY)
_ONE = "/v1/issuer/closures/{closure}"


def recovery_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer/closures, and where claims are handed in."""
    desk = RecoveryDesk(cloud)
    return [*_closures(desk), *_claims(desk), *_statements(desk)]


def _closures(desk: RecoveryDesk) -> list[Route]:
    answer = types.ClosureAnswer
    return [
        _post(
            path="/v1/issuer/closures",
            work=desk.draft_closure,
            body=types.ClosureBody,
            answer=answer,
        ),
        _get(path="/v1/issuer/closures", work=desk.closures, answer=types.ClosuresAnswer),
        _post(path=f"{_ONE}/approve", work=desk.approve_closure, answer=answer),
        _post(path=f"{_ONE}/reject", work=desk.reject_closure, answer=answer),
        _post(path=f"{_ONE}/token", work=desk.successor_token, answer=TokenAnswer),
    ]


def _claims(desk: RecoveryDesk) -> list[Route]:
    hand_in = partial(
        Route, method="POST", work=desk.hand_in, body=types.ClaimsBody, answer=types.TakenAnswer
    )
    return [
        hand_in(path="/v1/issuer/claims", role=Role.RECOVERY),
        hand_in(path="/v1/wallets/claims", by="holder"),
        _get(path=f"{_ONE}/claims", work=desk.claims, answer=types.ClaimsAnswer),
    ]


def _statements(desk: RecoveryDesk) -> list[Route]:
    answer, one = types.StatementAnswer, "/v1/issuer/statements/{statement}"
    return [
        _post(
            path=f"{_ONE}/statements",
            work=desk.draft_statement,
            body=types.StatementBody,
            answer=answer,
        ),
        _get(path=f"{_ONE}/statements", work=desk.statements, answer=types.StatementsAnswer),
        _post(path=f"{one}/approve", work=desk.approve_statement, answer=answer),
        _post(path=f"{one}/reject", work=desk.reject_statement, answer=answer),
    ]


class RecoveryDesk:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def draft_closure(self, call: Call) -> types.ClosureAnswer:
        """Declare the epoch of a gateway over; another officer approves."""
        made = await closures.draft_closure(
            call.connection,
            closure_id=bytes.fromhex(call.body.closure_id),
            journal=journal_of(call.body.journal),
            cause=Cause(call.body.cause),
            reason=call.body.reason,
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _closure(made)

    async def closures(self, call: Call) -> types.ClosuresAnswer:
        """Closures, the newest first."""
        found = await closures.list_closures(call.connection)
        return types.ClosuresAnswer(closures=[_closure(item) for item in found])

    async def approve_closure(self, call: Call) -> types.ClosureAnswer:
        """Approve another officer's closure: the journal is revoked, and claims are awaited."""
        made = await closures.approve_closure(
            call.connection,
            self._cloud.desk,
            call.identity("closure"),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _closure(made)

    async def reject_closure(self, call: Call) -> types.ClosureAnswer:
        """Reject another officer's closure: the gateway goes on."""
        made = await closures.reject_closure(
            call.connection, call.identity("closure"), officer=call.officer, now_ms=call.now_ms
        )
        return _closure(made)

    async def successor_token(self, call: Call) -> TokenAnswer:
        """A one-time token for the gateway that goes on where this one ended."""
        closure = await closures.find_closure(call.connection, call.identity("closure"))
        before = await gateways.find_gateway(call.connection, closure.journal)
        token = await gateways.add_gateway(
            call.connection,
            self._cloud.desk,
            name=before.name,
            currency=before.currency,
            tiers=before.tiers,
            actor=call.officer.name,
            now_ms=call.now_ms,
            closure_id=closure.closure_id,
        )
        await inherit_demand(
            call.connection,
            token,
            closure.journal,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        return TokenAnswer(token=token)

    async def hand_in(self, call: Call) -> types.TakenAnswer:
        """Hand in receipts: what their journal did not tell is claimed by them."""
        transfers = [
            (from_text(item.entry), from_text(item.receipt)) for item in call.body.receipts
        ]
        outcomes = await claims.hand_in(
            call.connection, self._cloud.desk.anchor, transfers, now_ms=call.now_ms
        )
        await list_suspended(call.connection, self._cloud.desk, now_ms=call.now_ms)
        return types.TakenAnswer(outcomes=[outcome.value for outcome in outcomes])

    async def claims(self, call: Call) -> types.ClaimsAnswer:
        """What an epoch comes to by what is claimed now, with wallets carried."""
        closure = await closures.find_closure(call.connection, call.identity("closure"))
        total = await statements.reckon(
            call.connection, self._cloud.desk, closure, hosted=Hosted.CARRY
        )
        return types.ClaimsAnswer(
            carried=sum(balance for _, balance in total.carried),
            paid_out=total.paid_out,
            borne=total.borne,
            wallets=len(total.carried),
            claims=[_claim(item) for item in total.judged],
        )

    async def draft_statement(self, call: Call) -> types.StatementAnswer:
        """Reckon what an epoch comes to, once the claims window is over; another officer signs."""
        made = await statements.draft_statement(
            call.connection,
            self._cloud.desk,
            statement_id=bytes.fromhex(call.body.statement_id),
            closure_id=call.identity("closure"),
            hosted=Hosted(call.body.hosted),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _statement(made)

    async def statements(self, call: Call) -> types.StatementsAnswer:
        """Drafts of a closure's statement."""
        found = await statements.list_statements(call.connection, call.identity("closure"))
        return types.StatementsAnswer(statements=[_statement(item) for item in found])

    async def approve_statement(self, call: Call) -> types.StatementAnswer:
        """Approve another officer's statement: claims are posted, and it is signed."""
        made = await statements.approve_statement(
            call.connection,
            self._cloud.desk,
            call.identity("statement"),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _statement(made)

    async def reject_statement(self, call: Call) -> types.StatementAnswer:
        """Reject another officer's statement; another draft may follow."""
        made = await statements.reject_statement(
            call.connection, call.identity("statement"), officer=call.officer, now_ms=call.now_ms
        )
        return _statement(made)


def _closure(made: Closure) -> types.ClosureAnswer:
    successor = None if made.successor is None else journal_text(JournalId(made.successor))
    return types.ClosureAnswer(
        closure_id=made.closure_id.hex(),
        journal=journal_text(JournalId(made.journal)),
        epoch=made.epoch,
        cause=made.cause.value,
        reason=made.reason,
        state=made.state.value,
        claims_until_ms=made.claims_until_ms,
        successor=successor,
    )


def _claim(item: Judged) -> types.ClaimAnswer:
    entry = item.claim.entry
    return types.ClaimAnswer(
        index=item.claim.index,
        kind=EntryKind(entry.kind).name.lower().replace("_", "-"),
        amount=entry.body.order.amount_minor if isinstance(entry.body, Payment | Note) else 0,
        code=item.code,
    )


def _statement(made: StatementDraft) -> types.StatementAnswer:
    return types.StatementAnswer(
        statement_id=made.statement_id.hex(),
        closure_id=made.closure_id.hex(),
        hosted=made.hosted.value,
        carried=made.carried,
        paid_out=made.paid_out,
        borne=made.borne,
        counted=made.counted,
        refused=made.refused,
        state=made.state.value,
        object=None if made.object is None else to_text(made.object),
    )
