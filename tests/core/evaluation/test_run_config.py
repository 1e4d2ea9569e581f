"""Settings tell runs apart, also when they come back from a file."""

from __future__ import annotations

import json
from dataclasses import replace

from clearclip_core.evaluation.results import RunConfig, dump
from tests.core.evaluation.factories import CONFIG


def test_settings_tell_runs_apart() -> None:
    again = RunConfig(**json.loads(dump({"s": CONFIG.__dict__}))["s"])
    assert again == CONFIG
    assert again.key == CONFIG.key
    sided = replace(CONFIG, text_side=(0.1, 0.03, 0.1))
    assert RunConfig.from_json(json.loads(dump(sided.to_json()))) == sided
    assert "text_side" not in CONFIG.to_json()
    assert sided.key != CONFIG.key
    for change in ({"method": "clip"}, {"mean": (1, 2, 3)}, {"threshold": 0.1}, {"pictures": 8}):
        other = replace(CONFIG, **change)
        assert other.key != CONFIG.key
        assert next(iter(change)) in CONFIG.differences(other)
