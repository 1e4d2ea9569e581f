"""Settings tell runs apart, also when they come back from a file."""

from __future__ import annotations

import json
from dataclasses import replace

from clearclip_core.evaluation.results import dump
from clearclip_core.evaluation.run_config import RunConfig
from tests.core.evaluation.factories import SETTINGS


def test_settings_tell_runs_apart() -> None:
    again = RunConfig(**json.loads(dump({"s": SETTINGS.__dict__}))["s"])
    assert again == SETTINGS
    assert again.key == SETTINGS.key
    for change in ({"method": "clip"}, {"mean": (1, 2, 3)}, {"threshold": 0.1}, {"pictures": 8}):
        other = replace(SETTINGS, **change)
        assert other.key != SETTINGS.key
        assert next(iter(change)) in SETTINGS.differences(other)
