"""What a command says of a task."""

import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.database.database import Database
from backend.projects.failures import FailureStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("sky", "car"), {3: {"image": "a.png"}})


def test_the_command_finds_the_project_of_a_task(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    FailureStore(Database.from_settings(Settings())).add(
        [(3, "The picture is gone.")], job=5, project=7
    )
    monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    said = CliRunner().invoke(main, ["task", "3"])
    assert said.exit_code == 0, said.output
    assert "Task 3 of project 7" in said.output
    assert "The picture is gone." in said.output
