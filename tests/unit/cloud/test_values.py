"""Small pure parts: rates, identities, tokens, the audit chain, migrations, the clock."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.clock import SystemClock
from cloud.database import Migration, check_migrations, migrations
from cloud.errors import CloudError, DatabaseError, IssuerError
from cloud.exchange import Rate
from cloud.issuer.audit import FIRST, AuditRecord
from cloud.issuer.officers import TOKEN_PREFIX, new_token, token_hash
from cloud.ledger import identities

RATIOS = st.integers(min_value=1, max_value=10**9)


@given(amount=st.integers(min_value=1, max_value=10**12), numerator=RATIOS, denominator=RATIOS)
def test_an_exchange_accounts_for_every_part_of_a_minor_unit(
    amount: int, numerator: int, denominator: int
) -> None:
    target, remainder = Rate(numerator=numerator, denominator=denominator).convert(amount)
    assert amount * numerator == target * denominator + remainder
    assert 0 <= remainder < denominator


def test_the_identity_of_an_entry_is_journal_epoch_and_index() -> None:
    journal = bytes(range(20))
    found = identities.of_entry(journal, epoch=1, index=2)
    assert found == journal + b"\x00\x00\x00\x01" + bytes(7) + b"\x02"
    assert len(found) == identities.IDENTITY_BYTES


def test_an_entry_out_of_range_has_no_identity() -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        identities.of_entry(b"short", epoch=0, index=0)
    with pytest.raises(OverflowError):
        identities.of_entry(bytes(20), epoch=2**32, index=0)


def test_derived_identities_keep_purposes_and_parts_apart() -> None:
    made = {
        identities.derived("a", b"bc"),
        identities.derived("ab", b"c"),
        identities.derived("a", b"b", b"c"),
        identities.derived("a", b"bc", b""),
    }
    assert len(made) == 4
    assert {len(identity) for identity in made} == {identities.IDENTITY_BYTES}


def test_a_token_is_hashed_as_its_secret() -> None:
    token = new_token(lambda length: b"\xfb" * length)
    assert token.startswith(TOKEN_PREFIX)
    assert token_hash(token) == hashlib.sha256(b"\xfb" * 32).digest()


@pytest.mark.parametrize(
    "token", ["", "cbo_", "cbo_AAAA", "cbo_***", "cbo_é", "A" * 43, "cbo_" + "A" * 41]
)
def test_a_text_that_is_no_token_is_unknown(token: str) -> None:
    with pytest.raises(IssuerError, match="token-unknown"):
        token_hash(token)


def test_every_field_of_an_audit_record_is_in_its_hash() -> None:
    record = AuditRecord(
        sequence=1, at_ms=2, actor="ada", action="officer.add", subject="bob", detail="{}"
    )
    expected = hashlib.sha256(FIRST + b'[1,2,"ada","officer.add","bob","{}"]').digest()
    assert record.chained(FIRST) == expected
    changes = {
        "sequence": 9,
        "at_ms": 9,
        "actor": "x",
        "action": "x",
        "subject": "x",
        "detail": "x",
    }
    for name, value in changes.items():
        assert msgspec.structs.replace(record, **{name: value}).chained(FIRST) != expected
    assert record.chained(expected) != expected


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(
        range(1, len(migrations()) + 1)
    )


def test_only_missing_migrations_are_applied() -> None:
    known = [Migration(version=number, name="n", text=str(number)) for number in (1, 2, 3)]
    assert check_migrations(known, {1: known[0].checksum}) == known[1:]


@pytest.mark.parametrize(
    ("applied", "code"), [({1: b"other"}, "schema-changed"), ({9: b"new"}, "schema-too-new")]
)
def test_a_schema_of_another_release_is_refused(applied: dict[int, bytes], code: str) -> None:
    with pytest.raises(DatabaseError, match=code):
        check_migrations([Migration(version=1, name="n", text="1")], applied)


def test_an_error_says_its_code_and_what_there_is_to_say() -> None:
    assert str(CloudError("some-code")) == "some-code"
    assert str(CloudError("some-code", "because")) == "some-code: because"


def test_the_clock_gives_unix_time_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now_ms() > 1_700_000_000_000
    first = clock.monotonic_ms()
    assert clock.monotonic_ms() >= first
