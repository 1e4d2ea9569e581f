"""The walk through Docker Compose, with a program in Docker's place: an engine is not at hand."""

import os
from pathlib import Path

import pytest

from tests.deploy import walk

#: `compose` waits, as for a server that never comes up; one container has ended again and again.
DOCKER = """#!/bin/sh
case "$1" in
compose) exec sleep 60 ;;
ps) echo 0123456789ab ;;
inspect) echo "$RESTARTS /walk-label-studio-1" ;;
logs) echo "out of memory" ;;
esac
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> walk.Walk:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(walk, "WATCH_S", 0.1)
    monkeypatch.setattr(walk.Walk, "_copy", lambda _: None)
    return walk.Walk(tmp_path, [])


def test_a_container_that_was_started_again_three_times_ends_the_walk(
    steps: walk.Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTARTS", "3")
    with pytest.raises(RuntimeError, match=r"(?s)label-studio-1 .* 3 times.*out of memory"):
        steps.compose("up", "--wait")


def test_a_container_that_was_started_again_once_is_waited_for(
    steps: walk.Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTARTS", "1")
    steps.refuse_restarts()


def test_a_command_has_its_input_though_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "WATCH_S", 0.05)
    said = walk.run("sh", "-c", "sleep 0.2; cat", text="here", watch=lambda: None)
    assert said == "here"
