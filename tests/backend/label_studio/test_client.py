"""Label Studio's API through its SDK, against a stand-in; tests/e2e asks the real one."""

from typing import Any

import pytest
from pydantic import SecretStr

from backend.errors import StudioRefused
from backend.label_studio.client import PAGE, LabelStudioClient, TasksTogether
from backend.label_studio.records import MOST_SECONDS, Annotation, TaskContents
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

VERSION = "demo clearclip 12ab"


def test_ids_are_walked_while_they_change(client: LabelStudioClient, studio: FakeStudio) -> None:
    walked = []
    for task in client.ids(7, TaskFilter(without_version=VERSION)):
        walked.append(task)
        studio.add(task, VERSION)  # drops out of the pages that are still to come
    assert walked == list(range(1, 251))
    assert len(walked) > 2 * PAGE


def test_possible_doubles_are_found_without_reading_predictions(
    client: LabelStudioClient, studio: FakeStudio, server: LocalServer
) -> None:
    for task in studio.tasks:
        studio.add(task, "older")
        studio.add(task, VERSION)
    studio.add(5, VERSION)
    studio.add(205, VERSION)
    studio.add(6, "older")
    studio.add(7, "older")
    studio.drafted.add(7)
    assert [id_ for page in client.possible_doubles(7) for id_ in page] == [5, 6, 205]
    assert len(server.asked) == 3


def test_the_ids_of_a_view(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.views[3] = [*range(250, 100, -1), 5]
    assert [row.id for row in client.view_rows(7, 3)] == [5, *range(101, 251)]
    with pytest.raises(StudioRefused, match="no such project, view or task"):
        client.view_rows(7, 4)


def test_predictions_are_listed_and_deleted(client: LabelStudioClient, studio: FakeStudio) -> None:
    first, second = studio.add(5, VERSION, 100), studio.add(5, "other", 200)
    stored = client.stored(5)
    assert [(each.id, each.version, each.created) for each in stored] == [
        (first, VERSION, 100),
        (second, "other", 200),
    ]
    client.delete(first)
    client.delete(first)
    assert [each.id for each in client.stored(5)] == [second]
    del studio.tasks[5]
    assert client.stored(5) == []


RANGES = [("in", {"min": 3, "max": 5}), ("equal", 9), ("in", {"min": 11, "max": 12})]


@pytest.mark.parametrize(
    ("tasks", "conditions"),
    [
        ([9, 3, 4, 5, 11, 12], RANGES),
        ([], [("equal", 0)]),  # without a condition it would list all tasks
    ],
)
def test_a_view_has_only_operators_that_the_page_of_label_studio_knows(
    client: LabelStudioClient, studio: FakeStudio, tasks: list[int], conditions: list[Any]
) -> None:
    """With "in_list" no task list of the project opens: `tests/e2e/test_walk.py`."""
    client.show_tasks(7, "Safe", tasks)
    (tab,) = studio.tabs.values()
    assert tab["filters"]["conjunction"] == "or"
    items = tab["filters"]["items"]
    assert {(each["filter"], each["type"]) for each in items} == {("filter:tasks:id", "Number")}
    assert [(each["operator"], each["value"]) for each in items] == conditions


def test_what_is_read(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.titles, studio.users = {7: "Streets"}, [{"id": 5, "first_name": "Ann"}, {"id": 6}]
    studio.backends = [{"id": 1, "url": "http://here", "created_at": "2001-09-09T01:46:40Z"}]
    studio.users[1]["email"] = "bo@example.com"
    prediction = studio.add(6, VERSION, result=[{"id": "a"}])
    more = {"ground_truth": True, "parent_prediction": prediction}
    made = studio.annotate(6, [{"id": "r"}], created=3.0, **more)
    skip = studio.annotate(6, [], created=4.0, was_cancelled=True)
    assert client.project_titles() == {7: "Streets"}
    assert client.user_names() == {5: "Ann", 6: "bo@example.com"}
    assert [(each.url, each.created) for each in client.backends(7)] == [("http://here", 1e9)]
    found = client.prediction(prediction)
    assert (found.version, found.regions) == (VERSION, [{"id": "a"}])
    expected: dict[str, Any] = {"seconds": 10.0, "annotator": 1, "created": 3.0, "updated": 3.0}
    expected |= {"ground_truth": True, "prediction": prediction}
    read = Annotation(made["id"], 6, 7, [{"id": "r"}], **expected)
    assert (client.annotation(made["id"]), client.annotations(6)) == (read, [read])
    assert (client.annotation(99), client.annotations(999)) == (None, [])
    assert client.prediction(99) is None
    whole = TasksTogether(client, 7, [6], TaskContents).take(6)
    assert {each.id: each.updated for each in whole.annotations} == {
        made["id"]: 3.0,
        skip["id"]: 4.0,
    }
    (changed,) = client.changed_tasks(7, 1e9)
    assert [row.annotations for row in changed if row.id > 5] == [2]


@pytest.mark.parametrize(
    ("claimed", "seconds"),
    [(None, None), (0.1, 0.1), (-1, 0), (1e-300, 0), (MOST_SECONDS, MOST_SECONDS), (1e300, 0)],
)
def test_a_time_that_nobody_can_have_worked_is_none_that_counts(
    client: LabelStudioClient, studio: FakeStudio, claimed: float | None, seconds: float | None
) -> None:
    studio.annotate(6, [], lead_time=claimed)["result"] = None
    (annotation,) = client.annotations(6)
    assert (annotation.seconds, annotation.result) == (seconds, ())


def test_a_label_config_leaves_open_what_the_settings_say(server: LocalServer) -> None:
    reach = {"label_studio_url": server.url, "label_studio_api_key": SecretStr(TOKEN)}
    client = LabelStudioClient.from_settings(Settings(score="effort", adapt="off", **reach))
    config = client.config(7)
    assert (config.score, config.adapt) == ("effort", "off")
