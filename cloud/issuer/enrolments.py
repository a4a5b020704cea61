"""Wallets in journals: wishes of gateways, enrolments signed, and grants for what is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cloud import funding
from cloud.database import Connection
from cloud.errors import WalletError
from cloud.issuer import audit
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import Gateway
from cloud.issuer.profiles import DAY_MS
from cloud.issuer.succession import Succession, set_carried
from wallet.protocol.codec import decode
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.issued import ENROLMENT_TYPE, GRANT_TYPE, Enrolment
from wallet.protocol.keys import PublicKey, from_cose_key
from wallet.protocol.refusals import ProtocolError

ENROLMENT_MS = 731 * DAY_MS
GRANT_MS = 731 * DAY_MS
TURN_MAX = 200
# Wallets of a closed epoch that are enrolled anew at a time.
CARRIED_MAX = 1_000
# Behind every wallet's identifier.
_ALL = b"\xff" * 21
_KEY_BYTES_MAX = 128


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet to enrol."""

    key: PublicKey
    tier: int
    label: str | None
    hosted: bool


async def enrol_wallet(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    *,
    key: PublicKey,
    tier: int,
    label: str | None,
    actor: str,
    now_ms: int,
    hosted: bool = False,
) -> None:
    """Sign the enrolment of a wallet in a gateway's journal; it travels at the next exchange."""
    wish = _Wish(key=key, tier=tier, label=label, hosted=hosted)
    await _enrol(connection, desk, gateway, [wish], actor=actor, now_ms=now_ms)
    await audit.record(
        connection,
        actor=actor,
        action="wallet.enrol",
        subject=wallet_text(key.id),
        detail={"tier": tier},
        now_ms=now_ms,
    )


async def _enrol(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    wishes: Sequence[_Wish],
    *,
    actor: str,
    now_ms: int,
) -> None:
    expires_ms = now_ms + ENROLMENT_MS
    signed = [
        await desk.sign(ENROLMENT_TYPE, _claims(gateway, wish, expires_ms)) for wish in wishes
    ]
    await connection.execute(
        "INSERT INTO wallet_enrolment (journal, expires_ms, made_by, created_ms, wallet, cose_key,"
        " tier, label, object, hosted) SELECT $1, $2::bigint, $3, $4::bigint, * FROM unnest("
        "$5::bytea[], $6::bytea[], $7::int[], $8::text[], $9::bytea[], $10::boolean[])",
        *(gateway.journal, expires_ms, actor, now_ms),
        [wish.key.id for wish in wishes],
        [wish.key.cose_key for wish in wishes],
        [wish.tier for wish in wishes],
        [wish.label for wish in wishes],
        signed,
        [wish.hosted for wish in wishes],
    )


def _claims(gateway: Gateway, wish: _Wish, expires_ms: int) -> dict[int, Any]:
    claims: dict[int, Any] = {
        2: wish.key.id,
        3: gateway.journal,
        4: decode(wish.key.cose_key, bytes_max=_KEY_BYTES_MAX),
        5: wish.tier,
        6: expires_ms,
    }
    return claims if wish.label is None else {**claims, 7: wish.label}


async def take_wishes(
    connection: Connection, desk: Desk, gateway: Gateway, wishes: object, *, now_ms: int
) -> int:
    """Enrol the wallets that a gateway asks for in the tiers that it may enrol by itself.

    Others wait for an officer. What cannot be read is passed over. Gives how many were enrolled.
    """
    made = 0
    for wish in wishes[:TURN_MAX] if isinstance(wishes, list) else []:
        read = _read(wish)
        if read is None:
            continue
        key, tier, label, hosted = read
        if await _is_enrolled(connection, gateway, key, tier):
            await _send_again(connection, gateway, key)
        elif tier in gateway.tiers:
            await enrol_wallet(
                connection,
                desk,
                gateway,
                key=key,
                tier=tier,
                label=label,
                actor="gateway",
                now_ms=now_ms,
                hosted=hosted,
            )
            made += 1
        else:
            await _keep_wish(connection, gateway, key, tier, label, hosted, now_ms=now_ms)
    return made


