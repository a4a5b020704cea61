"""What a TPM says is believed only when everything about it holds; no TPM is needed to check."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from hsm.api import Attested
from hsm.attestation import (
    AttestationInvalid,
    make_challenge,
    verify_counter,
    verify_endorsement,
    verify_quote,
    verify_signer,
)
from hsm.attestation.structures import (
    read_nv_public,
    read_public,
    read_signature,
    read_statement,
)
from tests.support.maker import MADE, NOW_MS, Maker
from tests.support.statements import (
    ATTESTATION,
    CAPTIVE,
    DECRYPT,
    RESTRICTED,
    SIGN,
    SIGNING,
    PretendedKey,
    certify_body,
    counter_body,
    endorsement_key,
    nv_public,
    quote_body,
    rsa_endorsement,
    sized,
    statement,
)

NV, CERTIFY, QUOTE = 0x8014, 0x8017, 0x8018
NONCE = b"asked just now"
PCRS = {0: b"\x01" * 32, 2: b"\x02" * 32, 7: b"\x03" * 32}
PROJECT = Path(__file__).parents[3]
DAY_MS = 86_400_000

KEY = PretendedKey()
SIGNER = PretendedKey(attributes=SIGNING)
GOOD_QUOTE = statement(QUOTE, quote_body(PCRS), nonce=NONCE)
GOOD_COUNT = statement(NV, counter_body(nv_public(), (41).to_bytes(8)), nonce=NONCE)
GOOD_CERTIFICATE = statement(CERTIFY, certify_body(SIGNER.public), nonce=NONCE)


def check_quote(attested: Attested, key: PretendedKey = KEY) -> None:
    verify_quote(attested, attestation_key=key.public, nonce=NONCE, pcrs=PCRS)


def test_a_quote_proves_the_registers_at_the_time_of_the_question() -> None:
    said = verify_quote(KEY.attest(GOOD_QUOTE), attestation_key=KEY.public, nonce=NONCE, pcrs=PCRS)
    assert (said.clock_ms, said.reset_count, said.restart_count, said.safe) == (123_456, 7, 3, True)


def test_a_certified_signing_key_is_the_one_in_the_tpm() -> None:
    point = verify_signer(
        KEY.attest(GOOD_CERTIFICATE),
        attestation_key=KEY.public,
        nonce=NONCE,
        signer=SIGNER.public,
    )
    assert point == SIGNER.point


def test_a_certified_counter_shows_what_it_showed() -> None:
    count = verify_counter(
        KEY.attest(GOOD_COUNT), attestation_key=KEY.public, nonce=NONCE, counter=nv_public()
    )
    assert count == 41


@pytest.mark.parametrize(
    "said",
    [
        statement(QUOTE, quote_body(PCRS), nonce=b"asked long ago"),
        statement(QUOTE, quote_body(PCRS), nonce=b""),
        statement(QUOTE, quote_body(PCRS), nonce=NONCE, magic=0xFF544348),
        statement(QUOTE, quote_body(PCRS), nonce=NONCE, safe=2),
        statement(QUOTE, quote_body(PCRS, bank=0x0004), nonce=NONCE),
        statement(QUOTE, quote_body({**PCRS, 7: b"\x04" * 32}), nonce=NONCE),
        statement(QUOTE, quote_body({0: PCRS[0], 2: PCRS[2]}), nonce=NONCE),
        statement(QUOTE, quote_body({**PCRS, 9: bytes(32)}), nonce=NONCE),
        statement(QUOTE, quote_body(PCRS) + b"\x00", nonce=NONCE),
        statement(QUOTE, quote_body(PCRS)[:-1], nonce=NONCE),
        statement(0x8019, quote_body(PCRS), nonce=NONCE),
        GOOD_CERTIFICATE,
        GOOD_COUNT,
    ],
)
def test_a_quote_of_another_question_or_of_other_registers_is_refused(said: bytes) -> None:
    with pytest.raises(AttestationInvalid):
        check_quote(KEY.attest(said))


def test_a_question_without_a_nonce_proves_nothing() -> None:
    said = KEY.attest(statement(QUOTE, quote_body(PCRS), nonce=b""))
    with pytest.raises(AttestationInvalid, match="question"):
        verify_quote(said, attestation_key=KEY.public, nonce=b"", pcrs=PCRS)


def test_a_statement_that_another_key_signed_is_refused() -> None:
    with pytest.raises(AttestationInvalid, match="not signed"):
        check_quote(PretendedKey().attest(GOOD_QUOTE))


@pytest.mark.parametrize(
    "attributes",
    [
        SIGNING,  # unrestricted: it signs what anybody writes
        ATTESTATION | DECRYPT,
        ATTESTATION & ~SIGN,
        *(ATTESTATION & ~(1 << bit) for bit in (1, 4, 5)),
    ],
)
def test_a_key_that_signs_more_than_its_tpm_says_attests_nothing(attributes: int) -> None:
    key = PretendedKey(attributes=attributes)
    with pytest.raises(AttestationInvalid, match="restricted"):
        check_quote(key.attest(GOOD_QUOTE), key)


@pytest.mark.parametrize(
    "attributes", [SIGNING | DECRYPT, SIGN, *(SIGNING & ~(1 << bit) for bit in (1, 4, 5, 18))]
)
def test_a_signing_key_that_could_leave_the_tpm_is_refused(attributes: int) -> None:
    signer = PretendedKey(attributes=attributes)
    said = KEY.attest(statement(CERTIFY, certify_body(signer.public), nonce=NONCE))
    with pytest.raises(AttestationInvalid, match="captive"):
        verify_signer(said, attestation_key=KEY.public, nonce=NONCE, signer=signer.public)


def test_a_certificate_of_another_key_or_kind_is_refused() -> None:
    for said in (statement(CERTIFY, certify_body(KEY.public), nonce=NONCE), GOOD_QUOTE):
        with pytest.raises(AttestationInvalid, match="another key"):
            verify_signer(
                KEY.attest(said), attestation_key=KEY.public, nonce=NONCE, signer=SIGNER.public
            )


@pytest.mark.parametrize(
    ("public", "body"),
    [
        (nv_public(), counter_body(nv_public(0x22040004), bytes(8))),
        (nv_public(), counter_body(nv_public(), bytes(8), offset=1)),
        (nv_public(), counter_body(nv_public(), bytes(7))),
        (nv_public(), counter_body(nv_public(), bytes(9))),
        (nv_public(0x22040004), counter_body(nv_public(0x22040004), bytes(8))),
        (nv_public(0x02040014), counter_body(nv_public(0x02040014), bytes(8))),
        (nv_public(), certify_body(KEY.public)),
    ],
)
def test_an_index_that_is_no_counter_or_another_one_is_refused(public: bytes, body: bytes) -> None:
    said = KEY.attest(statement(NV, body, nonce=NONCE))
    with pytest.raises(AttestationInvalid):
        verify_counter(said, attestation_key=KEY.public, nonce=NONCE, counter=public)


def test_a_statement_of_another_kind_is_no_count() -> None:
    with pytest.raises(AttestationInvalid, match="another index"):
        verify_counter(
            KEY.attest(GOOD_QUOTE), attestation_key=KEY.public, nonce=NONCE, counter=nv_public()
        )


def test_a_key_off_the_curve_attests_nothing() -> None:
    public = KEY.public[:-32] + bytes(32)
    with pytest.raises(AttestationInvalid, match="no point"):
        verify_quote(KEY.attest(GOOD_QUOTE), attestation_key=public, nonce=NONCE, pcrs=PCRS)


@pytest.mark.parametrize("cipher", ["0003", "000600800042", "000601000043"])
def test_a_key_with_a_cipher_that_is_not_known_is_refused(cipher: str) -> None:
    with pytest.raises(AttestationInvalid, match="cipher"):
        read_public(PretendedKey(cipher=bytes.fromhex(cipher)).public)


@pytest.mark.parametrize("place", range(0, len(GOOD_QUOTE), 5))
def test_every_changed_byte_of_a_statement_breaks_it(place: int) -> None:
    said = KEY.attest(GOOD_QUOTE)
    changed = bytearray(said.statement)
    changed[place] ^= 1
    with pytest.raises(AttestationInvalid):
        check_quote(Attested(statement=bytes(changed), signature=said.signature))


READERS: list[Callable[[bytes], object]] = [
    read_statement,
    read_public,
    read_nv_public,
    read_signature,
    lambda raw: check_quote(Attested(statement=raw, signature=raw)),
    lambda raw: check_quote(Attested(statement=GOOD_QUOTE, signature=raw)),
    lambda raw: verify_quote(KEY.attest(raw), attestation_key=KEY.public, nonce=NONCE, pcrs=PCRS),
    lambda raw: verify_quote(KEY.attest(GOOD_QUOTE), attestation_key=raw, nonce=NONCE, pcrs=PCRS),
    lambda raw: make_challenge(bytes(16), endorsement_key=raw, attestation_key=KEY.public),
    lambda raw: make_challenge(bytes(16), endorsement_key=KEY.public, attestation_key=raw),
    lambda raw: verify_endorsement([raw], endorsement_key=KEY.public, roots=[], now_ms=NOW_MS),
]
SEEDS = [
    *(GOOD_QUOTE, GOOD_COUNT, GOOD_CERTIFICATE),
    *(KEY.public, nv_public(), rsa_endorsement((1 << 2047) + 1), Maker().root),
]


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Any bytes, or true ones with a part of them exchanged, cut or repeated."""
    seed = draw(st.sampled_from(SEEDS))
    place = draw(st.integers(0, len(seed)))
    end = draw(st.integers(place, len(seed)))
    return draw(st.binary(max_size=300) | st.just(seed[:place] + draw(st.binary()) + seed[end:]))


