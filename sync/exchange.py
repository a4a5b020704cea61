"""One exchange, pure: the journal's `up`, the issuer's `down`, and the checks of both sides.

What the bytes are is in `wallet.protocol.envelope` and `wallet.protocol.sealed`; which of them
belong together, and how much goes at once, is here (protocol page, "Synchronisation").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sync.errors import Code, ProblemAnswered, SyncError
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.envelope import (
    Down,
    Up,
    VerifiedUp,
    down_payload,
    verify_down,
    verify_up,
)
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.sealed import open_sealed

EXCHANGE_BYTES = 16
# The exchange of an answer to no report: it acknowledges nothing, and brings objects.
UNASKED = bytes(EXCHANGE_BYTES)
# In `health`: bytes of objects that the line carries well in one answer.
TAKES = "takes"
# An answer of no more, whatever is asked for: an envelope has 64 MiB.
OBJECTS_BYTES_MAX = 48 * 1024 * 1024

# ---- the journal's side -------------------------------------------------------------------


def open_down(
    sealed: bytes,
    *,
    keys: Mapping[bytes, X25519PrivateKey],
    root: TrustAnchor,
    held_chains: Mapping[bytes, Chain] = NO_CHAINS,
) -> Down:
    """The issuer's answer: opened, and signed by its role sync.

    `keys`: the journal's own HPKE keys by short id. What it answers is for `check_answers` to see.
    Raises: ProtocolError as `open_sealed` and `verify_down`, in that order.
    """
    envelope = open_sealed(sealed, keys=keys)
    return verify_down(envelope, root=root, held_chains=held_chains).claims


def check_answers(down: Down, up: Up) -> None:
    """The answer is to this report: its journal, epoch and exchange. Raises: SyncError."""
    if (down.journal, down.epoch, down.exchange) != (up.journal, up.epoch, up.exchange):
        raise SyncError(Code.FOREIGN_ANSWER, "an answer to something else")


def check_acknowledged(down: Down, *, size: int) -> None:
    """The issuer holds what the journal wrote, and no more than there is.

    `size`: the journal's own when the report was made. It may be more than the report's end, when
    an earlier answer was lost. An answer with a problem says nothing of sizes that counts.
    Raises: SyncError. Beyond our own size the issuer holds entries that this journal does not have.
    """
    if down.problem is None and down.acknowledged_size > size:
        raise SyncError(Code.ACKNOWLEDGED_BEYOND, f"{down.acknowledged_size} of {size}")


def goes_back(down: Down, up: Up) -> bool:
    """The issuer holds less than it said before: it was restored from an older copy of its books.

    It gets the rest again. An older answer cannot be played back for this: `check_answers`.
    """
    return down.problem is None and down.acknowledged_size < up.acknowledged_size


def check_taken(down: Down, up: Up) -> None:
    """Something of what was sent was kept. Raises: ProblemAnswered, SyncError."""
    if down.problem is not None:
        raise ProblemAnswered(down.problem)
    if up.entries and down.acknowledged_size == up.acknowledged_size:
        raise SyncError(Code.NOTHING_TAKEN, "the cloud took no entry")


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
    return open_report(sealed, keys=keys, root=root, held_chains=held_chains)[1]


def open_report(
    sealed: bytes,
    *,
    keys: Mapping[bytes, X25519PrivateKey],
    root: TrustAnchor,
    held_chains: Mapping[bytes, Chain] = NO_CHAINS,
) -> tuple[bytes, VerifiedUp]:
    """As `open_up`, with the signed envelope itself: it may become evidence."""
    envelope = open_sealed(sealed, keys=keys)
    return envelope, verify_up(envelope, root=root, held_chains=held_chains)


def takes(up: Up) -> int | None:
    """How many bytes of objects the journal wants at once; None where it does not say."""
    told = (up.health or {}).get(TAKES)
    return told if type(told) is int and told > 0 else None


def first_objects(objects: Sequence[bytes], *, bytes_max: int) -> tuple[Sequence[bytes], int]:
    """As many from the first on as have that size together, one at least; bytes of the rest."""
    total = 0
    for count, raw in enumerate(objects):
        total += len(raw)
        if total > bytes_max and count:
            return objects[:count], sum(map(len, objects[count:]))
    return objects, 0


def build_down(
    up: Up,
    *,
    acknowledged: int,
    objects: Sequence[bytes] = (),
    problem: str | None = None,
    waiting: int = 0,
) -> bytes:
    """Payload of the answer to `up`, to be signed by the role sync under DOWN_TYPE.

    `acknowledged`: the contiguous size that the issuer holds now. `objects`: oldest first.
    `problem`: a refusal code, when nothing of the segment was kept. `waiting`: bytes of further
    objects, told to who said what it takes.
    """
    return down_payload(
        Down(
            journal=up.journal,
            epoch=up.epoch,
            exchange=up.exchange,
            acknowledged_size=acknowledged,
            objects=tuple(objects),
            problem=problem,
            waiting=0 if takes(up) is None else waiting,
        )
    )