async def carry_wallets(
    connection: Connection, desk: Desk, gateway: Gateway, before: Succession, *, now_ms: int
) -> None:
    """Enrol the wallets of a closed epoch in the journal that goes on, as they were enrolled there.

    A turn of them: the next exchange brings the next. Asking again changes nothing when all are
    carried. Wallets whose value was paid out online because their keys are lost stay out.
    """
    if before.journal == gateway.journal:
        if before.carried_to is None:
            # Enrolments name the journal, not the epoch: they travel once more.
            await connection.execute(
                "UPDATE wallet_enrolment SET applied = false WHERE journal = $1", gateway.journal
            )
            await set_carried(connection, before, _ALL)
        return
    rows = await connection.fetch(
        "SELECT DISTINCT ON (wallet) wallet, cose_key, tier, label, hosted, EXISTS (SELECT"
        "  FROM wallet_enrolment AS there WHERE there.journal = $2 AND there.wallet = made.wallet)"
        " AS known FROM wallet_enrolment AS made WHERE journal = $1 AND wallet > $3"
        " ORDER BY wallet, enrolment_id DESC LIMIT $4",
        *(before.journal, gateway.journal, before.carried_to or b"", CARRIED_MAX),
    )
    wishes = [
        _Wish(
            key=from_cose_key(row["cose_key"]),
            tier=row["tier"],
            label=row["label"],
            hosted=row["hosted"],
        )
        for row in rows
        if not row["known"] and (before.hosted == "carry" or not row["hosted"])
    ]
    if not rows:
        return
    await _enrol(connection, desk, gateway, wishes, actor="recovery", now_ms=now_ms)
    await set_carried(connection, before, rows[-1]["wallet"])
    await audit.record(
        connection,
        actor="recovery",
        action="wallets.carry",
        subject=journal_text(gateway.journal),
        detail={"wallets": len(wishes), "closure": before.closure_id.hex()},
        now_ms=now_ms,
    )


def _read(wish: object) -> tuple[PublicKey, int, str | None, bool] | None:
    if not isinstance(wish, dict):
        return None
    raw, tier, label = wish.get("key"), wish.get("tier"), wish.get("label")
    if type(raw) is not bytes or type(tier) is not int or not 0 <= tier < 2**31:
        return None
    if label is not None and (type(label) is not str or not 1 <= len(label.encode()) <= 64):
        return None
    try:
        return from_cose_key(raw), tier, label, wish.get("hosted") is True
    except ProtocolError:
        return None


async def _is_enrolled(connection: Connection, gateway: Gateway, key: PublicKey, tier: int) -> bool:
    found: int | None = await connection.fetchval(
        "SELECT tier FROM wallet_enrolment WHERE journal = $1 AND wallet = $2"
        " ORDER BY enrolment_id DESC LIMIT 1",
        *(gateway.journal, key.id),
    )
    return found == tier


async def _send_again(connection: Connection, gateway: Gateway, key: PublicKey) -> None:
    await connection.execute(
        "UPDATE wallet_enrolment SET applied = false WHERE enrolment_id = (SELECT max(enrolment_id)"
        " FROM wallet_enrolment WHERE journal = $1 AND wallet = $2)",
        *(gateway.journal, key.id),
    )


async def _keep_wish(
    connection: Connection,
    gateway: Gateway,
    key: PublicKey,
    tier: int,
    label: str | None,
    hosted: bool,
    *,
    now_ms: int,
) -> None:
    await connection.execute(
        "INSERT INTO enrolment_wish (journal, wallet, cose_key, tier, label, hosted, asked_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (journal, wallet) DO NOTHING",
        *(gateway.journal, key.id, key.cose_key, tier, label, hosted, now_ms),
    )


