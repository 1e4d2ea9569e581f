from __future__ import annotations

import re

from backend.cli.demo import MEAN_IOU_FLOOR
from tests.e2e.conftest import DemoRun


def test_the_demo_ends_well_and_says_what_there_is(demo_run: DemoRun) -> None:
    assert demo_run.status == 0, demo_run.output
    assert f"http://127.0.0.1:{demo_run.studio_port}/projects/1/data" in demo_run.output
    assert re.search(r"^Login +demo@example.com  clearclip-demo$", demo_run.output, re.MULTILINE)
    assert re.search(r"^Tasks +12, 12 of them with predictions$", demo_run.output, re.MULTILINE)
    reached = re.search(r"^Mean IoU +([\d.]+)% against", demo_run.output, re.MULTILINE)
    assert reached
    assert float(reached[1]) >= 100 * MEAN_IOU_FLOOR


def test_the_demo_leaves_no_server_behind(demo_run: DemoRun) -> None:
    assert demo_run.listening == ()
