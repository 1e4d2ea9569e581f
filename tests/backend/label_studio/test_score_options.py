"""What counts in a project's scores: its label config's word, else the settings'."""

from __future__ import annotations

import pytest

from backend.label_studio.label_config import score_options
from backend.label_studio.label_config_parser import parse_label_config
from backend.settings import Settings
from clearclip_core import ScoreOptions
from tests.backend.fakes.colour_segmenter import brush_config


@pytest.mark.parametrize(
    ("settings", "attributes", "expected"),
    [
        (Settings(), "", ScoreOptions()),
        (Settings(presence=0.2), "", ScoreOptions(presence=0.2)),
        (Settings(presence=0.2), 'presence="0.1"', ScoreOptions(presence=0.1)),
        (Settings(presence=0.2), 'presence="0"', ScoreOptions()),
        (Settings(synonyms="joined"), "", ScoreOptions(join_synonyms=True)),
        (Settings(synonyms="joined"), 'synonyms="best"', ScoreOptions()),
        (Settings(method="clipsurgery", presence=0.2), 'presence="0.1"', ScoreOptions()),
    ],
)
def test_the_label_config_wins(settings: Settings, attributes: str, expected: ScoreOptions) -> None:
    config = parse_label_config(brush_config("red", attributes=attributes))
    assert score_options(settings, config) == expected
