"""The runs that pages ask for: their order, how many are kept, and what is said of them."""

from __future__ import annotations

from backend.feedback.gate.gate_keeper import Acceptance, GateKeeper
from backend.feedback.gate.gate_report import GateReport
from backend.feedback.gate.gate_runs import MAX_KEPT, GateRuns, describe


class Keeper(GateKeeper):
    """Notes the projects that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def find(self, project: int, *more: object) -> GateReport:
        """Find nothing."""
        self.asked.append(project)
        return GateReport(
            project, "v", {}, 0.95, 0.95, 0.05, tasks={"listed": 0, "audit": 0, "accepted": 0}
        )


def test_who_asks_again_stands_in_line_behind_the_others() -> None:
    keeper = Keeper()
    runs = GateRuns(keeper, lambda: False)
    runs.request(1, "v", "find")
    assert runs.run_next()
    runs.request(2, "v", "find")
    runs.request(1, "v", "find")
    while runs.run_next():
        pass
    assert keeper.asked == [1, 2, 1]


def test_the_oldest_runs_are_forgotten_and_none_that_waits() -> None:
    runs = GateRuns(Keeper(), lambda: False)
    for project in range(1, MAX_KEPT + 1):
        runs.request(project, "v", "find")
        assert runs.run_next()
    runs.request(1, "v", "find")  # the newest now, and it waits
    for project in range(MAX_KEPT + 1, MAX_KEPT + 4):
        runs.request(project, "v", "find")
    gone = [project for project in range(1, MAX_KEPT + 4) if runs.last(project) is None]
    assert gone == [2, 3, 4]


def test_a_few_refusals_speak_for_all() -> None:
    made = Acceptance(0, 0, dict.fromkeys(range(1, 11), "no label"))
    said = describe("annotated by the gate", made)
    assert "task 5: no label; and 5 more" in said
    assert "task 6" not in said
