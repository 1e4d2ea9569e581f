"""Each check, well and ill, on a stand-in for Label Studio and the real application.

The real Label Studio: `tests/e2e/test_doctor.py`.
"""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server

from backend import create_app
from backend.cli.doctor import CheckResult, check_setup
from backend.jobs.connection_watch import TokenWatch
from backend.prediction.batches import Outcome
from backend.settings import Settings, load_settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

PNG = base64.b64decode(data_url(flag("red", "blue")).partition(",")[2])
CHECKS = ["settings", "label studio", "token", "project", "label config", "labels", "exports"]
CHECKS += ["connection", "smart tools", "backend", "setup", "backend token", "picture"]
CHECKS += ["prediction"]
LOCK = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}


@pytest.fixture
def backend_settings() -> dict[str, Any]:
    """Of the backend that is served; tests change them before."""
    return {}


@pytest.fixture
def backend_url(backend_settings: dict[str, Any]) -> Iterator[str]:
    app = create_app(Settings(allowed_hosts="127.0.0.1", **backend_settings), colour_engine())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def studio(backend_url: str) -> FakeStudio:
    connected = {"id": 3, "url": backend_url, "state": "CO", "project": 7, "is_interactive": True}
    return FakeStudio(
        brush_config("red"),
        {11: {"image": data_url(flag("red", "blue"))}},
        backends=[connected],
        titles={7: "Streets", 8: "Fields"},
        files={"/data/upload/7/a.png": PNG},
        shows="ClearCLIP",
    )


@pytest.fixture
def studio_url(studio: FakeStudio) -> Iterator[str]:
    with studio.served() as server:
        yield server.url


def found(studio_url: str, project: int = 7, **given: Any) -> dict[str, CheckResult]:
    backend_url = given.pop("backend_url", None)
    reach = {"label_studio_url": studio_url, "label_studio_api_key": TOKEN}
    settings = load_settings(**reach | given)
    findings = list(check_setup(settings, project, backend_url=backend_url))
    assert [finding.name for finding in findings] == CHECKS
    for finding in findings:
        assert str(finding).count("\n") == 0
        assert TOKEN not in str(finding)
        assert "secret" not in str(finding)
        assert bool(finding.advice) == (finding.well is False or finding.warns)
        assert not finding.warns or finding.well
    return {finding.name: finding for finding in findings}


def ill(findings: dict[str, CheckResult]) -> list[str]:
    return [name for name, finding in findings.items() if finding.well is False]


def test_all_is_well(studio_url: str) -> None:
    findings = found(studio_url)
    assert ill(findings) == []
    assert all(finding.well for finding in findings.values())
    assert findings["label studio"].text == f"{studio_url} is Label Studio 1.23.2."
    assert findings["token"].text == "The legacy token is of ann@example.com."
    assert findings["label config"].text == "1 control, 1 label: “red”."
    assert findings["picture"].text == (
        "A picture of each kind of address can be read: data: (task 11, 60 x 40 px)."
    )
    assert findings["prediction"].text == "Task 11 has a valid prediction of 1 region."


