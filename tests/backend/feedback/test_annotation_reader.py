"""Annotations through the API of a stand-in for Label Studio: what is kept, learned, forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.database.database import Database
from backend.errors import ImageRefused, StudioRefused, StudioUnreachable
from backend.feedback import annotation_reader
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import PRELABELLED, ReadAnnotation
from backend.feedback.comparison import AnnotationDiff
from backend.label_studio.client import LabelStudioClient
from tests.backend.dataset.drawn_tasks import brush_region
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.label_studio import FakeStudio, asks_for_whole
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.fakes.report import rows_of

OURS = "ViT-B-16/openai clearclip 12ab34cd"


def region(id_: str, label: str, columns: int, **more: Any) -> dict[str, Any]:
    """A brush region of 4 x 8 px: so many columns of it, from the left."""
    mask = np.tile(np.arange(8) < columns, (4, 1))
    return brush_region(mask, label, id=id_, to_name="image", **more)


@dataclass
class Notebook:
    known: dict[int, AnnotationDiff] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    trouble: Exception | None = None

    def learn(self, corrected: AnnotationDiff) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.known[corrected.annotation] = corrected

    def forget(self, annotation: int) -> None:
        self.known.pop(annotation, None)
        self.forgotten.append(annotation)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red", "blue"), {i: {"image": f"{i}.png"} for i in range(1, 9)})


@dataclass(frozen=True)
class Desk:
    """A reader with what it reads, keeps and hands on; `read` reads annotations to the end."""

    studio: FakeStudio
    annotations: AnnotationStore
    notebook: Notebook
    reader: AnnotationReader
    client: LabelStudioClient
    database: Database

    @classmethod
    def of(
        cls, studio: FakeStudio, client: LabelStudioClient, database: Database, owner: str = "me"
    ) -> Desk:
        annotations, notebook = AnnotationStore(database, owner), Notebook()
        reader = AnnotationReader(annotations, client, notebook)
        return cls(studio, annotations, notebook, reader, client, database)

    def another(self, owner: str) -> Desk:
        """The desk of another backend."""
        return Desk.of(self.studio, self.client, self.database, owner)

    def mark(self, ids: Iterable[int]) -> None:
        there = self.studio.annotations
        self.annotations.mark(7, ids, {id_: there[id_]["task"] for id_ in ids if id_ in there})

    def read(self, *ids: int) -> list[ReadAnnotation]:
        self.mark(ids)
        while self.reader.read_some():
            pass
        assert self.annotations.count_open() == 0
        return rows_of(self.annotations)

    def read_one(self, made: dict[str, Any]) -> ReadAnnotation:
        return next(row for row in self.read(made["id"]) if row.annotation == made["id"])


@pytest.fixture
def desk(client: LabelStudioClient, studio: FakeStudio, tmp_path: Path) -> Desk:
    return Desk.of(studio, client, Database(f"sqlite:///{tmp_path}/own.db"))


def test_regions_of_labels_that_the_config_lacks_are_counted(desk: Desk) -> None:
    """They are those that a label's new name has left behind."""
    made = desk.studio.annotate(1, [region("a", "red", 4), region("b", "crimson", 4)])
    desk.read_one(made)
    (counts,) = (desk.annotations.region_counts(7).created_labels or {}).values()
    assert counts == {"red": 1, "crimson": 1}


def test_regions_of_a_skipped_task_do_not_count(desk: Desk) -> None:
    desk.read_one(desk.studio.annotate(1, [region("a", "crimson", 4)], was_cancelled=True))
    assert desk.annotations.region_counts(7).created_labels == {}


def test_an_annotation_that_ends_the_process_is_named_and_the_others_are_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [desk.studio.annotate(task, [region("a", "red", 4)]) for task in (1, 2, 3)]
    deadly = made[1]["id"]
    desk.mark([each["id"] for each in made])

    def learn(corrected: AnnotationDiff) -> None:
        if corrected.annotation == deadly:
            raise SystemExit("as if the process had died")

    for number in range(3):
        mortal = desk.another(f"dies-{number}")
        give_back = mortal.annotations.release

        def release(leased: Any, failed: Any = None, give_back: Any = give_back) -> None:
            if failed is None:  # who has died gives nothing back
                give_back(leased)

        monkeypatch.setattr(mortal.notebook, "learn", learn)
        monkeypatch.setattr(mortal.annotations, "release", release)
        with pytest.raises(SystemExit):
            mortal.read()
        end_leases(desk.database, table="annotations")
    rows = {row.annotation: row for row in desk.read()}
    assert [rows[each["id"]].kind for each in made] == ["scratch", "broken", "scratch"]
    assert f"while it read annotation {deadly} of task 2" in rows[deadly].reason


