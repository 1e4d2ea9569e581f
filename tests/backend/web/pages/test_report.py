"""The page of the report, and its files."""

import csv
import io

import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import OURS, region
from tests.backend.web.browser import Dashboard

REPORT = "/projects/7/report"
GOOD = LabelDiff("car", accepted=1, predicted_px=20, true_px=20, shared_px=20)
BAD = LabelDiff("<b>dog</b>", deleted=1, predicted_px=30)


@pytest.fixture
def studio() -> FakeStudio:
    """Three of four tasks are annotated."""
    tasks = {number: {"image": f"{number}.png"} for number in range(1, 5)}
    made = FakeStudio(brush_config("red"), tasks)
    for task in (1, 2, 3):
        made.annotate(task, [region("a", "red", 4)], 1e9)
    return made


def keep(*reads: ReadAnnotation, waiting: int = 0) -> None:
    annotations = AnnotationStore(Database.from_settings(Settings()), "who reads")
    for read in reads:
        annotations.mark(read.project, [read.annotation])
        annotations.complete(annotations.lease(1)[0], read)
    annotations.mark(7, range(1000, 1000 + waiting))


READS = (
    ReadAnnotation(1, 7, 1, "compared", OURS, 1, 12.0, 1e9, 1e9, (GOOD, BAD)),
    ReadAnnotation(2, 7, 2, "scratch", "", 1, 40.0, 1e9, 1e9),
    ReadAnnotation(3, 7, 3, "broken", created=1e9, reason="It has no size."),
)


def test_the_page_shows_what_is_saved_and_what_does_harm(dashboard: Dashboard) -> None:
    keep(*READS, waiting=2)
    page = dashboard.page(REPORT)
    for text in ("50.0 %", "12 s", "2 annotations are still to be read", OURS):
        assert text in page.text
    assert "It has no size." in page.text
    assert "<b>dog</b>" in page.text  # as text: nothing in a name becomes a part of the page
    assert "1 region were deleted" not in page.text, "one picture raises no alarm"
    assert "/projects/7" in page.links
    assert "style" not in {name for _, given in page.elements for name in given}
    for link in page.links:
        if link.startswith("/"):
            dashboard.page(link)


def test_labels_with_the_same_trouble_share_one_sentence(dashboard: Dashboard) -> None:
    cat = LabelDiff("cat", deleted=1, predicted_px=30)
    keep(
        *(
            ReadAnnotation(n, 7, n, "compared", OURS, created=1e9, changes=(BAD, cat))
            for n in range(10, 16)
        )
    )
    text = " ".join(dashboard.page(REPORT).text.split())
    assert text.count("or leave the label out of the predictions") == 1
    assert "cat: 6 of its 6 regions were deleted, with a mean IoU of 0.0 %" in text
    assert "<b>dog</b>: 6 of its 6 regions" in text


def test_kinds_of_which_there_are_none_are_folded(dashboard: Dashboard) -> None:
    keep(*READS)
    page = dashboard.page(REPORT)
    shown, _, folded = " ".join(page.text.split()).partition("Kinds without an annotation")
    assert "1began from nothing" in shown
    assert "were skipped" in folded


def test_what_spans_three_weeks_is_shown_by_week(dashboard: Dashboard) -> None:
    created = 1e9 + 22 * 86_400  # the first is of a Sunday, this one of a Monday
    later = ReadAnnotation(4, 7, 4, "compared", OURS, 1, 9.0, created, created, (GOOD,))
    keep(*READS, later)
    text = " ".join(dashboard.page(REPORT).text.split())
    over_time = text.partition("Over time by week, in UTC")[2].partition("By model version")[0]
    assert "2001-09-031250.0 %50.0 %-50.0 %10" in over_time
    assert "2001-10-0111100.0 %100.0 %100.0 %00" in over_time


def test_the_hours_left_are_shown_and_answered(lead: Dashboard, dashboard: Dashboard) -> None:
    keep(*READS)
    for n in range(10, 30):
        keep(ReadAnnotation(n, 7, n, "compared", OURS, 1, 60.0, 1e9, 1e9, (GOOD,)))
    page = " ".join(lead.page(REPORT).text.split())
    assert "1 min for 1 task left to correct; a range comes after 10 days of work." in page
    answered = lead.client.get(f"{REPORT}.json").get_json()["hours_left"]
    assert (answered["tasks_left"], answered["annotations"]) == (1, 21)
    away = dashboard.page(REPORT)
    assert "does not say now how many tasks are left" in away.text
    assert "Time that a prediction saves" not in away.text, "it cannot begin now"


def test_a_pace_that_changes_is_shown_and_answered(lead: Dashboard) -> None:
    for n in range(10, 30):
        seconds, created = (60.0 if n < 20 else 20.0) + n / 10, 1e9 + n
        keep(ReadAnnotation(n, 7, n, "compared", OURS, 1, seconds, created, created, (GOOD,)))
    assert "the pace is changing" in lead.page(REPORT).text
    answered = lead.client.get(f"{REPORT}.json").get_json()["hours_left"]
    assert answered["expected"]["is_changing"] is True


def test_a_project_of_which_nothing_was_read() -> None:
    page = Dashboard(label_studio_url=None, label_studio_api_key=None).page(REPORT)
    assert "No annotation has been read yet." in page.text
    assert "set LABEL_STUDIO_URL" in page.text


def test_json_and_csv(dashboard: Dashboard) -> None:
    keep(*READS)
    client = dashboard.client
    figures = client.get(f"{REPORT}.json").get_json()
    assert client.get(REPORT).get_json() == figures
    assert figures["all"]["labels"]["car"]["saved_paint"] == 1
    assert (figures["step"], figures["periods"][0]["name"]) == ("day", "2001-09-09")
    rows = list(csv.DictReader(io.StringIO(client.get(f"{REPORT}.csv").data.decode())))
    assert {row["label"] for row in rows} == {"all", "car", "<b>dog</b>"}
