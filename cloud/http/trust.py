"""What officers call about gateways' hardware: files under four eyes, standings, suspensions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from cloud.attestation import revocations, standing, trust_drafts
from cloud.attestation.standing import Finding, Standing
from cloud.attestation.trust_drafts import TrustDraft, TrustKind
from cloud.http import trust_types as types
from cloud.http.octets import from_text, journal_of
from cloud.http.routes import Call, Route
from cloud.issuer.officers import Role
from cloud.service import Cloud
from cloud.shards.shards import Shards
from hsm.attestation import Named
from wallet.protocol.ids import journal_text


def trust_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer/trust, and those of what gateways prove."""
    desk = TrustDesk(cloud.shards)
    get, post = partial(Route, method="GET"), partial(Route, method="POST")
    one, answer = "/v1/issuer/trust/{draft}", types.TrustAnswer
    return [
        get(path="/v1/issuer/trust", work=desk.trusts, answer=types.TrustsAnswer),
        post(path="/v1/issuer/trust", work=desk.draft_trust, body=types.TrustBody, answer=answer),
        post(path=f"{one}/approve", work=desk.approve_trust, answer=answer),
        post(path=f"{one}/reject", work=desk.reject_trust, answer=answer),
        post(path=f"{one}/withdraw", work=desk.withdraw_trust, answer=answer),
        post(
            path="/v1/issuer/endorsement-revocations",
            work=desk.revoke_endorsements,
            body=types.RevocationBody,
            answer=types.RevokedAnswer,
            role=Role.POLICY,
        ),
        get(
            path="/v1/issuer/endorsement-revocations",
            work=desk.endorsement_revocations,
            answer=types.RevocationsAnswer,
        ),
        get(
            path="/v1/issuer/attestations",
            work=desk.attestations,
            answer=types.AttestationsAnswer,
        ),
        post(
            path="/v1/issuer/journals/{journal}/lift",
            work=desk.lift,
            answer=types.LiftAnswer,
            role=Role.ENROLMENT,
        ),
    ]


class TrustDesk:
    """The work behind the routes."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def trusts(self, call: Call) -> types.TrustsAnswer:
        """Makers' roots and images' manifests: drafts that wait, and what is in force."""
        found = await trust_drafts.list_trust(call.connection)
        return types.TrustsAnswer(drafts=[_trust(draft) for draft in found])

    async def draft_trust(self, call: Call) -> types.TrustAnswer:
        """Draft a maker's root or an image's manifest."""
        made = await trust_drafts.draft_trust(
            call.connection,
            draft_id=bytes.fromhex(call.body.draft_id),
            kind=TrustKind(call.body.kind),
            file=from_text(call.body.file),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _trust(made)

    async def approve_trust(self, call: Call) -> types.TrustAnswer:
        """Approve another officer's file: proofs are held against it from now on."""
        made = await trust_drafts.approve_trust(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _trust(made)

    async def reject_trust(self, call: Call) -> types.TrustAnswer:
        """Reject another officer's file."""
        made = await trust_drafts.reject_trust(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _trust(made)

    async def withdraw_trust(self, call: Call) -> types.TrustAnswer:
        """Withdraw a file: gateways that rely on it are suspended at their next report."""
        made = await trust_drafts.withdraw_trust(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _trust(made)

    async def revoke_endorsements(self, call: Call) -> types.RevokedAnswer:
        """Refuse TPMs whose maker took their certificates back; those enrolled are suspended."""
        issuer = bytes.fromhex(call.body.issuer)
        named = {Named(issuer, int(serial, 16)) for serial in call.body.serials}
        made = await revocations.revoke(
            call.connection, sorted(named), officer=call.officer, now_ms=call.now_ms
        )
        return types.RevokedAnswer(revoked=made)

    async def endorsement_revocations(self, call: Call) -> types.RevocationsAnswer:
        """Certificates that makers took back, the newest first."""
        found = await revocations.list_revocations(call.connection)
        return types.RevocationsAnswer(
            revocations=[
                types.RevocationAnswer(
                    issuer=one.issuer.hex(),
                    serial=one.serial,
                    revoked_ms=one.revoked_ms,
                )
                for one in found
            ]
        )

    async def attestations(self, call: Call) -> types.AttestationsAnswer:
        """What gateways are held to, what they proved last, what they were suspended for."""
        found = await standing.standings(call.connection, self._shards)
        return types.AttestationsAnswer(gateways=[_standing(one) for one in found])

    async def lift(self, call: Call) -> types.LiftAnswer:
        """Lift a suspension for the gateway's hardware; the next report is judged as ever."""
        journal = journal_of(call.path["journal"])
        async with self._shards.at_home(call.connection, journal) as at_home:
            epoch = await standing.lift(
                call.connection,
                journal,
                officer=call.officer,
                now_ms=call.now_ms,
                at_home=at_home,
            )
        return types.LiftAnswer(journal=journal_text(journal), epoch=epoch)


def _trust(made: TrustDraft) -> types.TrustAnswer:
    return types.TrustAnswer(
        draft_id=made.draft_id.hex(),
        kind=made.kind.value,
        name=made.name,
        sha256=made.digest,
        state=made.state.value,
    )


def _standing(one: Standing) -> types.AttestationAnswer:
    return types.AttestationAnswer(
        journal=journal_text(one.journal),
        name=one.name,
        level=one.level.value,
        pcr_policy=one.pcr_policy,
        image=one.image,
        checked_ms=one.checked_ms,
        suspended=one.suspended,
        finding=None if one.finding is None else _finding(one.finding),
    )


def _finding(finding: Finding) -> types.FindingAnswer:
    return types.FindingAnswer(
        code=finding.code,
        found_ms=finding.found_ms,
        found=_hex(finding.found),
        expected=[
            types.ExpectedAnswer(image=image, registers=_hex(values))
            for image, values in finding.expected
        ],
    )


def _hex(values: Mapping[int, bytes]) -> dict[str, str]:
    return {str(register): value.hex() for register, value in sorted(values.items())}
