"""The files of a folder, and what is known of them."""

import os
import re
from pathlib import Path

from backend.dataset.formats.layout import SetFolder


def make(folder: Path, *files: str) -> SetFolder:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return SetFolder(folder)


def test_files_are_listed_without_hidden_ones_and_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    folder = make(tmp_path / "set", "b/c.png", "a.png", ".git/x.png", "__MACOSX/y.png", ".hidden")
    (tmp_path / "set/out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/in.png").symlink_to("a.png")
    os.mkfifo(tmp_path / "set/pipe.png")
    assert set(folder.files) - {"__MACOSX/y.png"} == {"a.png", "b/c.png", "in.png"}


def test_a_file_is_a_folder_with_itself_alone(tmp_path: Path) -> None:
    make(tmp_path, "a.json", "b.json")
    folder = SetFolder(tmp_path / "a.json")
    assert (folder.root, folder.files) == (tmp_path, ("a.json",))


def test_the_file_that_lies_least_deep_is_found_also_one_folder_up(tmp_path: Path) -> None:
    folder = make(tmp_path / "set", "a/b/classes.txt", "z/classes.txt")
    (tmp_path / "names.txt").touch()
    assert folder.find("classes.txt") == tmp_path / "set/z/classes.txt"
    assert folder.find("none.txt", "names.txt") == tmp_path / "names.txt"
    assert folder.find("none.txt") is None


def test_some_files_are_looked_into_and_no_more(tmp_path: Path) -> None:
    folder = make(tmp_path, *(f"{number:03}.json" for number in range(100)))
    heads = folder.heads(".json")
    assert len(heads) == 20
    assert heads["000.json"] == b"000.json"
    assert max(heads) > "090.json", "spread over all"


def test_a_pattern_fits_whole_paths(tmp_path: Path) -> None:
    folder = make(tmp_path, "x/a_mask.png", "x/a.png")
    assert [match[1] for match in folder.matches(re.compile(r"(.+)_mask\.png"))] == ["x/a"]
