"""Whatever the bytes are: a decoder gives a value or raises ProtocolError, and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.objects import DECODERS, honest_evidence, mutated, valid_objects
from wallet.protocol.codec import decode, encode
from wallet.protocol.messages import decode_order, decode_order_strictly
from wallet.protocol.patterns import read_order
from wallet.protocol.refusals import ProtocolError

NAMES = pytest.mark.parametrize("name", DECODERS)


def attempt(name: str, data: bytes) -> object:
    """The value, or None where the bytes are refused."""
    try:
        return DECODERS[name](data)
    except ProtocolError:
        return None


@NAMES
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    attempt(name, data)


@NAMES
@given(valid=st.sampled_from(valid_objects()), choice=st.randoms(use_true_random=False))
def test_mutated_objects_are_read_or_refused(
    name: str, valid: bytes, choice: random.Random
) -> None:
    attempt(name, mutated(valid, choice))


@NAMES
def test_valid_objects_of_any_kind_are_read_or_refused(name: str) -> None:
    for valid in valid_objects():
        attempt(name, valid)


@given(valid=st.sampled_from(honest_evidence()), choice=st.randoms(use_true_random=False))
def test_nothing_that_is_made_of_honest_journals_is_evidence(
    valid: bytes, choice: random.Random
) -> None:
    for data in (valid, mutated(valid, choice)):
        assert attempt("evidence", data) is None


@given(valid=st.sampled_from(valid_objects()), choice=st.randoms(use_true_random=False))
def test_what_the_codec_reads_it_writes_again_byte_for_byte(
    valid: bytes, choice: random.Random
) -> None:
    for data in (valid, mutated(valid, choice)):
        try:
            value = decode(data, bytes_max=1 << 20)
        except ProtocolError:
            continue
        assert encode(value) == data


ORDERS = [valid for valid in valid_objects() if attempt("order", valid)]


@given(valid=st.sampled_from(ORDERS), choice=st.randoms(use_true_random=False))
def test_the_pattern_of_orders_reads_nothing_that_the_strict_decoder_refuses(
    valid: bytes, choice: random.Random
) -> None:
    for data in (valid, mutated(valid, choice)):
        if read_order(data, dict) is None:
            continue
        strict = decode_order_strictly(data)
        try:
            assert decode_order(data) == strict
        except ProtocolError:
            # Refused for what its claims say of one another, which both leave to `check_order`.
            continue
