"""What earlier releases have stored or answered: versions, keys, rows, files, and HTTP answers.

Every expected value was stored or answered by a release. It never changes without a new version
number beside it: predictions, caches, databases and clients rely on it. Names of Python classes
and attributes may change; none of this may follow them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from safetensors import safe_open
from sqlalchemy import text

from backend import create_app
from backend.agreement.agreement_report import (
    AgreementReport,
    AnnotatorFigures,
    Confusion,
    Dispute,
    DisputedLabel,
    LabelFigures,
)
from backend.database.database import Database
from backend.errors import ImageNotFound
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.feedback.forecast.hours_left import Hours, HoursLeft
from backend.feedback.learning.model_key import model_key
from backend.feedback.learning.thresholds import ThresholdCounts
from backend.feedback.learning.version_file import export, read_export
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.versions import ActiveModel, TrainingExample, Version
from backend.feedback.read_annotation import ReadAnnotation
from backend.inference.feature_cache import FeatureFolder
from backend.jobs.job_report import JobReport
from backend.jobs.job_store import JobStore
from backend.label_errors.review_report import ReviewReport, Suspicion
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.failures import Failure
from backend.prediction.outbox import result_key
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from backend.task_order.next_tasks import NextTask, NextTasks
from backend.telemetry.task_tracker import TaskTracker
from clearclip_core import WindowFeatures
from tests.backend import test_errors
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag, teach
from tests.backend.fakes.learning_stores import LearningStores
from tests.backend.web.pages.status_scene import Scene
from tests.core.test_stored_identities import ADAPTATION, ADAPTATION_FILE

SETTINGS = Settings(model="demo", method="clearclip", short_side_px=448)
SIMPLE = brush_config("blue", "red")
RICH = """<View>
<Image name="img" value="$image"/><Image name="pages" valueList="$pages"/>
<BrushLabels name="mask" toName="img" smart="true" model_score_threshold="0.4">
  <Label value="Car" alias="c" predicted_values="car,automobile"/>
  <Label value="Background"/>
</BrushLabels>
<PolygonLabels name="outline" toName="pages">
  <Label value="Café" model_score_threshold="0.25"/>
