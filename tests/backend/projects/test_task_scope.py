"""Which tasks of a project are meant, against a Label Studio whose tasks are known."""

import pytest

from backend.database.database import Database
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import OPEN, TaskFilter
from backend.projects.task_scope import OpenTasks, TaskScope
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio

TASKS = range(1, 201)
LACKING = TaskFilter("v2")


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {task: {"image": "a.png"} for task in TASKS})


@pytest.fixture
def scope() -> TaskScope:
    return TaskScope.of(Database("sqlite://"))


def test_all_tasks_are_meant_also_those_that_come_later(
    scope: TaskScope, client: LabelStudioClient
) -> None:
    assert scope.choose(client, 7, LACKING) is None


def test_the_tasks_of_a_view_are_meant(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.views[3] = [5, 9, 11]
    assert scope.choose(client, 7, LACKING, view=3) == (5, 9, 11)


def test_a_limit_takes_the_first_tasks_that_lack_the_version(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.views[3] = [5, 9, 11]
    studio.add(5, "v2")
    assert scope.choose(client, 7, LACKING, view=3, limit=1) == (9,)


def test_an_experiment_leaves_unseen_tasks_out(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    for seen in range(1, 101):
        studio.add(seen, "v1")
    scope.experiments.begin(7)
    chosen = scope.choose(client, 7, LACKING)
    withheld = {*TASKS} - {*chosen}
    assert withheld == {*scope.experiments.withheld(7)}
    assert min(withheld, default=0) > 100


def test_nothing_is_reviewed_while_an_experiment_runs(scope: TaskScope) -> None:
    scope.experiments.begin(7)
    assert scope.to_review(7) is None


def test_predicted_tasks_that_nobody_has_begun_are_reviewed(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    for task in (1, 2, 3, 4):
        studio.add(task, "v1")
    studio.annotated.add(1)
    studio.drafted.add(2)
    wanted = scope.to_review(7)
    assert [*client.ids(7, wanted)] == [3, 4]


def test_open_tasks_are_counted_by_what_they_wait_for(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.annotated |= {*range(1, 11)}
    for task in range(1, 31):
        studio.add(task, "v2")
    studio.add(31, "v1")
    scope.failures.add([(32, "It is gone."), (20, "It was gone.")], project=7)
    counts = OpenTasks(
        left=190,
        begun=0,
        needed=190,
        waiting=170,
        older=1,
        skipped=0,
        failed=1,
        failed_older=0,
        withheld=0,
    )
    assert scope.count_open(client, client.project(7), "v2") == counts


def test_a_failed_task_with_an_older_prediction_is_known_as_one(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    for task in (31, 32):
        studio.add(task, "v1")
    scope.failures.add([(task, "It is gone.") for task in (32, 33)], project=7)
    counts = scope.count_open(client, client.project(7), "v2")
    assert (counts.older, counts.failed, counts.failed_older) == (2, 2, 1)


def test_withheld_tasks_that_failed_count_once(scope: TaskScope, client: LabelStudioClient) -> None:
    scope.experiments.begin(7)
    withheld = scope.withhold(7, client.ids(7, OPEN))
    scope.failures.add([(task, "It is gone.") for task in withheld], project=7)
    counts = scope.count_open(client, client.project(7), "v2")
    assert (counts.failed, counts.withheld) == (0, len(withheld))


@pytest.fixture
def withheld(scope: TaskScope, client: LabelStudioClient, studio: FakeStudio) -> set[int]:
    """The withheld tasks of an experiment that has drawn from all; the others are predicted."""
    scope.experiments.begin(7)
    drawn = scope.withhold(7, TASKS)
    for task in {*TASKS} - drawn:
        studio.add(task, "v2")
    return drawn


def test_an_experiment_ends_when_no_withheld_task_is_left(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio, withheld: set[int]
) -> None:
    """Of 320 tasks it may withhold 26, where 30 would end it: it never ended."""
    studio.annotated = {*TASKS} - {min(withheld)}
    assert not scope.end_experiment(client, 7), "one is left"
    studio.annotate(min(withheld), [], was_cancelled=True)
    assert scope.end_experiment(client, 7)
    assert not scope.experiments.is_running(7)


def test_an_experiment_waits_for_enough_annotations_with_a_prediction(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio, withheld: set[int]
) -> None:
    studio.annotated = set(withheld)
    assert not scope.end_experiment(client, 7)


def test_an_experiment_waits_for_tasks_that_it_may_still_draw(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio
) -> None:
    scope.experiments.begin(7)
    scope.withhold(7, TASKS[:100])
    studio.annotated = {*TASKS[:100]}
    assert not scope.end_experiment(client, 7)


def test_pictures_that_cannot_be_predicted_keep_no_experiment_running(
    scope: TaskScope, client: LabelStudioClient, studio: FakeStudio, withheld: set[int]
) -> None:
    broken = max({*TASKS} - withheld)
    studio.predictions = [each for each in studio.predictions if each["task"] != broken]
    studio.annotated = {*TASKS} - {broken}
    assert not scope.end_experiment(client, 7)
    scope.failures.add([(broken, "It is gone.")], project=7)
    assert scope.end_experiment(client, 7)