@given(raw=hostile(), reader=st.sampled_from(READERS))
def test_arbitrary_bytes_raise_this_error_and_no_other(
    raw: bytes, reader: Callable[[bytes], object]
) -> None:
    try:
        reader(raw)
    except AttestationInvalid as error:
        assert error.code == "attestation-invalid"


def test_a_structure_without_end_is_not_read() -> None:
    with pytest.raises(AttestationInvalid, match="too long"):
        read_statement(bytes(1 << 20))


# ---- the tie to the endorsement key ----------------------------------------------------------
def test_a_challenge_is_another_one_each_time_and_shows_nothing() -> None:
    endorsement, answer = endorsement_key(), os.urandom(32)
    made = {
        make_challenge(answer, endorsement_key=endorsement.public, attestation_key=KEY.public)
        for _ in range(5)
    }
    assert len(made) == 5
    assert not any(answer in one.credential + one.secret for one in made)


@pytest.mark.parametrize("size", [0, 15, 33])
def test_an_answer_that_is_guessed_or_too_long_is_not_asked_for(size: int) -> None:
    with pytest.raises(AttestationInvalid, match="16 to 32"):
        make_challenge(
            bytes(size), endorsement_key=endorsement_key().public, attestation_key=KEY.public
        )


def test_a_challenge_is_made_for_keys_of_the_right_kinds_alone() -> None:
    plain = PretendedKey(attributes=CAPTIVE | DECRYPT | RESTRICTED, scheme=b"\x00\x10")
    for endorsement, attestation in (
        (KEY, KEY),
        (plain, KEY),
        (endorsement_key(), SIGNER),
        (endorsement_key(), endorsement_key()),
    ):
        with pytest.raises(AttestationInvalid, match="restricted"):
            make_challenge(
                bytes(32), endorsement_key=endorsement.public, attestation_key=attestation.public
            )