def test_what_cannot_be_read_holds_up_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = annotation_reader.compare_annotation

    def fail_on_one(predicted: Any, result: Any, *more: Any) -> Any:
        return 1 / 0 if result[0]["id"] == "odd" else compare(predicted, result, *more)

    monkeypatch.setattr(annotation_reader, "compare_annotation", fail_on_one)
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 200_000)
    good = region("a", "red", 4)
    wide = good | {"original_width": 1 << 15, "original_height": 1 << 14}
    broken: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (region("odd", "red", 4), {}, "Unexpected ZeroDivisionError: see the backend's log."),
        (good, {"completed_by": 1 << 70}, "OverflowError"),  # no integer of a database
        (good | {"original_width": None}, {}, "size of its picture"),
        (wide, {}, "Its picture is too large"),
        (good | {"meta": {"text": "x" * 200_000}}, {}, "sends more than 0 MB"),
    ]
    made = [
        desk.studio.annotate(n, [its], n * 1.0, **more)
        for n, (its, more, _) in enumerate(broken, 1)
    ]
    last = desk.studio.annotate(6, [good], 6.0)
    rows = {row.annotation: row for row in desk.read(*(each["id"] for each in (*made, last)))}
    for each, (_, _, reason) in zip(made, broken, strict=True):
        assert rows[each["id"]].kind == "broken"
        assert reason in rows[each["id"]].reason
    odd = rows[made[0]["id"]]
    assert (odd.task, odd.created, rows[last["id"]].kind) == (1, 1.0, "scratch")
    assert last["id"] in desk.notebook.known
    monkeypatch.setattr(annotation_reader, "compare_annotation", compare)
    assert (desk.read_one(made[0]).kind, desk.read_one(made[0]).reason) == ("scratch", "")
    desk.studio.label_config = "<View><Text name='t' value='$t'/></View>"
    assert "Image" in desk.read_one(last).reason


def test_an_annotation_is_compared_with_the_prediction_that_it_began_with(desk: Desk) -> None:
    desk.studio.add(1, OURS, result=[region("x", "red", 1)])
    shown = [region("a", "red", 4), region("b", "blue", 1)]
    prediction = desk.studio.add(1, OURS, 9e8, result=shown)
    told = {"parent_prediction": prediction, "lead_time": 12.5, "completed_by": 3}
    row = desk.read_one(desk.studio.annotate(1, [region("a", "red", 6)], 1e9, **told))
    assert (row.kind, row.version, row.predicted, row.task) == ("compared", OURS, 9e8, 1)
    assert (row.seconds, row.annotator, row.created, row.updated) == (12.5, 3, 1e9, 1e9)
    red, blue = row.changes
    assert (red.corrected, red.true_px, red.predicted_px, red.shared_px) == (1, 24, 16, 16)
    assert (blue.deleted, blue.predicted_px) == (1, 4)
    (picture,) = desk.notebook.known[row.annotation].images
    assert desk.notebook.known[row.annotation].task.data == {"image": "1.png"}
    assert picture.evidence.masks["red"].sum() == 24
    removed = {label: mask.sum() for label, mask in picture.evidence.removed.items()}
    assert removed == {"red": 0, "blue": 4}


def test_annotators_are_told_apart_by_a_key_that_names_nobody(desk: Desk) -> None:
    drawn = [region("a", "red", 6)]
    made = [desk.studio.annotate(1, drawn, completed_by=user)["id"] for user in (3, 4, 3, None)]
    desk.read(*made)
    first, other, again, unknown = (desk.notebook.known[each].annotator for each in made)
    assert first == again != other
    assert unknown == ""
    assert len(first) == 12
    assert first.strip("0123456789abcdef") == ""


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
def test_what_began_otherwise(desk: Desk, more: dict[str, Any], kind: str, origin: str) -> None:
    foreign = desk.studio.add(1, "yolo", result=[region("a", "red", 4)])
    if more.get("parent_prediction") == -1:
        more = {"parent_prediction": foreign}
    made = desk.studio.annotate(1, [region("a", "red", 6, origin=origin)], **more)
    row = desk.read_one(made)
    assert (row.kind, row.version, row.changes) == (kind, "", ())
    assert (made["id"] in desk.notebook.known) == (kind != "skipped")


def test_what_is_submitted_unchanged_within_seconds_is_counted_apart(desk: Desk) -> None:
    same = [region("a", "red", 4)]
    began: dict[str, Any] = {"parent_prediction": desk.studio.add(1, OURS, result=same)}
    hurried, looked, changed = (desk.studio.annotate(1, same, 1e9, **began) for _ in range(3))
    hurried["lead_time"], looked["lead_time"], changed["lead_time"] = 4.0, 5.0, 4.0
    changed["result"] = [region("a", "red", 6)]
    kinds = [desk.read_one(each).kind for each in (hurried, looked, changed)]
    assert kinds == ["unchecked", "compared", "compared"]
    sums = desk.annotations.sums(7)
    assert (sums.all.kinds, sums.all.total.accepted) == ({"unchecked": 1, "compared": 2}, 1)
    times = desk.annotations.newest_times(7, PRELABELLED, 9)
    assert sorted(each.seconds for each in times) == [4, 4, 5]


