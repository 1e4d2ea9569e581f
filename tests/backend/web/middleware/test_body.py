"""Bodies that are too large are refused; large ones within the limit are not."""

from __future__ import annotations

import json

from flask.testing import FlaskClient

from tests.backend.web.requests_to_app import RED, error_of, make_app, predict_body


def test_a_body_over_the_limit_is_413() -> None:
    client = make_app(max_body_mb=1).test_client()
    response = client.post("/predict", data=b" " * ((1 << 20) + 1))
    assert response.status_code == 413
    assert "MAX_BODY_MB" in error_of(response)


def test_a_body_of_64_mb_of_old_annotations_is_normal(client: FlaskClient) -> None:
    task = RED | {"annotations": [{"result": [{"value": {"rle": [255] * 100}}]}]}
    body = json.dumps(predict_body(task)).encode()
    padded = body[:-1] + b', "old": "' + b"x" * (64 << 20) + b'"}'
    response = client.post("/predict", data=padded, content_type="application/json")
    assert response.status_code == 200
    assert json.loads(response.data)["results"][0]["result"]
