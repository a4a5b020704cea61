"""Money: an integer of minor units and its currency. Text is made at the edge only."""

from __future__ import annotations

import re

import msgspec

AMOUNT_MAX = 1_000_000_000_000
_CODE = re.compile(r"[A-Z]{3}\Z")
_DECIMAL = re.compile(r"(\d{1,13})(?:\.(\d{1,4}))?\Z", re.ASCII)
# ISO 4217 exponents that are not 2, for the currencies in use (list one, 2026).
_EXPONENTS = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}


class MoneyError(ValueError):
    """An amount, a currency or a sum that makes no sense; `code` is stable."""

    code = "money-invalid"


class Currency(msgspec.Struct, frozen=True):
    """An ISO 4217 alphabetic code. Raises: MoneyError when it is not three capitals."""

    code: str

    def __post_init__(self) -> None:
        if not _CODE.match(self.code):
            raise MoneyError(f"{self.code!r} is no ISO 4217 code")

    @property
    def exponent(self) -> int:
        """Decimal places of the minor unit (ISO 4217)."""
        return _EXPONENTS.get(self.code, 2)


class Money(msgspec.Struct, frozen=True):
    """An amount of one currency in minor units; sums of two currencies raise MoneyError."""

    minor: int
    currency: Currency

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other).minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other).minor, self.currency)

    def _same(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise MoneyError(f"{self.currency.code} and {other.currency.code} do not add up")
        return other

    def __str__(self) -> str:
        return f"{decimal_text(self.minor, self.currency)} {self.currency.code}"


def decimal_text(minor: int, currency: Currency) -> str:
    """Decimal text without the code: 1234 EUR is `12.34`."""
    places = currency.exponent
    sign = "-" if minor < 0 else ""
    if places == 0:
        return f"{sign}{abs(minor)}"
    whole, part = divmod(abs(minor), 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def parse_decimal(text: str, currency: Currency) -> Money:
    """Money of decimal text such as `12.34`. Raises: MoneyError."""
    match = _DECIMAL.match(text)
    if match is None or len(match[2] or "") > currency.exponent:
        raise MoneyError(f"{text!r} is no amount of {currency.code}")
    part = (match[2] or "").ljust(currency.exponent, "0")
    return Money(int(match[1] + part), currency)
