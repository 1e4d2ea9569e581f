"""Options that choose a model, on commands made for the purpose."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clearclip_core.cli.options import ModelOptions, model_options


@click.command()
@model_options
@click.option("--own", default=1)
def one(options: ModelOptions, own: int) -> None:
    click.echo(f"{options} {own}")


def test_a_command_gets_its_options_as_one_value_and_keeps_its_own() -> None:
    arguments = ["--model=demo", "--method=kk-res", "--short-side=96", "--model-dir=w", "--own=2"]
    result = CliRunner().invoke(one, arguments)
    expected = ModelOptions("demo", "auto", "auto", 96, Path("w"), "kk-res")
    assert result.output == f"{expected} 2\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ModelOptions("no-such", "cpu", "fp32", 96, None), "of the form 'arch/tag'"),
        (ModelOptions("demo", "tpu", "fp32", 96, None), "to be auto, cpu, cuda or mps"),
        (ModelOptions("demo", "cpu", "fp16", 96, None), "fp16 needs a GPU"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(options: ModelOptions, sentence: str) -> None:
    for load in (options.load, options.load_model):
        with pytest.raises(click.ClickException) as refused:
            load()
        assert sentence in refused.value.message
