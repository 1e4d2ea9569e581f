"""Each check, well and ill, on a stand-in for Label Studio and the real application.

The real Label Studio: `tests/e2e/test_doctor.py`.
"""

import base64
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server

from backend import create_app
from backend.runs import checks
from backend.runs.checks import CheckResult, check_setup
from backend.settings import Settings, load_settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.label_studio import TOKEN, FakeStudio, asks_for_whole
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.packages import Packages, blocks_of_guide

PNG = base64.b64decode(data_url(flag("red", "blue")).partition(",")[2])
CHECKS = ["label studio", "settings", "project", "labeling config", "connection", "smart tools"]
CHECKS += ["backend", "pictures", "prediction", "annotations"]
SMART = brush_config("red").replace(
    "</View>",
    '<KeyPointLabels name="k" toName="image" SMART="true"><Label value="red"/></KeyPointLabels>'
    "</View>",
)
BITMASKS = SMART.replace("Brush", "Bitmask")
OF_TASK = SMART.replace("</View>", '<PolygonLabels name="p" toName="image" value="$kinds"/></View>')
TWICE = SMART.replace(
    "</View>",
    '<PolygonLabels name="outline" toName="image"><Label value="red"/></PolygonLabels></View>',
)
ONCE = TWICE.replace('name="outline"', 'name="outline" prelabel="no"')
GONE = {
    "from_name": "mask",
    "to_name": "image",
    "type": "brushlabels",
    "value": {"brushlabels": ["House"]},
}


@pytest.fixture(scope="module")
def backend_url() -> Iterator[str]:
    app = create_app(Settings(allowed_hosts="127.0.0.1"), colour_engine())
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
        SMART,
        {11: {"image": data_url(flag("red", "blue"))}},
        backends=[connected],
        files={"/data/upload/7/a.png": PNG},
        shows="ClearCLIP",
    )


def found(server: LocalServer, **given: Any) -> dict[str, CheckResult]:
    backend_url = given.pop("backend_url", None)
    reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
    findings = list(check_setup(load_settings(**reach | given), 7, backend_url=backend_url))
    for finding in findings:
        assert str(finding).count("\n") == 0
        assert TOKEN not in finding.text
        assert "secret" not in finding.text
    return {finding.name: finding for finding in findings}


def ill(findings: dict[str, CheckResult]) -> dict[str, str]:
    return {name: each.mark for name, each in findings.items() if each.mark in ("FAIL", "warn")}


