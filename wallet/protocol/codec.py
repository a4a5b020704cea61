"""Deterministic CBOR (RFC 8949 section 4.2.1): an encoder, and a decoder that takes nothing else.

Known shapes are checked elsewhere; here a value is canonical or it is not.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from wallet.protocol.refusals import Code, ProtocolError

DEPTH_MAX = 16
# Heads are written several times a payment: tables and packers take half of what arithmetic does.
_BYTES = [bytes((number,)) for number in range(256)]
_HEAD_2 = struct.Struct(">BH").pack
_HEAD_4 = struct.Struct(">BI").pack


class DecodeError(ProtocolError):
    """Bytes that are not one deterministic CBOR item; the only error that `decode` raises."""


class Tagged(msgspec.Struct, frozen=True):
    """A tagged item. Version 1 has none, so every shape refuses it as malformed."""

    tag: int
    value: Any


class Simple(msgspec.Struct, frozen=True):
    """A simple value other than false, true and null."""

    number: int


def head(major: int, argument: int) -> bytes:
    """Initial byte and shortest argument of a data item. Raises: OverflowError past 64 bits."""
    if argument < 24:
        return _BYTES[major << 5 | argument]
    if argument < 0x100:
        return _BYTES[major << 5 | 24] + _BYTES[argument]
    if argument < 0x10000:
        return _HEAD_2(major << 5 | 25, argument)
    if argument < 0x100000000:
        return _HEAD_4(major << 5 | 26, argument)
    return _BYTES[major << 5 | 27] + argument.to_bytes(8, "big")


def encode(value: Any) -> bytes:
    """One deterministic item. Raises: TypeError or OverflowError for what CBOR core cannot hold."""
    kind = type(value)
    if isinstance(value, int) and kind is not bool:
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if kind is list or kind is tuple:
        return head(4, len(value)) + b"".join([encode(item) for item in value])
    if kind is dict:
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return head(5, len(pairs)) + b"".join([key + item for key, item in pairs])
    return _encode_rare(value)


def _encode_rare(value: Any) -> bytes:
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, Tagged):
        return head(6, value.tag) + encode(value.value)
    if isinstance(value, Simple):
        return head(7, value.number)
    if isinstance(value, float):
        return _encode_real(value)
    raise TypeError(f"CBOR holds no {type(value).__name__} here")


def _encode_real(value: float) -> bytes:
    if value != value:
        return b"\xf9\x7e\x00"
    for initial, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return initial + packed
    return b"\xfb" + struct.pack(">d", value)


def decode(data: bytes, *, bytes_max: int) -> Any:
    """The one item in `data`.

    Raises: DecodeError `too-large`, `not-canonical`, or `malformed` for map keys that are neither
    integers nor strings and for nesting deeper than `DEPTH_MAX`.
    """
    if len(data) > bytes_max:
        raise DecodeError(Code.TOO_LARGE, f"{len(data)} bytes; at most {bytes_max}")
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise _not_canonical("bytes behind the item")
    return value


def decode_shallow(data: bytes, *, bytes_max: int, member_bytes_max: int) -> list[Any]:
    """An array of byte strings of any size and few other members, each of bounded size.

    For large objects whose signature has not been checked: the work does not grow with the bytes,
    so a small message cannot be blown up into millions of items. Raises: DecodeError as `decode`.
    """
    if len(data) > bytes_max:
        raise DecodeError(Code.TOO_LARGE, f"{len(data)} bytes; at most {bytes_max}")
    if data[:1] and data[0] >> 5 != 4:
        raise DecodeError(Code.MALFORMED, "no array")
    count, at = _argument(data, 0) if data else (0, 0)
    if count > 8:
        raise DecodeError(Code.MALFORMED, "more members than any object has")
    members = []
    for _ in range(count):
        # A byte string is taken whole, anything else from a window of bounded size.
        whole = at < len(data) and data[at] >> 5 == 2
        window = data if whole else data[at : at + member_bytes_max]
        value, end = _item(window, at if whole else 0, 1)
        members.append(value)
        at = end if whole else at + end
    if at != len(data) or not data:
        raise _not_canonical("cut off, or bytes behind the item")
    return members


def array_head(data: bytes, at: int) -> tuple[int, int] | None:
    """(members, where the first one begins) of an array at this place; None where none begins.

    Raises: DecodeError for a head that is not in its shortest form.
    """
    if at >= len(data) or data[at] >> 5 != 4:
        return None
    return _argument(data, at)


def _not_canonical(detail: str) -> DecodeError:
    return DecodeError(Code.NOT_CANONICAL, detail)


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """Argument and where it ends. Raises when it is not in its shortest form or cut off."""
    low = data[at] & 0x1F
    if low < 24:
        return low, at + 1
    if low > 27:
        raise _not_canonical("indefinite length or a reserved form")
    size = 1 << (low - 24)
    end = at + 1 + size
    if end > len(data):
        raise _not_canonical("cut off")
    argument = int.from_bytes(data[at + 1 : end], "big")
    if argument < (24, 0x100, 0x10000, 0x100000000)[low - 24]:
        raise _not_canonical("not the shortest form")
    return argument, end


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        raise _not_canonical("cut off")
    major = data[at] >> 5
    if major == 7:
        return _simple(data, at)
    argument, at = _argument(data, at)
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 2 or major == 3:
        return _string(data, at, argument, major)
    if depth == DEPTH_MAX:
        raise DecodeError(Code.MALFORMED, f"nested deeper than {DEPTH_MAX}")
    if major == 6:
        return _tagged(data, at, argument, depth)
    if argument > len(data) - at:
        raise _not_canonical("cut off")
    return (_array if major == 4 else _map)(data, at, argument, depth + 1)


def _string(data: bytes, at: int, size: int, major: int) -> tuple[bytes | str, int]:
    end = at + size
    if end > len(data):
        raise _not_canonical("cut off")
    if major == 2:
        return data[at:end], end
    try:
        return data[at:end].decode("utf-8"), end
    except UnicodeDecodeError as error:
        raise _not_canonical("text that is no UTF-8") from error


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    for _ in range(count):
        # A segment is an array of thousands of byte strings, most with a length of two bytes.
        if data[at : at + 1] == b"\x59" and (size := data[at + 1 : at + 3]) >= b"\x01":
            value, at = _string(data, at + 3, int.from_bytes(size, "big"), 2)
        else:
            value, at = _item(data, at, depth)
        items.append(value)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[Any, Any], int]:
    pairs: dict[Any, Any] = {}
    before = b""
    for _ in range(count):
        start = at
        key, at = _item(data, at, depth)
        encoded = data[start:at]
        if encoded <= before:
            raise _not_canonical("map keys out of order, or twice the same")
        before = encoded
        if type(key) not in (int, bytes, str):
            raise DecodeError(Code.MALFORMED, "a map key that is neither integer nor string")
        pairs[key], at = _item(data, at, depth)
    return pairs, at


def _tagged(data: bytes, at: int, tag: int, depth: int) -> tuple[Tagged, int]:
    value, at = _item(data, at, depth + 1)
    # A bignum that fits an integer, or has leading zeroes, is not in its preferred form (3.4.3).
    if tag in (2, 3) and isinstance(value, bytes) and (len(value) <= 8 or value[0] == 0):
        raise _not_canonical("a bignum that is longer than it need be")
    return Tagged(tag, value), at


def _simple(data: bytes, at: int) -> tuple[Any, int]:
    low = data[at] & 0x1F
    if low < 24:
        named = {20: False, 21: True, 22: None}
        return (named[low] if low in named else Simple(low)), at + 1
    if low == 24:
        return _simple_long(data, at)
    if low > 27:
        raise _not_canonical("indefinite length or a reserved form")
    return _real(data, at, low)


def _simple_long(data: bytes, at: int) -> tuple[Simple, int]:
    if at + 2 > len(data):
        raise _not_canonical("cut off")
    if data[at + 1] < 32:
        raise _not_canonical("a simple value in two bytes that is not allowed")
    return Simple(data[at + 1]), at + 2


def _real(data: bytes, at: int, low: int) -> tuple[float, int]:
    size, form = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[low]
    end = at + 1 + size
    if end > len(data):
        raise _not_canonical("cut off")
    value: float = struct.unpack(form, data[at + 1 : end])[0]
    if _encode_real(value) != data[at:end]:
        raise _not_canonical("a number that is not in its shortest form")
    return value, end
