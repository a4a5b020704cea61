"""Every decoder of the protocol, and valid objects to begin with, from the vectors."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.vectors.files import PROTOCOL, load
from wallet.protocol.breach import breach_entry, breach_pair, breach_replay, breach_report
from wallet.protocol.certificates import TrustAnchor, parse_certificate
from wallet.protocol.codec import decode, decode_shallow
from wallet.protocol.cose import decode_sign1
from wallet.protocol.entry import decode_entry, decode_note
from wallet.protocol.envelope import DOWN_TYPE, verify_down, verify_up
from wallet.protocol.evidence import verify_evidence
from wallet.protocol.fork import verify_fork
from wallet.protocol.issued import decode_issued
from wallet.protocol.keys import from_cose_key
from wallet.protocol.merkle import import_frontier
from wallet.protocol.messages import decode_order, decode_request
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    decode_checkpoint,
    decode_receipt,
    verify_checkpoint,
    verify_receipt,
)
from wallet.protocol.sealed import open_sealed, unpack

Decoder = Callable[[bytes], object]
GRACE_S = 86_400


@functools.cache
def root() -> TrustAnchor:
    """The issuer of the journals' vectors."""
    return TrustAnchor(bytes.fromhex(_file("journal")["root_certificate"]["der"]))


@functools.cache
def _keys() -> dict[bytes, X25519PrivateKey]:
    return {
        bytes.fromhex(key["kid"]): X25519PrivateKey.from_private_bytes(
            bytes.fromhex(key["private_key"])
        )
        for key in _file("sync")["recipient_keys"].values()
    }


@functools.cache
def _file(name: str) -> Any:
    return load(PROTOCOL / f"{name}.json")


def _verify_receipt(data: bytes) -> object:
    entry = bytes.fromhex(_file("journal")["journals"][0]["receipts"][0]["entry"])
    return verify_receipt(data, entry, root=root(), grace_s=GRACE_S, revoked=NOTHING_REVOKED)


def _verify_entry(data: bytes) -> object:
    receipt = bytes.fromhex(_file("journal")["journals"][0]["receipts"][0]["receipt"])
    return verify_receipt(receipt, data, root=root(), grace_s=GRACE_S, revoked=NOTHING_REVOKED)


DECODERS: dict[str, Decoder] = {
    "codec": lambda data: decode(data, bytes_max=1 << 20),
    "shallow": lambda data: decode_shallow(data, bytes_max=1 << 20, member_bytes_max=1 << 10),
    "sign1": lambda data: decode_sign1(data, type_=DOWN_TYPE, with_chain=True),
    "order": decode_order,
    "request": decode_request,
    "entry": decode_entry,
    "note": lambda data: decode_note(data, data),
    "issued": decode_issued,
    "cose-key": from_cose_key,
    "checkpoint": decode_checkpoint,
    "receipt": decode_receipt,
    "checkpoint-checked": lambda data: verify_checkpoint(data, root=root(), grace_s=GRACE_S),
    "receipt-checked": _verify_receipt,
    "entry-checked": _verify_entry,
    "evidence": lambda data: verify_evidence(data, root=root(), grace_s=GRACE_S),
    "fork": lambda data: verify_fork(data, root=root(), grace_s=GRACE_S),
    "up": lambda data: verify_up(data, root=root()),
    "down": lambda data: verify_down(data, root=root()),
    "sealed": lambda data: open_sealed(data, keys=_keys()),
    "zstd": unpack,
    "certificate": parse_certificate,
    "frontier": import_frontier,
}


@functools.cache
def valid_objects() -> tuple[bytes, ...]:
    """Valid objects of every kind, each once."""
    journals = _file("journal")
    found = [case["cose"] for case in _file("orders")["valid"] + _file("orders")["requests"]]
    found += [case["cose"] for case in journals["issuer_objects"]]
    found += [journals["root_certificate"]["der"], journals["sub_ca_certificate"]["der"]]
    for journal in journals["journals"]:
        found += [entry["entry"] for entry in journal["entries"]]
        found += [checkpoint["checkpoint"] for checkpoint in journal["checkpoints"]]
        found += [receipt["receipt"] for receipt in journal["receipts"]]
        found += [journal["key"]["cose_key"], *journal["x5chain"]]
    found += [case["fork"] for case in _file("forks")["cases"]]
    found += [evidence.hex() for evidence in honest_evidence()]
    for case in _file("sync")["envelopes"]:
        found += [case["plain"], case["zstd"], case["sealed"]]
    return tuple(sorted({bytes.fromhex(text) for text in found}))


@functools.cache
def honest_evidence() -> tuple[bytes, ...]:
    """What somebody may put together of journals that kept to the rules: it proves nothing."""
    found: list[bytes] = []
    for journal in _file("journal")["journals"]:
        entries = [bytes.fromhex(entry["entry"]) for entry in journal["entries"]]
        transfers = [
            (bytes.fromhex(made["entry"]), bytes.fromhex(made["receipt"]))
            for made in journal["receipts"]
        ]
        found += [breach_entry(transfer) for transfer in transfers]
        found += [breach_pair(*pair) for pair in itertools.pairwise(transfers)]
        head = bytes.fromhex(journal["checkpoints"][-1]["checkpoint"])
        size = decode_checkpoint(head).head.size
        found.append(breach_replay(head, entries[:size], rest=[], lists=[]))
    for case in _file("sync")["envelopes"]:
        found.append(breach_report(bytes.fromhex(case["plain"]), None, left=[]))
    return tuple(found)


def mutated(valid: bytes, choice: random.Random) -> bytes:
    """The object with a few small changes: bits, bytes, cuts, repetitions."""
    data = bytearray(valid)
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        at = choice.randrange(len(data) + 1)
        match choice.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << choice.randrange(8)
            case 1 if at < len(data):
                data[at] = choice.choice((0, 0x18, 0x40, 0x5F, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xFF))
            case 2:
                del data[at : at + choice.randrange(1, 9)]
            case 3:
                data[at:at] = choice.randbytes(choice.randrange(1, 5))
            case _:
                data[at:at] = data[at : at + choice.randrange(1, 40)]
    return bytes(data)