def test_all_is_well_without_a_model(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch takes seconds to import; the first of several connections counts."""
    monkeypatch.setitem(sys.modules, "backend.inference.engine", None)
    studio.backends.insert(0, {"id": 9, "url": "http://127.0.0.1:1", "state": "DI", "project": 7})
    findings = found(server)
    assert [*findings] == CHECKS
    assert {finding.mark for finding in findings.values()} == {"ok"}
    said = {name: finding.text for name, finding in findings.items()}
    assert said["label studio"] == f"{server.url} accepts the legacy token of ann@example.com."
    assert said["labeling config"] == "1 control, 1 label: “red”."
    assert "first of 2" in said["connection"]
    assert said["pictures"].endswith("can be read: data: (task 11, 60 x 40 px).")
    assert said["prediction"].startswith("Task 11 has a prediction of 1 region by ")


@pytest.mark.parametrize(
    ("change", "check", "mark", "sentence"),
    [
        ({"token": "another"}, "label studio", "FAIL", "Copy it again from Account & Settings"),
        ({"project": 8}, "project", "FAIL", "shows no project 7"),
        ({"shows": ""}, "project", "warn", "under Annotation"),
        ({"label_config": "<View/>"}, "labeling config", "FAIL", "Labeling Interface"),
        ({"label_config": OF_TASK}, "labeling config", "warn", "are not predicted: <PolygonLabels"),
        ({"label_config": TWICE}, "labeling config", "warn", "“mask” and “outline” have the same"),
        ({"label_config": ONCE}, "labeling config", "ok", "2 controls, 1 label"),
        ({"label_config": SMART}, "smart tools", "ok", "are on, for k."),
        ({"label_config": brush_config("red")}, "smart tools", "warn", "No tool of the labeling"),
        ({"label_config": BITMASKS}, "smart tools", "warn", "Use <BrushLabels>"),
        ({"tasks": {}}, "pictures", "FAIL", "has no task yet"),
        (
            {"tasks": {11: {"text": "none"}}},
            "pictures",
            "FAIL",
            "Task 11: The labeling config asks",
        ),
        ({"backends": []}, "connection", "FAIL", "under Model"),
    ],
)
def test_what_people_meet_in_label_studio_is_named(
    server: LocalServer,
    studio: FakeStudio,
    backend_url: str,
    change: dict[str, Any],
    check: str,
    mark: str,
    sentence: str,
) -> None:
    for name, value in change.items():
        setattr(studio, name, value)
    findings = found(server, backend_url=backend_url)
    assert findings[check].mark == mark
    assert sentence in findings[check].text
    assert ill(findings) == ({} if mark == "ok" else {check: mark})


@pytest.mark.parametrize(
    ("connection", "check", "sentence"),
    [
        ({"state": "DI"}, "connection", "ML_BLOCK_LOCAL_IP"),
        ({"state": "ER", "error_message": "401 Error: UNAUTHORIZED"}, "connection", "Model dialog"),
        ({"state": "ER", "error_message": "503: No weights."}, "connection", "503: No weights."),
        ({"is_interactive": False}, "smart tools", "Interactive preannotations are off"),
    ],
)
def test_a_connection_that_is_not_well_is_named(
    server: LocalServer, studio: FakeStudio, connection: dict[str, str], check: str, sentence: str
) -> None:
    studio.label_config = SMART
    studio.backends[0] |= connection
    findings = found(server)
    assert ill(findings)[check] == "FAIL"
    assert sentence in findings[check].text


def test_regions_of_labels_that_are_gone_count(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of annotations that came with imported tasks, too, which no summary counts."""
    monkeypatch.setattr(studio, "_summary", dict)
    named = {"mask": ("“House” (12)", 'alias="House"'), "tag": ("the control “tag”", 'name="tag"')}
    for control, texts in named.items():
        studio.annotate(11, [GONE | {"from_name": control}] * 12)
        finding = found(server)["annotations"]
        assert finding.mark == "warn"
        assert [each for each in ("12 regions", *texts) if each not in finding.text] == []


def test_a_busy_label_studio_has_no_broken_annotation(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.annotate(11, [])
    studio.fault = lambda asked: time.sleep(1) if asks_for_whole(asked, 11) else None
    monkeypatch.setattr(checks, "PAGE_WAIT_S", 0.5)
    assert "annotations" not in ill(found(server))


def test_an_annotation_that_is_not_served_is_named(server: LocalServer, studio: FakeStudio) -> None:
    studio.tasks[12] = studio.tasks[11]
    studio.annotate(11, [])
    ids = [studio.annotate(12, [], 1.0)["id"] for _ in range(2)]
    broken = f"/api/annotations/{ids[1]}/", "/api/projects/7/summary/"
    studio.fault = lambda a: Answer(500) if a.path in broken or asks_for_whole(a, 12) else None
    findings = found(server)
    finding = findings["annotations"]
    assert ill(findings) == {"annotations": "FAIL"}
    assert finding.mark == "FAIL"
    assert f"Task 12 (that one alone: DELETE {server.url}{broken[0]})" in finding.text
    assert "1 of 2 tasks" in finding.text


def test_nothing_is_set_or_nothing_answers() -> None:
    reach = {"label_studio_url": "http://127.0.0.1:1"}
    for given, sentence in (
        ({}, "LABEL_STUDIO_URL is not set"),
        (reach, "LABEL_STUDIO_API_KEY is not set"),
        (reach | {"label_studio_api_key": TOKEN}, "cannot be reached (ConnectionError)"),
    ):
        first, *others = check_setup(load_settings(**given), 7)
        assert first.mark == "FAIL"
        assert sentence in first.text
        assert {each.mark for each in others} == {"-"}


def test_a_slow_label_studio_is_slow_and_not_absent(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.fault = lambda asked: time.sleep(1) if "whoami" in asked.path else None
    monkeypatch.setattr(checks, "PAGE_WAIT_S", 0.3)
    text = found(server)["label studio"].text
    assert "It is there: check again" in text
    assert "Start Label Studio" not in text


def test_the_scheme_is_named_where_the_other_one_answers(
    server: LocalServer, studio: FakeStudio
) -> None:
    up = Answer(200, b'{"status": "UP"}')
    studio.fault = lambda asked: up if asked.path == "/health" else None
    secure = server.url.replace("http://", "https://")
    text = found(server, label_studio_url=secure)["label studio"].text
    assert f"answers by http there, not by https: set LABEL_STUDIO_URL={server.url}." in text


def test_where_there_is_no_such_project_those_that_there_are_are_named(
    server: LocalServer, studio: FakeStudio
) -> None:
    studio.project, studio.titles = 9, {9: "Roads", 8: "Trees"}
    text = found(server)["project"].text
    assert text == (
        "Label Studio shows no project 7 to this token. There are: 9 “Roads”, 8 “Trees”."
    )


def test_another_server_in_place_of_one_of_them(server: LocalServer, backend_url: str) -> None:
    with LocalServer(lambda _: Answer(body=b"<html>")) as other:
        assert "is not the address at which Label Studio" in found(other)["label studio"].text
    assert ill(found(server, backend_url=server.url)) == {"backend": "FAIL"}
    nobody = found(server, backend_url="http://127.0.0.1:1")
    assert "cannot be reached from here" in nobody["backend"].text
    assert nobody["prediction"].mark == "-"


def test_a_picture_of_each_kind_of_address_is_read(server: LocalServer, studio: FakeStudio) -> None:
    studio.files["/data/upload/7/b.png"] = PNG
    addresses = ["/data/upload/7/a.png", "/data/upload/7/b.png", data_url(flag("red"))]
    addresses += ["/data/upload/7/a.png"] * 60  # most are not looked at
    addresses += ["/data/local-files/?d=gone.png", "s3://bucket/a.png", "/data/local-files/?d=b"]
    for number, address in enumerate(addresses):
        studio.tasks[20 + number] = {"image": address}
        studio.made[20 + number] = number
    del studio.tasks[11]
    text = found(server)["pictures"].text
    assert text.startswith("2 of 4 kinds of address cannot be read")
    assert "no local storage of the task's project" in text
    assert "Task 84: s3://bucket/a.png is not handed out (HTTP 404): connect the bucket" in text
    assert "Task 83" not in text
    studio.tasks = {task: studio.tasks[task] for task in range(20, 83)}
    assert found(server)["pictures"].text.endswith(
        ": /data/upload/ (task 20, 60 x 40 px), data: (task 22, 60 x 40 px)."
    )
    studio.files["/data/upload/7/c.png"], studio.tasks[21] = PNG[:40], {"text": "no picture"}
    studio.tasks[20] = {"image": "/data/upload/7/c.png"}
    some = found(server)
    assert (ill(some).get("pictures"), some["prediction"].mark) == ("warn", "ok")
    assert {"20:", "21:"} <= {*some["pictures"].text.split()}


def test_without_a_project_both_servers_are_checked(server: LocalServer) -> None:
    reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
    findings = {f.name: f.mark for f in check_setup(load_settings(**reach, port=1), None)}
    assert findings == {"label studio": "ok", "settings": "ok", "backend": "FAIL"}


def test_settings_that_are_wrong_without_a_word(
    server: LocalServer, studio: FakeStudio, backend_url: str
) -> None:
    for given, mark, sentence in (
        ({"database_url": "postgresql://a:b@127.0.0.1:1/c"}, "FAIL", "127.0.0.1"),
        ({"auto_prelabel": "7,8"}, "warn", "names 8, "),
        ({"click_model": "/nowhere/sam2"}, "FAIL", "CLICK_MODEL: There are no weights at /nowhere"),
        ({"label_studio_browser_url": server.url}, "warn", "does not answer as Label Studio"),
    ):
        finding = found(server, **given)["settings"]
        assert finding.mark == mark
        assert sentence in finding.text
    itself = {"label_studio_url": backend_url, "label_studio_api_key": TOKEN}
    first, *_ = check_setup(load_settings(**itself), 7)
    assert "is the backend itself" in first.text


def test_a_picture_that_is_very_large(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_LARGE_MEGAPIXELS", 0.001)
    assert found(server)["pictures"].mark == "warn"


def test_another_backend_gets_no_password(server: LocalServer, studio: FakeStudio) -> None:
    lock = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}
    with LocalServer(lambda _: Answer(body=b'{"status": "UP"}')) as other:
        studio.backends[0]["url"] = other.url
        assert "not as this backend" in found(server, **lock)["backend"].text
    assert other.asked == [Asked("GET", "/health", None)]


@pytest.fixture
def licence_check(packages: Packages) -> None:
    """Install the check of the guide, as another package."""
    blocks = blocks_of_guide("Add a check")
    point = re.search(r"^licence = .*$", blocks["toml"], re.MULTILINE)
    assert point is not None
    packages.install(
        "clearclip_licence", blocks["py"], "clearclip.checks", point[0].replace('"', "")
    )


@pytest.mark.usefixtures("licence_check")
def test_the_check_of_the_guide_is_made_last(server: LocalServer, studio: FakeStudio) -> None:
    reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
    *_, last = check_setup(load_settings(**reach), 7)
    assert (last.name, last.mark) == ("licence", "warn")
    assert last.text.startswith("No licence: 1 task, first task 11.")


def test_an_unexpected_error_costs_its_own_check(
    server: LocalServer, packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "from backend.runs.checks import Check\n"
        "MINE = Check('mine', lambda setup: 1 / 0)\n"
        "LATER = Check('later', lambda setup: 'Well.', needs=('mine',))\n"
        "OTHER = Check('other', lambda setup: 'Well.')\n"
    )
    points = ("mine = faulty:MINE", "later = faulty:LATER", "other = faulty:OTHER")
    packages.install("faulty", code, "clearclip.checks", *points)
    reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
    results = {each.name: each for each in check_setup(load_settings(**reach), 7)}
    marks = {name: results[name].mark for name in ("mine", "later", "other")}
    assert marks == {"mine": "FAIL", "later": "-", "other": "ok"}
    assert "(ZeroDivisionError)" in results["mine"].text
    assert "division by zero" in caplog.text
