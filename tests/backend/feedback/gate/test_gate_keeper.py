"""Gates from corrections in the database to annotations in a stand-in for Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from backend.database.database import Database
from backend.errors import BadRequest, GateClosed
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.gate.acceptance_gate import AcceptanceGates
from backend.feedback.gate.gate_keeper import NOTE, VIEW_TITLES, GateKeeper
from backend.feedback.gate.gate_store import GateStore
from backend.label_studio.client import LabelStudioClient
from backend.settings import Settings
from tests.backend.conftest import Clock
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked
from tests.backend.fakes.task_ids import task_ids_of
from tests.backend.feedback.gate.gate_scene import (
    AUDIT_SHARE,
    AUDITED,
    FIRST,
    PASSING,
    VERSION,
    correct,
    correct_many,
    unannotated_studio,
)
from tests.backend.feedback.test_annotation_reader import region


@dataclass
class Scene:
    """A project of which 400 tasks are corrected: red above 0.5 is right, and below it wrong."""

    annotations: AnnotationStore
    gates: AcceptanceGates
    store: GateStore
    studio: FakeStudio
    client: LabelStudioClient
    clock: Clock

    @property
    def keeper(self) -> GateKeeper:
        return GateKeeper(self.gates, self.store, self.client)

    def correct(self, task: int, score: float | None, kept: bool, created: float = 1.0) -> None:
        correct(self.annotations, task, score, kept, created)


@pytest.fixture
def scene(database: Database, clock: Clock) -> Iterator[Scene]:
    studio = unannotated_studio()
    annotations, store = AnnotationStore(database, "me"), GateStore(database)
    settings = Settings(model="demo", gate_audit_share=AUDIT_SHARE)
    gates = AcceptanceGates(settings, annotations, store)
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.05, first_pause_s=0.01)
        yield Scene(annotations, gates, store, studio, client, clock)


@pytest.fixture
def corrected(scene: Scene) -> Scene:
    correct_many(scene.annotations)
    return scene


def test_a_project_without_corrections_waits(scene: Scene) -> None:
    report = scene.gates.report(7)
    assert (report.state, report.version, report.next_look) == ("waiting", "", 200)
    with pytest.raises(GateClosed, match="too few"):
        scene.keeper.accept(7)
    with pytest.raises(BadRequest):
        scene.gates.report(7, "another version")


def test_a_gate_is_made_at_its_looks_and_not_in_between(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in range(1, 200):
        scene.correct(task, 0.9, kept=True)
    assert scene.gates.report(7).state == "waiting"
    for task in range(200, 220):
        scene.correct(task, 0.9, kept=True)
    report = scene.gates.report(7)
    assert report.state == "open"
    assert report.gate is not None
    assert (report.gate.pictures, report.next_look) == (219, 400)
    scene.correct(220, 0.9, kept=False)
    monkeypatch.setattr(scene.store, "compared", None)  # a later look reads no annotations
    assert scene.gates.report(7).gate == report.gate


def test_quick_predictions_have_no_gate(scene: Scene) -> None:
    quick = f"{VERSION} quick"
    for task in range(1, 230):
        correct(scene.annotations, task, 0.9, True, version=quick)
    report = scene.gates.report(7)
    assert (report.state, report.version) == ("waiting", "")
    with pytest.raises(BadRequest):
        scene.gates.report(7, quick)


def test_what_is_read_anew_with_scores_is_counted_again(scene: Scene) -> None:
    for task in range(1, 221):
        scene.correct(task, None, kept=True)
    report = scene.gates.report(7)
    assert (report.state, report.unscored) == ("waiting", 220)
    for task in range(1, 221):
        scene.correct(task, 0.9, kept=True)
    scene.store.count_again(8)
    assert scene.gates.report(7).unscored == 220
    scene.store.count_again(7)
    report = scene.gates.report(7)
    assert (report.state, report.unscored) == ("open", 0)


def test_the_tasks_that_pass_are_found_and_shown(corrected: Scene) -> None:
    corrected.studio.annotate(FIRST, [])
    corrected.studio.add(FIRST + 1, "a newer version", result=[])
    report = corrected.keeper.find(7)
    passing = PASSING - {FIRST, FIRST + 1}
    told = corrected.gates.describe(report)["task_ids"]
    assert set(told["listed"]) == passing - AUDITED
    assert set(told["audit"]) == passing & AUDITED
    assert report.tasks == {
        "listed": len(told["listed"]),
        "audit": len(told["audit"]),
        "accepted": 0,
    }
    first = corrected.keeper.show(7, "listed")
    assert corrected.keeper.show(7, "listed") == first, "no second view of the same title"
    (tab,) = corrected.studio.tabs.values()
    assert tab["title"] == VIEW_TITLES["listed"]
    assert task_ids_of(tab) == set(told["listed"])


def test_what_is_annotated_since_it_was_found_is_in_no_list(corrected: Scene) -> None:
    before = corrected.keeper.find(7).tasks
    own, drawn = min(PASSING - AUDITED), min(AUDITED)
    corrected.correct(own, 0.9, kept=True)
    corrected.correct(drawn, 0.9, kept=True)
    corrected.annotations.mark(7, [900])  # not read yet
    report = corrected.gates.report(7)
    assert report.tasks == {
        "listed": before["listed"] - 1,
        "audit": before["audit"] - 1,
        "accepted": 0,
    }
    told = corrected.gates.describe(report)["task_ids"]
    assert own not in told["listed"]
    assert drawn not in told["audit"]


def test_accepted_tasks_have_annotations_that_say_so_and_teach_nothing(corrected: Scene) -> None:
    keeper, studio = corrected.keeper, corrected.studio
    keeper.find(7)
    worked_on = min(PASSING - AUDITED)
    studio.annotate(worked_on, [region("a", "red", 2)])
    made = keeper.accept(7)
    accepted = PASSING - AUDITED - {worked_on}
    assert (made.done, made.left, made.refused) == (len(accepted), 1, {})
    assert keeper.accept(7).done == 0, "each once"
    own = [each for each in studio.annotations.values() if each["task"] in accepted]
    assert len(own) == len(accepted)
    for annotation in own:
        assert [each["meta"] for each in annotation["result"]] == [{"text": [NOTE]}]
        annotation["lead_time"] = None  # as seen: nobody was timed
    known: list[Any] = []

    class Listener:
        def learn(self, diff: Any) -> None:
            known.append(diff)

        def forget(self, annotation: int) -> None:
            pass

    reader = AnnotationReader(corrected.annotations, corrected.client, Listener())
    corrected.annotations.mark(7, [each["id"] for each in own])
    while reader.read_some():
        pass
    kinds = {each.task: each.kind for each in corrected.annotations.stream(7) if each.task > 400}
    assert kinds == dict.fromkeys(accepted, "converted")
    assert known == []
    assert corrected.gates.report(7).annotations == 400, "no corrections"


def test_what_nobody_has_changed_can_be_withdrawn(corrected: Scene) -> None:
    keeper, studio = corrected.keeper, corrected.studio
    count = keeper.find(7).tasks["listed"]
    keeper.accept(7)
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    first = min(studio.annotations)
    studio.update(first, lead_time=12.0)
    made = keeper.withdraw(7)
    assert (made.done, made.left) == (count - 1, 1)
    assert list(studio.annotations) == [first]
    tasks = corrected.gates.report(7).tasks
    assert (tasks["listed"], tasks["accepted"]) == (count - 1, 0)


def test_a_task_whose_annotations_are_too_large_is_left(
    corrected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, studio = corrected.keeper, corrected.studio
    keeper.find(7)
    monkeypatch.setattr("backend.label_studio.answers._MAX_BYTES_OF_TASK", 200_000)
    first, second, *_ = sorted(PASSING - AUDITED)
    studio.annotate(first, [{"meta": {"text": "x" * 200_000}}])
    accepted = keeper.accept(7)
    assert (accepted.left, accepted.refused) == (1, {})
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    studio.annotate(second, [{"meta": {"text": "x" * 200_000}}])
    withdrawn = keeper.withdraw(7)
    assert (withdrawn.left, withdrawn.done) == (1, accepted.done - 1)


def test_a_task_whose_prediction_is_too_large_passes_no_gate(
    corrected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = min(PASSING - AUDITED)
    monkeypatch.setattr("backend.label_studio.answers._MAX_BYTES", 100_000)
    corrected.studio.add(large, VERSION, result=[{"meta": {"text": "x" * 100_000}}])
    listed = corrected.gates.describe(corrected.keeper.find(7))["task_ids"]["listed"]
    assert set(listed) == PASSING - AUDITED - {large}


def test_a_task_with_another_prediction_by_now_is_left(corrected: Scene) -> None:
    keeper = corrected.keeper
    keeper.find(7)
    other = min(PASSING - AUDITED)
    corrected.studio.add(other, "a newer version", result=[region("b", "red", 2, score=0.9)])
    made = keeper.accept(7)
    assert made.left == 1
    assert other not in {each["task"] for each in corrected.studio.annotations.values()}


def test_accepting_ends_once_the_audit_has_closed_the_gate(corrected: Scene) -> None:
    corrected.keeper.find(7)

    def advance(done: int) -> bool:
        if done == 3:
            assert corrected.store.close(7, VERSION)
        return True

    made = corrected.keeper.accept(7, advance=advance)
    assert made.done == 4
    assert len(corrected.studio.annotations) == 4


def test_accepting_ends_after_ten_refusals(corrected: Scene) -> None:
    corrected.keeper.find(7)

    def refuse(asked: Asked) -> Answer | None:
        refusal = Answer(400, b'{"detail": "no"}', {"Content-Type": "application/json"})
        return refusal if asked.method == "POST" else None

    corrected.studio.fault = refuse
    made = corrected.keeper.accept(7)
    assert [*made.refused] == sorted(PASSING - AUDITED)[:10]
    assert (made.done, made.left) == (0, 0)


def test_tasks_with_a_draft_are_left(corrected: Scene) -> None:
    keeper, studio = corrected.keeper, corrected.studio
    count = keeper.find(7).tasks["listed"]
    first, second, *_ = sorted(PASSING - AUDITED)
    studio.drafted = {first}
    made = keeper.accept(7)
    assert (made.done, made.left) == (count - 1, 1)
    for annotation in studio.annotations.values():
        annotation["lead_time"] = None
    studio.drafted = {second}
    made = keeper.withdraw(7)
    assert (made.done, made.left) == (count - 2, 1)
    assert [each["task"] for each in studio.annotations.values()] == [second]
    studio.drafted = set()
    assert keeper.withdraw(7).done == 1, "the draft was thrown away"
    assert not studio.annotations


def test_a_task_that_is_deleted_stops_nothing(
    corrected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, studio = corrected.keeper, corrected.studio
    count = keeper.find(7).tasks["listed"]
    first = min(PASSING - AUDITED)
    del studio.tasks[first]
    made = keeper.accept(7)
    assert (made.done, made.left) == (count - 1, 1)
    monkeypatch.setattr(corrected.client, "ids", lambda *asked: iter(sorted(PASSING)))
    keeper.find(7)
    assert first not in corrected.store.tasks(7, VERSION, "listed")


def test_an_audit_closes_the_gate_and_a_person_opens_it(
    corrected: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    corrected.keeper.find(7)
    with pytest.raises(GateClosed, match="No audit"):
        corrected.gates.reopen(7)
    drawn = sorted(AUDITED)
    for task in drawn[:9]:
        corrected.correct(task, 0.9, kept=False, created=corrected.clock.now + 1)
    assert corrected.store.count_closed() == 0
    corrected.gates.check_audits()
    assert corrected.store.count_closed() == 1
    assert "the acceptance gate is closed: 9 of 9" in caplog.text
    report = corrected.gates.report(7)
    assert (report.state, report.audited, report.audited_changed) == ("closed", 9, 9)
    with pytest.raises(GateClosed, match="too many tasks"):
        corrected.keeper.accept(7)
    corrected.clock.now += 100
    report = corrected.gates.reopen(7)
    assert (report.state, report.audited) == ("open", 0)


def test_tasks_that_are_not_audited_raise_no_alarm(corrected: Scene) -> None:
    corrected.keeper.find(7)
    for task in sorted(PASSING - AUDITED)[:20]:
        corrected.correct(task, 0.9, kept=False, created=corrected.clock.now + 1)
    assert corrected.gates.report(7).state == "open"


def test_another_wanted_share_makes_the_gate_anew(corrected: Scene) -> None:
    assert corrected.gates.report(7).state == "open"
    strict = Settings(model="demo", gate_share=0.999)
    gates = AcceptanceGates(strict, corrected.annotations, corrected.store)
    assert gates.report(7).state == "shut"


def test_a_command_leaves_a_gate_for_another_share_and_its_audit(corrected: Scene) -> None:
    corrected.keeper.find(7)
    for task in sorted(AUDITED)[:3]:
        corrected.correct(task, 0.9, kept=False, created=corrected.clock.now + 1)
    before = corrected.gates.report(7)
    strict = Settings(model="demo", gate_share=0.999, gate_audit_share=AUDIT_SHARE)
    gates = AcceptanceGates(strict, corrected.annotations, corrected.store)
    gates.remakes = False
    corrected.clock.now += 100
    report = gates.report(7)
    assert report == before
    assert (report.share, report.audited) == (0.95, 3)
