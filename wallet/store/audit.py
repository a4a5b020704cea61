"""The audit log: each row's hash covers the row before it, so that no row changes unseen.

The head, number and hash of the newest row, is kept beside the rows in the same transaction: rows
that are cut off at the end are missed, and what is written later does not heal the gap. Whoever
could change rows and head together is found by a head that was kept elsewhere: each exchange tells
the issuer the rows since the one before, under the journal's signature (`sync.trail`).

The log is bounded by rows. What is dropped at the beginning leaves its number and hash, in a row
of the log itself: rows that disappear without such a row are missing.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from wallet.store.connection import Connection
from wallet.store.errors import Tampered
from wallet.store.meta import get_meta, put_meta
from wallet.store.rows import values_of
from wallet.trail import AuditHead, next_head

COLUMNS = "seq, time_ms, action, details, previous, hash"
PRUNED = "audit.pruned"
# Some 30 MB: technicians' acts and changes of state of many years.
ROWS_KEPT = 100_000
_HEAD, _BASE, _ANCHOR = "audit-head", "audit-base", "audit-anchor"
_TEXT = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{64})")

Details = Mapping[str, str | int | bool | None]


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; `details` is JSON with sorted keys."""

    seq: int
    time_ms: int
    action: str
    details: bytes
    previous: bytes
    hash: bytes


class _Pruned(msgspec.Struct, frozen=True, kw_only=True):
    through: int
    hash: str


def parse_head(text: str) -> AuditHead:
    """A head from its text, NUMBER:HASH. Raises: ValueError."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError("a head of the audit log is NUMBER:HASH")
    return AuditHead(int(found[1]), bytes.fromhex(found[2]))


def append_audit(conn: Connection, *, time_ms: int, action: str, details: Details) -> AuditRow:
    """Append one row; never pass a key, a PIN, or an amount beside a name."""
    head = audit_head(conn)
    encoded = msgspec.json.encode(details, order="deterministic")
    place = next_head(head, time_ms=time_ms, action=action, details=encoded)
    row = AuditRow(
        seq=place.seq,
        time_ms=time_ms,
        action=action,
        details=encoded,
        previous=head.hash,
        hash=place.hash,
    )
    conn.execute(
        f"INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(row)
    )
    _keep(conn, _HEAD, place)
    return row


def audit_head(conn: Connection) -> AuditHead:
    """The newest row's number and hash, whatever became of the row. Raises: Tampered."""
    return _kept(conn, _HEAD)


def anchor_audit(conn: Connection, head: AuditHead) -> None:
    """Remember the head that the issuer was told last."""
    _keep(conn, _ANCHOR, head)


def audit_anchor(conn: Connection) -> AuditHead:
    """The head that the issuer was told last. Raises: Tampered."""
    return _kept(conn, _ANCHOR)


def verify_audit(conn: Connection, anchors: Iterable[AuditHead] = ()) -> AuditHead:
    """Check every row; gives the head.

    `anchors`: heads that were told before; each must be a place in this log.
    Raises: Tampered, naming the first row that was changed, moved or is missing.
    """
    # 1. What was dropped was dropped in the open: a row of the log names it.
    base, pruned = _kept(conn, _BASE), AuditHead()
    told = {anchor.seq: anchor for anchor in (audit_anchor(conn), *anchors)}
    _check_told(told, base)
    # 2. Each row follows the one before, and passes by what was told.
    place = base
    for row in _rows(conn):
        place = _next(place, row)
        _check_told(told, place)
        if row.action == PRUNED:
            pruned = _pruned(row)
    if pruned != base:
        raise Tampered(f"rows up to {base.seq} of the audit log are missing")
    # 3. The log ends where its head is, and nothing that was told lies beyond.
    end = max([audit_head(conn), *told.values()], default=place)
    if place.seq < end.seq:
        raise Tampered(f"rows {place.seq + 1} to {end.seq} of the audit log are missing at its end")
    if place != audit_head(conn):
        raise Tampered(f"row {place.seq} of the audit log is not its head")
    return place


def page_audit(conn: Connection, after: int, limit: int) -> list[AuditRow]:
    """Up to `limit` rows in order, from the one after this sequence."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
    )
    return values_of(AuditRow, rows)


def prune_audit(conn: Connection, *, kept: int = ROWS_KEPT, now_ms: int) -> int:
    """Drop the oldest rows when there are more than `kept`; gives how many.

    The row that tells of it carries the hash of the last one that was dropped, so that the chain
    begins where it says.
    """
    last = audit_head(conn).seq - kept
    dropped = [row for row in page_audit(conn, last - 1, 1) if row.seq == last]
    if not dropped:
        return 0
    base = AuditHead(last, dropped[0].hash)
    details: Details = {"through": base.seq, "hash": base.hash.hex()}
    append_audit(conn, time_ms=now_ms, action=PRUNED, details=details)
    count = conn.execute("DELETE FROM audit WHERE seq <= ?", (last,)).rowcount
    _keep(conn, _BASE, base)
    return count


def _rows(conn: Connection) -> Iterable[AuditRow]:
    for row in conn.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq"):
        yield from values_of(AuditRow, [row])


def _next(place: AuditHead, row: AuditRow) -> AuditHead:
    """The place after a row, if it is the next one. Raises: Tampered."""
    seq = place.seq + 1
    if row.seq != seq:
        raise Tampered(f"row {seq} of the audit log is missing")
    following = next_head(place, time_ms=row.time_ms, action=row.action, details=row.details)
    if (row.previous, row.hash) != (place.hash, following.hash):
        raise Tampered(f"row {seq} of the audit log was changed or moved")
    return following


def _check_told(told: Mapping[int, AuditHead], place: AuditHead) -> None:
    if told.get(place.seq, place) != place:
        raise Tampered(f"row {place.seq} of the audit log is not the one that was told")


def _pruned(row: AuditRow) -> AuditHead:
    told = msgspec.json.decode(row.details, type=_Pruned)
    return AuditHead(told.through, bytes.fromhex(told.hash))


def _keep(conn: Connection, name: str, head: AuditHead) -> None:
    put_meta(conn, name, str(head).encode())


def _kept(conn: Connection, name: str) -> AuditHead:
    stored = get_meta(conn, name)
    if stored is None:
        return AuditHead()
    try:
        return parse_head(stored.decode("ascii", "replace"))
    except ValueError as error:
        raise Tampered(f"{name} was changed") from error