def test_regions_with_other_ids_are_not_unchanged(desk: Desk) -> None:
    began = desk.studio.add(1, OURS, result=[region("a", "red", 4)])
    anew = {"parent_prediction": began, "lead_time": 4.0}
    row = desk.read_one(desk.studio.annotate(1, [region("n", "red", 4)], 1e9, **anew))
    assert row.kind == "compared"


@pytest.mark.parametrize("version", [OURS, "yolo"])
def test_converted_predictions_teach_nothing_until_changed(desk: Desk, version: str) -> None:
    same = [region("a", "red", 4)]
    prediction = desk.studio.add(1, version, result=same)
    untimed: dict[str, Any] = {"parent_prediction": prediction, "lead_time": None}
    made, timed, changed = (desk.studio.annotate(1, same, 1e9, **untimed) for _ in range(3))
    timed["lead_time"], changed["result"] = 9.0, [region("a", "red", 6)]
    row = desk.read_one(made)
    assert (row.kind, row.version, row.changes) == ("converted", "", ())
    looked_at = "compared" if version == OURS else "foreign"
    assert [desk.read_one(each).kind for each in (timed, changed)] == [looked_at] * 2
    desk.studio.predictions.clear()
    made["parent_prediction"] = None
    assert desk.read_one(made).kind == "converted"
    assert made["id"] not in desk.notebook.known
    made |= {"result": [region("a", "red", 6)], "updated_at": "2026-11-25T12:00:00Z"}
    assert desk.read_one(made).kind == "lost"
    assert {*desk.notebook.known} == {made["id"], timed["id"], changed["id"]}


@pytest.mark.parametrize("origin", ["prediction-changed", "manual"])
def test_what_was_compared_stays_so_when_the_prediction_is_deleted(desk: Desk, origin: str) -> None:
    prediction = desk.studio.add(1, OURS, 9e8, result=[region("a", "red", 4)])
    drawn = [region("a", "red", 6, origin=origin)]
    made = desk.studio.annotate(1, drawn, 1e9, parent_prediction=prediction)
    before = desk.read_one(made)
    assert before.changes[0].corrected == 1
    desk.studio.predictions.clear()
    made["parent_prediction"] = None  # as Label Studio has it then
    assert desk.read_one(made) == before
    made |= {"result": [region("a", "red", 8)], "lead_time": 20.0}
    row = desk.read_one(made)
    assert (row.changes, row.version, row.seconds) == (before.changes, OURS, 20)
    assert desk.notebook.known[made["id"]].images[0].evidence.masks["red"].sum() == 32


def test_what_is_changed_emptied_or_deleted_later(desk: Desk) -> None:
    prediction = desk.studio.add(1, OURS, result=[region("a", "red", 4)])
    made = desk.studio.annotate(1, [region("a", "red", 4)], parent_prediction=prediction)
    assert desk.read_one(made).changes[0].accepted == 1
    made["result"] = [region("a", "red", 2)]
    assert desk.read_one(made).changes[0].corrected == 1
    assert desk.notebook.known[made["id"]].images[0].evidence.masks["red"].sum() == 8
    made["result"] = []
    assert desk.read_one(made).changes[0].deleted == 1
    assert desk.notebook.known == {}
    other = desk.studio.annotate(2, [region("a", "red", 4)])
    assert len(desk.read(other["id"], 12345)) == 2, "one never was"
    desk.studio.annotations.pop(made["id"])
    del desk.studio.tasks[2]
    assert desk.read(made["id"], other["id"]) == []
    assert desk.notebook.known == {}
    assert sorted(desk.notebook.forgotten) == sorted([12345, *[made["id"]] * 2, other["id"]])


