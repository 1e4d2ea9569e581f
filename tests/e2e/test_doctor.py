"""`clearclip-backend doctor` as a user runs it, on the real Label Studio."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from label_studio_sdk.core.api_error import ApiError

from backend.cli import demo, demo_servers
from backend.cli import doctor as doctor_command
from backend.cli.demo_servers import DemoError, LabelStudioProcess
from tests.e2e.conftest import MODEL, WithPersonalToken

LOGIN = {"BASIC_AUTH_USER": "studio", "BASIC_AUTH_PASS": "pass word"}
BASIC_AUTH = {
    "auth_method": "BASIC_AUTH",
    "basic_auth_user": LOGIN["BASIC_AUTH_USER"],
    "basic_auth_pass": LOGIN["BASIC_AUTH_PASS"],
}


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
    finished = CliRunner().invoke(doctor_command.doctor, arguments, env=settings)
    assert finished.exception is None or isinstance(finished.exception, SystemExit)
    assert studio.token not in finished.output
    lines = re.findall(r"^(ok|warn|FAIL|-) +(\w+(?: \w+)?)  +(.*)$", finished.output, re.MULTILINE)
    assert len(lines) == 8, finished.output
    return Diagnosis(
        finished.exit_code,
        {name: mark for mark, name, _ in lines},
        {name: text for _, name, text in lines},
    )


def test_all_is_well(studio: LabelStudioProcess, demo_project: int, backend_url: str) -> None:
    diagnosis = doctor(studio, demo_project)
    assert diagnosis.ill() == set(), diagnosis.texts
    assert diagnosis.status == 0
    assert set(diagnosis.marks.values()) == {"ok"}
    assert studio.username in diagnosis.texts["label studio"]
    assert "has a prediction of" in diagnosis.texts["prediction"]


def test_a_backend_with_a_password_lets_label_studio_in_and_nobody_else(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    project = new_project(["sky"], seeds=[10_000_200])
    log = tmp_path / "log"
    with demo_servers.served_backend(
        studio, model=MODEL, port=demo_servers.free_port(0), log=log, variables=LOGIN
    ) as url:
        with pytest.raises(DemoError, match="cannot connect"):
            demo.connect(studio, project, url)
        demo.connect(studio, project, url, **BASIC_AUTH)
        demo.retrieve_predictions(studio, project)
        assert len(list(studio.client.predictions.list(project=project))) == 1
        assert doctor(studio, project, **LOGIN).status == 0

        wrong = doctor(studio, project, **{**LOGIN, "BASIC_AUTH_PASS": "another"})
        assert wrong.ill() == {"prediction"}
        assert "as the backend has them" in wrong.texts["prediction"]
    gone = doctor(studio, project, **LOGIN)
    assert gone.ill() == {"connection", "backend"}
    assert "cannot reach" in gone.texts["connection"]
    assert gone.marks["prediction"] == "-"


def test_for_which_hosts_label_studio_makes_a_webhook(
    studio: LabelStudioProcess, new_project: Callable[..., int]
) -> None:
    """For none without a dot, so that Compose connects without its protection switched off."""
    project = new_project(["sky"], seeds=[])
    for host, status in (("backend", 400), ("127.0.0.1", 403)):
        with pytest.raises(ApiError) as refused:
            studio.client.webhooks.create(url=f"http://{host}:9090/webhook", project=project)
        assert refused.value.status_code == status


@pytest.mark.thorough
def test_a_password_that_label_studio_does_not_send(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    project = new_project(["sky"], seeds=[10_000_200])
    port = demo_servers.free_port(0)
    with demo_servers.served_backend(studio, model=MODEL, port=port, log=tmp_path / "open") as url:
        demo.connect(studio, project, url)
    with demo_servers.served_backend(
        studio, model=MODEL, port=port, log=tmp_path / "closed", variables=LOGIN
    ):
        diagnosis = doctor(studio, project, **LOGIN)
    assert "connection" in diagnosis.ill()
    assert "Model dialog" in diagnosis.texts["connection"]


def test_what_is_missing_in_label_studio(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    empty = new_project(["sky"], seeds=[])
    diagnosis = doctor(studio, empty, "--backend-url", backend_url)
    assert diagnosis.ill() == {"connection", "pictures"}
    assert "under Model" in diagnosis.texts["connection"]
    assert "no task" in diagnosis.texts["pictures"]
    nowhere = doctor(studio, 999_999)
    assert "project" in nowhere.ill()
    assert "HTTP 404" in nowhere.texts["project"]
    nothing = studio.client.projects.create(title="Texts", label_config="<View/>")
    try:
        texts = doctor(studio, nothing.id or 0, "--backend-url", backend_url)
    finally:
        studio.client.projects.delete(id=nothing.id or 0)
    assert "label config" in texts.ill()
    assert "<Image" in texts.texts["label config"]


def test_pictures_of_all_kinds_and_smart_tools_that_ask_nothing(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(["sky"], seeds=[10_000_200])
    for address in ("s3://no-such-bucket/a.png", "/data/local-files/?d=gone/a.png"):
        studio.client.tasks.create(project=project, data={"image": address})
    demo.connect(studio, project, backend_url, is_interactive=False)
    diagnosis = doctor(studio, project)
    assert diagnosis.ill() == {"pictures", "smart tools"}
    assert "2 of 3 kinds of address" in diagnosis.texts["pictures"]
    assert (
        "s3://no-such-bucket/a.png is not handed out (HTTP 404): connect"
        in diagnosis.texts["pictures"]
    )
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
    key = {"LABEL_STUDIO_API_KEY": without_legacy_tokens.access}
    short = doctor(without_legacy_tokens, demo_project, **key)
    assert short.ill() == {"label studio"}
    assert "lives for minutes" in short.texts["label studio"]
