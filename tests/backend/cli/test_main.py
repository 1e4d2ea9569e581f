"""The command line `clearclip-backend`."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from backend.cli import main as cli
from backend.cli.adapt import adapt
from clearclip_core.cli.main import main


@pytest.mark.parametrize("group", [main, cli.main, adapt])
def test_no_sentence_of_the_list_of_commands_ends_in_an_abbreviation(group: click.Group) -> None:
    listed = CliRunner().invoke(group, ["--help"]).output
    assert not re.search(r"\b(Tabs?|Figs?)\.$", listed, re.MULTILINE)