def test_an_outage_forgets_nothing_and_one_bad_answer_lets_the_others_pass(desk: Desk) -> None:
    ids = [desk.studio.annotate(n, [region("a", "red", n)])["id"] for n in (1, 2, 3)]
    desk.read(ids[0])
    desk.studio.fault = lambda _: Answer(403)
    desk.mark(ids)
    with pytest.raises(StudioRefused):
        desk.reader.read_some()
    assert (len(rows_of(desk.annotations)), desk.notebook.forgotten) == (1, [])

    prediction = desk.studio.add(3, OURS, result=[region("a", "red", 2)])
    beside = desk.studio.annotate(3, [region("a", "red", 3)], parent_prediction=prediction)["id"]

    def choke(asked: Asked) -> Answer | None:
        is_broken = asks_for_whole(asked, 3) or f"/annotations/{ids[2]}/" in asked.path
        return Answer(500) if is_broken else None

    desk.studio.fault = choke
    *good, broken, whole = desk.read(*ids, beside)
    assert [each.kind for each in good] == ["scratch", "scratch"]
    assert (broken.annotation, broken.task, broken.kind) == (ids[2], 3, "broken")
    assert "answers HTTP 500" in broken.reason
    assert (whole.kind, whole.changes[0].predicted_px) == ("compared", 8)
    assert (beside in desk.notebook.known, ids[2] in desk.notebook.forgotten) == (True, False)
    desk.studio.fault = lambda _: None
    assert desk.reader.read_some(since=desk.annotations.now + 60) == 1, "asked again by itself"
    assert rows_of(desk.annotations)[2].kind == "scratch"
    desk.studio.fault = lambda _: Answer(500)
    desk.annotations.mark(7, ids)
    with pytest.raises(StudioUnreachable):
        desk.reader.read_some()
    desk.studio.fault = lambda _: None
    assert len(desk.read(ids[2])) == 4


@pytest.mark.parametrize("trouble", [ImageRefused("The storage is away."), ZeroDivisionError()])
def test_what_could_not_be_learned_from_is_learned_later(desk: Desk, trouble: Exception) -> None:
    made = desk.studio.annotate(1, [region("a", "red", 4)])
    desk.notebook.trouble = trouble
    desk.annotations.mark(7, [made["id"]])
    assert desk.reader.read_some() == 1
    assert (desk.annotations.count_open(), desk.reader.read_some()) == (0, 0), "it waits"
    assert [row.kind for row in rows_of(desk.annotations)] == ["scratch"]
    desk.notebook.trouble = None
    desk.read(made["id"])
    assert [*desk.notebook.known] == [made["id"]]


def test_a_batch_is_asked_for_at_once_unless_it_takes_long(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [desk.studio.annotate(task, [region("a", "red", 4)])["id"] for task in range(1, 7)]
    asked = list[Asked]()
    desk.studio.fault = asked.append
    assert [row.kind for row in desk.read(*ids)] == ["scratch"] * 6
    assert len(asked) == 2, "the config and the tasks"
    asked.clear()
    desk.annotations.mark(7, [desk.studio.annotate(8, [])["id"]])  # by 0.2.0: no task is known
    assert (desk.reader.read_some(), len(rows_of(desk.annotations)), len(asked)) == (1, 7, 3)

    def skip_the_others(diff: AnnotationDiff) -> None:
        for each in set(ids) - {diff.annotation}:
            desk.studio.update(each, was_cancelled=True)

    monkeypatch.setattr(desk.notebook, "learn", skip_the_others)
    monkeypatch.setattr(annotation_reader, "_FRESH_S", 0.0)
    kinds = [row.kind for row in desk.read(*ids)]
    assert sorted(kinds) == ["scratch", "scratch", *["skipped"] * 5], "as they are by then"


def test_a_batch_that_is_paused_gives_back_what_is_left(desk: Desk) -> None:
    found: list[int] = []
    desk.annotations.mark(7, [desk.studio.annotate(task, [])["id"] for task in (1, 2, 2)])
    assert desk.reader.read_all(7, threading.Event(), found.append) == 3
    assert found == [3]
    desk.annotations.mark_all(7)
    assert desk.reader.read_some(pause=lambda: True) == 0
    answers = iter([False, False, True])
    assert desk.reader.read_some(pause=lambda: next(answers)) == 2
    assert desk.annotations.count_open() == 1
    assert desk.reader.read_some() == 1, "what was left was given back"


def test_what_was_accepted_in_review_teaches_nothing_until_changed(desk: Desk) -> None:
    mark = {"source": "review", "origin": "prediction"}
    good = region("a", "red", 4)
    prediction = desk.studio.add(1, OURS, 1.0, [good])
    known = {"parent_prediction": prediction, "lead_time": 1.2}
    made = desk.studio.annotate(1, [good | mark], **known)
    assert desk.read_one(made).kind == "reviewed"
    assert desk.notebook.forgotten == [made["id"]]
    desk.studio.update(made["id"], result=[region("a", "red", 3)], lead_time=11.0)  # the editor's
    assert desk.read_one(made).kind == "compared"
    assert [*desk.notebook.known] == [made["id"]]
    desk.studio.update(made["id"], result=[])
    assert desk.read_one(made).kind == "compared", "without a region, a field of its own tells"
    nothing = desk.studio.annotate(2, [], bulk_created=True, lead_time=1.2)
    assert desk.read_one(nothing).kind == "reviewed"
