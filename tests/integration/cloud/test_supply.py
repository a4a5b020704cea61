"""Issue and burn: four eyes, once, and on the record."""

import asyncpg
import pytest

from cloud.database import Connection, Database
from cloud.errors import CloudError, IssuerError, LedgerError
from cloud.issuer import audit
from cloud.issuer.officers import (
    Officer,
    Role,
    add_officer,
    authenticate,
    new_token,
)
from cloud.issuer.supply import (
    Supply,
    SupplyAction,
    SupplyOrder,
    SupplyState,
    approve_supply,
    draft_supply,
    find_supply,
    list_supply,
    reject_supply,
)
from cloud.wallets import WalletState, find_wallet, open_wallet, set_wallet_state

NOW_MS = 1_780_000_000_000


async def officer(connection: Connection, name: str, *roles: Role) -> Officer:
    """A new officer whose token is made of the name."""
    token = new_token(lambda length: name.encode().ljust(length, b"."))
    return await add_officer(
        connection, name=name, roles=roles, token=token, actor="init", now_ms=NOW_MS
    )


@pytest.fixture
async def officers(database: Database) -> tuple[Officer, Officer]:
    """Two officers of the supply, and a wallet `bank` in EUR."""
    async with database.transaction() as connection:
        await open_wallet(connection, "bank", holder="bank", currency="EUR", now_ms=NOW_MS)
        return (
            await officer(connection, "ada", Role.SUPPLY, Role.ADMIN),
            await officer(connection, "bob", Role.SUPPLY),
        )


def order(
    number: int = 1, *, amount: int = 5_000, action: SupplyAction = SupplyAction.ISSUE
) -> SupplyOrder:
    """A draft whose identity is made of the number."""
    return SupplyOrder(
        draft_id=number.to_bytes(32, "big"),
        action=action,
        wallet="bank",
        amount=amount,
        reason="first issue",
    )


async def balance(database: Database) -> int:
    """What the bank's wallet holds."""
    async with database.transaction() as connection:
        return (await find_wallet(connection, "bank")).balance


async def decided(database: Database, wanted: SupplyOrder, by: tuple[Officer, Officer]) -> Supply:
    """The order, drafted by the first officer and approved by the second one."""
    async with database.transaction() as connection:
        await draft_supply(connection, wanted, officer=by[0], now_ms=NOW_MS)
    async with database.transaction() as connection:
        return await approve_supply(connection, wanted.draft_id, officer=by[1], now_ms=NOW_MS + 1)