async def require_enrolled(connection: Connection, gateway: Gateway, wallet: bytes) -> None:
    """A grant to a wallet that its journal does not know would hold up all grants behind it.

    Raises: WalletError `unknown-wallet`.
    """
    known = await connection.fetchval(
        "SELECT true FROM wallet_enrolment WHERE journal = $1 AND wallet = $2 LIMIT 1",
        *(gateway.journal, wallet),
    )
    if not known:
        raise WalletError("unknown-wallet", f"{wallet_text(wallet)} is not enrolled there")


async def enrolments_for(connection: Connection, gateway: Gateway) -> list[bytes]:
    """Enrolments that the gateway has not taken yet, oldest first; of a wallet the newest one."""
    rows = await connection.fetch(
        "SELECT object FROM wallet_enrolment AS made WHERE journal = $1 AND NOT applied"
        " AND NOT EXISTS (SELECT FROM wallet_enrolment AS later WHERE later.journal = made.journal"
        "  AND later.wallet = made.wallet AND later.enrolment_id > made.enrolment_id)"
        " ORDER BY enrolment_id LIMIT $2",
        *(gateway.journal, TURN_MAX),
    )
    return [row["object"] for row in rows]


async def set_enrolled(
    connection: Connection, gateway: Gateway, entered: Sequence[Enrolment]
) -> None:
    """The journal has entries of these enrolments; others of the same wallets still travel."""
    await connection.execute(
        "UPDATE wallet_enrolment AS made SET applied = true"
        " FROM unnest($2::bytea[], $3::int[], $4::bigint[]) AS entered (wallet, tier, expires_ms)"
        " WHERE made.journal = $1 AND made.wallet = entered.wallet AND made.tier = entered.tier"
        " AND made.expires_ms = entered.expires_ms",
        gateway.journal,
        [enrolment.wallet for enrolment in entered],
        [enrolment.tier for enrolment in entered],
        [enrolment.expires_ms for enrolment in entered],
    )


async def grants_for(
    connection: Connection, desk: Desk, gateway: Gateway, *, held: int | None, now_ms: int
) -> list[bytes]:
    """Grants from the one after `held` on; what is only held in the cloud is signed now.

    A journal that holds grants which are not known here has still to tell of them: an issuer that
    was restored from a backup would otherwise grant twice what it has forgotten to have granted.
    """
    # One transaction at a time signs grants for a journal: their sequences have no gap.
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 6))", gateway.journal.hex()
    )
    journal, epoch = gateway.journal, gateway.epoch
    sequence = await funding.next_sequence(connection, journal, epoch=epoch)
    behind = held is not None and held >= sequence
    # No more than travel at once: the next exchange brings the next.
    turn = 0 if behind else TURN_MAX
    for waiting in await funding.held_for(connection, journal, epoch=epoch, limit=turn):
        sequence = await funding.next_sequence(connection, journal, epoch=epoch)
        grant = await desk.sign(GRANT_TYPE, _grant_claims(waiting, sequence, now_ms))
        await funding.set_granted(
            connection, waiting.funding_id, sequence=sequence, grant_cose=grant
        )
    granted = await funding.grants_from(
        connection,
        gateway.journal,
        epoch=gateway.epoch,
        sequence=0 if held is None else held + 1,
        limit=TURN_MAX,
    )
    return [grant for _, grant in _signed(granted)]


def _signed(granted: Sequence[Any]) -> list[tuple[int, bytes]]:
    made = [(item.sequence, item.grant_cose) for item in granted if item.grant_cose is not None]
    return sorted(made)


def _grant_claims(waiting: funding.Funding, sequence: int, now_ms: int) -> dict[int, Any]:
    return {
        2: waiting.journal,
        3: waiting.epoch,
        4: sequence,
        5: waiting.offline_wallet,
        6: waiting.amount,
        7: waiting.currency,
        8: now_ms + GRANT_MS,
    }
