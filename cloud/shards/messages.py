"""What one shard tells another: rows that are written with their cause, and taken once.

Each message is about one thing and says it in the same bytes whenever it is said, so that its hash
is its identity. An effect happens in one transaction with the row that remembers it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

import msgspec

from cloud.database import Connection
from cloud.errors import CloudError

HEAD = 0
SHARD_MAX = 255
_CONTEXT = b"cbdc-shard-message/1"


class ShardError(CloudError):
    """Codes: `shard-mismatch` (the address is another database's), `shard-missing` (not in the
    configuration), `message-malformed`, `message-early`, `arrivals-pending` (a statement waits for
    messages), `journal-elsewhere` (it goes on for one of another shard than its own).
    """


class Fate(enum.StrEnum):
    """What becomes of a note that came in."""

    # Its journal told of it: the value is the payee's.
    MATCHED = "matched"
    # Its journal has not told yet.
    EARLY = "early"
    # The payee kept to the policy, and there is nothing to pay from: the issuer bears it.
    BORNE = "borne"
    # The same, of a journal that was suspended or closed before: two officers decide.
    HELD = "held"
    # It had been redeemed before: the journal that redeems it again is convicted.
    REPLAYED = "replayed"


class Body(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One message. `value`: what the sender's accounts `between` gain by its cause."""

    @property
    def value(self) -> tuple[int, str]:
        """(minor units, currency); nothing by default."""
        return 0, ""


class Redeemed(Body, frozen=True, kw_only=True, tag="redeemed"):
    """A note came in here; to where the journal lives that it left.

    `entry`, `receipt`: the note; then the place where it came in. `window_s`: the claims window.
    """

    entry: bytes
    receipt: bytes
    journal: bytes
    epoch: int
    index: int
    window_s: int | None


class Judged(Body, frozen=True, kw_only=True, tag="judged"):
    """What becomes of a note; back to where it came in (`in_...`).

    `journal`, `epoch`, `index`: the transfer-out that it is.
    """

    journal: bytes
    epoch: int
    index: int
    in_journal: bytes
    in_epoch: int
    in_index: int
    fate: Fate
    amount: int
    currency: str

    @property
    def value(self) -> tuple[int, str]:
        """What is borne is paid for where it came in."""
        return (self.amount, self.currency) if self.fate is Fate.MATCHED else (0, "")


class Funded(Body, frozen=True, kw_only=True, tag="funded"):
    """A journal has entered a grant; to the head, where its value waits."""

    journal: bytes
    epoch: int
    index: int
    grant: bytes
    amount: int
    currency: str

    @property
    def value(self) -> tuple[int, str]:
        """The wallet has it, and the head has still to give it."""
        return -self.amount, self.currency


class GrantClaimed(Body, frozen=True, kw_only=True, tag="grant-claimed"):
    """A grant that its journal never told of counts in its epoch's statement; to the head.

    `transfer`: the identity of its transfer into the wallet.
    """

    transfer: bytes
    journal: bytes
    epoch: int
    grant: bytes
    amount: int
    currency: str

    @property
    def value(self) -> tuple[int, str]:
        """As of one that was entered."""
        return -self.amount, self.currency


class PaidOnline(Body, frozen=True, kw_only=True, tag="paid-online"):
    """Value of a journal goes to the online wallet of one of its wallets; to the head."""

    transfer: bytes
    journal: bytes
    wallet: str
    amount: int
    currency: str
    transfer_kind: int
    reference: str | None

    @property
    def value(self) -> tuple[int, str]:
        """It has left its account here."""
        return self.amount, self.currency


class Collected(Body, frozen=True, kw_only=True, tag="collected"):
    """A receipt of another journal was handed in here; to where that journal lives."""

    entry: bytes
    receipt: bytes


class Convicted(Body, frozen=True, kw_only=True, tag="convicted"):
    """There is evidence against a journal; to the head, which signs the lists."""

    journal: bytes
    epoch: int
    evidence: str
    code: str


class Decided(Body, frozen=True, kw_only=True, tag="decided"):
    """What two officers decided about a held entry; to where its journal lives.

    `state`: of the verdict from now on; `code`: None where it stays. `draft`: whose word it is.
    """

    draft: bytes
    epoch_id: int
    index: int
    state: str
    code: str | None


Message = Redeemed | Judged | Funded | GrantClaimed | PaidOnline | Collected | Convicted | Decided
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class Addressed(msgspec.Struct, frozen=True, kw_only=True):
    """A message and the shard that it is for."""

    target: int
    message: Message


def encode_message(message: Message) -> bytes:
    """The same bytes for the same message."""
    return _encoder.encode(message)


def decode_message(raw: bytes) -> Message:
    """Raises: ShardError `message-malformed`."""
    try:
        message: Message = _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise ShardError("message-malformed", str(error)) from error
    return message


def identity_of(source: int, target: int, body: bytes) -> bytes:
    """What a message is known by."""
    return hashlib.sha256(_CONTEXT + bytes((source, target)) + body).digest()


async def send(
    connection: Connection, source: int, messages: Sequence[Addressed], *, now_ms: int
) -> None:
    """Write messages in the transaction of their cause; the same one again changes nothing."""
    if not messages:
        return
    bodies = [encode_message(item.message) for item in messages]
    values = [item.message.value for item in messages]
    targets = [item.target for item in messages]
    await connection.execute(
        "INSERT INTO shard_message (target, identity, kind, body, currency, amount, created_ms)"
        " SELECT *, $7::bigint FROM unnest($1::smallint[], $2::bytea[], $3::text[], $4::bytea[],"
        " $5::text[], $6::bigint[]) ON CONFLICT (target, identity) DO NOTHING",
        targets,
        [identity_of(source, *pair) for pair in zip(targets, bodies, strict=True)],
        [str(item.message.__struct_config__.tag) for item in messages],
        bodies,
        [currency for _, currency in values],
        [amount for amount, _ in values],
        now_ms,
    )


async def send_from_here(
    connection: Connection, messages: Sequence[Addressed], *, now_ms: int
) -> None:
    """`send` by whoever does not know which shard this database is: it is asked."""
    if messages:
        number = await connection.fetchval("SELECT number FROM shard")
        await send(connection, number or HEAD, messages, now_ms=now_ms)


async def tell_head(connection: Connection, message: Message, *, now_ms: int) -> None:
    """Tell the head, unless this database is it: what happens seldom asks the database itself."""
    number = await connection.fetchval("SELECT number FROM shard")
    if number not in (None, HEAD):
        addressed = Addressed(target=HEAD, message=message)
        await send(connection, number, [addressed], now_ms=now_ms)
