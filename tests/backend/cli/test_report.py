"""The report as a command."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.feedback.test_annotation_reader import OURS, region

BAD = LabelDiff("<b>dog</b>", deleted=1, predicted_px=30)


def keep(*reads: ReadAnnotation, waiting: int = 0) -> None:
    annotations = AnnotationStore(Database.from_settings(Settings()), "who reads")
    for read in reads:
        annotations.mark(read.project, [read.annotation])
        annotations.complete(annotations.lease(1)[0], read)
    annotations.mark(7, range(1000, 1000 + waiting))


@pytest.fixture
def studio() -> FakeStudio:
    """Two tasks were corrected and one was drawn from nothing, before anybody listened."""
    tasks = {number: {"image": f"{number}.png"} for number in range(1, 5)}
    made = FakeStudio(brush_config("red", "blue"), tasks)
    for task, columns in ((1, 4), (2, 6)):
        prediction = made.add(task, OURS, result=[region("a", "red", 4)])
        made.annotate(task, [region("a", "red", columns)], 1e9, parent_prediction=prediction)
    made.annotate(3, [region("n", "blue", 2)], 1e9, lead_time=70.0)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["report", "--project=7", *arguments], env={"COLUMNS": "200"})


def test_a_project_without_annotations_is_said_to_have_none_once_all_were_asked_for(
    server: LocalServer, studio: FakeStudio
) -> None:
    studio.annotations.clear()
    done = run("--label-studio-url", server.url, "--label-studio-api-key", TOKEN)
    assert done.exit_code == 0, done.output
    assert "Project 7: Label Studio has no annotation of it." in done.output


def test_the_command_reads_a_project_and_reports(server: LocalServer, tmp_path: Path) -> None:
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    assert "the database has no annotation of it. Where LABEL_STUDIO_API_KEY is" in run().output
    files = ["--json", f"{tmp_path}/out/a.json"]
    done = run(*reach, *files)
    assert done.exit_code == 0, done.output
    assert "3 annotations; 2 began with a prediction of this backend, 1 began from" in done.output
    figures = json.loads((tmp_path / "out/a.json").read_text())
    red = figures["all"]["labels"]["red"]
    # 16 and 24 px are right, 16 were predicted each time
    assert (red["accepted"], red["corrected"], red["saved_paint"]) == (1, 1, 0.8)
    assert red["mean_iou"] == pytest.approx((1 + 16 / 24) / 2, abs=1e-6)
    assert (figures["hours_left"]["tasks_left"], figures["hours_left"]["seconds"]) == (1, 10)
    assert "80.0" in run().output.split(), "what was read is there without Label Studio too"


def test_the_command_names_what_does_harm_and_what_it_cannot_reach() -> None:
    keep(
        *(
            ReadAnnotation(n, 7, n, "compared", OURS, created=1e9, changes=(BAD,))
            for n in range(10, 16)
        )
    )
    assert "<b>dog</b> costs more than it saves" in run().output
    gone = ["--label-studio-url", "http://127.0.0.1:9", "--label-studio-api-key", TOKEN]
    away = run(*gone)
    assert (away.exit_code, "of what was read before" in away.output) == (0, True)
