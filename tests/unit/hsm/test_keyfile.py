"""The sealed file of the software token."""

import hashlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.api import Algorithm, PinWrong, SealBroken, TokenRefused
from hsm.keyfile import MIB, Opened, close_file, open_file
from tests.support.tokens import FEEBLE

PASSPHRASE = b"correct horse"
OPENED = Opened(algorithm=Algorithm.EDDSA, public_key=bytes(range(32)), secret=bytes(64))
CONTENT = close_file(OPENED, passphrase=PASSPHRASE, cost=FEEBLE)
PROJECT = Path(__file__).parents[3]


def with_checksum(lines: list[bytes]) -> bytes:
    """Make a file of three lines, as one who altered them would."""
    body = b"".join(line + b"\n" for line in lines)
    return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


def altered(**changes: object) -> bytes:
    """Change values of the header."""
    header, check, box = CONTENT.split(b"\n")[:3]
    values = msgspec.json.decode(header)
    return with_checksum([msgspec.json.encode(values | changes), check, box])


@given(
    passphrase=st.binary(max_size=64),
    secret=st.binary(max_size=128),
    algorithm=st.sampled_from(Algorithm),
)
def test_what_was_closed_opens(passphrase: bytes, secret: bytes, algorithm: Algorithm) -> None:
    public_key = bytes(32 if algorithm is Algorithm.EDDSA else 64)
    opened = Opened(algorithm=algorithm, public_key=public_key, secret=secret)
    assert open_file(
        close_file(opened, passphrase=passphrase, cost=FEEBLE), passphrase=passphrase
    ) == (opened)


def test_the_parameters_of_the_derivation_are_recorded() -> None:
    header = msgspec.json.decode(CONTENT.split(b"\n")[0])
    assert header["kdf"] == "argon2id13"
    assert header["cost"] == {"passes": FEEBLE.passes, "memory_bytes": FEEBLE.memory_bytes}
    assert header["public_key"] == OPENED.public_key.hex()


def test_the_same_content_is_never_closed_alike() -> None:
    again = close_file(OPENED, passphrase=PASSPHRASE, cost=FEEBLE)
    assert not set(again.split(b"\n")[:4]) & set(CONTENT.split(b"\n")[:4])


@given(wrong=st.binary(max_size=64).filter(lambda passphrase: passphrase != PASSPHRASE))
def test_a_wrong_passphrase_is_said_to_be_wrong(wrong: bytes) -> None:
    with pytest.raises(PinWrong):
        open_file(CONTENT, passphrase=wrong)


@given(place=st.integers(0, len(CONTENT) - 1), value=st.integers(1, 255))
def test_a_damaged_byte_is_said_to_be_damage(place: int, value: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[place] ^= value
    with pytest.raises(SealBroken):
        open_file(bytes(damaged), passphrase=PASSPHRASE)


@given(length=st.integers(0, len(CONTENT) - 1))
def test_a_cut_file_is_said_to_be_damaged(length: int) -> None:
    with pytest.raises(SealBroken):
        open_file(CONTENT[:length], passphrase=PASSPHRASE)


@given(content=st.binary(max_size=400))
def test_any_other_bytes_are_no_key_file(content: bytes) -> None:
    with pytest.raises(SealBroken):
        open_file(content, passphrase=PASSPHRASE)


@given(
    lines=st.lists(st.binary(max_size=80).map(lambda line: line.replace(b"\n", b"")), max_size=4)
)
def test_a_right_checksum_alone_opens_nothing(lines: list[bytes]) -> None:
    with pytest.raises(SealBroken):
        open_file(with_checksum(lines), passphrase=PASSPHRASE)


def test_a_box_that_was_altered_with_its_checksum_is_found() -> None:
    header, check, box = CONTENT.split(b"\n")[:3]
    for changed in (box[:-2] + (b"00" if box[-2:] != b"00" else b"11"), b"", box[:20]):
        with pytest.raises(SealBroken, match="altered"):
            open_file(with_checksum([header, check, changed]), passphrase=PASSPHRASE)


def test_a_public_key_that_was_exchanged_is_found() -> None:
    with pytest.raises(SealBroken, match="altered"):
        open_file(altered(public_key="00" * 32), passphrase=PASSPHRASE)


def test_an_algorithm_that_was_exchanged_is_found() -> None:
    with pytest.raises(SealBroken, match="altered"):
        open_file(altered(algorithm=-7), passphrase=PASSPHRASE)


def test_a_salt_that_was_exchanged_opens_nothing() -> None:
    with pytest.raises(PinWrong):
        open_file(altered(salt="00" * 16), passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "software-token-2"},
        {"kdf": "scrypt"},
        {"cost": {"passes": 0, "memory_bytes": 8192}},
        {"cost": {"passes": 1, "memory_bytes": 1 << 40}},
        {"salt": "00"},
        {"salt": "GG" * 16},
        {"algorithm": -257},
        {"public_key": "00" * 33},
        {"more": 1},
    ],
)
def test_a_header_of_other_values_is_refused_before_the_passphrase(
    change: dict[str, object],
) -> None:
    with pytest.raises(SealBroken, match="header"):
        open_file(altered(**change), passphrase=PASSPHRASE)


def test_a_file_that_is_too_long_is_refused() -> None:
    header, check, box = CONTENT.split(b"\n")[:3]
    with pytest.raises(SealBroken):
        open_file(with_checksum([header, check, box + b"00" * 5000]), passphrase=PASSPHRASE)


LITTLE_MEMORY = """
import resource, sys
from hsm.api import TokenRefused
from hsm.keyfile import open_file
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
try:
    open_file(sys.stdin.buffer.read(), passphrase=b"any")
except TokenRefused as error:
    print(error.code)
"""


def test_a_file_that_asks_for_more_memory_than_there_is_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY],
        input=altered(cost={"passes": 1, "memory_bytes": 1024 * MIB}),
        cwd=PROJECT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().strip() == TokenRefused.code
