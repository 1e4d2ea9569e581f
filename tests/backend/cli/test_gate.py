"""`clearclip-backend gate` as a person uses it, with a stand-in for Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli.main import main
from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.gate.gate_store import GateStore
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.feedback.gate.gate_scene import (
    AUDIT_SHARE,
    AUDITED,
    PASSING,
    VERSION,
    correct_many,
    unannotated_studio,
)


@pytest.fixture
def studio() -> FakeStudio:
    return unannotated_studio()


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def run(server: LocalServer, *arguments: str, answer: str = "") -> Result:
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    command = ["gate", "--project", "7", *reach, f"--gate-audit-share={AUDIT_SHARE}", *arguments]
    result = CliRunner().invoke(main, command, input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_tasks_are_found_accepted_after_asking_and_withdrawn(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    database = Database.from_settings(Settings())
    correct_many(AnnotationStore(database, "me"))
    database.close()
    out, listed = tmp_path / "out.json", PASSING - AUDITED
    found = run(server, "--find", "--show", f"--json={out}")
    assert found.exit_code == 0, found.output
    said = " ".join(found.output.split())
    assert f"Tasks that pass: {len(listed)}; more to be audited: {len(AUDITED)}; " in said
    assert "at least 95 % need no change at all" in " ".join(found.output.split())
    assert set(json.loads(out.read_text())["task_ids"]["listed"]) == listed
    assert len(studio.tabs) == 2
    assert run(server, "--accept", answer="n\n").exit_code == 1
    assert not studio.annotations
    accepted = run(server, "--accept", answer="y\n")
    assert f"{len(listed)} tasks annotated by the gate" in accepted.output
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    assert run(server, "--withdraw").exit_code == 0
    assert not studio.annotations


def test_another_share_makes_no_gate_anew(server: LocalServer) -> None:
    database = Database.from_settings(Settings())
    correct_many(AnnotationStore(database, "me"))
    assert "stays" not in run(server).output
    before = GateStore(database).get(7, VERSION)
    other = " ".join(run(server, "--gate-share=0.999").output.split())
    assert "made for a share of 0.95 and a confidence of 0.95, and stays" in other
    assert "at least 95 % need no change at all" in other
    assert GateStore(database).get(7, VERSION) == before
    database.close()


def test_a_project_without_corrections_says_what_is_missing(server: LocalServer) -> None:
    said = " ".join(run(server).output.split())
    assert "waiting: There are too few corrected pictures yet." in said
    assert "made anew at 200 tasks" in said
    refused = run(server, "--accept", "--yes")
    assert refused.exit_code == 1
    assert "lets nothing pass" in refused.output


def test_one_change_at_a_time(server: LocalServer) -> None:
    assert run(server, "--accept", "--withdraw").exit_code == 2
