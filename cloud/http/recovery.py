"""What officers call when a gateway is lost or replaced, and what holders hand in."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from functools import partial

from cloud.attestation.levels import Level, inherit_demand
from cloud.http import recovery_types as types
from cloud.http.octets import from_text, journal_of, kind_text, to_text
from cloud.http.routes import Call, Route
from cloud.http.types import TokenAnswer
from cloud.issuer import gateways
from cloud.issuer.officers import Role
from cloud.issuer.suspensions import list_suspended
from cloud.recovery import claims, closures, refusals, statements
from cloud.recovery.claims import Outcome
from cloud.recovery.closures import Cause, Closure, ClosureState
from cloud.recovery.reckoning import Hosted, reckon
from cloud.recovery.refusals import ClaimRefusal
from cloud.recovery.statements import StatementDraft
from cloud.recovery.total import Judged
from cloud.service import Cloud
from cloud.shards.homes import Site, homes_of
from cloud.shards.messages import HEAD, ShardError
from cloud.shards.news import CLAIMS, heard_until, knows_fates, knows_grants
from wallet.protocol.ids import JournalId, journal_text

_page = partial(Route, method="GET", role=Role.RECOVERY, query=("first",))
_post = partial(Route, method="POST", role=Role.RECOVERY)
_ONE = "/v1/issuer/closures/{closure}"


def recovery_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer/closures, and where claims are handed in."""
    desk = RecoveryDesk(cloud)
    return [*_closures(desk), *_claims(desk), *_refusals(desk), *_statements(desk)]


def _closures(desk: RecoveryDesk) -> list[Route]:
    answer = types.ClosureAnswer
    return [
        _post(
            path="/v1/issuer/closures",
            work=desk.draft_closure,
            body=types.ClosureBody,
            answer=answer,
        ),
        _page(path="/v1/issuer/closures", work=desk.closures, answer=types.ClosuresAnswer),
        _post(path=f"{_ONE}/approve", work=desk.approve_closure, answer=answer),
        _post(path=f"{_ONE}/reject", work=desk.reject_closure, answer=answer),
        _post(
            path=f"{_ONE}/token",
            work=desk.successor_token,
            body=types.SuccessorBody,
            answer=TokenAnswer,
        ),
    ]


def _claims(desk: RecoveryDesk) -> list[Route]:
    hand_in = partial(
        Route, method="POST", work=desk.hand_in, body=types.ClaimsBody, answer=types.TakenAnswer
    )
    return [
        hand_in(path="/v1/issuer/claims", role=Role.RECOVERY),
        hand_in(path="/v1/wallets/claims", by="holder"),
        _page(path=f"{_ONE}/claims", work=desk.claims, answer=types.ClaimsAnswer),
    ]


