"""Which pictures are said to help most, with a stand-in whose colours a person can foresee."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.database.database import Database
from backend.errors import StudioUnreachable
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning.next_picture_search import TRIED, NextPictureSearch
from backend.learning.next_pictures import PAUSE_S, NextPictures, NextPictureStore
from backend.projects.scores import ScoreStore
from clearclip_core import RGBArray
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import pixels_of, teach
from tests.backend.fakes.databases import end_leases
from tests.backend.learning.school import SIZE_HW, School, Studio
from tests.backend.prediction.test_predictor import read_image


class Pictures(Studio):
    """A project whose odd tasks are a flag and whose even ones are blank; some are annotated."""

    def __init__(self, annotated: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.annotated = annotated

    def all_tasks(self, project: int, wanted: TaskFilter) -> list[Task]:
        assert wanted.labeled is False
        left = [number for number in wanted.ids or () if number not in self.annotated]
        return [Task(n, project, {"image": "flag" if n % 2 else "blank"}) for n in left]


def read_picture(source: str, task: Task) -> RGBArray:
    """Read a picture; a blank one has nothing that is red."""
    if source == "blank":
        return np.zeros((*SIZE_HW, 3), np.uint8)
    return read_image(source, task)


class Search:
    """A search over tasks that have predictions, with corrections of a project."""

    def __init__(self, database: Database, owner: str = "me", tasks: int = 40) -> None:
        self.school = School(database, owner, adapt_every=10)
        self.waiting = False
        self.school.learner.read_image = read_picture
        versions = self.school.stores.versions
        self.store = NextPictureStore(database, versions._model_key)
        scores = ScoreStore(database)
        scores.keep(7, "v1", dict.fromkeys(range(1, tasks + 1), 0.5))
        self.search = NextPictureSearch(
            self.school.learner, self.store, scores, lambda: self.waiting
        )

    def run(self, studio: Studio | None = None) -> bool:
        return self.search.search_one(studio or Pictures())  # type: ignore[arg-type]

    @property
    def found(self) -> NextPictures:
        return self.store.read(7)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/school.db", clock)
    yield database
    database.close()


def test_the_pictures_that_a_candidate_changes_are_shown(database: Database) -> None:
    """That wine is red changes the red third of flags, and no blank picture."""
    search = Search(database)
    assert not search.run(), "nothing was corrected"
    search.school.learn(1)
    assert search.run()
    assert (search.found.annotations, search.found.tried) == (1, TRIED)
    assert len(search.found.pictures) == 6
    assert {each.task % 2 for each in search.found.pictures} == {1}
    assert [each.changed for each in search.found.pictures] == [pytest.approx(1 / 3)] * 6
    assert set(search.found.colours) == {"wine"}
    picture = pixels_of(search.found.pictures[0].picture).astype(int)
    assert picture[5:35, 4:16].std(axis=-1).min() > 10, "the third that changes has a colour"
    assert picture[5:35, 26:].std(axis=-1).max() < 3, "the rest is grey"
    assert search.school.stores.versions.versions(7) == [], "the candidate is no version"


def test_what_predictions_use_already_changes_nothing(database: Database) -> None:
    search = Search(database)
    search.school.learn(1, 2)
    search.school.stores.versions.request_step(7)
    assert search.school.step()
    search.school.learn(3)
    assert search.run()
    assert (search.found.pictures, search.found.tried) == ((), TRIED)
    search.school.fits.adaptation = teach(wine="green")
    search.school.learn(4)
    search.school.stores.versions._database.clock.now += 2 * PAUSE_S  # type: ignore[attr-defined]
    assert search.run()
    assert search.found.pictures


def test_annotated_tasks_are_left_out(database: Database) -> None:
    search = Search(database, tasks=3)
    search.school.learn(1)
    assert search.run(Pictures(annotated=(1,)))
    assert [each.task for each in search.found.pictures] == [3]


def test_it_searches_once_for_the_same_corrections_and_once_a_minute(
    database: Database, clock: Clock
) -> None:
    search = Search(database)
    search.school.learn(1)
    assert search.run()
    clock.now += 2 * PAUSE_S
    assert not search.run(), "nothing new"
    search.school.learn(2)
    assert search.run()
    search.school.learn(3)
    clock.now += PAUSE_S / 2
    assert not search.run(), "too soon"
    clock.now += PAUSE_S
    assert search.run()


def test_it_gives_way_to_what_waits(database: Database, clock: Clock) -> None:
    search, studio = Search(database), Pictures()
    search.school.learn(1)
    search.waiting = True
    assert not search.run()

    def wait(*given: Any) -> Any:
        search.waiting = True
        return read(*given)

    search.waiting, read = False, search.school.learner.read_image
    search.school.learner.read_image = wait
    assert search.run(studio)
    assert search.found.tried == 0, "given up at the second picture"
    search.waiting, search.school.learner.read_image = False, read
    clock.now += 2 * PAUSE_S
    assert search.run(studio)
    assert search.found.tried == TRIED


def test_a_step_that_is_due_comes_first(database: Database) -> None:
    search = Search(database)
    search.school.learn(*range(1, 11))
    assert not search.run()
    assert search.school.step()


def test_it_is_tried_again_where_label_studio_was_away(database: Database, clock: Clock) -> None:
    search, studio = Search(database), Pictures()
    search.school.learn(1)
    studio.fault = StudioUnreachable("It is away.")
    with pytest.raises(StudioUnreachable):
        search.run(studio)
    studio.fault = None
    assert not search.run(studio), "after a pause"
    clock.now += 2 * PAUSE_S
    assert search.run(studio)
    assert search.found.pictures


def test_a_picture_that_ends_the_process_is_left_out_after_three_deaths(
    database: Database, clock: Clock
) -> None:
    def read(source: str, task: Task) -> Any:
        if task.id == 3:
            raise SystemExit("as if the process had died")
        return flag(source, task)

    for number in range(4):
        search = Search(database, f"owner-{number}", tasks=3)
        flag, search.school.learner.read_image = search.school.learner.read_image, read
        search.school.stores.versions.end_search = lambda _: None  # type: ignore[method-assign]
        search.school.learn(1)
        if number < 3:
            with pytest.raises(SystemExit):
                search.run()
            clock.now += 2 * PAUSE_S
            end_leases(database, table="learning_states")
    assert search.run()
    assert [each.task for each in search.found.pictures] == [1]


def test_a_reset_forgets_the_pictures(database: Database) -> None:
    search = Search(database)
    search.school.learn(1)
    assert search.run()
    search.school.stores.versions.reset(7)
    assert search.found == NextPictures()
