"""The command `clearclip-backend import-masks`; what it stores: tests.backend.dataset."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli.main import main
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.mask_set import CONFIG, VALUES, picture


@pytest.fixture(autouse=True)
def _overlays_in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def studio() -> FakeStudio:
    studio = FakeStudio(CONFIG, {1: {"image": "/data/upload/7/00000001-a.jpg"}})
    studio.files = {"/data/upload/7/00000001-a.jpg": picture()}
    return studio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "street"
    folder.mkdir()
    (folder / "names.txt").write_text("sky\nlight\n")
    Image.fromarray(VALUES).save(folder / "a.png")
    return folder


def run(studio: FakeStudio, folder: Path, *more: str) -> Result:
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        command = ["import-masks", "--project", "7", "--from", str(folder), *reach, *more]
        return CliRunner().invoke(main, command)


def test_a_dry_run_says_what_does_not_fit(studio: FakeStudio, folder: Path) -> None:
    done = run(studio, folder, "--dry-run")
    assert done.exit_code == 1
    assert 'The class "light" is no label of the brushes, bitmasks' in done.output
    assert "1 file of masks, 1 for a picture of a task; 0 tasks without masks." in done.output
    assert studio.predictions == []
    done = run(studio, folder, "--dry-run", "--map", "light=tl")
    assert (done.exit_code, studio.predictions) == (0, [])
    assert "light -> Traffic Light (mask), in 1 picture" in done.output


def test_nothing_is_written_where_something_is_wrong(studio: FakeStudio, folder: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / "b.png")
    studio.tasks[2] = studio.tasks[1] | {"image": "/data/upload/7/00000002-b.jpg"}
    studio.files["/data/upload/7/00000002-b.jpg"] = picture()
    done = run(studio, folder, "--map", "light=tl")
    assert done.exit_code == 1
    assert "b.png is 3×3 px, but its picture 60×40 px." in done.output
    assert "Nothing was written." in done.output
    assert studio.predictions == []
    report = folder / "report.json"
    done = run(studio, folder, "--map", "light=tl", "--skip-broken", "--report", str(report))
    assert done.exit_code == 1
    assert studio.stored("masks street") == {1: 1}
    told = json.loads(report.read_text())
    assert (told["written"], told["left"], told["refused"]) == (1, 0, {})
    assert len(told["problems"]) == 1


def test_a_data_set_of_another_project_finds_its_pictures(studio: FakeStudio, folder: Path) -> None:
    (folder / "a.png").rename(folder / "9f8e7d6c-a.png")
    options = ("--map", "light=tl")
    assert "no task has a picture of that name" in run(studio, folder, *options).output
    row = {"image": "9f8e7d6c-a.jpg", "source": "/data/upload/3/9f8e7d6c-a.jpg"}
    (folder / "pictures.jsonl").write_text(json.dumps(row))
    assert run(studio, folder, *options).exit_code == 0
    assert studio.stored("masks street") == {1: 1}


def test_a_folder_alone_is_shown_and_no_server_asked(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(picture())
    done = CliRunner().invoke(main, ["import-masks", str(folder)])
    assert done.exit_code == 0
    assert f"{folder} is label maps." in done.output
    assert "  sky: in 1 picture, 25.0 % of the pixels" in done.output
    assert f"clearclip-backend import-masks {folder} --project NUMBER --dry-run" in done.output
    (overlay,) = re.findall(r"/\S+/1-a\.jpg", done.output)
    with Image.open(overlay) as shown:
        assert shown.size == (60, 40)


def test_the_command_that_is_shown_keeps_what_was_given(folder: Path) -> None:
    names = folder / "names.txt"
    done = CliRunner().invoke(main, ["import-masks", str(folder), "--names", str(names)])
    assert f"import-masks {folder} --names {names} --project NUMBER" in done.output


def test_a_folder_is_named_once(folder: Path) -> None:
    for given in ([], [str(folder), "--from", str(folder)]):
        done = CliRunner().invoke(main, ["import-masks", *given])
        assert done.exit_code == 2
        assert "once, as FOLDER or by --from" in done.output


def test_what_is_wrong_is_told_in_a_sentence(studio: FakeStudio, folder: Path) -> None:
    for option, value, sentence in (
        ("--map", "light", "expected OLD=NEW"),
        ("--version-name", "a,b", "no comma"),
        ("--control", "nope", 'no control "nope"'),
    ):
        done = run(studio, folder, option, value)
        assert done.exit_code in (1, 2)
        assert sentence in done.output
    (folder / "a.png").unlink()
    assert "but it has none" in run(studio, folder).output
