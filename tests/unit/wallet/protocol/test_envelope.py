"""Synchronisation envelopes: who may sign them, what is in them, how they are sealed."""

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from tests.support.issuer import Issuer, Journal, Key
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import encode
from wallet.protocol.envelope import (
    DOWN_TYPE,
    ENVELOPE_BYTES_MAX,
    UP_TYPE,
    Down,
    Up,
    down_payload,
    up_payload,
    verify_down,
    verify_up,
)
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.sealed import (
    MAGIC,
    OPENED_BYTES_MAX,
    SEALED_BYTES_MAX,
    open_sealed,
    seal,
    short_id,
    unpack,
)

ISSUER = Issuer()
ROOT = TrustAnchor(ISSUER.root)
JOURNAL = Journal(ISSUER, "sync", epoch=4)
SYNC, SYNC_CHAIN = ISSUER.role("sync")
UP = Up(
    journal=JOURNAL.journal,
    epoch=4,
    exchange=b"n" * 16,
    acknowledged_size=7,
    entries=(b"one", b"two"),
    checkpoint=b"checkpoint",
    newest={0: 1, 11: 3},
    collected=((b"entry", b"receipt"),),
    health={"battery_percent": 80},
)
DOWN = Down(
    journal=JOURNAL.journal,
    epoch=4,
    exchange=b"n" * 16,
    acknowledged_size=9,
    objects=(b"policy", b"grant"),
    problem="not-canonical",
)
PRIVATE = X25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = PRIVATE.public_key().public_bytes_raw()
KEYS = {short_id(PUBLIC): PRIVATE}


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises(ProtocolError) as caught:
        call()
    return caught.value.code


def up(payload: bytes, chain: tuple[bytes, ...] = JOURNAL.chain) -> bytes:
    return JOURNAL.key.sign_object(UP_TYPE, payload, chain)


def down(payload: bytes) -> bytes:
    return SYNC.sign_object(DOWN_TYPE, payload, SYNC_CHAIN)


@pytest.mark.parametrize("claims", [UP, msgspec.structs.replace(UP, health=None, entries=())])
def test_a_report_comes_as_it_was_written(claims: Up) -> None:
    read = verify_up(up(up_payload(claims)), root=ROOT)
    assert read.claims == claims
    assert read.certificate.key == JOURNAL.key.public


@pytest.mark.parametrize(
    "claims",
    [
        DOWN,
        msgspec.structs.replace(DOWN, problem=None),
        msgspec.structs.replace(DOWN, problem=None, waiting=70_000),
    ],
)
def test_an_answer_comes_as_it_was_written(claims: Down) -> None:
    read = verify_down(down(down_payload(claims)), root=ROOT)
    assert read.claims == claims
    assert read.certificate.role == "sync"


def test_a_chain_that_is_held_may_be_left_out() -> None:
    held = {JOURNAL.key.public.key_id: JOURNAL.chain}
    bare = up(up_payload(UP), chain=())
    assert verify_up(bare, root=ROOT, held_chains=held).claims == UP
    assert refusal(lambda: verify_up(bare, root=ROOT)) == Code.CERTIFICATE_INVALID


@pytest.mark.parametrize("change", [{"epoch": 5}, {"journal": bytes(20)}])
def test_a_journal_reports_for_itself_and_its_epoch(change: dict[str, Any]) -> None:
    claims = msgspec.structs.replace(UP, **change)
    code = refusal(lambda: verify_up(up(up_payload(claims)), root=ROOT))
    assert code == Code.CERTIFICATE_INVALID


def test_another_key_signs_no_report() -> None:
    forged = Key("forger").sign_object(UP_TYPE, up_payload(UP), JOURNAL.chain)
    assert refusal(lambda: verify_up(forged, root=ROOT)) == Code.BAD_SIGNATURE


@pytest.mark.parametrize("role", ["settlement", "policy", "grants"])
def test_only_the_role_sync_answers(role: str) -> None:
    key, chain = ISSUER.role(role)
    wrong = key.sign_object(DOWN_TYPE, down_payload(DOWN), chain)
    assert refusal(lambda: verify_down(wrong, root=ROOT)) == Code.WRONG_ROLE


def test_an_answer_is_no_report_and_a_report_no_answer() -> None:
    assert refusal(lambda: verify_up(down(down_payload(DOWN)), root=ROOT)) == Code.UNKNOWN_TYPE
    assert refusal(lambda: verify_down(up(up_payload(UP)), root=ROOT)) == Code.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({1: 2}, Code.UNKNOWN_VERSION),
        ({4: b"short"}, Code.MALFORMED),
        ({6: [1]}, Code.MALFORMED),
        ({8: {"x": 1}}, Code.MALFORMED),
        ({9: [[b""]]}, Code.MALFORMED),
        ({10: {1: 1}}, Code.MALFORMED),
        ({11: 0}, Code.MALFORMED),
    ],
)
def test_signed_claims_of_a_wrong_shape_are_refused(change: dict[int, Any], code: Code) -> None:
    fields = {1: 1, 2: JOURNAL.journal, 3: 4, 4: b"n" * 16, 5: 7, 6: [], 7: b"", 8: {}, 9: []}
    payload = encode({**fields, **change})
    assert refusal(lambda: verify_up(up(payload), root=ROOT)) == code


