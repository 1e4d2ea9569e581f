"""The runs of a kind as a value: what their pages say of them and of a report."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from backend.dataset.dataset_report import ClassCount
from backend.runs.gallery import ShownImage
from backend.runs.models import ComparedModel, ModelsReport
from backend.runs.run_store import Run
from backend.views.runs import (
    AgreementRuns,
    Confirmed,
    DatasetRuns,
    LabelErrorRuns,
    ModelsRuns,
    RunsView,
    WordsRuns,
    model_rows,
)
from backend.views.text import plain
from tests.backend.runs import samples

TEN_DAYS_AGO = 864_000.0


def run(**more: Any) -> Run:
    return Run(**{"id": 4, "kind": "words", "project": 7, "asked": {}, "state": "done"} | more)


def view(kind: Any, report: Any = None, *runs: Run, **more: Any) -> Any:
    known = {"project": 7, "run": runs[0] if runs else None, "runs": runs, "report": report}
    known |= {"is_outdated": False, "report_run": 4, "finished": None}
    return kind(**known | more)


def url_of(page: str, **values: Any) -> str:
    return f"/{page}" + "".join(f"/{value}" for value in values.values())


def test_the_reason_of_a_run_stands_in_one_place() -> None:
    failed, before = run(id=5, state="failed", reason="It is gone."), run(reason="Left out.")
    shown = view(RunsView, None, failed, before)
    assert (shown.reason_of(failed), shown.reason_of(before)) == ("", "Left out.")


def test_only_a_run_at_work_says_how_far_it_is() -> None:
    assert view(RunsView, None, run(state="running", done=3, total=12)).progress == "3 of 12"
    assert view(RunsView, None, run(done=12, total=12)).progress == ""


def test_what_is_not_there_is_made_again() -> None:
    assert plain(view(RunsView).outdated("")).endswith("cannot show it: make it again.")


def test_tasks_that_are_not_named_are_counted() -> None:
    assert view(RunsView, samples.LABEL_ERRORS).left_out_note == "The first 1 of 7 tasks."
    assert view(RunsView, samples.WORDS).left_out_note == ""


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"formats": ["coco", "yolo"], "pictures": True}, "Data set 4: coco, yolo"),
        (
            {"formats": ["coco"], "split": "80/20", "near_duplicates": 0.98, "view": 3},
            "Data set 4: coco, split 80/20, near-duplicates from 0.98, view 3, without pictures",
        ),
    ],
)
def test_the_name_of_a_data_set_says_what_was_asked(asked: dict[str, Any], name: str) -> None:
    assert view(DatasetRuns).name_of(run(asked=asked)) == name


def facts(asked: dict[str, Any], /, **report: Any) -> dict[str, str]:
    told: dict[str, str] = view(
        DatasetRuns, replace(samples.DATASET, **report), run(id=5), run(asked=asked)
    ).facts
    return told


def test_parts_have_the_share_that_was_asked() -> None:
    known = facts({}, parts={"train": 2, "val": 1}, pictures=3, asked={"train": 70, "val": 30})
    assert known["Pictures, train"] == "2 (67 %, 70 % asked)"
    assert facts({}, parts={"all": 3}, pictures=3)["Pictures, all"] == "3"


def test_choices_are_those_of_the_report_and_not_of_the_newest_run() -> None:
    assert facts({"annotations": "12"})["Of several annotations"] == "those of annotator 12"
    assert facts({"overlap": "smallest"})["Pixels of several regions"] == "the smallest region"


def test_renamed_labels_are_named() -> None:
    known = facts({"renamed": {"House": "Building", "Old": ""}})
    assert known["Renamed labels"] == "House: Building, Old: left out"


def test_a_small_file_is_under_a_megabyte() -> None:
    small = view(DatasetRuns, replace(samples.DATASET, size_bytes=1000), finished=TEN_DAYS_AGO)
    assert small.file.startswith("2 pictures, under 1 MB, made ")


def test_classes_that_a_part_lacks_are_told() -> None:
    every, some = ClassCount(2, 2, 50), ClassCount()
    classes = {
        "sky": {"train": every, "val": every},
        "boat": {"train": ClassCount(1, 3, 100), "val": some},
        "tree": {"train": some, "val": some},
    }
    shown = view(DatasetRuns, replace(samples.DATASET, classes=classes))
    assert shown.lacked() == {"boat": "no picture in val, 1 picture in train"}


def test_a_picture_of_one_part_alone_names_no_part() -> None:
    image = ShownImage(12, "train", "")
    assert view(DatasetRuns, samples.DATASET).caption(image) == "Task 12, train"
    alone = replace(samples.DATASET, parts={"train": 2})
    assert view(DatasetRuns, alone).caption(image) == "Task 12"


def test_words_that_nobody_has_corrected_are_judged_by_eye() -> None:
    assert view(WordsRuns, samples.WORDS).measured == (
        "Measured on 1 corrected picture, the best first"
    )
    untold = view(WordsRuns, replace(samples.WORDS, is_corrected=False))
    assert untold.measured == "On 1 picture: nobody has corrected it, so judge by eye"


def test_a_run_of_words_has_their_label_as_its_head() -> None:
    one = view(WordsRuns, None, run(asked={"label": "tree"}))
    assert (one.head(is_one=True), one.head(is_one=False)) == (
        "Words for tree",
        "Find the right words",
    )
    assert view(WordsRuns, None, run()).head(is_one=True) == "All words, checked"


def test_other_words_are_tried_for_the_same_label() -> None:
    (link,) = view(WordsRuns, None, run(asked={"label": "tree"})).next(True, url_of)
    assert (link.text, link.url) == ("Try other words", "/words.page/7/tree")


def test_a_figure_of_words_needs_corrections() -> None:
    assert view(WordsRuns, samples.WORDS).figure(0.75) == "IoU 75.0 %"
    assert view(WordsRuns, samples.WORDS).figure(None) == "not there"
    assert view(WordsRuns, replace(samples.WORDS, is_corrected=False)).figure(None) == ""


def errors(report: Any = samples.LABEL_ERRORS, *confirmed: Confirmed) -> LabelErrorRuns:
    shown: LabelErrorRuns = view(LabelErrorRuns, report, confirmed=[*confirmed], people=[])
    return shown


def test_without_corrections_annotations_are_compared_with_the_words() -> None:
    assert errors().compared.endswith("each with what the other corrected pictures teach.")
    alone = replace(samples.LABEL_ERRORS, examples=0)
    assert errors(alone).compared.endswith(
        "with the words alone, since there is nothing to learn from."
    )


def test_an_annotation_that_is_listed_twice_is_confirmed_as_a_whole() -> None:
    found = samples.LABEL_ERRORS.suspicions[0]
    assert errors().confirmation(found)[0] == "This is right"
    twice = replace(samples.LABEL_ERRORS, suspicions=(found, found))
    assert errors(twice).confirmation(found)[0] == "The whole annotation is right"


def test_what_was_confirmed_is_linked() -> None:
    assert "#confirmed" not in [part.url for part in errors().done("confirm")]
    told = errors(samples.LABEL_ERRORS, Confirmed(12, 3)).done("confirm")
    assert [part.url for part in told] == ["", "", "#confirmed"]


def test_figures_of_few_pictures_say_so() -> None:
    of_nine, of_ten = samples.AGREEMENT.labels
    shown = view(AgreementRuns, samples.AGREEMENT)
    assert (shown.few(of_nine), shown.few(of_ten)) == ("few", "")


def test_a_picture_of_several_has_its_number() -> None:
    of_one, of_several = samples.AGREEMENT.disputes
    shown = view(AgreementRuns, samples.AGREEMENT)
    assert (shown.where(of_one), shown.where(of_several)) == ("2 people", "picture 2, 3 people")


NOW = ComparedModel("as it is now", (), 0.3, 0.5, 0.4, 1.25, 345.2, 20.7)
PEARL = ComparedModel(
    *("method pearl", ("METHOD=pearl",), 0.3, 0.6, None, 2, 845, 102), gain=0.1, low=0.05, high=0.2
)


def test_the_table_of_models_has_a_range_for_all_but_those_in_use() -> None:
    assert model_rows(ModelsReport(12, 2, (NOW, PEARL))) == [
        ["as it is now", "30.0 %", "50.0 %", "", "40.0 %", "1.25", "345 + 21"],
        ["method pearl", "30.0 %", "60.0 %", "+10.0 (+5.0 to +20.0)", "–", "2.00", "845 + 102"],
    ]


@pytest.mark.parametrize(
    ("pictures", "models", "sentence", "lines"),
    [
        (12, (NOW, PEARL), "The best is “method pearl”.", ("METHOD=pearl",)),
        (9, (NOW, PEARL), "9 pictures: too few to tell.", ()),
        (12, (NOW, replace(PEARL, low=-0.01)), "Too few pictures to tell: “method pearl”", ()),
        (12, (NOW, replace(PEARL, losing=("car",))), "Too few pictures to tell", ()),
        (12, (NOW, replace(PEARL, learned_iou=0.4)), "Nothing that was tried is better", ()),
    ],
)
def test_the_lines_of_the_best_model_are_shown_beyond_chance(
    pictures: int, models: tuple[ComparedModel, ...], sentence: str, lines: tuple[str, ...]
) -> None:
    shown = view(ModelsRuns, ModelsReport(pictures, 2, models))
    assert shown.verdict.startswith(sentence)
    assert shown.lines == lines