def _refusals(desk: RecoveryDesk) -> list[Route]:
    answer, one = types.RefusalAnswer, "/v1/issuer/refusals/{draft}"
    return [
        _post(
            path=f"{_ONE}/refusals", work=desk.draft_refusal, body=types.RefusalBody, answer=answer
        ),
        _page(path=f"{_ONE}/refusals", work=desk.refusals, answer=types.RefusalsAnswer),
        _post(path=f"{one}/approve", work=desk.approve_refusal, answer=answer),
        _post(path=f"{one}/reject", work=desk.reject_refusal, answer=answer),
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
        _page(path=f"{_ONE}/statements", work=desk.statements, answer=types.StatementsAnswer),
        _page(path=f"{one}/claims", work=desk.statement_claims, answer=types.JudgedAnswer),
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
        found = await closures.list_closures(call.connection, first=call.first)
        return types.ClosuresAnswer(closures=[_closure(item) for item in found])

    async def approve_closure(self, call: Call) -> types.ClosureAnswer:
        """Approve another officer's closure: the journal is revoked, and claims are awaited."""
        async with self._of_closure(call) as (site, closure):
            made = await closures.approve_closure(
                site,
                self._cloud.desk,
                closure.closure_id,
                officer=call.officer,
                now_ms=call.now_ms,
            )
        return _closure(made)

    async def reject_closure(self, call: Call) -> types.ClosureAnswer:
        """Reject another officer's closure: the gateway goes on."""
        async with self._of_closure(call) as (site, closure):
            made = await closures.reject_closure(
                site,
                self._cloud.desk,
                closure.closure_id,
                officer=call.officer,
                now_ms=call.now_ms,
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
            level=None if call.body.level is None else Level(call.body.level),
            pcr_policy=call.body.pcr_policy,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        return TokenAnswer(token=token)

    async def hand_in(self, call: Call) -> types.TakenAnswer:
        """Hand in receipts: what their journal did not tell is claimed by them."""
        transfers = [
            (from_text(item.entry), from_text(item.receipt)) for item in call.body.receipts
        ]
        desk = self._cloud.desk
        given = await claims.read(desk.anchor, transfers)
        places = defaultdict[int, list[int]](list)
        homes = await homes_of(
            call.connection, [item.verified.journal for item in given if item is not None]
        )
        for place, item in enumerate(given):
            if item is not None:
                places[homes.get(item.verified.journal, HEAD)].append(place)
        outcomes = [Outcome.INVALID] * len(given)
        for home, of_home in sorted(places.items()):
            received = [item for item in (given[place] for place in of_home) if item is not None]
            async with self._cloud.shards.beside(call.connection, home) as there:
                found = await claims.hand_in(there, desk.anchor, received, now_ms=call.now_ms)
            for place, outcome in zip(of_home, found, strict=True):
                outcomes[place] = outcome
        await list_suspended(call.connection, self._cloud.desk, now_ms=call.now_ms)
        return types.TakenAnswer(outcomes=[outcome.value for outcome in outcomes])

    async def claims(self, call: Call) -> types.ClaimsAnswer:
        """What an epoch comes to by what is claimed now, all wallets carried, and a page of it."""
        async with self._of_closure(call) as (site, closure):
            total = await reckon(site, self._cloud.desk, closure, hosted=Hosted.CARRY)
        first = call.first
        page = total.judged[first : first + statements.PAGE_MAX]
        return types.ClaimsAnswer(
            carried=sum(balance for _, balance in total.carried),
            paid_out=total.paid_out,
            taken_back=total.taken_back,
            borne=total.borne,
            wallets=len(total.carried),
            outcome=total.digest.hex(),
            claimed=len(total.judged),
            claims=[claim_answer(item) for item in page],
        )

    async def draft_refusal(self, call: Call) -> types.RefusalAnswer:
        """Propose to refuse a claim, with a reason; another officer approves."""
        async with self._of_closure(call) as (site, closure):
            made = await refusals.draft_refusal(
                site,
                draft_id=bytes.fromhex(call.body.draft_id),
                closure_id=closure.closure_id,
                leaf=bytes.fromhex(call.body.claim),
                reason=call.body.reason,
                officer=call.officer,
                now_ms=call.now_ms,
            )
        return _refusal(made)

    async def refusals(self, call: Call) -> types.RefusalsAnswer:
        """Claims of a closure that are, or may be, refused."""
        found = await refusals.list_refusals(
            call.connection, call.identity("closure"), first=call.first
        )
        return types.RefusalsAnswer(refusals=[_refusal(item) for item in found])

    async def approve_refusal(self, call: Call) -> types.RefusalAnswer:
        """Refuse a claim as another officer proposed: it does not count any more."""
        draft_id = call.identity("draft")
        closure_id = await refusals.closure_of(call.connection, draft_id)
        closure = await closures.find_closure(call.connection, closure_id)
        async with self._cloud.shards.site(call.connection, closure.journal) as site:
            made = await refusals.approve_refusal(
                site, draft_id, officer=call.officer, now_ms=call.now_ms
            )
        return _refusal(made)

    async def reject_refusal(self, call: Call) -> types.RefusalAnswer:
        """Decide against another officer's proposal: the claim is judged as any."""
        made = await refusals.reject_refusal(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _refusal(made)

    async def draft_statement(self, call: Call) -> types.StatementAnswer:
        """Reckon what an epoch comes to, once the claims window is over; another officer signs."""
        async with self._of_closure(call) as (site, closure):
            await self._require_news(site, closure, now_ms=call.now_ms)
            made = await statements.draft_statement(
                site,
                self._cloud.desk,
                statement_id=bytes.fromhex(call.body.statement_id),
                closure_id=closure.closure_id,
                hosted=Hosted(call.body.hosted),
                bear_max=call.body.bear_max,
                officer=call.officer,
                now_ms=call.now_ms,
            )
        return _statement(made)

    async def statements(self, call: Call) -> types.StatementsAnswer:
        """Drafts of a closure's statement."""
        found = await statements.list_statements(
            call.connection, call.identity("closure"), first=call.first
        )
        return types.StatementsAnswer(statements=[_statement(item) for item in found])

    async def statement_claims(self, call: Call) -> types.JudgedAnswer:
        """A page of what a draft says of each claim."""
        found = await statements.judged_by(
            call.connection, call.identity("statement"), first=call.first
        )
        return types.JudgedAnswer(claims=[claim_answer(item) for item in found])

    async def approve_statement(self, call: Call) -> types.StatementAnswer:
        """Approve another officer's statement: claims are posted, and it is signed."""
        async with self._of_statement(call) as (site, closure):
            await self._require_news(site, closure, now_ms=call.now_ms)
            made = await statements.approve_statement(
                site,
                self._cloud.desk,
                call.identity("statement"),
                officer=call.officer,
                now_ms=call.now_ms,
            )
        return _statement(made)

    async def reject_statement(self, call: Call) -> types.StatementAnswer:
        """Reject another officer's statement; another draft may follow."""
        async with self._of_statement(call) as (site, _):
            made = await statements.reject_statement(
                site, call.identity("statement"), officer=call.officer, now_ms=call.now_ms
            )
        return _statement(made)

    @contextlib.asynccontextmanager
    async def _of_closure(self, call: Call) -> AsyncIterator[tuple[Site, Closure]]:
        """The closure in the path, and its journal's two transactions."""
        closure = await closures.find_closure(call.connection, call.identity("closure"))
        async with self._cloud.shards.site(call.connection, closure.journal) as site:
            await closures.keep_closed(site, closure, now_ms=call.now_ms)
            yield site, closure

    @contextlib.asynccontextmanager
    async def _of_statement(self, call: Call) -> AsyncIterator[tuple[Site, Closure]]:
        """The same for the statement in the path."""
        closure = await statements.closure_of(call.connection, call.identity("statement"))
        async with self._cloud.shards.site(call.connection, closure.journal) as site:
            yield site, closure

    async def _require_news(self, site: Site, closure: Closure, *, now_ms: int) -> None:
        """Raises: ShardError `arrivals-pending`: what shards have told each other may be in it."""
        if closure.state is not ClosureState.CLOSED:
            return
        shards = self._cloud.shards
        until_ms = await heard_until(
            shards, site.head, site.here.number, kinds=CLAIMS, now_ms=now_ms
        )
        knows = until_ms >= min(closure.claims_until_ms or 0, now_ms)
        knows = knows and await knows_grants(site, closure.journal)
        if not (knows and await knows_fates(shards, site, closure.place)):
            raise ShardError("arrivals-pending", "shards have still to hear of it: try again soon")


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


def claim_answer(item: Judged) -> types.ClaimAnswer:
    """A claim as an officer sees it."""
    return types.ClaimAnswer(
        claim=item.leaf.hex(),
        index=item.index,
        kind=kind_text(item.kind),
        amount=item.amount,
        code=item.code,
    )


def _refusal(made: ClaimRefusal) -> types.RefusalAnswer:
    return types.RefusalAnswer(
        draft_id=made.draft_id.hex(),
        closure_id=made.closure_id.hex(),
        claim=made.leaf.hex(),
        reason=made.reason,
        state=made.state.value,
    )


def _statement(made: StatementDraft) -> types.StatementAnswer:
    return types.StatementAnswer(
        statement_id=made.statement_id.hex(),
        closure_id=made.closure_id.hex(),
        hosted=made.hosted.value,
        carried=made.carried,
        paid_out=made.paid_out,
        taken_back=made.taken_back,
        borne=made.borne,
        counted=made.counted,
        refused=made.refused,
        state=made.state.value,
        object=None if made.object is None else to_text(made.object),
    )