async def test_value_is_issued_when_another_officer_approves(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    async with database.transaction() as connection:
        drafted = await draft_supply(connection, order(), officer=officers[0], now_ms=NOW_MS)
        assert drafted.state is SupplyState.DRAFT
        assert await list_supply(connection, state=SupplyState.DRAFT) == [drafted]
    assert await balance(database) == 0
    posted = await decided(database, order(), officers)
    assert (posted.state, posted.decided_by) == (SupplyState.POSTED, officers[1].officer_id)
    assert await balance(database) == 5_000


async def test_burning_takes_value_out_and_never_more_than_is_there(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    await decided(database, order(1), officers)
    await decided(database, order(2, amount=2_000, action=SupplyAction.BURN), officers)
    assert await balance(database) == 3_000
    with pytest.raises(LedgerError, match="insufficient-funds"):
        await decided(database, order(3, amount=3_001, action=SupplyAction.BURN), officers)
    async with database.transaction() as connection:
        assert (await find_supply(connection, order(3).draft_id)).state is SupplyState.DRAFT


async def test_nobody_approves_an_own_draft(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    with pytest.raises(IssuerError, match="four-eyes"):
        await decided(database, order(), (officers[0], officers[0]))
    assert await balance(database) == 0


async def test_the_tables_hold_four_eyes_even_without_the_program(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    async with database.transaction() as connection:
        await draft_supply(connection, order(), officer=officers[0], now_ms=NOW_MS)
    command = "UPDATE supply_draft SET state = 'posted', decided_by = drafted_by, decided_ms = 1"
    with pytest.raises(asyncpg.CheckViolationError, match="four_eyes"):
        async with database.transaction() as connection:
            await connection.execute(command)


async def test_a_draft_never_changes_and_is_decided_once(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    await decided(database, order(), officers)
    for command in (
        "UPDATE supply_draft SET amount = 1",
        "UPDATE supply_draft SET state = 'rejected'",
        "DELETE FROM supply_draft",
    ):
        with pytest.raises(asyncpg.PostgresError, match="decided once"):
            async with database.transaction() as connection:
                await connection.execute(command)


async def test_asking_again_changes_nothing(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    first = await decided(database, order(), officers)
    assert await decided(database, order(), officers) == first
    assert await balance(database) == 5_000


async def test_one_identity_names_one_draft(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    await decided(database, order(), officers)
    with pytest.raises(IssuerError, match="draft-conflict"):
        await decided(database, order(amount=5_001), officers)


async def test_a_rejected_draft_never_moves_anything(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    ada, bob = officers
    async with database.transaction() as connection:
        await draft_supply(connection, order(), officer=ada, now_ms=NOW_MS)
        rejected = await reject_supply(connection, order().draft_id, officer=bob, now_ms=NOW_MS)
        again = await reject_supply(connection, order().draft_id, officer=bob, now_ms=NOW_MS + 9)
        assert (rejected.state, again) == (SupplyState.REJECTED, rejected)
        with pytest.raises(IssuerError, match="draft-decided"):
            await approve_supply(connection, order().draft_id, officer=bob, now_ms=NOW_MS)
    assert await balance(database) == 0


@pytest.mark.parametrize("amount", [0, -1, 2**53, 2**63])
async def test_an_amount_out_of_range_is_refused(
    database: Database, officers: tuple[Officer, Officer], amount: int
) -> None:
    with pytest.raises(IssuerError, match="draft-invalid"):
        await decided(database, order(amount=amount), officers)


async def test_an_unknown_draft_or_wallet_is_refused(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    with pytest.raises(IssuerError, match="draft-unknown"):
        async with database.transaction() as connection:
            await approve_supply(connection, bytes(32), officer=officers[1], now_ms=NOW_MS)
    async with database.transaction() as connection:
        await set_wallet_state(connection, "bank", WalletState.CLOSED)
    with pytest.raises(CloudError, match="wallet-closed"):
        await decided(database, order(), officers)


async def test_an_officer_without_the_role_decides_nothing(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    async with database.transaction() as connection:
        eve = await officer(connection, "eve", Role.AUDITOR)
    for pair in ((eve, officers[0]), (officers[0], eve)):
        with pytest.raises(IssuerError, match="role-missing"):
            await decided(database, order(), pair)


async def test_a_token_names_its_officer(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    token = new_token(lambda length: b"bob".ljust(length, b"."))
    async with database.transaction() as connection:
        assert await authenticate(connection, token) == officers[1]
        with pytest.raises(IssuerError, match="token-unknown"):
            await authenticate(connection, new_token(bytes))


async def test_two_officers_of_one_name_are_refused(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    with pytest.raises(IssuerError, match="officer-exists"):
        async with database.transaction() as connection:
            await officer(connection, "ada")


async def test_what_was_done_is_in_the_audit_log_in_order(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    await decided(database, order(), officers)
    async with database.transaction() as connection:
        found = await audit.read(connection)
        assert [(record.actor, record.action) for record in found] == [
            ("init", "officer.add"),
            ("init", "officer.add"),
            ("ada", "supply.draft"),
            ("bob", "supply.approve"),
        ]
        assert await audit.read(connection, after=2, limit=1) == found[2:3]
        assert await audit.verify(connection) == 4


async def test_a_changed_or_missing_audit_record_is_found(
    database: Database, officers: tuple[Officer, Officer]
) -> None:
    await decided(database, order(), officers)
    for command in (
        "UPDATE audit_log SET detail = '{}' WHERE sequence = 3",
        "DELETE FROM audit_log WHERE sequence = 2",
    ):
        with pytest.raises(asyncpg.PostgresError, match="only ever added"):
            async with database.transaction() as connection:
                await connection.execute(command)
        with pytest.raises(IssuerError, match="audit-broken"):
            async with database.transaction() as connection:
                await connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
                await connection.execute(command)
                await audit.verify(connection)
