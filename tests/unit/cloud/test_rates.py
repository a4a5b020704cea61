"""Buckets of requests: what is taken comes back by the second, and names are bounded."""

from cloud.http.rates import Buckets

ANNA, BERT, CARA = b"anna", b"bert", b"cara"


def taken(buckets: Buckets, name: bytes, *, now_ms: int) -> int:
    """How many requests can be taken at once."""
    count = 0
    while buckets.take(name, now_ms=now_ms):
        count += 1
    return count


def test_a_bucket_gives_its_burst_and_then_so_much_a_second() -> None:
    buckets = Buckets(per_s=2, burst=5)
    assert taken(buckets, ANNA, now_ms=0) == 5
    assert taken(buckets, ANNA, now_ms=499) == 0
    assert taken(buckets, ANNA, now_ms=500) == 1
    assert taken(buckets, ANNA, now_ms=1_500) == 2


def test_what_is_not_used_is_saved_up_to_the_burst() -> None:
    buckets = Buckets(per_s=1_000, burst=3)
    assert taken(buckets, ANNA, now_ms=0) == 3
    assert taken(buckets, ANNA, now_ms=10**9) == 3


def test_each_name_has_a_bucket_of_its_own_and_the_longest_unused_is_forgotten() -> None:
    buckets = Buckets(per_s=1, burst=1, names_max=2)
    for name in (ANNA, BERT):
        assert taken(buckets, name, now_ms=0) == 1
    assert taken(buckets, ANNA, now_ms=0) == 0
    assert taken(buckets, CARA, now_ms=0) == 1
    assert taken(buckets, ANNA, now_ms=0) == 0
    assert taken(buckets, BERT, now_ms=0) == 1
