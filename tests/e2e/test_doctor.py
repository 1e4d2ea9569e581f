"""`clearclip-backend doctor` as a user runs it, on the real Label Studio."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from backend.cli import connect as commands
from backend.cli import demo, demo_servers
from backend.cli.demo_servers import DemoError, LabelStudioProcess
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for
from tests.e2e.conftest import MODEL, WithPersonalToken
from tests.e2e.servers import run_command, sdk

LOGIN = {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": "pass word"}
BASIC_AUTH = {
    "auth_method": "BASIC_AUTH",
    "basic_auth_user": LOGIN["BASIC_AUTH_USER"],
    "basic_auth_pass": LOGIN["BASIC_AUTH_PASS"],
}

#: The mark, the name and the text of a check.
LINE = r"^(ok|warn|FAIL|-) +(\w+(?: \w+)?)  +(.*)$"


@dataclass(frozen=True)
class Diagnosis:
    """Output of `doctor`: the mark and the text of each check."""

    status: int
    marks: dict[str, str]
    texts: dict[str, str]

    def ill(self) -> set[str]:
        return {name for name, mark in self.marks.items() if mark == "FAIL"}


def doctor(studio: LabelStudioProcess, project: int, *flags: str, **variables: str) -> Diagnosis:
    reach = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    settings = {**reach, "BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": "", **variables}
    arguments = ["--project", str(project), *flags]
    finished = CliRunner().invoke(commands.doctor, arguments, env=settings)
    assert finished.exception is None or isinstance(finished.exception, SystemExit)
    assert studio.token not in finished.output
    lines = re.findall(LINE, finished.output, re.MULTILINE)
    return Diagnosis(
        finished.exit_code,
        {name: mark for mark, name, _ in lines},
        {name: text for _, name, text in lines},
    )


def test_all_is_well(studio: LabelStudioProcess, demo_project: int, backend_url: str) -> None:
    command = [sys.executable, "-m", "backend", "doctor", "--project", str(demo_project)]
    command += ["--label-studio-url", studio.url, "--label-studio-api-key", studio.token]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stdout
    lines = re.findall(LINE, finished.stdout, re.MULTILINE)
    texts = {name: text for _, name, text in lines}
    assert [name for mark, name, _ in lines if mark != "ok"] == ["backend"], finished.stdout
    assert "toy" in texts["backend"]
    assert studio.username in texts["label studio"]
    assert "has a prediction of" in texts["prediction"]


def test_a_backend_with_a_password_lets_label_studio_in_and_nobody_else(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    project = new_project(["sky"], seeds=[10_000_200])
    log = tmp_path / "log"
    with demo_servers.served_backend(
        studio, model=MODEL, port=free_port(), log=log, variables=LOGIN
    ) as url:
        with pytest.raises(DemoError, match="cannot connect"):
            demo.connect(studio, project, url)
        demo.connect(studio, project, url, **BASIC_AUTH)
        demo.retrieve_predictions(studio, project)
        assert len(list(sdk(studio).predictions.list(project=project))) == 1
        assert doctor(studio, project, **LOGIN).status == 0

        wrong = doctor(studio, project, **{**LOGIN, "BASIC_AUTH_PASS": "another"})
        assert wrong.ill() == {"prediction"}
        assert "as the backend has them" in wrong.texts["prediction"]
    gone = doctor(studio, project, **LOGIN)
    assert gone.ill() == {"connection", "backend"}
    assert "cannot reach" in gone.texts["connection"]
    assert gone.marks["prediction"] == "-"


def test_one_press_sets_a_project_up(studio: LabelStudioProcess, backend_url: str) -> None:
    xml = """<View><Image name="image" value="$image"/>
      <BrushLabels name="mask" toName="image"><Label value="sky"/></BrushLabels></View>"""
    hidden = {"label_config": xml, "show_collab_predictions": False}
    project = int(sdk(studio).projects.create(title="One press", **hidden).id)
    demo.upload(studio, project, [demo.scene_file(10_000_200)])
    press = ("connect", "--project", project, "--yes", "--uniform", "--allowed-hosts", "127.0.0.1")
    for _ in range(2):
        said = run_command(studio, *press, "--port", backend_url.rpartition(":")[2])
        assert {mark for mark, *_ in re.findall(LINE, said, re.MULTILINE)} == {"ok", "warn"}, said
    shown = sdk(studio).projects.get(id=project)
    assert (shown.model_version, shown.sampling) == ("ClearCLIP", "Uniform sampling")
    assert shown.show_collab_predictions
    assert "<Labels" in shown.label_config
    (connected,) = sdk(studio).ml.list(project=project)
    assert connected.is_interactive
    wait_for(lambda: len(list(sdk(studio).predictions.list(project=project))) == 1, "the job")
    sdk(studio).projects.delete(id=project)


def test_a_project_without_a_config_gets_one_of_what_is_typed(
    studio: LabelStudioProcess, backend_url: str
) -> None:
    project = int(sdk(studio).projects.create(title="Typed").id)
    demo.upload(studio, project, [demo.scene_file(10_000_200)])
    (uploaded,) = sdk(studio).tasks.list(project=project)
    (address,) = uploaded.data.values()
    sdk(studio).tasks.delete(id=uploaded.id)
    sdk(studio).tasks.create(project=project, data={"photo": address})

    def press(labels: str) -> requests.Response:
        asked = {"project": project, "url": backend_url, "labels": labels}
        return requests.post(f"{backend_url}/set-up", json=asked, timeout=60)

    nothing = press("")
    assert nothing.status_code == 400
    assert "label" in nothing.json()["error"]
    assert "<Image" not in nothing.json()["error"]
    assert press("sky; tree, sky\nhouse").status_code == 201
    wait_for(lambda: len(list(sdk(studio).predictions.list(project=project))) == 1, "the job")
    config = sdk(studio).projects.get(id=project).label_config
    assert '"$photo"' in config
    assert re.findall(r'<Label value="(\w+)"', config) == ["sky", "tree", "house"]

    area = '<PolygonLabels name="area" toName="image"><Label value="sky"/></PolygonLabels>'
    config = config.replace("</View>", f"{area}</View>")
    sdk(studio).projects.update(id=project, label_config=config)
    said = doctor(studio, project).texts.values()
    assert any("their predictions twice" in text for text in said), said
    sdk(studio).projects.delete(id=project)


def test_pictures_of_all_kinds_and_smart_tools_that_ask_nothing(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(["sky"], seeds=[10_000_200])
    for address in ("s3://no-such-bucket/a.png", "/data/local-files/?d=gone/a.png"):
        sdk(studio).tasks.create(project=project, data={"image": address})
    demo.connect(studio, project, backend_url, is_interactive=False)
    diagnosis = doctor(studio, project)
    assert diagnosis.ill() == {"pictures", "smart tools"}
    assert "2 of 3 kinds of address" in diagnosis.texts["pictures"]
    assert "s3://no-such-bucket/a.png is not handed out (HTTP 404)" in diagnosis.texts["pictures"]
    assert "LOCAL_FILES_SERVING_ENABLED" in diagnosis.texts["pictures"], "it is off there"
    assert "Interactive preannotations are off" in diagnosis.texts["smart tools"]


def test_tokens_that_are_refused(
    studio: LabelStudioProcess,
    demo_project: int,
    backend_url: str,
    without_legacy_tokens: WithPersonalToken,
) -> None:
    legacy = doctor(studio, demo_project)
    assert legacy.ill() == {"label studio"}
    assert "API Tokens Settings" in legacy.texts["label studio"]
    personal = doctor(without_legacy_tokens, demo_project)
    assert personal.ill() == set(), personal.texts
    assert "personal token" in personal.texts["label studio"]
