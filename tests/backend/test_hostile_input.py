"""Requests that no Label Studio sends, through the whole application: never a 500, never a crash.

Each is followed by a good request, which has its masks.
"""

import base64
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import create_app
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.local_server import Answer, LocalServer

GOOD_TASK = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}
GOOD = {"tasks": [GOOD_TASK], "label_config": brush_config("red"), "project": "1.7"}
FUZZ = settings(max_examples=60)


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(Settings(max_image_megapixels=1, max_image_mb=1), colour_engine())


@pytest.fixture(autouse=True)
def _all_is_foreseen_and_the_next_good_request_works(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    yield
    assert [record.exc_text for record in caplog.records if record.exc_info] == []
    response = app.test_client().post("/predict", json=GOOD)
    assert response.status_code == 200
    assert json.loads(response.data)["results"][0]["result"]


def ask(app: Flask, body: Any, path: str = "/predict") -> Any:
    """The answer to a body, which is one of those that are allowed."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = app.test_client().post(path, data=raw, content_type="application/json")
    answer = json.loads(response.data)
    assert response.status_code in (200, 400), answer
    if response.status_code == 400:
        assert set(answer) == {"error"}
        assert "Traceback" not in answer["error"]
    return answer


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "\ud800", "\0", "${image}", "$image", "9" * 5000]
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # others are no JSON
NUMBERS = st.integers() | FINITE | st.sampled_from([1e308, -0.0, 2**63, 10**400])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PERCENT = st.floats(-20, 120) | SCALARS
ADDRESSES = JSON | st.sampled_from(
    [
        GOOD_TASK["data"]["image"],  # type: ignore[index]
        *("file:///etc/passwd", "/data/../etc/passwd", "http://127.0.0.1:1/", "http://[", "data:"),
        *("http://%00/", "http://a..b/", "http://" + "a" * 300, "http://\ud800/", "s3://b/\ud800"),
        *("data:image/png;base64,\ud800", "data:,%ff%d8%ff", "https://user:pass@[::1]:99999/"),
    ]
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("x", "y", "width", "height", "rotation"), PERCENT),
        "keypointlabels": st.just(["red"]) | JSON,
        "rectanglelabels": st.just(["red"]) | JSON,
        "text": st.just(["red thing, blue"]) | st.lists(TEXTS, max_size=2) | JSON,
    },
)
REGIONS = JSON | st.fixed_dictionaries(
    {
        "type": st.sampled_from(["keypointlabels", "rectanglelabels", "textarea"]) | TEXTS,
        "value": VALUES | JSON,
    },
    optional={
        "from_name": st.sampled_from(["click", "box", "words", "mask"]) | JSON,
        "to_name": st.just("image") | JSON,
        **dict.fromkeys(("original_width", "original_height", "item_index"), NUMBERS),
        **dict.fromkeys(("is_positive", "id"), JSON),
    },
)
VERSIONS = st.lists(
    JSON | st.fixed_dictionaries({"result": st.lists(REGIONS, max_size=2) | JSON}), max_size=2
)
TASKS = JSON | st.fixed_dictionaries(
    {"data": JSON | st.fixed_dictionaries({"image": ADDRESSES})},
    optional={"id": JSON, "project": JSON, "drafts": VERSIONS, "annotations": VERSIONS | JSON},
)
LABELS = '<Label value="red"/><Label value="blue" alias="b"/>'
CONFIG = f"""<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image" overlap="false">{LABELS}</BrushLabels>
<KeyPointLabels name="click" toName="image" smart="true">{LABELS}</KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>
<TextArea name="words" toName="image"/></View>"""
BODIES = st.fixed_dictionaries(
    {"tasks": st.lists(TASKS, max_size=3) | JSON, "label_config": st.just(CONFIG) | JSON},
    optional={
        "project": JSON,
        "params": JSON
        | st.fixed_dictionaries(
            {"context": st.fixed_dictionaries({"result": st.lists(REGIONS, max_size=3)}) | JSON}
        ),
    },
)


@FUZZ
@given(body=BODIES)
def test_bodies(app: Flask, body: Any) -> None:
    answer = ask(app, body)
    if "results" in answer:
        assert len(answer["results"]) == len(body["tasks"])


@pytest.mark.parametrize("task_id", [1 << 63, -(1 << 63) - 1, 10**30])
def test_ids_that_no_database_holds(app: Flask, task_id: int) -> None:
    answer = ask(app, {"tasks": [GOOD_TASK | {"id": task_id}], "label_config": CONFIG})
    assert len(answer["results"]) == 1


@FUZZ
@given(body=BODIES | JSON)
def test_setups(app: Flask, body: Any) -> None:
    config = body.get("label_config", "") if isinstance(body, dict) else ""
    ask(app, {"schema": config, "hostname": config, "project": body}, path="/setup")
    ask(app, body, path="/setup")


FIELDS = st.sampled_from(
    [
        *("project", "filter", "view", "limit", "number", "label", "row", "annotation", "updated"),
        *("formats", "split", "annotations", "wordings", "pictures", "renamed", "background"),
    ]
)


@FUZZ
@given(
    body=st.dictionaries(FIELDS, JSON, max_size=4)
    | st.dictionaries(FIELDS, st.sampled_from([1, 7, 2**31, 2**63, "a", ["coco"]]), max_size=3),
    ids=st.sampled_from(["1", "2147483647", "2147483648", "0", "-1", "a"]),
    is_form=st.booleans(),
    accept=st.sampled_from(["text/html", "application/json"]),
)
def test_what_pages_send(app: Flask, body: Any, ids: str, is_form: bool, accept: str) -> None:
    """To all routes that change something, with the same number for each in the address."""
    raw = {name: str(value) for name, value in body.items()} if is_form else json.dumps(body)
    parameter = re.compile(r"<(?:any\('([\w-]+)'.*?\)|.*?):\w+>")
    for rule in app.url_map.iter_rules():
        if "POST" in (rule.methods or ()):
            path = parameter.sub(lambda found: found[1] or ids, rule.rule)
            answer = app.test_client().post(path, data=raw, headers={"Accept": accept})
            assert answer.status_code < 500, (path, answer.data)


@FUZZ
@given(raw=st.binary(max_size=40) | st.sampled_from([b"[" * 200_000, b'{"tasks":' * 50_000]))
def test_bytes(app: Flask, raw: bytes) -> None:
    for path in ("/predict", "/setup"):
        assert "error" in ask(app, raw, path)
    assert app.test_client().post("/webhook", data=raw).status_code in (200, 400)


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:{port}/secret", "http://localhost:{port}/secret"),
        *("http://0177.0.0.1:{port}/secret", "http://pictures.example:{port}/secret"),
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://metadata.google.internal/computeMetadata/v1/",
        *("file:///etc/passwd", "file://localhost/etc/passwd", "/etc/passwd", "../../etc/passwd"),
        *("/data/local-files/?d=../../../etc/passwd", "/data/upload/%2e%2e/%2e%2e/etc/passwd"),
        *("/data/upload/..%2f..%2fetc%2fpasswd", "ftp://127.0.0.1:{port}/secret"),
        *("gopher://127.0.0.1:{port}/secret", "jar:http://127.0.0.1:{port}/secret"),
    ],
)
def test_addresses_that_lead_inside(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after /setup has said that Label Studio is there, which anybody may say."""
    names = {"pictures.example": "127.0.0.1", "metadata.google.internal": "169.254.169.254"}
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **o: real(names.get(host, host), *a, **o)
    )
    picture = base64.b64decode(data_url(flag("red")).partition(",")[2])
    app = create_app(Settings(), colour_engine())
    with LocalServer(lambda _: Answer(body=picture)) as inside:
        taught = {"schema": brush_config("red"), "hostname": inside.url, "access_token": "c" * 40}
        ask(app, taught, path="/setup")
        task = {"id": 3, "data": {"image": address.replace("{port}", str(inside.port))}}
        assert ask(app, GOOD | {"tasks": [task]})["results"] == [[]]
    assert inside.asked == []
    (line,) = [record.message for record in caplog.records if "Task 3" in record.message]
    assert "no public address" in line or "no address of an image" in line or "cannot be" in line
