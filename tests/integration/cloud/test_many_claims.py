"""A closure of tens of thousands of claims, grants and wallets: nothing is left out or cut off."""

from __future__ import annotations

from typing import Any

import pytest
from nacl.bindings import crypto_sign_seed_keypair

from cloud.funding import FundingRequest, hold
from cloud.http.octets import from_text
from cloud.issuer import enrolments
from cloud.ledger.accounts import ensure_accounts, transit_grants
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.recovery import statements
from cloud.wallets import find_wallet
from edge.pos.purse import DeviceKey
from tests.support.recovery import ANNA, BERT, ORDER_MS, SUPPLY, Box, Story
from wallet.protocol.codec import head
from wallet.protocol.entry import EntryKind, encode_entry
from wallet.protocol.ids import WalletId, journal_text
from wallet.protocol.issued import decode_statement
from wallet.protocol.keys import EDDSA, from_raw
from wallet.protocol.merkle import leaf_hash

MANY = 20_000


async def claimed(story: Story, box: Box, *, many: int) -> None:
    """Bert pays Anna half of them first, of which he has nothing, and gets all of it back later."""
    async with story.books.transaction() as connection:
        size = await connection.fetchval("SELECT size FROM journal_epoch")
        rows = []
        for number in range(many):
            payer, payee = (BERT, ANNA) if number < many // 2 else (ANNA, BERT)
            order = ordered(box, payer, payee, sequence=number % (many // 2))
            body = b"\x82" + head(2, len(order)) + order + b"\xf6"
            entry = encode_entry(
                kind=EntryKind.PAY, index=size + number, time_ms=1, clock=0, body=body
            )
            rows.append((box.journal, 1, size + number, leaf_hash(entry), entry, b"", 0))
        names = ("journal", "epoch", "index", "leaf", "entry", "receipt", "received_ms")
        await connection.copy_records_to_table("collected_receipt", records=rows, columns=names)


def ordered(box: Box, payer: DeviceKey, payee: DeviceKey, *, sequence: int) -> bytes:
    """An order of 2."""
    return payer.sign_order(
        sequence=sequence,
        payee=payee.public.id,
        payee_journal=box.journal,
        amount_minor=2,
        currency="EUR",
        created_ms=1,
        expires_ms=1 + ORDER_MS,
        kind=0,
        authorisation=0,
        payer_journal=box.journal,
        payer_epoch=1,
    )


async def granted(story: Story, box: Box, *, many: int) -> None:
    """As many grants of 1, signed and never told of, each for another wallet."""
    async with story.database.transaction() as connection:
        bank = await find_wallet(connection, "bank-eur")
        account = transit_grants(journal_text(box.journal), currency="EUR")
        numbers = await ensure_accounts(connection, [account])
        moved = Transfer(
            identity=b"\x07" * 32,
            debit=bank.account_id,
            credit=numbers[account.name],
            amount=many,
            currency="EUR",
            kind=TransferKind.GRANT_HOLD,
            created_ms=0,
        )
        await post(connection, [moved])
        await connection.execute(
            "INSERT INTO funding (funding_id, wallet, journal, epoch, offline_wallet, amount,"
            " currency, state, sequence, grant_cose, created_ms)"
            " SELECT sha256(number::text::bytea), 'bank-eur', $1, 1,"
            " substring(sha256(number::text::bytea) FOR 20), 1, 'EUR', 'granted', number, '', 0"
            " FROM generate_series(1, $2::bigint) AS number",
            *(box.journal, many),
        )


async def held(story: Story, box: Box, *, many: int) -> None:
    """Holds that were never granted."""
    async with story.database.transaction() as connection:
        for number in range(many):
            request = FundingRequest(
                funding_id=number.to_bytes(32, "big"),
                wallet="bank-eur",
                journal=box.journal,
                epoch=1,
                offline_wallet=ANNA.public.id,
                amount=1,
            )
            await hold(connection, request, now_ms=0)


async def pages(story: Story, path: str) -> list[dict[str, Any]]:
    """All of a list that comes in pages."""
    found: list[dict[str, Any]] = []
    while True:
        status, page = await story.first.get(f"{path}?first={len(found)}")
        assert status == 200, page
        if not page["claims"]:
            return found
        found += page["claims"]


@pytest.mark.timeout(300)
async def test_a_closure_of_any_size_comes_to_the_cent(story: Story, north: Box) -> None:
    await granted(story, north, many=MANY)
    await claimed(story, north, many=MANY)
    path = await story.closed(north)
    await story.pass_window(path)
    draft = await story.statement_draft(path)
    assert (draft["counted"], draft["refused"], draft["borne"]) == (MANY, 0, 0)
    one = f"/v1/issuer/statements/{draft['statement_id']}"
    lines = await pages(story, f"{one}/claims")
    assert len({line["claim"] for line in lines}) == MANY
    assert [line["index"] for line in lines] == sorted(line["index"] for line in lines)

    signed = await story.done(story.second, f"{one}/approve", {})
    statement = decode_statement(from_text(signed["object"]))
    assert len(statement.carried) == MANY + 1
    assert dict(statement.carried)[WalletId(ANNA.public.id)] == 1_000
    found = await story.where()
    assert (found.offline, found.in_transit, found.loss) == (1_000 + MANY, 0, 0)
    async with story.database.transaction() as connection:
        waiting = await connection.fetchval("SELECT count(*) FROM funding WHERE state = 'granted'")
    async with story.books.transaction() as connection:
        counted = await connection.fetchval("SELECT count(*) FROM epoch_claim WHERE code IS NULL")
    assert (counted, waiting) == (MANY, 0)


async def test_claims_are_shown_by_pages_and_many_wallets_go_on(story: Story, north: Box) -> None:
    many, few = 12_000, statements.PAGE_MAX + 500
    await held(story, north, many=20)
    await granted(story, north, many=many)
    await claimed(story, north, many=few)
    before = await story.where()
    path = await story.closed(north)
    # What was held and never granted is back; what was granted waits.
    assert (await story.where()).online == before.online + 20
    lines = []
    for first, length in ((0, statements.PAGE_MAX), (statements.PAGE_MAX, 500), (few, 0)):
        _, page = await story.first.get(f"{path}/claims?first={first}")
        assert (page["claimed"], len(page["claims"])) == (few, length)
        assert (page["carried"], page["wallets"], page["borne"]) == (1_000 + many, 1 + many, 0)
        lines += page["claims"]
    assert len({line["claim"] for line in lines}) == few
    await story.pass_window(path)
    await story.stated(path)
    again = await story.successor(path, "north-again")
    async with again.running() as branch:
        await branch.daemon.sync_now()
        assert branch.opened.journal.state.balance_total() == 1_000 + many
    assert await story.offline_in(again, 2) == 1_000 + many
    await story.where()


async def test_everybody_may_be_paid_out_where_a_statement_would_be_too_large(
    story: Story, north: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    await granted(story, north, many=30)
    path = await story.closed(north)
    await story.pass_window(path)
    monkeypatch.setitem(vars(statements), "STATEMENT_BYTES_MAX", 500)
    body = {"statement_id": "1" * 64, "hosted": "carry"}
    answer = await story.first.post(f"{path}/statements", body)
    assert (answer[0], answer[1]["code"]) == (409, "statement-too-large")
    made = await story.stated(path, hosted="everybody")
    assert (made["carried"], made["paid_out"]) == (0, 1_030)
    assert decode_statement(from_text(made["object"])).carried == ()
    found = await story.where()
    assert (found.offline, found.in_transit, found.online) == (0, 0, SUPPLY)
    assert await story.online_of(ANNA) == 1_000


async def test_all_wallets_of_an_epoch_are_enrolled_where_it_goes_on_a_turn_at_a_time(
    story: Story, north: Box
) -> None:
    many = enrolments.CARRIED_MAX + 200
    async with story.database.transaction() as connection:
        rows = []
        for number in range(many):
            key = from_raw(EDDSA, nacl_public(number))
            rows.append((north.journal, key.id, key.cose_key, 1, b"", 1, "test", 0, True))
        columns = ["journal", "wallet", "cose_key", "tier", "object", "expires_ms", "made_by"]
        await connection.copy_records_to_table(
            "wallet_enrolment", records=rows, columns=[*columns, "created_ms", "applied"]
        )
    path = await story.closed(north)
    await story.pass_window(path)
    await story.stated(path)
    again = await story.successor(path, "north-again")
    assert await enrolled_in(story, again) == enrolments.CARRIED_MAX
    async with again.running() as branch:
        await branch.daemon.sync_now()
    # Anna and Bert were enrolled there as well.
    assert await enrolled_in(story, again) == many + 2


def nacl_public(number: int) -> bytes:
    """A key that nobody has the secret of."""
    return crypto_sign_seed_keypair(number.to_bytes(32, "big"))[0]


async def enrolled_in(story: Story, box: Box) -> int:
    """Wallets that were enrolled in a journal."""
    async with story.database.transaction() as connection:
        found: int = await connection.fetchval(
            "SELECT count(DISTINCT wallet) FROM wallet_enrolment WHERE journal = $1", box.journal
        )
        return found
