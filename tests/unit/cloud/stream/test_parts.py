"""Bodies that are cut, and found whole or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from cloud.stream.parts import cut, joined, pieces


@given(st.binary(min_size=1, max_size=200), st.integers(1, 50))
def test_what_was_cut_is_found_whole(body: bytes, part_bytes: int) -> None:
    made, found = cut(body, part_bytes=part_bytes), list(pieces(body, part_bytes=part_bytes))
    assert len(found) == made.parts
    assert all(0 < len(piece) <= part_bytes for piece in found)
    assert joined(found, made) == body


@given(st.binary(min_size=2, max_size=200), st.integers(1, 50), st.data())
def test_a_part_that_is_missing_or_altered_is_noticed(
    body: bytes, part_bytes: int, data: st.DataObject
) -> None:
    made, found = cut(body, part_bytes=part_bytes), list(pieces(body, part_bytes=part_bytes))
    place = data.draw(st.integers(0, len(found) - 1))
    assert joined(found[:place] + found[place + 1 :], made) is None
    altered = bytes([found[place][0] ^ 1]) + found[place][1:]
    assert joined([*found[:place], altered, *found[place + 1 :]], made) is None
