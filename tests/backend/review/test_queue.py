"""Who has which pictures on the page."""

from cachetools import TTLCache

from backend.review.queue import OpenPages


def test_claims_are_renewed_by_each_load() -> None:
    now = 0.0
    pages = OpenPages(seats=TTLCache(9, 900.0, timer=lambda: now))
    pages.hold(7, "a", [1, 2])
    for _ in range(3):
        now += 600.0
        pages.renew(7, "a")
        assert not pages.is_free(7, 1, "b", ahead=False)
    now += 901.0
    assert pages.hold(7, "b", [1, 3]) == [1, 3]
    assert pages.hold(7, "a", [1, 2]) == [2]
