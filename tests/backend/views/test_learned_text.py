"""What a project has learned, on a terminal."""

from __future__ import annotations

from msgspec.structs import replace

from backend.learning.versions import Person
from backend.views.learned import LearningView, VersionView
from backend.views.learned_text import learned_text
from tests.backend.fakes.learning_stores import adaptation, version_with

NEWEST = replace(version_with(None, 30), number=2, refused={"sky": "It may lose."})
FIRST = replace(version_with(adaptation(), 20), number=1, refused={"car": "Little was drawn."})


def text(*, live: int | None = 1, **more: object) -> str:
    versions = (VersionView.of(NEWEST, live), VersionView.of(FIRST, live))
    known = {"project": 7, "every": 10, "can_learn": True, "versions": versions, "live": live}
    return learned_text(LearningView(**known | more))  # type: ignore[arg-type]


def test_the_version_in_use_comes_first() -> None:
    told = text(pinned=True, annotations=30, changed=4).splitlines()[0]
    assert told == (
        "Project 7: version 1 is in use, chosen by hand. 30 annotations to learn from; 4 changed "
        "since the last version."
    )


def test_versions_are_a_table() -> None:
    rows = [line.split() for line in text().splitlines()]
    cells = [(row[0], row[1], *row[-5:]) for row in rows if row and row[0] in "12"]
    assert cells == [
        ("2", "not", "40.0", "%", "50.0", "%", "+10.0"),
        ("1", "live", "40.0", "%", "50.0", "%", "+10.0"),
    ]


def test_only_the_newest_version_and_the_one_in_use_say_what_they_leave() -> None:
    assert "Version 1 leaves car as it was: Little was drawn." in text()
    assert "leaves car" not in text(live=None)
    assert "Version 2 leaves sky as it was: It may lose." in text(live=None)


def test_people_of_the_newest_version_are_named() -> None:
    person = Person("ann", "Ann", "two labels are exchanged", is_left_out=False)
    newest = VersionView.of(replace(NEWEST, people=(person,)), None)
    assert "Ann: two labels are exchanged" in text(versions=(newest,), live=None)


def test_a_name_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in text(as_words=("sky\x1b[2J",))
