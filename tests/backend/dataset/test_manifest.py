"""What a folder remembers of its pictures."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import pytest

from backend.dataset.manifest import FILE_NAME, Manifest, PictureRow
from backend.errors import DatasetError


def row(task: int, name: str, *files: str) -> PictureRow:
    return PictureRow(task, f"{task}/img/0", name, ".png", (1, 2), "d", files=files)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        written = dataclasses.replace(
            row(3, "é"), regions=[{"label": "x"}], coco=[{"area": 1}], feature=b"\0\1"
        )
        manifest.write(3, "s", [written])
        (found,) = manifest.pictures()
        assert dataclasses.replace(found, id=0, files=()) == written
        assert manifest.is_unchanged(3, "s")
        assert not manifest.is_unchanged(3, "t")


def test_a_missing_file_makes_its_task_due(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        (tmp_path / "set/a.png").write_bytes(b"x")
        manifest.write(1, "s", [row(1, "a", "a.png")])
        assert manifest.is_unchanged(1, "s")
        (tmp_path / "set/a.png").unlink()
        assert not manifest.is_unchanged(1, "s")


def test_names_are_unique_whatever_their_case(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        manifest.write(1, "s", [row(1, "Straße")])
        assert manifest.name_for("STRASSE", "2/img/0", 2) == "STRASSE-task2"
        assert manifest.name_for("Straße", "1/img/0", 1) == "Straße", "it keeps its own"
        assert manifest.name_for("b", "2/img/0", 2, {"B", "b-task2"}) == "b-task2-2"


def test_other_choices_make_all_tasks_due(tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        manifest.write(1, "s", [row(1, "a")])
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        assert manifest.is_unchanged(1, "s")
    with closing(Manifest(tmp_path / "set", "p", "other")) as manifest:
        assert not manifest.is_unchanged(1, "s")


def test_two_runs_do_not_work_on_one_folder(tmp_path: Path) -> None:
    first = Manifest(tmp_path / "set", "p", "r")
    with pytest.raises(DatasetError, match="Another run"):
        Manifest(tmp_path / "set", "p", "r")
    first.close()
    Manifest(tmp_path / "set", "p", "r").close()


def test_a_broken_or_newer_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(DatasetError, match="cannot be used"):
        Manifest(tmp_path, "p", "r")
    with closing(Manifest(tmp_path / "set", "p", "r")) as manifest:
        manifest.keep_fact("version", "9")
    with pytest.raises(DatasetError, match="another version"):
        Manifest(tmp_path / "set", "p", "r")