@pytest.mark.parametrize(
    "public",
    [
        rsa_endorsement(0),
        rsa_endorsement(4),
        rsa_endorsement((1 << 2047) + 1, exponent=3),
        rsa_endorsement((1 << 2047) + 1, cipher="0010"),
        rsa_endorsement((1 << 2047) + 1)[:-1],
    ],
)
def test_an_endorsement_key_that_is_no_rsa_key_is_not_challenged(public: bytes) -> None:
    with pytest.raises(AttestationInvalid):
        make_challenge(bytes(32), endorsement_key=public, attestation_key=KEY.public)


# ---- the maker's word ------------------------------------------------------------------------
def check_endorsement(
    *certificates: bytes, key: PretendedKey, roots: list[bytes], now_ms: int = NOW_MS
) -> list[int]:
    path = verify_endorsement(certificates, endorsement_key=key.public, roots=roots, now_ms=now_ms)
    return [named.serial for named in path]


def test_the_path_of_a_trusted_maker_holds_even_padded() -> None:
    maker, key = Maker(), endorsement_key()
    leaf = maker.certify(key.private.public_key())
    serials = [x509.load_der_x509_certificate(der).serial_number for der in (leaf, maker.above)]
    roots = [Maker("b").root, maker.root]
    assert check_endorsement(leaf + b"\xff" * 40, maker.above, key=key, roots=roots) == serials
    # The root itself is not on the path: who trusts it decides about it.
    assert check_endorsement(leaf, key=key, roots=[maker.above]) == serials[:1]


