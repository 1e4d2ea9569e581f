"""Options that choose a model, on commands made for the purpose."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clearclip_core.cli.options import ModelOptions, many_method_options, model_options


@click.command()
@model_options
@click.option("--own", default=1)
def one(options: ModelOptions, own: int) -> None:
    click.echo(f"{options} {own}")


@click.command()
@many_method_options
def many(options: ModelOptions) -> None:
    click.echo(str(options))


def test_a_command_gets_its_options_as_one_value_and_keeps_its_own() -> None:
    arguments = ["--model=demo", "--method=kk-res", "--short-side=96", "--model-dir=w", "--own=2"]
    result = CliRunner().invoke(one, arguments)
    expected = ModelOptions("demo", "auto", "auto", 96, Path("w"), "kk-res")
    assert result.output == f"{expected} 2\n"


def test_defaults_are_the_papers() -> None:
    expected = ModelOptions("ViT-B-16/openai", "auto", "auto", 448, None, "clearclip")
    assert CliRunner().invoke(one, []).output == f"{expected} 1\n"
    assert CliRunner().invoke(many, []).output == f"{expected}\n"


def test_a_command_of_many_methods_has_no_option_for_one() -> None:
    assert "--method" in CliRunner().invoke(one, ["--help"]).output
    assert "--method" not in CliRunner().invoke(many, ["--help"]).output
    assert "No such option" in CliRunner().invoke(many, ["--method=clip"]).output


def test_a_model_is_loaded_with_its_notice(capsys: pytest.CaptureFixture[str]) -> None:
    options = ModelOptions("demo", "cpu", "fp32", 96, None, "sclip")
    segmenter = options.load()
    assert segmenter.preprocessing.short_side_px == 96
    assert segmenter.method.attention == "qq+kk"
    assert options.load_model().name == "demo"
    assert capsys.readouterr().err.count("These are demo weights") == 2


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
