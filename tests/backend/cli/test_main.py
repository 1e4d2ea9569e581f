"""The command line `clearclip-backend`."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from backend.cli import main as cli
from backend.settings import Settings
from clearclip_core.cli.main import main


def test_serve_has_a_flag_for_every_setting() -> None:
    flags = {flag for parameter in cli.serve.params for flag in parameter.opts}
    assert flags == {"--" + name.replace("_", "-") for name in Settings.model_fields}


def test_a_bulk_run_can_be_told_all_that_tells_its_predictions_from_a_backends() -> None:
    flags = {flag for parameter in cli.prelabel.params for flag in parameter.opts}
    assert flags >= {"--model", "--method", "--precision", "--short-side-px", "--refine", "--score"}
    assert flags >= {"--min-island-share", "--adapt", "--database-url", "--allowed-hosts"}
    assert flags >= {"--max-image-mb", "--max-image-megapixels"}


def test_the_help_shows_what_values_a_flag_takes() -> None:
    shown = CliRunner().invoke(cli.serve, ["--help"]).output
    for flag in ("--port NUMBER", "--min-island-share NUMBER", "--refine true|false"):
        assert flag in shown
    assert "--model-dir FOLDER" in shown
    assert "--model TEXT" in shown


@pytest.mark.parametrize("group", [main, cli.main, cli.adapt])
def test_no_sentence_of_the_list_of_commands_ends_in_an_abbreviation(group: click.Group) -> None:
    listed = CliRunner().invoke(group, ["--help"]).output
    assert not re.search(r"\b(Tabs?|Figs?)\.$", listed, re.MULTILINE)


@pytest.mark.parametrize("name", ["prelabel", "report", "export", "doctor", "demo", "serve"])
def test_every_option_has_its_help(name: str) -> None:
    options = [each for each in cli.main.commands[name].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "x"], "PORT"),
        (["--model", "nothing"], "arch/tag"),
        (["--model", "ViT-B-16/random"], "never served"),
        (["--method", "magic"], "clip, maskclip, sclip, clearclip"),
        (["--basic-auth-user", "ann"], "BASIC_AUTH_PASS"),
        (["--precision", "int8"], "--precision"),
        (["--precision", "fp16", "--device", "cpu", "--model", "demo"], "fp16 needs a GPU"),
        (["--device", "abacus", "--model", "demo"], "auto, cpu, cuda or mps"),
        (["--batch-windows", "0"], "BATCH_WINDOWS"),
        (["--feature-cache-mb", str(1 << 40)], "FEATURE_CACHE_MB"),
        (["--feature-cache-mb", "-1"], "FEATURE_CACHE_MB"),
        (["--queue-size", "0"], "QUEUE_SIZE"),
        (["--allowed-hosts", "http://minio"], "ALLOWED_HOSTS"),
        (["--request-timeout-s", "0"], "REQUEST_TIMEOUT_S"),
    ],
)
def test_serve_refuses_what_cannot_work(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(cli.serve, arguments)
    assert result.exit_code != 0
    assert sentence in result.output
    assert "Traceback" not in result.output
