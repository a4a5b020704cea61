"""Deterministic CBOR: what is canonical is read, and nothing else is."""

from typing import Any

import pytest

from wallet.protocol.codec import (
    DEPTH_MAX,
    DecodeError,
    Simple,
    Tagged,
    decode,
    decode_shallow,
    encode,
    head,
)
from wallet.protocol.refusals import Code

# RFC 8949 appendix A, as far as it is deterministic.
EXAMPLES: list[tuple[Any, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (255, "18ff"),
    (256, "190100"),
    (65535, "19ffff"),
    (65536, "1a00010000"),
    (4294967295, "1affffffff"),
    (4294967296, "1b0000000100000000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-1, "20"),
    (-1000, "3903e7"),
    (-18446744073709551616, "3bffffffffffffffff"),
    (0.0, "f90000"),
    (-0.0, "f98000"),
    (1.5, "f93e00"),
    (65504.0, "f97bff"),
    (100000.0, "fa47c35000"),
    (3.4028234663852886e38, "fa7f7fffff"),
    (1.1, "fb3ff199999999999a"),
    (1.0e300, "fb7e37e43c8800759c"),
    (float("inf"), "f97c00"),
    (float("-inf"), "f9fc00"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (Simple(16), "f0"),
    (Simple(255), "f8ff"),
    (Tagged(1, 1363896240), "c11a514b67b0"),
    (Tagged(2, bytes.fromhex("010000000000000000")), "c249010000000000000000"),
    (b"", "40"),
    (bytes.fromhex("01020304"), "4401020304"),
    ("", "60"),
    ("\u00fc\u6c34", "65c3bce6b0b4"),
    ([], "80"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    # Bytewise, not by length first: 24 (1818) stands before -1 (20).
    ({-1: 0, 24: 1}, "a21818012000"),
]

REFUSED: list[tuple[str, str]] = [
    ("", "nothing"),
    ("1817", "an integer that would fit the head"),
    ("190018", "16 bits that would fit 8"),
    ("1a00000100", "32 bits that would fit 16"),
    ("1b0000000000010000", "64 bits that would fit 32"),
    ("18", "an argument that is cut off"),
    ("1c", "a reserved argument"),
    ("5f42010243030405ff", "bytes of indefinite length"),
    ("9fff", "an array of indefinite length"),
    ("bfff", "a map of indefinite length"),
    ("42ff", "bytes that are cut off"),
    ("61ff", "text that is no UTF-8"),
    ("63eda080", "a surrogate"),
    ("8201", "an array that is cut off"),
    ("9a00010000", "an array that claims more than there is"),
    ("a20201", "a map that is cut off"),
    ("a2020001", "a map with keys out of order and a value missing"),
    ("a202000100", "keys out of order"),
    ("a201000100", "a key twice"),
    ("0000", "two items"),
    ("fa3fc00000", "1.5 in 32 bits"),
    ("fb3ff8000000000000", "1.5 in 64 bits"),
    ("f97e01", "another NaN"),
    ("f97c", "a real that is cut off"),
    ("f8", "a simple value that is cut off"),
    ("f818", "a simple value that must not be in two bytes"),
    ("fc", "a reserved simple value"),
    ("ff", "a break alone"),
    ("c2420100", "a bignum that fits an integer"),
    ("c24a00010000000000000000", "a bignum with a zero in front"),
    ("c1", "a tag without an item"),
]


@pytest.mark.parametrize(("value", "encoded"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_examples_of_the_rfc_are_written_and_read(value: Any, encoded: str) -> None:
    assert encode(value).hex() == encoded
    read = decode(bytes.fromhex(encoded), bytes_max=100)
    assert read == value
    assert type(read) is type(value)


def test_a_nan_has_one_form() -> None:
    assert encode(float("nan")).hex() == "f97e00"
    read = decode(bytes.fromhex("f97e00"), bytes_max=3)
    assert read != read


@pytest.mark.parametrize("encoded", [text for text, _ in REFUSED], ids=[why for _, why in REFUSED])
def test_what_is_not_deterministic_is_refused(encoded: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(bytes.fromhex(encoded), bytes_max=100)
    assert caught.value.code == Code.NOT_CANONICAL


def test_every_cut_of_a_long_item_is_refused() -> None:
    whole = encode({1: [b"x" * 30, "text", 1.5, Simple(99)], "k": Tagged(9, {b"": -70000})})
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            decode(whole[:size], bytes_max=100)


def test_a_cap_is_a_cap() -> None:
    assert decode(b"\x43abc", bytes_max=4) == b"abc"
    with pytest.raises(DecodeError) as caught:
        decode(b"\x43abc", bytes_max=3)
    assert caught.value.code == Code.TOO_LARGE


def test_nesting_ends_somewhere() -> None:
    assert decode(b"\x81" * DEPTH_MAX + b"\x00", bytes_max=100)
    for deeper in (b"\x81" * (DEPTH_MAX + 1) + b"\x00", b"\xc1" * (DEPTH_MAX + 1) + b"\x00"):
        with pytest.raises(DecodeError) as caught:
            decode(deeper, bytes_max=100)
        assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("key", ["f5", "80", "a0", "f93e00", "c100"])
def test_map_keys_are_integers_or_strings(key: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(bytes.fromhex(f"a1{key}00"), bytes_max=100)
    assert caught.value.code == Code.MALFORMED


def test_what_cbor_does_not_hold_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError):
        encode(object())
    with pytest.raises(OverflowError):
        encode(2**64)


def test_a_head_takes_the_shortest_form() -> None:
    sizes = [len(head(0, number)) for number in (23, 24, 255, 256, 65535, 65536, 2**32)]
    assert sizes == [1, 2, 2, 3, 3, 5, 9]


def shallow(data: bytes) -> list[Any]:
    return decode_shallow(data, bytes_max=1000, member_bytes_max=20)


def test_a_shallow_reading_takes_byte_strings_whole_and_the_rest_in_bounds() -> None:
    members = [b"x" * 500, {33: b"y" * 10}, None, b"z" * 64]
    assert shallow(encode(members)) == members
    assert shallow(b"\x80") == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_CANONICAL),
        (b"\xa0", Code.MALFORMED),
        (b"\x9f\xff", Code.NOT_CANONICAL),
        (encode([1] * 9), Code.MALFORMED),
        (encode([1, 2]) + b"\x00", Code.NOT_CANONICAL),
        (encode([1, b"abc"])[:-1], Code.NOT_CANONICAL),
        (b"\x82\x01", Code.NOT_CANONICAL),
        (encode([b"", [0] * 30]), Code.NOT_CANONICAL),
        (encode([b"x" * 1000]), Code.TOO_LARGE),
    ],
)
def test_a_shallow_reading_refuses(data: bytes, code: Code) -> None:
    with pytest.raises(DecodeError) as caught:
        shallow(data)
    assert caught.value.code == code
