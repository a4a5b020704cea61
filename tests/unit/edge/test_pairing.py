"""Pairing: a short life, few tries, and a string that covers both keys and the code."""

import pytest

from edge.errors import PairingRefused
from edge.pairing import (
    ALPHABET,
    LIFETIME_MS,
    TRIES_MAX,
    PairingDesk,
    PairingState,
    normal,
    short_string,
)


def test_a_code_is_taken_as_people_type_it() -> None:
    desk = PairingDesk()
    code = desk.open(0).code
    assert len(code) == 8 and set(code) <= set(ALPHABET)
    assert desk.check_code(f"{code[:4]}-{code[4:]}".lower(), 1).state is PairingState.OPEN
    assert normal("ab-cd") == "ABCD"


def test_a_code_lives_five_minutes() -> None:
    desk = PairingDesk()
    code = desk.open(0).code
    assert desk.check_code(code, LIFETIME_MS - 1).code == code
    with pytest.raises(PairingRefused, match="no pairing"):
        desk.check_code(code, LIFETIME_MS)
    assert desk.current(LIFETIME_MS) is None


def test_wrong_codes_end_the_pairing_after_few_tries() -> None:
    desk = PairingDesk()
    code = desk.open(0).code
    for _ in range(TRIES_MAX):
        with pytest.raises(PairingRefused, match="wrong"):
            desk.check_code("AAAAAAAA", 1)
    with pytest.raises(PairingRefused, match="no pairing"):
        desk.check_code(code, 1)


def test_a_second_terminal_does_not_get_in_between() -> None:
    desk = PairingDesk()
    pairing = desk.open(0)
    pairing.state = PairingState.WAITING
    with pytest.raises(PairingRefused, match="no pairing"):
        desk.check_code(pairing.code, 1)


def test_only_the_waiting_pairing_is_confirmed_and_by_its_string_alone() -> None:
    desk = PairingDesk()
    with pytest.raises(PairingRefused, match="no terminal"):
        desk.waiting(0, sas="AAAA-AAAA")
    pairing = desk.open(0)
    with pytest.raises(PairingRefused, match="no terminal"):
        desk.waiting(0, sas="")
    pairing.state, pairing.sas = PairingState.WAITING, "ABCD-EFGH"
    assert desk.waiting(0, sas="abcdefgh") is pairing
    with pytest.raises(PairingRefused, match="differ"):
        desk.waiting(0, sas="ABCD-EFGJ")
    with pytest.raises(PairingRefused, match="refused"):
        desk.by_id(pairing.id, 0)


def test_a_terminal_finds_its_own_pairing_alone() -> None:
    desk = PairingDesk()
    pairing = desk.open(0)
    assert desk.by_id(pairing.id, 0) is pairing
    with pytest.raises(PairingRefused, match="no such"):
        desk.by_id("0" * 32, 0)
    desk.refuse(0)
    assert pairing.state is PairingState.REFUSED
    PairingDesk().refuse(0)


def test_the_short_string_covers_code_and_both_keys() -> None:
    base = short_string("ABCDEFGH", server_key=b"server", terminal_key=b"terminal")
    assert base == short_string("ABCDEFGH", server_key=b"server", terminal_key=b"terminal")
    others = {
        short_string("ABCDEFGJ", server_key=b"server", terminal_key=b"terminal"),
        short_string("ABCDEFGH", server_key=b"serverx", terminal_key=b"terminal"),
        short_string("ABCDEFGH", server_key=b"server", terminal_key=b"xterminal"),
        # Lengths are part of it: no byte moves from one key into the other.
        short_string("ABCDEFGH", server_key=b"servert", terminal_key=b"erminal"),
    }
    assert len(others | {base}) == 5
    assert len(base) == 9 and base[4] == "-"
