"""What auditors read about journals that were convicted, and take to third parties."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial

from cloud.database import Connection
from cloud.evidence.proofs import piece_of, proof_of
from cloud.evidence.rows import PAGE, EvidenceError, Row, find_row, list_rows
from cloud.http import evidence_types as types
from cloud.http.octets import to_text
from cloud.http.routes import Call, Route
from cloud.issuer.officers import Role
from cloud.reconciler import clocks
from cloud.service import Cloud
from cloud.shards.shards import shard_of
from wallet.protocol.ids import JournalId, journal_text

_ONE = "/v1/issuer/evidence/{evidence}"


def evidence_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer/evidence."""
    desk = EvidenceDesk(cloud)
    get = partial(Route, method="GET", role=Role.AUDITOR)
    return [
        get(
            path="/v1/issuer/evidence",
            work=desk.rows,
            answer=types.EvidencesAnswer,
            query=("after",),
        ),
        get(
            path="/v1/issuer/clocks",
            work=desk.clocks,
            answer=types.ClocksAnswer,
            query=("first",),
        ),
        get(path=_ONE, work=desk.row, answer=types.EvidenceAnswer),
        get(path=f"{_ONE}/proof", work=desk.proof, answer=types.ProofAnswer),
        get(
            path=f"{_ONE}/proof/piece",
            work=desk.piece,
            answer=types.PieceAnswer,
            query=("offset",),
        ),
    ]


class EvidenceDesk:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._anchor = cloud.desk.anchor
        self._shards = cloud.shards

    async def rows(self, call: Call) -> types.EvidencesAnswer:
        """All evidence after a number, a page at a time."""
        after, found = call.number("after", default=0), list[Row]()
        for number, _ in self._shards:
            if number >= shard_of(after) and len(found) < PAGE:
                async with self._shards.beside(call.connection, number) as there:
                    found += await list_rows(there, after=after)
        found = found[:PAGE]
        last = found[-1].evidence_id if len(found) == PAGE else None
        return types.EvidencesAnswer(evidence=[_row(row) for row in found], next=last)

    async def clocks(self, call: Call) -> types.ClocksAnswer:
        """Journals whose clocks were ahead of the issuer's: findings that convict nobody."""
        found, end = list[clocks.Ahead](), call.first + clocks.PAGE
        for number, _ in self._shards:
            async with self._shards.beside(call.connection, number) as there:
                found += await clocks.list_ahead(there, limit=end)
        return types.ClocksAnswer(
            clocks=[
                types.ClockAnswer(
                    journal=journal_text(JournalId(item.journal)),
                    epoch=item.epoch,
                    index=item.index,
                    entry_ms=item.entry_ms,
                    received_ms=item.received_ms,
                )
                for item in found[call.first : end]
            ]
        )

    async def row(self, call: Call) -> types.EvidenceAnswer:
        """One piece of evidence."""
        async with self._at_home(call) as there:
            return _row(await find_row(there, call.count("evidence")))

    async def proof(self, call: Call) -> types.ProofAnswer:
        """What it proves to anybody who has the root; the proof is made where need be."""
        async with self._at_home(call) as there:
            row = await find_row(there, call.count("evidence"))
            kept = await proof_of(there, self._anchor, row, now_ms=call.now_ms)
        return types.ProofAnswer(
            evidence=_row(row),
            kind=kept.proof.kind,
            code=kept.proof.code,
            finding=kept.proof.finding,
            size=kept.size,
            sha256=kept.hash.hex(),
        )

    async def piece(self, call: Call) -> types.PieceAnswer:
        """A part of a proof that was made."""
        offset = call.number("offset", default=0)
        async with self._at_home(call) as there:
            row = await find_row(there, call.count("evidence"))
            data = await piece_of(there, row, offset=offset)
        return types.PieceAnswer(offset=offset, data=to_text(data))

    def _at_home(self, call: Call) -> AbstractAsyncContextManager[Connection]:
        """A transaction in the shard that keeps a piece of evidence, which its number tells."""
        shard = shard_of(call.count("evidence"))
        if shard >= len(self._shards):
            raise EvidenceError("evidence-unknown", call.path["evidence"])
        return self._shards.beside(call.connection, shard)


def _row(row: Row) -> types.EvidenceAnswer:
    return types.EvidenceAnswer(
        evidence_id=row.evidence_id,
        journal=journal_text(JournalId(row.journal)),
        epoch=row.epoch,
        state=row.state,
        kind=row.kind,
        code=row.code,
        index=row.index,
        found_ms=row.found_ms,
    )
