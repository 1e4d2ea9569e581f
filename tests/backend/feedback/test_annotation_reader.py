"""Annotations through the API of a stand-in for Label Studio: what is kept, learned, forgotten."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush

from backend.database.database import Database
from backend.errors import (
    StudioRefused,
    StudioUnreachable,
)
from backend.feedback import annotation_reader
from backend.feedback.annotation_reader import AnnotationReader, read_all
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import AnnotationDiff
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

OURS = "ViT-B-16/openai clearclip 12ab34cd"


def region(id_: str, label: str, columns: int, **more: Any) -> dict[str, Any]:
    """A brush region of 4 x 8 px: so many columns of it, from the left."""
    mask = np.zeros((4, 8), dtype=np.uint8)
    mask[:, :columns] = 255
    value = {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": [label]}
    size = {"original_width": 8, "original_height": 4}
    names = {"id": id_, "type": "brushlabels", "from_name": "mask", "to_name": "image"}
    return names | size | {"value": value} | more


@dataclass
class Notebook:
    """Takes down what there was to learn."""

    known: dict[int, AnnotationDiff] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)

    def learn(self, corrected: AnnotationDiff) -> None:
        self.known[corrected.annotation] = corrected

    def forget(self, annotation: int) -> None:
        self.known.pop(annotation, None)
        self.forgotten.append(annotation)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red", "blue"), {i: {"image": f"{i}.png"} for i in range(1, 9)})


@pytest.fixture
def annotations(tmp_path: Path) -> AnnotationStore:
    return AnnotationStore(Database(f"sqlite:///{tmp_path}/own.db"), "me")


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def reader(
    server: LocalServer, annotations: AnnotationStore, notebook: Notebook
) -> AnnotationReader:
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01)
    return AnnotationReader(annotations, client, notebook)


def read(reader: AnnotationReader, annotations: AnnotationStore, *ids: int) -> list[ReadAnnotation]:
    annotations.mark(7, ids)
    while reader.read_some():
        pass
    assert annotations.count_open() == 0
    return annotations.read(7)


def test_one_that_cannot_be_read_is_kept_as_broken_and_holds_up_none(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    notebook: Notebook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compare = annotation_reader.compare_annotation

    def fail_on_one(predicted: Any, result: Any, *more: Any) -> Any:
        return 1 / 0 if result[0]["id"] == "odd" else compare(predicted, result, *more)

    monkeypatch.setattr(annotation_reader, "compare_annotation", fail_on_one)
    good = [region("a", "red", 4)]
    made = [
        studio.annotate(1, good, 1.0),
        studio.annotate(2, [region("odd", "red", 4)], 2.0),  # an error of ours
        studio.annotate(3, good, 3.0, project=None),
        studio.annotate(4, good, 4.0, completed_by=1 << 70),  # no integer of a database
        studio.annotate(5, good, 5.0),
    ]
    annotations.mark(7, [each["id"] for each in made])
    assert reader.read_some() == 5
    assert annotations.count_open() == 0
    rows = {row.annotation: row for row in annotations.read(7)}
    first, odd, homeless, huge, last = (rows[each["id"]] for each in made)
    assert (first.kind, last.kind) == ("scratch", "scratch")
    assert (odd.kind, odd.task, odd.created) == ("broken", 2, 2.0)
    assert odd.reason == "Unexpected ZeroDivisionError: see the backend's log."
    assert (homeless.kind, huge.kind) == ("broken", "broken")
    assert "names no task or no project" in homeless.reason
    assert "OverflowError" in huge.reason
    assert set(notebook.known) >= {first.annotation, last.annotation}
    monkeypatch.setattr(annotation_reader, "compare_annotation", compare)
    assert {row.kind for row in read(reader, annotations, odd.annotation)} == {"scratch", "broken"}
    assert next(row for row in annotations.read(7) if row.annotation == odd.annotation).reason == ""


def test_an_annotation_is_compared_with_the_prediction_that_it_began_with(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    studio.add(1, OURS, result=[region("x", "red", 1)])
    prediction = studio.add(1, OURS, result=[region("a", "red", 4), region("b", "blue", 1)])
    result = [region("a", "red", 6)]
    made = studio.annotate(
        1, result, 1e9, parent_prediction=prediction, lead_time=12.5, completed_by=3
    )
    (row,) = read(reader, annotations, made["id"])
    assert (row.kind, row.version, row.task, row.seconds, row.annotator) == (
        "compared",
        OURS,
        1,
        12.5,
        3,
    )
    assert (row.created, row.updated) == (1e9, 1e9)
    red, blue = row.changes
    assert (red.corrected, red.true_px, red.predicted_px, red.shared_px) == (1, 24, 16, 16)
    assert (blue.deleted, blue.predicted_px) == (1, 4)
    (picture,) = notebook.known[row.annotation].pictures
    assert notebook.known[row.annotation].task.data == {"image": "1.png"}
    assert picture.final["red"].sum() == 24
    removed = {label: mask.sum() for label, mask in picture.evidence.removed.items()}
    assert removed == {"red": 0, "blue": 4}


def test_annotators_are_told_apart_by_a_key_that_names_nobody(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    made = [
        studio.annotate(1, [region("a", "red", 6)], completed_by=user) for user in (3, 4, 3, None)
    ]
    read(reader, annotations, *(each["id"] for each in made))
    first, other, again, unknown = (notebook.known[each["id"]].annotator for each in made)
    assert first == again != other
    assert unknown == ""
    assert len(first) == 12
    assert first.strip("0123456789abcdef") == ""


def test_what_stands_as_a_prediction_showed_it_was_kept_wherever_it_came_from(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    ours, foreign = (
        studio.add(1, version, result=[region("a", "red", 4)]) for version in (OURS, "yolo")
    )
    left = [region("a", "red", 4, origin="prediction"), region("n", "blue", 2, origin="manual")]
    for prediction in (ours, foreign, 99):
        made = studio.annotate(1, left, parent_prediction=prediction)
        read(reader, annotations, made["id"])
        (picture,) = notebook.known[made["id"]].pictures
        assert list(picture.evidence.kept) == ["red"]
        assert sorted(picture.evidence.masks) == ["blue", "red"]


@pytest.mark.parametrize(
    ("more", "kind", "origin"),
    [
        ({}, "scratch", "manual"),
        ({"parent_annotation": 1}, "copy", "manual"),
        ({}, "lost", "prediction-changed"),
        ({"parent_prediction": 99}, "lost", "prediction"),
        ({"was_cancelled": True}, "skipped", "manual"),
        ({"parent_prediction": -1}, "foreign", "prediction"),
    ],
)
def test_what_began_otherwise_is_not_compared(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    notebook: Notebook,
    more: dict[str, Any],
    kind: str,
    origin: str,
) -> None:
    foreign = studio.add(1, "yolo", result=[region("a", "red", 4)])
    if more.get("parent_prediction") == -1:
        more = {"parent_prediction": foreign}
    made = studio.annotate(1, [region("a", "red", 6, origin=origin)], **more)
    (row,) = read(reader, annotations, made["id"])
    assert (row.kind, row.version, row.changes) == (kind, "", ())
    assert (made["id"] in notebook.known) == (kind != "skipped")


@pytest.mark.parametrize("version", [OURS, "yolo"])
def test_predictions_that_were_made_annotations_teach_nothing_until_somebody_changes_them(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    notebook: Notebook,
    version: str,
) -> None:
    prediction = studio.add(1, version, result=[region("a", "red", 4)])
    made = studio.annotate(
        1, [region("a", "red", 4)], 1e9, parent_prediction=prediction, lead_time=None
    )
    (row,) = read(reader, annotations, made["id"])
    assert (row.kind, row.version, row.changes) == ("converted", "", ())
    studio.predictions.clear()
    made["parent_prediction"] = None
    assert [row.kind for row in read(reader, annotations, made["id"])] == ["converted"]
    assert notebook.known == {}
    made |= {"result": [region("a", "red", 6)], "updated_at": "2026-11-25T12:00:00Z"}
    assert [row.kind for row in read(reader, annotations, made["id"])] == ["lost"]
    assert list(notebook.known) == [made["id"]]


@pytest.mark.parametrize("more", [{"lead_time": 2.0}, {"result": [region("a", "red", 6)]}])
def test_what_somebody_has_looked_at_or_changed_is_compared(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    notebook: Notebook,
    more: dict[str, Any],
) -> None:
    prediction = studio.add(1, OURS, result=[region("a", "red", 4)])
    made = studio.annotate(1, [region("a", "red", 4)], parent_prediction=prediction, lead_time=None)
    made |= more
    assert [row.kind for row in read(reader, annotations, made["id"])] == ["compared"]
    assert list(notebook.known) == [made["id"]]


@pytest.mark.parametrize("origin", ["prediction-changed", "manual"])
def test_what_was_compared_stays_so_when_the_prediction_is_deleted(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    notebook: Notebook,
    origin: str,
) -> None:
    prediction = studio.add(1, OURS, result=[region("a", "red", 4)])
    made = studio.annotate(
        1, [region("a", "red", 6, origin=origin)], 1e9, parent_prediction=prediction
    )
    before = read(reader, annotations, made["id"])
    assert before[0].changes[0].corrected == 1
    studio.predictions.clear()
    made["parent_prediction"] = None  # as Label Studio has it then
    reader.mark_project(7)
    assert read_all(reader, 7, threading.Event(), lambda _: None) == 1
    assert annotations.read(7) == before
    made |= {"result": [region("a", "red", 8)], "lead_time": 20.0}
    (row,) = read(reader, annotations, made["id"])
    assert (row.changes, row.version, row.seconds) == (before[0].changes, OURS, 20)
    assert notebook.known[made["id"]].pictures[0].final["red"].sum() == 32


def test_what_is_changed_emptied_or_deleted_later(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    prediction = studio.add(1, OURS, result=[region("a", "red", 4)])
    made = studio.annotate(1, [region("a", "red", 4)], parent_prediction=prediction)
    assert read(reader, annotations, made["id"])[0].changes[0].accepted == 1
    made["result"] = [region("a", "red", 2)]
    assert read(reader, annotations, made["id"])[0].changes[0].corrected == 1
    assert notebook.known[made["id"]].pictures[0].final["red"].sum() == 8
    made["result"] = []
    assert read(reader, annotations, made["id"])[0].changes[0].deleted == 1
    assert notebook.known == {}
    studio.annotations.clear()
    assert read(reader, annotations, made["id"]) == []
    assert notebook.forgotten == [made["id"]] * 2


def test_an_annotation_whose_task_is_gone_or_that_never_was(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    made = studio.annotate(1, [region("a", "red", 4)])
    assert len(read(reader, annotations, made["id"], 12345)) == 1
    del studio.tasks[1]
    assert read(reader, annotations, made["id"]) == []
    assert (notebook.known, notebook.forgotten) == ({}, [12345, made["id"]])


def test_what_cannot_be_read_is_told_and_stops_nobody(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    broken = studio.annotate(1, [region("a", "red", 4) | {"original_width": None}])
    good = studio.annotate(2, [region("a", "red", 4)])
    first, second = read(reader, annotations, broken["id"], good["id"])
    assert (first.kind, second.kind) == ("broken", "scratch")
    assert "size of its picture" in first.reason
    studio.label_config = "<View><Text name='t' value='$t'/></View>"
    (first, second) = read(reader, annotations, good["id"])
    assert (first.kind, second.kind) == ("broken", "broken")
    assert "Image" in second.reason
    assert notebook.known == {}


def test_what_takes_too_much_work_or_memory_is_told_and_stops_nobody(
    reader: AnnotationReader,
    annotations: AnnotationStore,
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 200_000)
    large = region("a", "red", 4) | {"meta": {"text": "x" * 200_000}}
    wide = region("a", "red", 4) | {"original_width": 1 << 15, "original_height": 1 << 14}
    made = [
        studio.annotate(1, [large]),
        studio.annotate(2, [wide]),
        studio.annotate(3, [region("a", "red", 4)]),
    ]
    first, second, third = read(reader, annotations, *(each["id"] for each in made))
    assert (first.kind, second.kind, third.kind) == ("broken", "broken", "scratch")
    assert "sends more than 0 MB" in first.reason
    assert "Its picture is too large" in second.reason
    assert reader.mark_project(7) == 2, "that of task 1 is too large"


def test_one_that_label_studio_chokes_on_lets_the_others_pass(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio
) -> None:
    ids = [studio.annotate(n, [region("a", "red", n)])["id"] for n in (1, 2, 3)]

    def choke(asked: Asked) -> Answer | None:
        return Answer(500) if f"/api/annotations/{ids[2]}" in asked.path else None

    studio.fault = choke
    annotations.mark(7, ids)
    with pytest.raises(StudioUnreachable):
        reader.read_some()
    assert reader.read_some() == 2
    assert [row.annotation for row in annotations.read(7)] == ids[:2]
    assert annotations.count_open() == 1
    studio.fault = lambda _: None
    annotations.mark(7, ids[2:])
    assert reader.read_some() == 1
    assert annotations.count_open() == 0


def test_a_token_that_is_refused_forgets_nothing(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    made = studio.annotate(1, [region("a", "red", 4)])
    read(reader, annotations, made["id"])
    studio.fault = lambda _: Answer(403)
    annotations.mark(7, [made["id"]])
    with pytest.raises(StudioRefused):
        reader.read_some()
    assert len(annotations.read(7)) == 1
    assert notebook.forgotten == []


def test_a_project_is_read_from_the_beginning(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio
) -> None:
    prediction = studio.add(1, OURS, result=[region("a", "red", 4)])
    for task in (1, 2, 2):
        studio.annotate(task, [region("a", "red", 4)], parent_prediction=prediction)
    gone = studio.annotate(3, [region("a", "red", 4)])
    assert len(read(reader, annotations, gone["id"])) == 1
    del studio.annotations[gone["id"]]
    found: list[int] = []
    assert reader.mark_project(7, found.append) == 3
    assert found == [1, 3]
    assert read_all(reader, 7, threading.Event(), found.append) == 4
    assert [row.task for row in annotations.read(7)] == [1, 2, 2]
    reader.mark_project(7)
    assert reader.read_some(pause=lambda: True) == 0
    answers = iter([False, False, True])
    assert reader.read_some(pause=lambda: next(answers)) == 2
    assert annotations.count_open() == 1
    assert reader.read_some() == 1, "what was left was given back"


def test_what_is_gone_without_a_word_is_found(
    reader: AnnotationReader, annotations: AnnotationStore, studio: FakeStudio, notebook: Notebook
) -> None:
    made = [studio.annotate(task, [region("a", "red", 4)])["id"] for task in (1, 2, 3, 4)]
    read(reader, annotations, *made)
    del studio.tasks[1], studio.annotations[made[0]], studio.annotations[made[1]]
    reader.mark_gone(7, [*made[:3], 999])
    assert reader.read_some() == 2
    assert sorted(notebook.known) == made[2:]
    assert [row.annotation for row in annotations.read(7)] == made[2:]
    reader.mark_gone(7, [])
    assert reader.read_some() == 0


def test_who_has_lost_the_lease_has_it_read_again(
    server: LocalServer, annotations: AnnotationStore, studio: FakeStudio, tmp_path: Path
) -> None:
    """Another may have read what was there before, and have come last."""
    made = studio.annotate(1, [region("a", "red", 4)])
    other = AnnotationStore(Database(f"sqlite:///{tmp_path}/own.db", lambda: 4e9), "other")

    class Slow(Notebook):
        def learn(self, corrected: AnnotationDiff) -> None:
            super().learn(corrected)
            other.lease(1)

    notebook = Slow()
    reader = AnnotationReader(annotations, LabelStudioClient(server.url, TOKEN), notebook)
    annotations.mark(7, [made["id"]])
    assert reader.read_some() == 1
    assert annotations.read(7) == []
    assert other.count_open() == 1
