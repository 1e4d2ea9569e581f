"""Whatever comes between two steps of the worker: no annotation is lost, doubled or left behind.

A step is a call to Label Studio, or a transaction. Before each of them in turn the process ends, a
page is taken back, or another verdict comes. Each time it is another task's.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from backend.database.database import METADATA, Database
from backend.label_studio.client import LabelStudioClient
from backend.review.repair import Step
from backend.review.verdicts import Reviewed, ReviewStore
from backend.review.writing import write_due
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.feedback.test_annotation_reader import OURS, region

REVIEWS = METADATA.tables["reviews"]
STEPS = range(1, 20)  # more than a worker takes


class Killed(BaseException):
    """The process ends."""


class SteppedDatabase(Database):
    """The database of a process in which something happens before one of its steps."""

    steps = 0
    interrupted = 0  # the step before which it happens
    happens: Callable[[], object] | None = None  # None: the process ends

    def step(self) -> None:
        self.steps += 1
        if self.steps != self.interrupted:
            return
        if self.happens is not None:
            self.happens()
        else:
            self.interrupted += 1  # nor does it do anything more
            raise Killed

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        self.step()
        with super().write() as connection:
            yield connection


@dataclass
class Team:
    """A page, and workers that follow one another."""

    url: str
    studio: FakeStudio
    server: LocalServer
    database: Database

    @property
    def reviews(self) -> ReviewStore:
        """The verdicts, as a page knows them."""
        return ReviewStore(self.database, "page")

    def accept(self, task: int) -> Reviewed:
        """Call the prediction of a new task good, one that is not drawn to be checked."""
        self.studio.tasks[task] = {"image": f"{task}.png"}
        said = Reviewed(task, self.studio.add(task, OURS, 1.0, [region("a", "red", 4)]), "good")
        while said.is_checked:
            self.studio.predictions.pop()
            said = Reviewed(task, self.studio.add(task, OURS, 1.0, [region("a", "red", 4)]), "good")
        assert self.reviews.save(7, 5, str(task), [said], since=0.0) == []
        return said

    def undo(self, task: int) -> None:
        self.reviews.undo(7, str(task))

    def work(self, before: int = 0, happens: Callable[[], object] | None = None) -> bool:
        """Let a worker do all that is due; return whether it has come to that step."""
        database = SteppedDatabase(self.url, self.database.clock)
        database.interrupted, database.happens = before, happens
        client = LabelStudioClient(self.server.url, TOKEN, retry_for_s=0.0)
        send = client._connection.send

        def send_as_step(*of: Any, **more: Any) -> Any:
            database.step()
            return send(*of, **more)

        client._connection.send = send_as_step  # type: ignore[method-assign]
        reviews = ReviewStore(database, f"worker-{before}")
        with suppress(Killed):
            while write_due(reviews, client):
                pass
        database.close()
        return database.steps >= before

    def follow(self) -> None:
        """Let another worker take over from one that has ended."""
        end_leases(self.database, table="reviews")
        self.work()

    def annotated(self) -> Counter[int]:
        return Counter(each["task"] for each in self.studio.annotations.values())

    def verdicts(self) -> dict[int, str]:
        return {row.task: row.verdict for row in self.database.rows(sa.select(REVIEWS))}


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {})


@pytest.fixture
def team(url: str, studio: FakeStudio, server: LocalServer, database: Database) -> Team:
    return Team(url, studio, server, database)


def at_each_step(scene: Callable[[int], bool]) -> int:
    """Play a scene for each step of a worker, until one that it does not come to; return that one.

    A scene gets the step, which is also the number of its task, and says whether it was come to.
    """
    for step in STEPS:
        if not scene(step):
            return step
    raise AssertionError(f"A worker takes more than {len(STEPS)} steps.")


def test_a_worker_that_ends_loses_and_doubles_no_annotation(team: Team) -> None:
    def scene(step: int) -> bool:
        team.accept(step)
        is_reached = team.work(before=step)
        team.follow()
        return is_reached

    steps = at_each_step(scene)
    assert steps > 6
    assert team.annotated() == Counter(range(1, steps + 1))


def test_a_worker_that_ends_writes_each_repair_once(team: Team) -> None:
    def scene(step: int) -> bool:
        said = team.accept(step)
        repaired = msgspec.structs.replace(said, repair=(Step("red"),))
        assert team.reviews.save(7, 5, str(step), [repaired], since=0.0) == []
        has_come = team.work(step)
        team.follow()
        return has_come

    last = at_each_step(scene)
    assert team.annotated() == Counter(range(1, last + 1))
    assert all(each["result"] == [] for each in team.studio.annotations.values())


def test_what_a_worker_was_writing_as_it_ended_is_taken_back(team: Team) -> None:
    def scene(step: int) -> bool:
        team.accept(step)
        is_reached = team.work(before=step)
        team.undo(step)
        team.follow()
        return is_reached

    assert at_each_step(scene) > 6
    assert (team.annotated(), team.verdicts()) == (Counter(), {})


def test_a_worker_that_ends_takes_all_back_that_it_was_asked_to(team: Team) -> None:
    def scene(step: int) -> bool:
        team.accept(step)
        team.work()
        assert team.annotated() == {step: 1}
        team.undo(step)
        is_reached = team.work(before=step)
        team.follow()
        return is_reached

    assert at_each_step(scene) > 3
    assert (team.annotated(), team.verdicts()) == (Counter(), {})


def test_what_is_taken_back_while_it_is_written_is_gone(team: Team) -> None:
    def scene(step: int) -> bool:
        team.accept(step)
        is_reached = team.work(step, lambda: team.undo(step))
        team.undo(step)
        team.work()
        return is_reached

    assert at_each_step(scene) > 6
    assert (team.annotated(), team.verdicts()) == (Counter(), {})


def test_a_verdict_that_changes_while_it_is_written_counts_or_is_refused(team: Team) -> None:
    refused: list[int] = []

    def scene(step: int) -> bool:
        said = team.accept(step)

        def say_otherwise() -> None:
            other = Reviewed(said.task, said.prediction, "work")
            refused.extend(team.reviews.save(7, 5, str(said.task), [other], since=0.0))

        return team.work(step, say_otherwise)

    steps = at_each_step(scene)
    written = {task for task, verdict in team.verdicts().items() if verdict == "good"}
    assert written == {*refused, steps}
    assert len(written) not in (0, steps)
    assert team.annotated() == Counter(written)


def test_a_worker_that_lost_its_lease_leaves_nothing_that_another_has_taken_back(
    team: Team,
) -> None:
    def scene(step: int) -> bool:
        team.accept(step)

        def take_over() -> None:
            team.undo(step)
            team.follow()

        is_reached = team.work(step, take_over)
        team.undo(step)
        team.follow()
        return is_reached

    assert at_each_step(scene) > 6
    assert (team.annotated(), team.verdicts()) == (Counter(), {})
