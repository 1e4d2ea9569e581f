"""The options that commands share, the settings as pages show them, and Ctrl-C."""

import signal
import threading
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
from docs.settings import in_two_groups, write_settings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", ["0", "-1", str(1 << 31), str(1 << 63)])
@pytest.mark.parametrize("command", ["doctor --project", "withdraw --job", "prelabel --view"])
def test_no_command_takes_a_number_that_nothing_has(command: str, number: str) -> None:
    """No database holds the larger ones; of the smaller ones Label Studio makes a page."""
    result = CliRunner().invoke(main, [*command.split(), number])
    assert result.exit_code == 2
    assert f"{number} is not in the range" in result.output


@click.command()
@click.option("--word")
@with_settings("port", "model")
def command(settings: Settings, word: str) -> None:
    """Print a setting, or refuse."""
    if word == "wrong":
        raise LabelConfigError("There is no label.")
    click.echo(f"{word} {settings.port}")


def test_a_command_gets_its_settings_and_its_own_options_or_ends_with_a_sentence() -> None:
    for arguments, status, said in (
        (["--word", "port", "--port", "9191"], 0, "port 9191\n"),
        (["--word", "wrong"], 1, "Error: There is no label."),
        (["--port", "x"], 1, "Error: PORT: input should be"),
    ):
        result = CliRunner().invoke(command, arguments)
        assert (result.exit_code, result.output[: len(said)]) == (status, said)


@pytest.mark.parametrize(
    "work", ["report --project 7 --json", "make-tasks a.png --labels sky --out"]
)
def test_a_file_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path, work: str) -> None:
    (tmp_path / "notes.txt").touch()
    result = CliRunner().invoke(main, [*work.split(), str(tmp_path / "notes.txt" / "out")])
    assert result.exit_code == 2
    assert f"{tmp_path / 'notes.txt'} cannot be made" in " ".join(result.output.split())


@pytest.mark.parametrize("kind", [OUTPUT_FILE, OUTPUT_FOLDER])
def test_a_file_is_written_into_new_folders_or_not(tmp_path: Path, kind: click.ParamType) -> None:
    file = kind.convert(str(tmp_path / "new" / "er" / "a"), None, None)
    for _ in range(2):  # also over what is there
        write_text(file, "é")
    assert file.read_bytes() == "é".encode()
    with pytest.raises(ValueError, match=r"er cannot be written \(Is a directory\)\.$"):
        write_text(file.parent, "a")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event_and_a_second_one_interrupts(number: int) -> None:
    before, stopping = signal.getsignal(number), threading.Event()
    with stopped_by_signals(stopping):
        signal.raise_signal(number)
        assert stopping.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_every_setting_is_in_one_group() -> None:
    grouped = [field for fields in in_two_groups().values() for field in fields]
    assert sorted(grouped) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", [".env.example", "docs/reference/settings.md"])
def test_files_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing that is set is shown, and what stands around the settings is kept."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "s3cret")
    monkeypatch.setenv("PORT", "none")  # a value that cannot be is no reason to say nothing
    before = (ROOT / name).read_text(encoding="utf-8")
    file = tmp_path / f"example{Path(name).suffix}"
    file.write_text(before.replace("Longest wait", "Shortest wait"), encoding="utf-8")
    write_settings(file)
    assert file.read_text(encoding="utf-8") == before, "make settings writes it"
    assert name.endswith(".md") or max(map(len, before.splitlines())) <= 100


def test_a_file_without_a_place_for_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- settings:end -->\n<!-- settings:begin -->\n")
    with pytest.raises(ValueError, match="needs a line with settings:begin"):
        write_settings(tmp_path / "page.md")
