"""Which requests wait for which others."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from backend.web.lanes import Lanes


class Request:
    """A connection with one request, which is answered once `may_end` is set."""

    def __init__(self, path: str, may_end: threading.Event | None = None) -> None:
        self.requests = [SimpleNamespace(path=path)]
        self.begun, self.answered = threading.Event(), threading.Event()
        self._may_end = may_end

    def service(self) -> None:
        self.begun.set()
        if self._may_end is not None:
            self._may_end.wait(60)
        self.answered.set()


@pytest.fixture
def may_end() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def lanes(may_end: threading.Event) -> Iterator[Lanes]:
    made = Lanes(prediction_threads=3)
    yield made
    may_end.set()
    made.shutdown()


@pytest.mark.parametrize("path", ["/projects/7/review", "/predict", "/setup", "/anything"])
def test_health_waits_for_no_other_request(
    lanes: Lanes, may_end: threading.Event, path: str
) -> None:
    for _ in range(300):
        lanes.add_task(Request(path, may_end))
    health = Request("/health")
    lanes.add_task(health)
    assert health.answered.wait(10)


def test_pages_that_wait_for_label_studio_hold_up_no_click(
    lanes: Lanes, may_end: threading.Event
) -> None:
    for _ in range(300):
        lanes.add_task(Request("/projects/7", may_end))
    click = Request("/predict")
    lanes.add_task(click)
    assert click.answered.wait(10)


def test_a_request_beyond_the_threads_of_its_lane_is_answered_later(
    lanes: Lanes, may_end: threading.Event
) -> None:
    requests = [Request("/predict", may_end) for _ in range(5)]
    for request in requests:
        lanes.add_task(request)
    assert all(request.begun.wait(10) for request in requests[:3])
    assert not requests[3].begun.wait(0.1)
    may_end.set()
    assert all(request.answered.wait(10) for request in requests)


def test_a_server_that_nobody_asks_has_no_threads() -> None:
    before = threading.active_count()
    lanes = Lanes(prediction_threads=200)
    assert threading.active_count() == before
    lanes.shutdown()


def test_the_end_waits_for_what_has_begun_and_for_no_more(
    lanes: Lanes, may_end: threading.Event
) -> None:
    requests = [Request("/predict", may_end) for _ in range(4)]
    for request in requests:
        lanes.add_task(request)
    assert all(request.begun.wait(10) for request in requests[:3])
    assert not lanes.shutdown(timeout=0.01)
    may_end.set()
    assert lanes.shutdown(timeout=10)
    assert not requests[3].begun.is_set()