def test_millions_of_items_cost_nothing_before_the_signature() -> None:
    bomb = encode([b"", {}, b"\x9a\x00\xff\xff\xff" + bytes(0xFFFFFF), bytes(64)])
    assert refusal(lambda: verify_up(bomb, root=ROOT)) == Code.NOT_CANONICAL
    flat = b"\x84\x9a\x00\xff\xff\xff" + bytes(0xFFFFFF)
    assert refusal(lambda: verify_up(flat, root=ROOT)) == Code.NOT_CANONICAL
    large = bytes(ENVELOPE_BYTES_MAX + 1)
    assert refusal(lambda: verify_up(large, root=ROOT)) == Code.TOO_LARGE


def test_what_is_sealed_is_opened_by_the_key_that_it_is_sealed_to() -> None:
    for envelope in (b"x", b"x" * 100_000, bytes(range(256))):
        sealed = seal(envelope, recipient=PUBLIC)
        assert sealed.startswith(MAGIC + short_id(PUBLIC))
        assert open_sealed(sealed, keys=KEYS) == envelope


def test_what_cannot_be_sealed_is_refused() -> None:
    too_large = bytes(OPENED_BYTES_MAX + 1)
    assert refusal(lambda: seal(too_large, recipient=PUBLIC)) == Code.TOO_LARGE
    assert refusal(lambda: seal(b"x", recipient=bytes(32))) == Code.WEAK_KEY
    assert refusal(lambda: seal(b"x", recipient=b"short")) == Code.WEAK_KEY


SEALED = seal(b"envelope", recipient=PUBLIC)


@pytest.mark.parametrize(
    ("sealed", "code"),
    [
        (b"", Code.MALFORMED),
        (SEALED[:59], Code.MALFORMED),
        (b"CBS2" + SEALED[4:], Code.MALFORMED),
        (SEALED[:4] + bytes(8) + SEALED[12:], Code.UNKNOWN_KEY),
        (SEALED[:-1] + bytes([SEALED[-1] ^ 1]), Code.NOT_OPENED),
        (SEALED + b"\x00", Code.NOT_OPENED),
        (SEALED[:12] + bytes(32) + SEALED[44:], Code.NOT_OPENED),
        (bytes(SEALED_BYTES_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_what_is_not_sealed_to_us_is_refused(sealed: bytes, code: Code) -> None:
    assert refusal(lambda: open_sealed(sealed, keys=KEYS)) == code


def test_the_header_is_bound_to_what_is_sealed() -> None:
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    front = MAGIC + short_id(PUBLIC)
    frame = zstandard.compress(b"envelope")
    for info in (b"cbdc-sync/1", b"cbdc-sync/2" + front, front):
        sealed = front + suite.encrypt(frame, PRIVATE.public_key(), info)
        assert refusal(functools.partial(open_sealed, sealed, keys=KEYS)) == Code.NOT_OPENED


def streamed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


FRAME = zstandard.compress(b"envelope" * 100)


def test_one_frame_is_unpacked_whether_it_tells_its_size_or_not() -> None:
    assert unpack(FRAME) == unpack(streamed(b"envelope" * 100)) == b"envelope" * 100


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", Code.MALFORMED),
        (b"plain", Code.MALFORMED),
        (FRAME[:-1], Code.MALFORMED),
        (FRAME + b"\x00", Code.MALFORMED),
        (FRAME + FRAME, Code.MALFORMED),
        (streamed(b"x" * 1000)[:-1], Code.MALFORMED),
        (streamed(b"x" * 1000) + b"\x00", Code.MALFORMED),
        (streamed(b"x" * 1000) + FRAME, Code.MALFORMED),
        (zstandard.compress(b""), Code.MALFORMED),
        (streamed(b""), Code.MALFORMED),
        (bytes.fromhex("502a4d1804000000") + b"skip", Code.MALFORMED),
        (zstandard.compress(bytes(OPENED_BYTES_MAX + 1)), Code.TOO_LARGE),
        (streamed(bytes(OPENED_BYTES_MAX + 1)), Code.TOO_LARGE),
    ],
)
def test_what_is_not_one_frame_of_bounded_size_is_refused(frame: bytes, code: Code) -> None:
    assert refusal(lambda: unpack(frame)) == code


def test_a_frame_of_just_the_largest_size_is_unpacked() -> None:
    assert len(unpack(streamed(bytes(OPENED_BYTES_MAX)))) == OPENED_BYTES_MAX
