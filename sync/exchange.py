"""One exchange, pure: the journal's `up`, the issuer's `down`, and the checks of both sides.

What the bytes are is in `wallet.protocol.envelope` and `wallet.protocol.sealed`; which of them
belong together, and how much goes at once, is here (protocol page, "Synchronisation").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.envelope import Down, Up, VerifiedUp, down_payload, verify_up
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.sealed import open_sealed

# ---- the issuer's side --------------------------------------------------------------------


def open_up(
    sealed: bytes,
    *,
    keys: Mapping[bytes, X25519PrivateKey],
    root: TrustAnchor,
    held_chains: Mapping[bytes, Chain] = NO_CHAINS,
) -> VerifiedUp:
    """A journal's report: opened, and signed by the key that is certified for that journal.

    `keys`: the issuer's HPKE keys by short id. The segment itself is not checked here.
    Raises: ProtocolError as `open_sealed` and `verify_up`, in that order.
    """
    envelope = open_sealed(sealed, keys=keys)
    return verify_up(envelope, root=root, held_chains=held_chains)


def build_down(
    up: Up, *, acknowledged: int, objects: Sequence[bytes] = (), problem: str | None = None
) -> bytes:
    """Payload of the answer to `up`, to be signed by the role sync under DOWN_TYPE.

    `acknowledged`: the contiguous size that the issuer holds now. `objects`: oldest first.
    `problem`: a refusal code, when nothing of the segment was kept.
    """
    return down_payload(
        Down(
            journal=up.journal,
            epoch=up.epoch,
            exchange=up.exchange,
            acknowledged_size=acknowledged,
            objects=tuple(objects),
            problem=problem,
        )
    )
