"""What the issuer found against journals, and a third party who has the root and a file."""

from __future__ import annotations

from pathlib import Path

from cloud import cli
from cloud.database import Database
from cloud.evidence.proofs import piece_of, proof_of
from cloud.evidence.rows import Row, list_rows
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.evidence import Proof


async def rows_of(database: Database) -> list[Row]:
    """All evidence, the oldest first."""
    async with database.transaction() as connection:
        return await list_rows(connection, after=0)


async def exported(
    database: Database, anchor: TrustAnchor, row: Row, folder: Path
) -> tuple[Proof, Path]:
    """What a row proves, and the file of it."""
    async with database.transaction() as connection:
        kept = await proof_of(connection, anchor, row, now_ms=1)
        again = await proof_of(connection, anchor, row, now_ms=2)
        assert again == kept
        raw = await piece_of(connection, row, offset=0)
    path = folder / f"{row.evidence_id}.cbor"
    path.write_bytes(raw)
    assert path.stat().st_size == kept.size
    return kept.proof, path


def third_party(root: bytes, path: Path) -> int:
    """The exit code of the command, run by somebody who has the root certificate and the file."""
    authority = path.with_suffix(".root")
    authority.write_bytes(root)
    options = cli.parser().parse_args(["evidence", "verify", str(path), "--root", str(authority)])
    found: int = options.alone(options)
    return found
