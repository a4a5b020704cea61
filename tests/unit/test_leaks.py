"""The search for secrets finds each form that it names, and nothing in what holds none."""

import base64
import secrets

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.support.leaks import forms, leaks, pem_secrets

ENCODERS = [
    lambda raw: raw,
    lambda raw: raw.hex().encode(),
    lambda raw: raw.hex().upper().encode(),
    base64.b64encode,
    base64.urlsafe_b64encode,
]


@pytest.mark.parametrize("encode", ENCODERS)
@given(
    before=st.binary(max_size=7),
    secret=st.binary(min_size=8, max_size=40),
    after=st.binary(max_size=7),
)
def test_a_secret_is_found_wherever_it_stands(
    encode: object, before: bytes, secret: bytes, after: bytes
) -> None:
    assert callable(encode)
    text = b"log: " + encode(before + secret + after) + b"\n"
    assert leaks({"log": text}, {"key": secret})[0] == "key in log"


def test_another_secret_is_not_found() -> None:
    text = base64.b64encode(secrets.token_bytes(300)) + secrets.token_bytes(300)
    assert leaks({"log": text}, {"key": secrets.token_bytes(16)}) == []


def test_what_is_too_short_to_search_for_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        list(forms(b"2580"))


def test_a_private_key_in_pem_is_searched_line_by_line() -> None:
    body = [secrets.token_bytes(48) for _ in range(3)]
    lines = [base64.b64encode(part).decode() for part in body]
    pem = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    found = pem_secrets("till", pem)
    assert found["till"] == body[-1] and len(found) == 3
    assert leaks({"log": lines[1].encode()}, found) == ["till, line 1 in log"]
