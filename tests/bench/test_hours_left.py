"""The forecast of the hours that are left, on simulated projects other than it was made with.

``HOURS_PROJECTS`` says how many projects (300). Their seeds start at 10,000; the priors and limits
of `backend.feedback.forecast` were chosen with seeds below 1,000.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from backend.feedback.forecast.hours_left import Hours, foretell
from tests.bench.conftest import Report
from tests.bench.simulated_projects import SimulatedProject, simulate

PROJECTS = int(os.environ.get("HOURS_PROJECTS", "300"))
FIRST_SEED = 10_000
COUNTS = (20, 50, 100, 200)

#: Relative error that is to hold in 9 of 10 projects.
NEAR = 0.15


@cache
def projects(hardest_first: bool) -> list[SimulatedProject]:
    return [simulate(FIRST_SEED + seed, hardest_first) for seed in range(PROJECTS)]


def forecasts(project: SimulatedProject, count: int) -> tuple[Hours, Hours]:
    done = project.before + count
    scores = dict(enumerate(project.scores[:done].tolist()))
    left = project.scores[done:].tolist()
    found = foretell(project.times(count), scores, len(left), left, 0.0)
    assert found.with_prelabels is not None
    assert found.without_prelabels is not None
    return found.with_prelabels, found.without_prelabels


def shares(pairs: list[tuple[Hours, float]]) -> tuple[float, float]:
    """Return how often the expected hours are near, and how often the interval holds."""
    near = [abs(found.expected / true - 1) <= NEAR for found, true in pairs]
    holds = [found.low <= true <= found.high for found, true in pairs]
    return sum(near) / len(near), sum(holds) / len(holds)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    "order", ["random order", "hardest first", "hardest first, no score known"]
)
def test_hours_left(report: Report, order: str, count: int) -> None:
    made = []
    for project in projects(order != "random order"):
        known = project.forgets_scores() if "no score" in order else project
        made.append((forecasts(known, count), project.left(count)))
    for index, what in enumerate(("with", "without")):
        pairs = [(found[index], true[index]) for found, true in made]
        near, holds = shares(pairs)
        widths = sorted((f.high - f.low) / 2 / f.expected for f, _ in pairs)
        report.add(
            f"hours left {what} prelabels, after {count} annotations with a prediction, {order}",
            f"within {NEAR:.0%} in 9 of 10 projects; the interval holds in 9 of 10",
            f"within in {near:.0%}, holds in {holds:.0%}",
            f"{len(pairs)} simulated projects; half the interval is "
            f"{widths[len(widths) // 2]:.0%} of the hours (median)",
        )
        assert holds >= 0.85 or "no score" in order
