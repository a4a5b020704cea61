"""Identifiers, money, refusals and shapes: the small values that everything is made of."""

import pytest

from wallet.protocol import shapes
from wallet.protocol.ids import journal_text, parse_wallet, wallet_text
from wallet.protocol.money import Currency, Money, MoneyError, decimal_text, parse_decimal
from wallet.protocol.refusals import Code, ProtocolError, Refusal, refuse

EUR, JPY, TND, CLF = (Currency(code) for code in ("EUR", "JPY", "TND", "CLF"))


def test_a_text_is_made_of_20_bytes_alone() -> None:
    assert parse_wallet(wallet_text(bytes(20))) == bytes(20)
    for size in (0, 19, 21, 32):
        with pytest.raises(ProtocolError) as caught:
            journal_text(bytes(size))
        assert caught.value.code == Code.MALFORMED


def test_one_wrong_character_anywhere_is_noticed() -> None:
    text = wallet_text(bytes(range(20)))
    for at in range(4, len(text)):
        wrong = text[:at] + ("q" if text[at] != "q" else "p") + text[at + 1 :]
        with pytest.raises(ProtocolError):
            parse_wallet(wrong)


@pytest.mark.parametrize("code", ["", "EU", "EURO", "eur", "E1R", "EUR\n"])
def test_a_currency_is_three_capitals(code: str) -> None:
    with pytest.raises(MoneyError):
        Currency(code)


def test_money_of_one_currency_adds_up_and_of_two_does_not() -> None:
    assert Money(5, EUR) + Money(7, EUR) == Money(12, EUR)
    assert Money(5, EUR) - Money(7, EUR) == Money(-2, EUR)
    with pytest.raises(MoneyError) as caught:
        Money(5, EUR) + Money(7, JPY)
    assert caught.value.code == "money-invalid"
    with pytest.raises(MoneyError):
        Money(5, EUR) - Money(7, JPY)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1234, EUR, "12.34"),
        (5, EUR, "0.05"),
        (-5, EUR, "-0.05"),
        (0, EUR, "0.00"),
        (1234, JPY, "1234"),
        (-7, JPY, "-7"),
        (1234, TND, "1.234"),
        (12345, CLF, "1.2345"),
    ],
)
def test_decimal_text_has_the_places_of_its_currency(
    minor: int, currency: Currency, text: str
) -> None:
    assert decimal_text(minor, currency) == text
    assert str(Money(minor, currency)) == f"{text} {currency.code}"
    if minor >= 0:
        assert parse_decimal(text, currency) == Money(minor, currency)


def test_fewer_places_are_read_and_more_are_not() -> None:
    assert parse_decimal("12", EUR) == Money(1200, EUR)
    assert parse_decimal("12.3", EUR) == Money(1230, EUR)
    for text in ("12.345", "-1", "1,5", "1e3", "", ".5", "5.", "\u0661", " 1", "1" * 14):
        with pytest.raises(MoneyError):
            parse_decimal(text, EUR)
    with pytest.raises(MoneyError):
        parse_decimal("1.5", JPY)


def test_an_error_becomes_a_refusal_and_says_what_it_is() -> None:
    error = ProtocolError(Code.BUSY, "later")
    assert error.refusal() == Refusal(code=Code.BUSY, detail="later")
    assert str(error) == "busy: later"
    assert str(ProtocolError(Code.BUSY)) == "busy"
    assert refuse(Code.BUSY, limit=3, left=1) == Refusal(code=Code.BUSY, limit=3, left=1)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (shapes.count, [0, 2**53 - 1], [-1, 2**53, True, "1", None, 1.0]),
        (shapes.amount, [1, 10**12], [0, 10**12 + 1, True, b""]),
        (shapes.identifier, [bytes(20)], [bytes(19), bytes(21), "x" * 20, None]),
        (shapes.binary, [b""], ["", None, [], 0]),
        (shapes.text, ["", "x"], [b"", None, 0]),
        (shapes.currency, ["EUR"], ["EUr", b"EUR", "EURO", "EUR\n"]),
        (shapes.category, ["0000"], ["000", 1234, "12345", "\u0661\u0662\u0663\u0664"]),
        (shapes.reference, ["x", "x" * 64], ["", "x" * 65, "\u20ac" * 22, "a\x85", "\u061c", b"x"]),
        (shapes.choice(1, 2), [1, 2], [0, True, "1"]),
        (shapes.listed(shapes.count), [[], [1]], [None, (1,), [-1], {}]),
        (shapes.listed(shapes.count, least=1), [[1]], [[]]),
        (shapes.fixed(shapes.count), [[1]], [[], [1, 1], ["1"], None]),
        (shapes.mapping(shapes.count, shapes.text), [{}, {1: "x"}], [[], {"x": "x"}, {1: 1}]),
        (shapes.optional(shapes.count), [None, 1], ["1"]),
    ],
)
def test_a_shape_takes_its_values_and_no_others(
    check: shapes.Check, good: list[object], bad: list[object]
) -> None:
    for value in good:
        made = check(value)
        assert made == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        with pytest.raises(ProtocolError) as caught:
            check(value)
        assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("value", [None, {}, {1: 1, 2: 2, 3: 3}, {1: 1, 4: 4}, {2: 2}, {1: "x"}])
def test_a_record_has_its_members_and_no_others(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        shapes.record(value, {1: shapes.count}, {2: shapes.count})
    assert caught.value.code == Code.MALFORMED


def test_a_record_is_given_as_it_is() -> None:
    assert shapes.record({1: 1, 2: 2}, {1: shapes.count}, {2: shapes.count}) == {1: 1, 2: 2}
    assert shapes.record({1: 1}, {1: shapes.count}) == {1: 1}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.MALFORMED),
        ({}, Code.MALFORMED),
        ({1: -1}, Code.MALFORMED),
        ({1: True}, Code.MALFORMED),
        ({1: 0}, Code.UNKNOWN_VERSION),
        ({1: 2}, Code.UNKNOWN_VERSION),
    ],
)
def test_there_is_one_version(value: object, code: Code) -> None:
    with pytest.raises(ProtocolError) as caught:
        shapes.versioned(value)
    assert caught.value.code == code
    shapes.versioned({1: 1, 99: 0})
