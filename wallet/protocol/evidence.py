"""All evidence that a third party can check: forks and breaches, with the issuer's root alone."""

from __future__ import annotations

import msgspec

from wallet.protocol.breach import verify_breach
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import decode
from wallet.protocol.fork import verify_fork
from wallet.protocol.ids import JournalId
from wallet.protocol.refusals import Code
from wallet.protocol.trust import ENDLESS_S

# The longest is an epoch run again from its first entry on.
EVIDENCE_BYTES_MAX = 512 * 1024 * 1024


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the evidence convicts, and of what. `kind`: as in wire.cddl; `finding`: a sentence."""

    kind: str
    journal: JournalId
    epoch: int
    code: str
    finding: str


def verify_evidence(evidence: bytes, *, root: TrustAnchor, grace_s: int = ENDLESS_S) -> Proof:
    """What the evidence proves.

    Raises: ProtocolError `not-proven` for what is well formed and proves nothing; else
    `too-large`, `not-canonical`, `malformed`, `unknown-type` and what decoding its parts raises.
    """
    value = decode(evidence, bytes_max=EVIDENCE_BYTES_MAX)
    if type(value) is list and value and type(value[0]) is str:
        found = verify_breach(value, root=root, grace_s=grace_s)
        return Proof(
            kind=f"breach-{found.kind}",
            journal=found.journal,
            epoch=found.epoch,
            code=found.code,
            finding=found.finding,
        )
    fork = verify_fork(evidence, root=root, grace_s=grace_s)
    return Proof(
        kind=f"fork-{fork.kind.name.lower()}",
        journal=fork.journal,
        epoch=fork.epoch,
        code=Code.PROOF_INVALID,
        finding=fork.finding,
    )
