"""What the dashboard says of the model, and of the tasks that it works on."""

from typing import Any

from backend.views.status import ModelStatus, RunningTask


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
