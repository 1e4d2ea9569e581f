"""Predictions and annotations are stored once each, however answers get lost."""

from __future__ import annotations

from typing import Any

from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.fakes.local_server import Answer, Asked

VERSION = "demo clearclip 12ab"
ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}


def test_predictions_are_written_in_one_request_and_never_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.add(2, VERSION)
    assert client.prediction_writer.write(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.imports == [9]
    assert client.prediction_writer.write(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.stored() == dict.fromkeys(range(1, 11), 1)


def test_an_answer_that_is_lost_does_not_store_them_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.late = 1
    assert client.prediction_writer.write(7, VERSION, {1: ENTRY, 2: ENTRY}) == {}
    assert studio.stored() == {1: 1, 2: 1}
    assert studio.imports == [2]


def test_one_that_is_not_taken_costs_no_other(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.refused = {2}
    refused = client.prediction_writer.write(7, VERSION, {1: ENTRY, 2: ENTRY, 3: ENTRY})
    assert refused.keys() == {2}
    assert "no label" in refused[2]
    assert studio.stored() == {1: 1, 3: 1}


def test_what_is_too_large_for_a_proxy_is_sent_in_parts(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    def fault(asked: Asked) -> Answer | None:
        return Answer(413, b"<h1>413</h1>") if len(asked.body) > 500 else None

    studio.fault = fault
    entries = dict.fromkeys(range(1, 26), ENTRY) | {7: ENTRY | {"result": ["x" * 500]}}
    refused = client.prediction_writer.write(7, VERSION, entries)
    assert refused.keys() == {7}
    assert "client_max_body_size" in refused[7]
    assert studio.stored() == dict.fromkeys(entries.keys() - {7}, 1)


def test_tasks_that_are_gone_are_no_error(client: LabelStudioClient, studio: FakeStudio) -> None:
    assert client.prediction_writer.write(7, VERSION, {1: ENTRY, 999: ENTRY}) == {}
    assert studio.stored() == {1: 1}
    assert client.prediction_writer.write(7, VERSION, {}) == {}


def test_an_answer_that_is_lost_does_not_store_an_annotation_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.late = 1
    assert client.annotation_writer.write(2, "masks", [{"id": "a"}]) == ""
    assert client.annotation_writer.write(2, "masks", [{"id": "a"}]) == ""
    (stored,) = studio.annotations.values()
    assert stored["result"] == [{"id": "a"}]
    assert "404" in client.annotation_writer.write(999, "masks", [])
