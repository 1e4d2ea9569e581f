"""What the dashboard says of a backend at one moment."""

from typing import Any

import pytest

from backend.inference.feature_cache import CacheUse
from backend.label_studio.image_loader import ImageCacheStats
from backend.projects.failures import FailureCount
from backend.views.status import (
    CachesUse,
    ConnectionStatus,
    ModelStatus,
    PolledProject,
    RunningTask,
    Status,
    WordsUse,
)
from clearclip_core.quantities import grouped


def model(**more: Any) -> ModelStatus:
    known = {"name": "demo", "clicks": "", "method": "clearclip", "device": None}
    return ModelStatus(**known | {"precision": None, "state": "ready", "reason": ""} | more)


def test_a_model_that_is_not_there_is_in_the_title() -> None:
    assert model().title == "ClearCLIP for Label Studio"
    assert model(state="failed").title == "Failed – ClearCLIP for Label Studio"


def test_a_model_that_is_there_says_where() -> None:
    assert model().details == ["clearclip"]
    there = model(device="cuda", precision="float16", clicks="clicks and boxes by sam")
    assert there.details == ["clearclip on cuda, float16", "clicks and boxes by sam"]


def test_a_task_says_what_is_done_with_it() -> None:
    task = RunningTask(task=None, project=7, urgency="opened", seconds=1.0, stage="draw", url=None)
    assert (task.name, task.purpose, task.doing) == (
        "No task number",
        "an opened task",
        "drawing the regions",
    )


def status(**more: Any) -> Status:
    """A backend that has done nothing yet."""
    caches = CachesUse(
        features=CacheUse(hits=1, misses=2, entries=1, bytes=3 << 20, limit_bytes=2 << 30),
        words=WordsUse(1200, 0),
        pictures=ImageCacheStats(0, 1, 0, 5 << 20),
    )
    known: dict[str, Any] = {
        "at": 1000.0,
        "started_at": 900.0,
        "label_studio": None,
        "connection": ConnectionStatus(trouble="", poll_interval_s=None, polled=()),
        "model": model(),
        "caches": caches,
        "gpu_memory_bytes": {},
        "versions": {},
        "failing": FailureCount(),
        "pictures_per_second": 0.5,
        "eta_s": None,
        "jobs_trouble": "",
    }
    known |= dict.fromkeys(("vocabularies", "done", "remaining"), 0)
    known |= dict.fromkeys(("waiting", "running", "jobs", "served", "errors"), ())
    return Status(**known | more)


def test_a_backend_that_has_done_nothing_has_no_figures() -> None:
    assert status().totals == ()


def test_figures_are_written_for_people() -> None:
    shown = status(done=1234, failing=FailureCount(2)).totals
    told = [(each.figure, each.unit or each.what, each.is_bad) for each in shown[1:4]]
    assert shown[0].figure == grouped(1234)
    assert told == [
        ("2", "without a prediction", True),
        ("0", "remaining", False),
        ("0.5", "pictures/s", False),
    ]


def test_a_cache_says_what_it_holds_and_what_it_has_spared() -> None:
    assert status().caches.lines == {
        "Features": "3 MB of 2.0 GB, 1 hit, 2 misses",
        "Words": f"{grouped(1200)} hits, 0 misses",
        "Pictures": "0 MB of 5 MB, 0 hits, 1 miss",
    }


@pytest.mark.parametrize(("count", "told"), [(10, ""), (11, "and 1 more")])
def test_only_some_running_tasks_are_named(count: int, told: str) -> None:
    task = RunningTask(task=1, project=7, urgency="batch", seconds=1.0, stage="", url=None)
    assert status(running=(task,) * count).more_running == told


@pytest.mark.parametrize(("trouble", "told"), [("", [8]), ("Label Studio is away.", [])])
def test_projects_are_named_where_label_studio_itself_is_well(
    trouble: str, told: list[int]
) -> None:
    polled = tuple(
        PolledProject(project=project, url=None, at=None, tasks=None, trouble=reason)
        for project, reason in ((7, ""), (8, "It is gone."))
    )
    connection = ConnectionStatus(trouble=trouble, poll_interval_s=30.0, polled=polled)
    assert [each.project for each in connection.troubled] == told