</PolygonLabels>
<RectangleLabels name="box" toName="img,pages"><Label value="Car"/></RectangleLabels>
<KeyPointLabels name="click" toName="img"><Label value="Car"/></KeyPointLabels>
</View>"""

VERSION = Version(
    20,
    21,
    "d" * 64,
    better=True,
    text_iou=0.4,
    adapted_iou=0.5,
    text_ious={"wine": 0.4},
    adapted_ious={"wine": 0.5},
    thresholds={"wine": 0.3},
    adapted_thresholds={"wine": 0.2},
)
#: The column "facts" of `VERSION`.
FACTS = (
    '{"text_iou": 0.4, "adapted_iou": 0.5, "text_ious": {"wine": 0.4}, '
    '"adapted_ious": {"wine": 0.5}, "thresholds": {"wine": 0.3}, '
    '"adapted_thresholds": {"wine": 0.2}}'
)
#: `VERSION` in answers.
VERSION_JSON = {
    "annotations": 20,
    "pictures": 21,
    "digest": "d" * 64,
    "better": True,
    "text_iou": 0.4,
    "adapted_iou": 0.5,
    "text_ious": {"wine": 0.4},
    "adapted_ious": {"wine": 0.5},
    "thresholds": {"wine": 0.3},
    "adapted_thresholds": {"wine": 0.2},
    "origin": "step",
    "created": 1000.0,
    "number": 1,
}

#: What became of a label, as the column "changes" has it.
CHANGE = LabelDiff("car", 1, 2, 3, {"van": 4}, 5, 6, 7, 8, 9, 10, 11)
CHANGES = (
    '[{"label": "car", "accepted": 1, "corrected": 2, "deleted": 3, "relabelled": {"van": 4}, '
    '"added": 5, "received": 6, "predicted_px": 7, "true_px": 8, "shared_px": 9, '
    '"band_shared_px": 10, "band_px": 11}]'
)


def version_of(config: str, learned: ActiveModel | None = None, **settings: Any) -> str:
    """The ``model_version`` with the weights "colours-1"."""
    own = Settings(**{"model": "demo", "method": "clearclip"} | settings)
    models: Any = None if learned is None else Taught(learned)
    predictor = Predictor(colour_engine(), lambda *_: flag("red"), own, active_models=models)
    return predictor.versions.current(parse_label_config(config), 7)


class Taught:
    """A project that has learned this."""

    def __init__(self, learned: ActiveModel) -> None:
        self._learned = learned

    def get(self, *_: object) -> ActiveModel:
        return self._learned


# ---- versions and keys -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "settings", "expected"),
    [
        (SIMPLE, {}, "demo clearclip 72d43f56"),
        (RICH, {}, "demo clearclip 1b819d9a"),
        (
            SIMPLE,
            {"method": "gem", "short_side_px": 224, "min_island_share": 0.01},
            "demo gem 7e3af188",
        ),
        (SIMPLE, {"refine": False}, "demo clearclip bbbeeccf"),
        (SIMPLE, {"score": "uncertainty"}, "demo clearclip e1428498"),
        (SIMPLE, {"score": "effort"}, "demo clearclip eced7b7f"),
        (brush_config("red", attributes='score="effort"'), {}, "demo clearclip 3559a44c"),
        (
            brush_config("red", attributes='model_score_threshold="0.5"'),
            {},
            "demo clearclip 644d43e0",
        ),
    ],
)
def test_the_model_version(config: str, settings: dict[str, Any], expected: str) -> None:
    assert version_of(config, **settings) == expected


def test_the_model_version_of_a_threshold_of_one_or_zero() -> None:
    """What 0.1.0 stored for 1, and for 0 after learning, had other masks."""

    def version(threshold: str, learned: ActiveModel | None = None) -> str:
        attribute = f'model_score_threshold="{threshold}"'
        return version_of(brush_config("red", attributes=attribute), learned)

    learned = ActiveModel(20, None, {"red": 0.3})
    assert version("0.999") == "demo clearclip f3d1ac2a"
    assert version("0.999", learned) == "demo clearclip 85919197 +20"
    assert version("1") == version("1.0") != "demo clearclip 2bd99d03"
    assert version("0") == "demo clearclip e99356ed"
    assert version_of(brush_config("red")) == "demo clearclip e99356ed"
    assert version("0", learned) != "demo clearclip 70faac2a +20"
    assert version_of(brush_config("red"), learned) == "demo clearclip 70faac2a +20"


def test_the_model_version_of_a_control_that_is_predicted_stays() -> None:
    plain = version_of(brush_config("blue", "red"))
    for word in ("yes", "auto"):
        assert version_of(brush_config("blue", "red", attributes=f'prelabel="{word}"')) == plain
    assert version_of(brush_config("blue", "red", attributes='prelabel="no"')) != plain


def test_the_model_version_is_of_this_text() -> None:
    """Spelled out once, so that the text can be read from a hash that is stored."""
    parsed = (
        '[2, "colours-1", "clearclip", 448, 0.0005, 2, [[{"name": "image", "value": '
        '"$image"}], [{"kind": "brushlabels", "labels": [{"name": "blue", "threshold": 0.0, '
        '"written": "blue"}, {"name": "red", "threshold": 0.0, "written": "red"}], "name": '
        '"mask", "overlap": true, "to_names": ["image"]}], [{"background": false, "name": '
        '"blue", "prompts": ["blue"]}, {"background": false, "name": "red", "prompts": '
        '["red"]}]]]'
    )
    assert version_of(SIMPLE).endswith(version_text_hash(parsed))
    # The first release wrote true for the refinement; refined masks have changed since, others not.
    assert version_text_hash(parsed.replace(", 2, [[", ", true, [[")) == "558a448b"


def version_text_hash(parsed: str) -> str:
    return hashlib.sha256(parsed.encode()).hexdigest()[:8]


def test_the_model_version_of_a_preset_whose_masks_have_changed() -> None:
    """As the first release wrote it, but for the numbers of algorithm and refinement."""
    parsed = (
        '[3, "colours-1", "clipsurgery", 448, 0.0005, 2, [[{"name": "image", "value": '
        '"$image"}], [{"kind": "brushlabels", "labels": [{"name": "blue", "threshold": 0.0, '
        '"written": "blue"}, {"name": "red", "threshold": 0.0, "written": "red"}], "name": '
        '"mask", "overlap": true, "to_names": ["image"]}], [{"background": false, "name": '
        '"blue", "prompts": ["blue"]}, {"background": false, "name": "red", "prompts": '
        '["red"]}]]]'
    )
    expected = hashlib.sha256(parsed.encode()).hexdigest()[:8]
    assert version_of(SIMPLE, method="clipsurgery") == f"demo clipsurgery {expected}"
    before = version_text_hash(parsed.replace("[3", "[2", 1).replace(", 2, [[", ", true, [["))
    assert before == "ae20d785"
    assert version_of(SIMPLE, method="vv-res-b6-surgery") == "demo vv-res-b6-surgery e58f2a69"


@pytest.mark.parametrize(
    ("learned", "expected"),
    [
        (ActiveModel(20, teach(wine="red"), {"wine": 0.3}), "demo clearclip 1943caac +20"),
        (ActiveModel(20, None, {"wine": 0.3, "a": 0.5}), "demo clearclip 42abb803 +20"),
    ],
)
def test_the_model_version_of_what_was_learned(learned: ActiveModel, expected: str) -> None:
    assert version_of(SIMPLE, learned) == expected


def test_the_keys_of_results_and_of_models() -> None:
    task = Task(7, 3, {"image": "a.png", "n": 1})
    assert result_key(task, "v1") == "d22c77f95ff54032c8c68bbdd90d503049a062f7"
    nameless = Task("x", None, {})
    assert result_key(nameless, "v1") == "f559d25e432202382a3c368bbf85c39f2b47cdc2"
    assert model_key(SETTINGS, "w1") == "1fb25367d8f1184b3b8227beeb18dfa972b0147a"


@pytest.mark.parametrize("cls", [None, torch.ones(1, 8).half()])
def test_a_kept_feature(tmp_path: Path, cls: torch.Tensor | None) -> None:
    features = WindowFeatures(torch.ones(1, 2, 2, 8).half(), cls)
    folder = FeatureFolder(tmp_path, 1 << 20)
    folder.write("a key", features)
    (path,) = tmp_path.iterdir()
    assert path.stem == "8fa3aab2faa9b79e0a0398da5b5abd0780142442a5be80b9a64608d718cb1fcd"
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"patches"} | ({"cls"} if cls is not None else set())
        crc32 = "2959027455" if cls is None else "228466309"
        assert file.metadata() == {"key": "a key", "crc32": crc32}
    assert folder.read("a key") is not None


# ---- rows ------------------------------------------------------------------------------------


#: A row of the table of jobs with its lists, and the same in answers.
JOB_ROW = """INSERT INTO jobs (id, project, kind, only, view, "limit", task_count, state, version,
 total, done, skipped, failed, cursor, worked_s, reason, created, updated, started, finished, owner,
 leased_until) VALUES (5, 7, 'project', 'all', 3, 50, 3, 'failed', 'v1', 10, 4, 1, 2, 9, 2.0,
 'Gone.', 1.0, 2.0, 3.0, 4.0, 'us', 6.0)"""
JOB_LISTS = "INSERT INTO job_tasks (job, tasks, scope) VALUES (5, '[1, 2, 4]', '[1, 2]')"
JOB_JSON = {
    "id": 5,
    "project": 7,
    "kind": "project",
    "view": 3,
    "limit": 50,
    "tasks": 3,
    "state": "failed",
    "version": "v1",
    "total": 10,
    "done": 4,
    "skipped": 1,
    "failed": 2,
    "cursor": 9,
    "worked_s": 2.0,
    "reason": "Gone.",
    "created": 1.0,
    "updated": 2.0,
    "started": 3.0,
    "finished": 4.0,
    "owner": "us",
    "leased_until": 6.0,
    "filter": "all",
    "withdraws": None,
    "over": True,
    "remaining": 3,
    "rate": 2.0,
    "eta_s": 1.5,
    "url": "http://label-studio:8080/projects/7/data",
    "project_gone": False,
    "withdrawn": False,
}


def test_a_row_of_a_job() -> None:
    scene = Scene(store=JobStore(Database("sqlite://")))
    with scene.store.database.write() as connection:
        connection.execute(text(JOB_ROW))
        connection.execute(text(JOB_LISTS))
    job = scene.store.get_job(5)
    assert (job.id, job.task_count, job.lists_tasks, job.only) == (5, 3, True, "all")
    assert scene.store.task_ids(5) == (1, 2)
    assert json.dumps(scene.status.serializer.job(job)) == json.dumps(JOB_JSON)
    (listed,) = scene.store.list_jobs()
    assert listed == job


def test_a_row_of_an_annotation() -> None:
    store = JobStore(Database("sqlite://"))
    annotations = AnnotationStore(store.database, "us")
    read = ReadAnnotation(3, 7, 5, "compared", "v1", 2, 1.5, 10.0, 11.0, (CHANGE,), "")
    annotations.mark(7, [3])
    (pending,) = annotations.lease(1)
    annotations.complete(pending, read)
    with store.database.read() as connection:
        row = connection.execute(text("SELECT * FROM annotations")).one()
        assert row.changes == CHANGES
        assert (row.kind, row.version, row.annotator, row.seconds) == ("compared", "v1", 2, 1.5)
    assert annotations.read(7) == [read]


def test_a_forecast() -> None:
    forecast = HoursLeft(1000.0, 12, 20, 3, 1, Hours(2.0, 1.5, 2.5), None)
    written = {
        "made": 1000.0,
        "tasks_left": 12,
        "annotations_with": 20,
        "annotations_without": 3,
        "left_open": 1,
        "with_prelabels": {"hours": 2.0, "low": 1.5, "high": 2.5},
        "without_prelabels": None,
    }
    assert json.dumps(forecast.to_json()) == json.dumps(written)
    assert HoursLeft.from_json(written) == forecast


#: What the first reviews do not tell.
_COUNTED_LATER = ("annotations", "pictures")


def test_a_review_of_annotations() -> None:
    found = Suspicion(3, 12, 5.25, 1, "label", "car", "tree", 2.5, True, "data:a", "data:b")
    missing = Suspicion(4, 13, 6.0, None, "missing", "", "tree", 1.23456)
    report = ReviewReport(40, 30, 1.5, (found, missing), {9: "Gone."}, 2, 38, 25)
    written = {
        "reviewed": 40,
        "annotations": 38,
        "pictures": 25,
        "examples": 30,
        "seconds": 1.5,
        "suspicions": [
            {
                "task": 3,
                "annotation": 12,
                "updated": 5.25,
                "item_index": 1,
                "kind": "label",
                "label": "car",
                "other": "tree",
                "score": 2.5,
                "set_aside": True,
                "sentence": "Painted “car”, but it looks like “tree”.",
                "rank": 1,
                "preview": "data:a",
                "suggestion": "data:b",
            },
            {
                "task": 4,
                "annotation": 13,
                "updated": 6.0,
                "item_index": None,
                "kind": "missing",
                "label": "",
                "other": "tree",
                "score": 1.2346,
                "set_aside": False,
                "sentence": "No “tree” is painted where the scores see one.",
                "rank": 2,
                "preview": "",
                "suggestion": "",
            },
        ],
        "left_out": [{"task": 9, "reason": "Gone."}],
        "left_out_count": 2,
    }
    assert json.dumps(report.to_json()) == json.dumps(written)
    read = ReviewReport.from_json(written)
    assert read == replace(report, suspicions=(found, replace(missing, score=1.2346)))
    earlier = {name: value for name, value in written.items() if name not in _COUNTED_LATER}
    assert ReviewReport.from_json(earlier) == replace(read, annotations=None, pictures=None)


def test_a_report_on_agreement() -> None:
    disputed = DisputedLabel("car", 0.5, None, 0.25)
    report = AgreementReport(
        *(12, 13, 25, 1.5, 0.12344),
        labels=(LabelFigures("car", 9, 0.5, 0.75, 0.4, 0.25),),
        confusions=(Confusion("car", "tree", 0.12344),),
        annotators=(AnnotatorFigures(5, "Ann", 10, 0.5, None),),
        disputes=(Dispute(3, 1, 2, 0.25, (disputed,), "data:a"),),
        dispute_count=4,
        left_out={9: "Gone."},
        left_out_count=2,
    )
    written = {
        "tasks": 12,
        "pictures": 13,
        "annotations": 25,
        "seconds": 1.5,
        "disputed": 0.1234,
        "labels": [
            {
                "label": "car",
                "pictures": 9,
                "few": True,
                "iou": 0.5,
                "boundary_f": 0.75,
                "alpha": 0.4,
                "disputed": 0.25,
            }
        ],
        "confusions": [{"label": "car", "other": "tree", "share": 0.1234}],
        "annotators": [
            {
                "annotator": 5,
                "name": "Ann",
                "pictures": 10,
                "few": False,
                "iou": 0.5,
                "boundary_f": None,
            }
        ],
        "disputes": [
            {
                "task": 3,
                "item_index": 1,
                "people": 2,
                "disputed": 0.25,
                "labels": [{"label": "car", "iou": 0.5, "boundary_f": None, "disputed": 0.25}],
                "rank": 1,
                "picture": "data:a",
            }
        ],
        "dispute_count": 4,
        "left_out": [{"task": 9, "reason": "Gone."}],
        "left_out_count": 2,
    }
    assert json.dumps(report.to_json()) == json.dumps(written)
    assert AgreementReport.from_json(written) == replace(
        report, disputed=0.1234, confusions=(Confusion("car", "tree", 0.1234),)
    )
    nothing_yet = AgreementReport(0, 0, 0, 1.5, None)
    told = nothing_yet.to_json()
    assert (told["pictures"], told["disputed"]) == (0, None)
    assert AgreementReport.from_json(told) == nothing_yet


def test_the_tasks_to_correct_next() -> None:
    tasks = (NextTask(9, "data:a"), NextTask(4, "data:b"))
    report = NextTasks(3, tasks, 40, 12, 9, 5, 1.50049, {8: "Gone."}, 2)
    written = {
        "asked": 3,
        "tasks": [{"task": 9, "picture": "data:a"}, {"task": 4, "picture": "data:b"}],
        "unlabeled": 40,
        "looked_at": 12,
        "near_duplicates": 9,
        "examples": 5,
        "seconds": 1.5,
        "shortage": (
            "14 pictures of 40 tasks were tried, which is the most for 3 tasks. Ask again for "
            "others."
        ),
        "left_out": [{"task": 8, "reason": "Gone."}],
        "left_out_count": 2,
    }
    assert json.dumps(report.to_json()) == json.dumps(written)
    assert NextTasks.from_json(written) == replace(report, seconds=1.5)


def test_how_right_a_label_was() -> None:
    paint = ThresholdCounts.empty() + ThresholdCounts(
        ThresholdCounts.empty().right + 1, ThresholdCounts.empty().wrong, 3.0, frozenset("ba")
    )
    written = {"right": [1.0] * 50, "wrong": [0.0] * 50, "true_px": 3.0, "shown": ["a", "b"]}
    assert json.dumps(paint.to_json()) == json.dumps(written)
    assert ThresholdCounts.from_json(written).to_json() == written


def test_a_row_of_a_learned_version() -> None:
    store = JobStore(Database("sqlite://", clock=lambda: 1000.0))
    registry = VersionRegistry(store.database, lambda: "model")
    registry.import_version(7, VERSION, ADAPTATION)
    with store.database.read() as connection:
        row = connection.execute(text("SELECT * FROM learned_versions")).one()
    assert row.facts == FACTS
    assert (row.number, row.origin, row.digest, row.better) == (1, "step", "d" * 64, 1)
    assert (row.annotations, row.pictures, row.created) == (20, 21, 1000.0)
    assert row.adaptation == ADAPTATION.to_bytes()


def test_a_row_of_a_learned_version_is_read() -> None:
    store = JobStore(Database("sqlite://"))
    row = {"facts": FACTS, "digest": "d" * 64, "adaptation": ADAPTATION_FILE}
    with store.database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO learned_versions (project, model, number, origin, digest, better, "
                "annotations, pictures, facts, created, adaptation) VALUES (7, 'model', 1, "
                "'step', :digest, 1, 20, 21, :facts, 1000.0, :adaptation)"
            ),
            row,
        )
    version, adaptation = VersionRegistry(store.database, lambda: "model").version(7, 1)
    assert adaptation is not None
    assert adaptation.digest == ADAPTATION.digest
    assert version.adapted_thresholds == {"wine": 0.2}
    assert (version.created, version.number, version.origin) == (1000.0, 1, "step")


# ---- files -----------------------------------------------------------------------------------


def test_the_file_of_a_learned_version() -> None:
    written = {
        "format": 1,
        "model": {"name": "demo", "method": "clearclip", "short_side_px": 448, "key": "k"},
        "annotations": 20,
        "pictures": 21,
        "digest": "d" * 64,
        "text_iou": 0.4,
        "adapted_iou": 0.5,
        "text_ious": {"wine": 0.4},
        "adapted_ious": {"wine": 0.5},
        "thresholds": {"wine": 0.3},
        "adapted_thresholds": {"wine": 0.2},
        "adaptation": None,
    }
    file = export(SETTINGS, VERSION, None, "k")
    assert file == json.dumps(written, indent=1).encode() + b"\n"
    version, adaptation = read_export(file, "k")
    assert (version.annotations, version.digest, adaptation) == (20, "d" * 64, None)
    assert (version.thresholds, version.origin) == ({"wine": 0.3}, "import")


def test_the_file_of_a_prelabeled_project() -> None:
    store = JobStore(Database("sqlite://"))
    with store.database.write() as connection:
        connection.execute(text(JOB_ROW))
        connection.execute(text(JOB_LISTS))
    report = JobReport(store.get_job(5), [Failure(5, 41, "There is no file.", 1.0)])
    assert json.dumps(report.to_json()) == json.dumps(
        {
            "job": 5,
            "project": 7,
            "state": "failed",
            "reason": "Gone.",
            "model_version": "v1",
            "total": 10,
            "done": 4,
            "skipped": 1,
            "failed": 2,
            "seconds": 2.0,
            "pictures_per_second": 2.0,
            "failures": [{"task": 41, "reason": "There is no file."}],
        }
    )


# ---- answers ---------------------------------------------------------------------------------

KEYS = {"label_studio_url": "http://studio:8080", "label_studio_api_key": "a" * 40}


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(model="demo", **KEYS), colour_engine()).test_client()


def answer(client: FlaskClient, address: str) -> Any:
    return client.get(address).get_json(force=True)


def test_the_answers_about_the_model(client: FlaskClient) -> None:
    up = {"status": "UP", "model": "demo", "state": "ready"}
    assert answer(client, "/health") == answer(client, "/") == up
    assert answer(client, "/ready") == {"state": "ready", "reason": ""}
    assert answer(client, "/versions") == {"versions": ["demo clearclip"]}
    asked = {"project": "7.1", "schema": SIMPLE, "hostname": "http://studio:8080"}
    assert client.post("/setup", json=asked).get_json(force=True) == {
        "model_version": "demo clearclip 72d43f56"
    }


def test_the_answer_to_a_request_for_predictions(client: FlaskClient) -> None:
    tasks = [{"id": 1, "data": {"image": data_url(flag("red"))}}]
    asked = {"tasks": tasks, "label_config": SIMPLE, "project": "7.1"}
    (made,) = client.post("/predict", json=asked).get_json(force=True)["results"]
    assert list(made) == ["model_version", "score", "result"]
    (region,) = made["result"]
    assert list(region) == [
        *("id", "type", "from_name", "to_name", "original_width", "original_height"),
        *("image_rotation", "value", "score"),
    ]
    # Before 0.2 the pixels were hashed: "bXe2gwv5Uq". Stored ids stay: none is computed again.
    assert (region["id"], region["value"]["format"]) == ("6rLICiuc6k", "rle")


def test_the_status(client: FlaskClient) -> None:
    now = answer(client, "/status")
    assert list(now) == [
        *("at", "started_at", "label_studio", "connection", "model", "queue", "waiting"),
        *("vocabularies", "failing_words"),
        *("running", "done", "failed", "remaining", "unwritten", "pictures_per_second", "eta_s"),
        *("projects", "jobs", "jobs_trouble", "reports", "learning", "errors", "failing"),
        *("caches", "gpu_memory_bytes", "versions"),
    ]
    assert list(now["model"]) == [
        *("name", "method", "device", "precision", "int8", "state", "reason", "windows_at_once"),
        *("pictures", "batches"),
    ]
    assert now["failing_words"] == {"count": 0, "newest": []}
    assert now["queue"] == {"interactive": 0, "opened": 0, "batch": 0}
    assert now["learning"] == {"live": 0, "pictures": 0, "last_step": None}
    assert list(now["caches"]["features"]) == ["hits", "misses", "entries", "bytes", "limit_bytes"]
    assert list(now["caches"]["words"]) == ["hits", "misses"]
    assert list(now["caches"]["pictures"]) == ["hits", "misses", "bytes", "limit_bytes"]


def test_what_runs_and_what_failed_in_the_status() -> None:
    scene = Scene(store=JobStore(Database("sqlite://")))
    with scene.tracker.task(5, 7, "batch") as work:
        work.failed(ImageNotFound("Gone."))
    with scene.tracker.task(6, 7, "opened"):
        now = scene.read()
    (running,), (error,) = now["running"], now["errors"]
    assert running.pop("seconds") >= 0
    assert list(running) == ["task", "project", "urgency", "stage", "url"]
    assert error.pop("at") == error.pop("since") > 0
    assert list(now["failing"]) == ["tasks", "since"]
    assert error == {
        "task": 5,
        "project": 7,
        "job": None,
        "reason": "ImageNotFound",
        "sentence": "Gone.",
        "url": "http://label-studio:8080/projects/7/data?task=5",
    }


def test_the_last_step_in_the_status() -> None:
    scene = Scene(store=JobStore(Database("sqlite://", clock=lambda: 1000.0)))
    VersionRegistry(scene.store.database, lambda: "model").import_version(7, VERSION, None)
    assert json.dumps(scene.read()["learning"]) == json.dumps(
        {"live": 1, "pictures": 0, "last_step": VERSION_JSON}
    )


def test_what_a_project_has_learned(client: FlaskClient) -> None:
    settings = Settings(model="demo")
    store = JobStore(Database.from_settings(settings))
    store.database.clock = lambda: 1000.0
    learning = LearningStores.of(store.database, "us", lambda: model_key(settings, "colours-1"))
    paint = ThresholdCounts.empty() + ThresholdCounts(
        ThresholdCounts.empty().right + 1, ThresholdCounts.empty().wrong, 60.0, frozenset("abc")
    )
    learning.examples.replace(
        1, 7, [TrainingExample("a", b"", json.dumps({"wine": paint.to_json()}))]
    )
    learning.registry.import_version(7, VERSION, teach(wine="red"))
    expected = {
        "project": 7,
        "adapt": "scores",
        "every": 10,
        "can_learn": True,
        "has_key": True,
        "versions": [VERSION_JSON | {"live": True}],
        "labels": {
            "wine": {
                "pictures": 3,
                "threshold": 0.0,
                "saved": 50 / 60,
                "saved_with_threshold": 50 / 60,
            }
        },
        "live": 1,
        "pinned": False,
        "changed": 1,
        "asked": False,
        "annotations": 1,
        "pictures": 1,
        "trouble": "",
    }
    assert json.dumps(answer(client, "/projects/7/learning")) == json.dumps(expected)
    report = answer(client, "/projects/7/report.json")
    assert json.dumps(report["learned"]) == json.dumps(expected)


FIGURES = [
    *("pictures", "prelabels", "accepted", "corrected", "deleted", "relabelled", "added"),
    *("received", "false", "missed", "accepted_share", "mean_iou", "mean_boundary_iou"),
    *("saved_paint", "harms", "predicted_px", "true_px", "shared_px"),
]


def test_the_report(client: FlaskClient) -> None:
    annotations = AnnotationStore(Database.from_settings(Settings()), "us")
    annotations.mark(7, [3])
    (pending,) = annotations.lease(1)
    annotations.complete(
        pending, ReadAnnotation(3, 7, 5, "compared", "v1", 2, 1.5, 1e9, 1e9, (CHANGE,))
    )
    report = answer(client, "/projects/7/report.json")
    assert list(report) == [
        *("project", "label", "annotations", "waiting", "all", "step", "periods", "versions"),
        *("harmful", "missing", "broken", "definitions", "hours_left", "learned"),
    ]
    assert list(report["annotations"]) == [
        *("compared", "scratch", "copy", "converted", "foreign", "lost", "skipped", "broken"),
    ]
    assert list(report["all"]) == ["name", "annotations", "total", "labels", "seconds"]
    assert list(report["all"]["total"]) == list(report["all"]["labels"]["car"]) == FIGURES
    seconds = ["with_prelabel", "without_prelabel", "n_with", "n_without"]
    assert list(report["all"]["seconds"]) == seconds
    total = report["all"]["total"]
    assert (total["relabelled"], total["accepted"], total["received"]) == ({"van": 4}, 1, 6)
    table = client.get("/projects/7/report.csv").get_data(as_text=True).splitlines()
    flat = [name for name in FIGURES if name != "harms"]
    assert table[0].split(",") == [
        *("period", "model_version", "label", "annotations", *flat),
        *("seconds_with_prelabel", "seconds_without_prelabel"),
    ]


def test_jobs_in_answers(client: FlaskClient) -> None:
    with Database.from_settings(Settings()).write() as connection:
        connection.execute(text(JOB_ROW))
        connection.execute(text(JOB_LISTS))
    shown = JOB_JSON | {"url": "http://studio:8080/projects/7/data"}
    assert json.dumps(answer(client, "/jobs")) == json.dumps({"jobs": [shown]})
    assert json.dumps(answer(client, "/jobs/5")) == json.dumps({**shown, "failures": []})


def test_urgencies_in_metrics(client: FlaskClient) -> None:
    scraped = client.get("/metrics").get_data(as_text=True)
    for urgency in ("interactive", "opened", "batch"):
        assert f'clearclip_queue_pictures{{urgency="{urgency}"}} 0.0' in scraped


#: What a failure is counted and shown under.
REASONS = {
    *("BackendError", "BadRequest", "LabelConfigError", "Unauthorized", "CrossSite"),
    *("LabelConfigChanged", "WordingNotFound", "ProjectNotFound"),
    *("RequestTooSlow", "PayloadTooLarge", "ModelUnavailable", "Busy", "JobNotFound"),
    *(
        "PlotNotFound",
        "JobOver",
        "WithdrawalRefused",
        "GateClosed",
        "LearningRefused",
        "StudioUnreachable",
        "StudioRefused",
    ),
    *("TaskError", "DataKeyError", "ImageNotFound", "ImageRefused", "HostRefused"),
    *("ImageInvalid", "ImageTooLarge", "DatasetError"),
    *("DatabaseInUse", "DatabaseRefused", "TooManyGuesses", "UnknownName", "DatabaseAway"),
    "ArchiveNotFound",
}


def test_the_reasons_of_failures() -> None:
    tracker = TaskTracker()
    for error in test_errors._all_errors().values():
        with tracker.task(1, 7, "batch") as work:
            work.failed(error("Gone."))
    assert sorted(failure.reason for failure in tracker.failures) == sorted(REASONS)