def test_the_certificate_of_an_rsa_key_holds_too() -> None:
    maker, private = Maker(), rsa.generate_private_key(65537, 2048)
    leaf = maker.certify(private.public_key())
    public = rsa_endorsement(private.public_key().public_numbers().n)
    for named, fine in ((public, True), (rsa_endorsement((1 << 2047) + 1), False)):
        with contextlib.nullcontext() if fine else pytest.raises(AttestationInvalid):
            verify_endorsement(
                [leaf, maker.above],
                endorsement_key=named,
                roots=[maker.root],
                now_ms=NOW_MS,
            )


def test_a_path_to_nobody_that_is_trusted_is_refused() -> None:
    maker, key = Maker(), endorsement_key()
    leaf = maker.certify(key.private.public_key())
    for certificates, roots in (
        ([leaf, maker.above], []),
        ([leaf], [maker.root]),
        ([leaf, maker.above], [Maker().root]),  # of the same name
        ([leaf, maker.above, leaf], [leaf]),
        ([], [maker.root]),
        ([leaf] * 7, [maker.root]),
        ([b"\x30\x82\x00\x01\x00"], [maker.root]),
    ):
        with pytest.raises(AttestationInvalid):
            check_endorsement(*certificates, key=key, roots=roots)


def test_a_certificate_of_another_key_or_for_another_use_is_refused() -> None:
    maker, key = Maker(), endorsement_key()
    public = key.private.public_key()
    for leaf, what in (
        (maker.certify(ec.generate_private_key(ec.SECP256R1()).public_key()), "another key"),
        (maker.certify(public, use=ExtendedKeyUsageOID.SERVER_AUTH), "not for an endorsement"),
        (maker.certify(public, use=None), "says not"),
    ):
        with pytest.raises(AttestationInvalid, match=what):
            check_endorsement(leaf, maker.above, key=key, roots=[maker.root])


def test_certificates_hold_in_their_time_alone() -> None:
    maker, key = Maker(), endorsement_key()
    leaf = maker.certify(key.private.public_key(), days=200)
    made_ms = int(MADE.timestamp() * 1000)
    for now_ms in (made_ms - 1000, made_ms + 201 * DAY_MS):
        with pytest.raises(AttestationInvalid, match="not valid now"):
            check_endorsement(leaf, maker.above, key=key, roots=[maker.root], now_ms=now_ms)


WITHOUT_LIBRARY = """
import sys
sys.modules["tpm2_pytss"] = None  # what an import meets on a machine without the library
import hsm.attestation
"""


def test_checking_needs_no_tpm_library() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_LIBRARY], cwd=PROJECT, timeout=60, check=True)


def test_a_sized_field_that_claims_more_than_there_is_is_cut_short() -> None:
    with pytest.raises(AttestationInvalid, match="cut short"):
        read_signature(b"\x00\x18\x00\x0b" + sized(bytes(32)) + b"\x00\x20\x00")
