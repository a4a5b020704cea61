"""Statements of a TPM are bound to one gateway and one report, and travel in one form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.api import Attested, Quote
from sync.attestation import (
    STATEMENT_BYTES_MAX,
    Answer,
    enrolment_data,
    from_health,
    report_data,
    to_health,
)
from wallet.protocol.codec import decode, encode
from wallet.protocol.refusals import Code, ProtocolError

NONCE = b"n" * 32
ANSWER = Answer(
    nonce=NONCE,
    quote=Quote(
        attested=Attested(statement=b"quote", signature=b"signed"),
        pcrs={0: b"a" * 32, 7: b"b" * 32},
    ),
    counter=Attested(statement=b"counter", signature=b"signed"),
)


def test_what_is_signed_differs_with_every_part_of_it() -> None:
    report = {"journal": b"k", "exchange": b"k", "checkpoint": b"k"}
    made = [
        enrolment_data(NONCE, cose_key=b"k", tls_csr="k", hpke_key=b"k"),
        enrolment_data(b"m" * 32, cose_key=b"k", tls_csr="k", hpke_key=b"k"),
        enrolment_data(NONCE, cose_key=b"", tls_csr="k", hpke_key=b"k"),
        enrolment_data(NONCE, cose_key=b"k", tls_csr="", hpke_key=b"k"),
        enrolment_data(NONCE, cose_key=b"k", tls_csr="k", hpke_key=b""),
        report_data(NONCE, **report),
        report_data(b"m" * 32, **report),
        *(report_data(NONCE, **{**report, name: b"kk"}) for name in report),
    ]
    assert all(len(data) == 32 for data in made)
    assert all(one != other for one, other in itertools.combinations(made, 2))


def test_an_answer_travels_in_the_health_of_a_report() -> None:
    travelled = decode(encode(to_health(ANSWER)), bytes_max=4096)
    assert from_health(travelled) == ANSWER


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(31)},
        {"nonce": None},
        {"quote": [b"quote"]},
        {"quote": [b"quote", "signed"]},
        {"counter": [bytes(STATEMENT_BYTES_MAX + 1), b""]},
        {"registers": {24: bytes(32)}},
        {"registers": {"0": bytes(32)}},
        {"registers": {0: bytes(20)}},
        {"registers": [bytes(32)]},
        {"more": 1},
    ],
)
def test_another_form_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_health({**to_health(ANSWER), **change})
    assert caught.value.code == Code.MALFORMED


@given(
    value=st.recursive(
        st.none() | st.integers() | st.binary() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_whatever_a_report_has_in_its_place_is_read_or_malformed(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_health(value)
    assert caught.value.code == Code.MALFORMED
