"""What an import says before and after it has written."""

from __future__ import annotations

import json

from backend.dataset.import_report import ImportPlan, ImportReport
from backend.dataset.task_matching import Unmatched

PLAN = ImportPlan(
    project=7,
    version="masks street",
    kind="predictions",
    files=15,
    matched=3,
    ready=1,
    present=1,
    replaced=0,
    tasks_without=4,
    left_out=[Unmatched(f"{n}.png", "no task has a picture of that name") for n in range(12)],
    problems=["a.png is 3×3 px, but its picture 4×4 px."],
    classes={"sky": ("Sky (mask)", 2), "lamp": ("", 1)},
)


def test_the_plan_is_read_by_people_and_by_programs() -> None:
    text = str(PLAN)
    assert "15 files of masks, 3 for a picture of a task; 4 tasks without masks." in text
    assert "1 task to write; 1 with this version already, 0 with it replaced." in text
    assert "  sky -> Sky (mask), in 2 pictures\n  lamp -> no label, in 1 picture" in text
    assert "  9.png: no task has a picture of that name.\n  and 2 more\nCannot be written:" in text
    told = json.loads(json.dumps(PLAN.to_json()))
    assert len(told["left_out"]) == 12
    assert told["classes"]["sky"] == {"label": "Sky (mask)", "pictures": 2}


def test_the_report_names_what_was_refused() -> None:
    report = ImportReport(written=2, left=1, refused={9: "too large"})
    assert str(report) == "2 tasks written, 1 refused, 1 left.\nRefused:\n  task 9: too large"
    assert report.to_json() == {"written": 2, "left": 1, "refused": {"9": "too large"}}
