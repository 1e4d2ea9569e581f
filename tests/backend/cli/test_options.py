"""The options that commands share, and Ctrl-C, which ends a command gracefully."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.cli.options import (
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    stopped_by_signals,
    with_settings,
    write_text,
)
from backend.errors import LabelConfigError
from backend.settings import Settings

#: Options with a whole number that is not looked for in the database.
COUNTS = {
    *(" prelabel --actors", " run eval --limit", " run eval --worst"),
    *(" demo --studio-port", " demo --backend-port", " dataset --min-area"),
}


def numbered(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Each parameter with a whole number, of a command and of its own commands."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            own = command.get_command(context, name)
            assert own is not None
            yield from numbered(own, f"{path} {name}")
    for each in command.params:
        if isinstance(each.type, click.types.IntParamType):
            yield path, each


def test_no_command_takes_a_number_that_nothing_has() -> None:
    """No database holds the larger ones; of the smaller ones Label Studio makes a page."""
    found = {f"{path} {each.opts[0]}": each for path, each in numbered(main)}
    assert found.keys() > COUNTS
    assert {" report --project"} <= found.keys()
    for name in found.keys() - COUNTS:
        each = found[name]
        assert isinstance(each.type, click.IntRange), name
        for number in ("-1", str(1 << 63)):
            with pytest.raises(click.BadParameter, match=f"{number} is not in the range"):
                each.type.convert(number, each, None)
    assert CliRunner().invoke(main, ["doctor", "--project", "0"]).exit_code == 2


@click.command()
@click.option("--word")
@with_settings("port", "model")
def command(settings: Settings, word: str) -> None:
    """Print a setting, or refuse."""
    if word == "wrong":
        raise LabelConfigError("There is no label.")
    click.echo(f"{word} {settings.port}")


def test_a_command_gets_its_settings_and_its_own_options() -> None:
    result = CliRunner().invoke(command, ["--word", "port", "--port", "9191"])
    assert (result.exit_code, result.output) == (0, "port 9191\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--word", "wrong"], "There is no label."), (["--port", "x"], "PORT: input should be")],
)
def test_a_command_ends_with_a_sentence(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {sentence}")


@pytest.mark.parametrize(
    "arguments",
    [
        "report --project 7 --json {}",
        "report --project 7 --csv {}",
        "report --project 7 --plots {}",
        "export a.png --labels sky --out {}",
        "dataset --project 7 --to {}",
        "adapt export --project 7 {}",
    ],
)
def test_a_file_that_cannot_be_made_is_refused_before_any_work(
    tmp_path: Path, arguments: str
) -> None:
    (tmp_path / "notes.txt").touch()
    given = arguments.format(tmp_path / "notes.txt" / "out").split()
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    assert f"{tmp_path / 'notes.txt'} is no folder" in result.output


def test_a_file_in_folders_that_are_not_there_yet_is_written(tmp_path: Path) -> None:
    @click.command()
    @click.argument("file", type=OUTPUT_FILE)
    @click.argument("folder", type=OUTPUT_FOLDER)
    def write(file: Path, folder: Path) -> None:
        write_text(file, "é")
        write_text(folder / "b", "")

    names = [str(tmp_path / "new" / "er" / "a"), str(tmp_path / "other")]
    for _ in range(2):  # also over what is there
        result = CliRunner().invoke(write, names)
        assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "new" / "er" / "a").read_bytes() == "é".encode()
    assert (tmp_path / "other" / "b").exists()


def test_what_cannot_be_written_after_all_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"out cannot be written \(Is a directory\)\.$"):
        write_text(tmp_path / "out", "a")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event_and_a_second_one_interrupts(number: int) -> None:
    before, stopping = signal.getsignal(number), threading.Event()
    with stopped_by_signals(stopping):
        signal.raise_signal(number)
        assert stopping.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
