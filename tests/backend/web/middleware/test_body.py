"""Bodies that are too large or too slow are refused; large ones within the limit are not."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from backend.web.middleware.body import REFUSED, Refusal
from tests.backend.web.requests_to_app import RED, error_of, make_app, predict_body


def test_a_body_over_the_limit_is_413() -> None:
    client = make_app(max_body_mb=1).test_client()
    response = client.post("/predict", data=b" " * ((1 << 20) + 1))
    assert response.status_code == 413
    assert "MAX_BODY_MB" in error_of(response)


@pytest.mark.parametrize(
    ("refusal", "status", "sentence"),
    [
        (Refusal.TOO_SLOW, 408, "REQUEST_TIMEOUT_S (0.2)"),
        (Refusal.TOO_LARGE, 413, "MAX_BODY_MB (256)"),
        (Refusal.BROKEN, 400, "it ends early"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_the_server_says_why_a_body_has_not_arrived(
    path: str, refusal: Refusal, status: int, sentence: str
) -> None:
    app = make_app(request_timeout_s=0.2)
    environ = create_environ(path, method="POST") | {REFUSED: refusal}
    response = Response.from_app(app, environ)
    assert response.status_code == status
    assert sentence in error_of(response)


def test_a_body_of_64_mb_of_old_annotations_is_normal(client: FlaskClient) -> None:
    task = RED | {"annotations": [{"result": [{"value": {"rle": [255] * 100}}]}]}
    body = json.dumps(predict_body(task)).encode()
    padded = body[:-1] + b', "old": "' + b"x" * (64 << 20) + b'"}'
    response = client.post("/predict", data=padded, content_type="application/json")
    assert response.status_code == 200
    assert json.loads(response.data)["results"][0]["result"]
