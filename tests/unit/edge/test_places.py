"""Places for connections are counted, in all and by holder."""

from hypothesis import given
from hypothesis import strategies as st

from edge.http.places import Places

HOLDERS = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(st.booleans(), HOLDERS), max_size=60), st.integers(1, 6))
def test_no_more_places_are_taken_than_there_are(moves: list[tuple[bool, str]], most: int) -> None:
    places, held = Places(most=most, each=2), dict.fromkeys("abc", 0)
    for coming, holder in moves:
        if coming:
            free = sum(held.values()) < most and held[holder] < 2
            assert places.take(holder) == free
            held[holder] += free
        elif held[holder]:
            places.leave(holder)
            held[holder] -= 1
        assert places.taken == sum(held.values())