def test_its_checks_need_no_model(studio_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`backend.services` imports torch, which takes seconds."""
    monkeypatch.setitem(sys.modules, "backend.services", None)
    assert ill(found(studio_url)) == []


def test_a_picture_on_label_studio_is_fetched_with_the_token(
    studio_url: str, studio: FakeStudio
) -> None:
    studio.tasks[11]["image"] = "/data/upload/7/a.png"
    assert found(studio_url)["picture"].well
    studio.files.clear()
    findings = found(studio_url)
    assert "picture" in ill(findings)
    assert "There is no file" in findings["picture"].text
    assert findings["prediction"].well is None
    for tasks, sentence in (({11: {"text": "none"}}, "Task 11: "), ({}, "has no task yet")):
        studio.tasks = tasks
        assert sentence in found(studio_url)["picture"].text


def test_nothing_is_set() -> None:
    findings = {f.name: f for f in check_setup(load_settings(), 7)}
    assert ill(findings) == ["settings"]
    assert all(f.well is None for name, f in findings.items() if name != "settings")
    without_token = {f.name: f for f in check_setup(load_settings(label_studio_url="http://x"), 7)}
    assert "LABEL_STUDIO_API_KEY" in without_token["settings"].text


def test_a_token_that_is_refused(studio_url: str, studio: FakeStudio) -> None:
    studio.token = "another"
    findings = found(studio_url)
    assert ill(findings) == ["token"]
    assert "Copy it again from Account & Settings" in findings["token"].advice
    assert "API Tokens Settings" in findings["token"].advice


def test_a_label_studio_that_has_moved(studio_url: str) -> None:
    def moved(asked: Asked) -> Answer:
        if asked.path == "/api/version/":
            return Answer(body=b'{"release": "1.23.2"}')
        return Answer(308, headers={"Location": f"{studio_url}{asked.path}"})

    with LocalServer(moved) as server:
        token = found(server.url)["token"]
    assert f"redirects to {studio_url}/api/" in token.text
    assert "set LABEL_STUDIO_URL" in token.text


SMART = brush_config("red").replace(
    "</View>",
    '<KeyPointLabels name="k" toName="image" SMART="true"><Label value="red"/></KeyPointLabels>'
    "</View>",
)
BITMASKS = SMART.replace("BrushLabels", "BitmaskLabels")
GONE = {"from_name": "mask", "type": "brushlabels", "value": {"brushlabels": ["House"]}}


@pytest.mark.parametrize(
    ("name", "value", "check", "mark", "sentence"),
    [
        ("label_config", "<View/>", "label config", "FAIL", "Labeling Interface"),
        ("label_config", SMART, "smart tools", "ok", "are on, for KeyPointLabels"),
        ("label_config", BITMASKS, "smart tools", "warn", "Use <BrushLabels>"),
        ("shows", "", "connection", "warn", "under Annotation"),
    ],
)
def test_the_settings_of_a_project_are_checked(
    studio_url: str,
    studio: FakeStudio,
    name: str,
    value: str,
    check: str,
    mark: str,
    sentence: str,
) -> None:
    setattr(studio, name, value)
    findings = found(studio_url)
    assert str(findings[check]).startswith(mark)
    assert sentence in str(findings[check])
    assert ill(findings) == ([check] if mark == "FAIL" else [])
    assert findings["backend"].well


def test_regions_whose_label_the_config_no_longer_has_are_counted(
    studio_url: str, studio: FakeStudio
) -> None:
    studio.annotate(11, [GONE] * 12)
    finding = found(studio_url)["labels"]
    assert finding.warns
    assert "“House” (12)" in finding.text
    assert 'alias="House"' in finding.advice


@pytest.mark.parametrize(
    ("state", "message", "sentence"),
    [
        ("DI", None, "ML_BLOCK_LOCAL_IP"),
        ("ER", "401 Client Error: UNAUTHORIZED for url", "Model dialog"),
        ("ER", "503 Server Error: There are no weights", "Do what that says, and run this again"),
    ],
)
def test_label_studio_does_not_reach_the_backend(
    studio_url: str, studio: FakeStudio, state: str, message: str | None, sentence: str
) -> None:
    studio.backends[0] |= {"state": state, "error_message": message}
    findings = found(studio_url)
    assert ill(findings) == ["connection"]
    assert sentence in findings["connection"].advice


def test_smart_tools_need_interactive_preannotations(studio_url: str, studio: FakeStudio) -> None:
    studio.label_config = SMART
    studio.backends[0]["is_interactive"] = False
    findings = found(studio_url)
    assert ill(findings) == ["smart tools"]
    assert "Interactive preannotations are off" in findings["smart tools"].text
    studio.label_config = brush_config("red")
    assert "no smart tools" in found(studio_url)["smart tools"].text


def test_no_backend_is_connected_or_several(
    studio_url: str, studio: FakeStudio, backend_url: str
) -> None:
    second = {"id": 9, "url": "http://127.0.0.1:1", "state": "DI", "project": 7}
    studio.backends.insert(0, second)
    findings = found(studio_url)
    assert ill(findings) == []
    assert "first of 2" in findings["connection"].text
    studio.backends.clear()
    findings = found(studio_url, backend_url=backend_url)
    assert ill(findings) == ["connection"]
    assert findings["prediction"].well, "from here it is reached all the same"


def test_another_server_where_the_backend_should_be(studio_url: str, studio: FakeStudio) -> None:
    findings = found(studio_url, backend_url=studio_url)
    assert ill(findings) == ["backend"]
    findings = found(studio_url, backend_url="http://127.0.0.1:1")
    assert "cannot be reached from here" in findings["backend"].text


def test_a_picture_of_each_kind_of_address_is_read(studio_url: str, studio: FakeStudio) -> None:
    studio.files["/data/upload/7/b.png"] = PNG
    addresses = ["/data/upload/7/a.png", "/data/upload/7/b.png", data_url(flag("red"))]
    addresses += ["/data/local-files/?d=gone.png", "s3://bucket/a.png", "/data/local-files/?d=b"]
    addresses[3:3] = ["/data/upload/7/a.png"] * 60  # which are not looked at
    studio.tasks = {20 + n: {"image": address} for n, address in enumerate(addresses)}
    studio.tasks[1] = {"text": "another project's"}
    text = found(studio_url)["picture"].text
    assert text.startswith("2 of 4 kinds of address cannot be read. Task 83: ")
    assert "no local storage of the task's project" in text
    assert "Task 84: Label Studio has no storage that hands out s3://bucket/a.png" in text
    assert "Task 85" not in text
    studio.tasks = {task: studio.tasks[task] for task in range(20, 83)}
    assert found(studio_url)["picture"].text == (
        "A picture of each kind of address can be read: /data/upload/ (task 20, 60 x 40 px), data: "
        "(task 22, 60 x 40 px)."
    )


def test_without_a_project_both_servers_are_checked(studio_url: str) -> None:
    reach = {"label_studio_url": studio_url, "label_studio_api_key": TOKEN}
    findings = {f.name: f for f in check_setup(load_settings(**reach, port=1), None)}
    assert [*findings][:4] == ["settings", "label studio", "token", "projects"]
    assert "7 (Streets), 8 (Fields)." in findings["projects"].text
    assert ill(findings) == ["backend"]


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ("BrushLabels KeyPointLabels RectangleLabels:smart", ()),
        ("PolygonLabels RectangleLabels KeyPoint", ()),
        ("PolygonLabels KeyPointLabels", ('every label "default"', "leaves polygons out")),
        ("RectangleLabels KeyPointLabels", ('every label "default".',)),
        ("BitmaskLabels PolygonLabels KeyPointLabels", ('"default"', "only JSON and CSV have")),
    ],
)
def test_exports_that_lose_labels_are_warned_of(
    studio_url: str, studio: FakeStudio, controls: str, words: tuple[str, ...]
) -> None:
    """What a real Label Studio 1.23.2 exported of one region each: `tests/e2e/test_doctor.py`."""
    tags = [
        f'<{tag} name="{tag}" toName="image" smart="{bool(smart)}"><Label value="red"/></{tag}>'
        for tag, _, smart in (each.partition(":") for each in controls.split())
    ]
    config = f'<View><Image name="image" value="$image"/>{"".join(tags)}</View>'
    studio.label_config = config
    finding = found(studio_url)["exports"]
    assert finding.warns == bool(words)
    assert str(finding).startswith("warn" if words else "ok")
    for text in words:
        assert text in finding.text


class TestWithAPassword:
    @pytest.fixture
    def backend_settings(self) -> dict[str, Any]:
        return LOCK

    def test_all_is_well(self, studio_url: str) -> None:
        assert ill(found(studio_url, **LOCK)) == []

    def test_another_backend_that_is_connected_gets_no_password(
        self, studio_url: str, studio: FakeStudio
    ) -> None:
        with LocalServer(lambda _: Answer(body=b'{"status": "UP"}')) as other:
            studio.backends[0]["url"] = other.url
            findings = found(studio_url, **LOCK)
        assert "not as this backend" in findings["backend"].text
        assert other.asked == [Asked("GET", "/health", None)]

    def test_another_password(self, studio_url: str) -> None:
        findings = found(studio_url, **{**LOCK, "basic_auth_pass": "other"})
        assert "setup" in ill(findings)
        assert "as the backend has them" in findings["setup"].advice


def test_a_prediction_that_label_studio_would_refuse(
    studio_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = {"type": "brushlabels", "from_name": "gone", "to_name": "image", "value": {}}
    entry = {"model_version": "x", "score": 0.5, "result": [region]}
    monkeypatch.setattr(
        "backend.prediction.predictor.Predictor.outcome", lambda *_, **__: Outcome(entry)
    )
    findings = found(studio_url)
    assert ill(findings) == ["prediction"]
    assert "would refuse" in findings["prediction"].text


def test_a_running_backend_whose_token_label_studio_refuses(
    studio_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings have the new token already, and the backend was started with the old one."""
    refused = property(lambda self: "Label Studio refuses the token of this backend.")
    monkeypatch.setattr(TokenWatch, "trouble", refused)
    findings = found(studio_url)
    assert ill(findings) == ["backend token"]
    assert "refuses the token" in findings["backend token"].text
    assert "start it again" in findings["backend token"].advice
