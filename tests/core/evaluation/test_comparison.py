"""Candidates compared on labelled pictures, by figures that are worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clearclip_core import (
    HELD_OUT_SEEDS,
    Adaptation,
    BoolMask,
    Label,
    RGBArray,
    ScoreOptions,
    Segmenter,
    render_scene,
)
from clearclip_core.evaluation import comparison
from clearclip_core.evaluation.comparison import (
    AS_PAPER,
    Candidate,
    Comparison,
    LabelFigures,
    LabelledFolder,
    Predicted,
    PredictionRule,
    compare,
    mask_overlaps,
    predict_all,
)
from clearclip_core.evaluation.comparison_report import comparison_json, comparison_page
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.images.label_maps import LayoutError, palette

NAMES = "sky\ncar, van\n-\n?\n"
RULE = PredictionRule(threshold=(0.0, 0.5))
OPTIONS = ScoreOptions(presence=0.1)


def make_folder(root: Path, maps: Sequence[npt.NDArray[np.uint8]]) -> LabelledFolder:
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for number, values in enumerate(maps):
        Image.fromarray(values).save(root / "masks" / f"{number}.png")
        Image.new("RGB", values.shape[::-1]).save(root / "images" / f"{number}.jpg")
    (root / "names.txt").write_text(NAMES)
    return LabelledFolder.find(root / "images", root / "masks", root / "names.txt")


@dataclass(frozen=True, eq=False)
class Fixed:
    """A candidate that predicts the same masks on every picture."""

    masks: dict[int, BoolMask]
    model: str = "m"
    method: str = "clearclip"
    prompts: str = "names.txt"
    rule: PredictionRule = RULE
    options: ScoreOptions = OPTIONS

    def embed(self) -> None: ...


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(candidates: Sequence[Fixed], rgb: Any) -> list[Predicted]:
        return [Predicted(each.masks, 0.5) for each in candidates]

    monkeypatch.setattr(comparison, "predict_all", predict)


def candidates(*masks: dict[int, BoolMask]) -> list[Candidate]:
    fixed: list[Any] = [Fixed(each, f"model-{number}") for number, each in enumerate(masks)]
    return fixed


def columns(*values: int) -> npt.NDArray[np.uint8]:
    """A label map of 10 rows whose columns have these values."""
    return np.tile(np.array(values, np.uint8), (10, 1))


def mask(*places: int, width: int = 4) -> BoolMask:
    made = np.zeros((10, width), bool)
    made[:, list(places)] = True
    return made


def test_a_folder_is_read_with_the_labels_of_its_names(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 1, 2, 3)])
    assert folder.labels == (Label("sky", ("sky",)), Label("car", ("car", "van")))
    _, truth = folder.pictures[0].read()
    assert truth[0].tolist() == [0, 1, 254, 255]


def test_other_words_need_a_line_for_each_label(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 1)])
    words = tmp_path / "words.txt"
    words.write_text("heaven\nautomobile, taxi\n")
    assert [label.prompts for label in folder.with_prompts(words)] == [
        ("heaven",),
        ("automobile", "taxi"),
    ]
    assert [label.name for label in folder.with_prompts(words)] == ["sky", "car"]
    words.write_text("heaven\n")
    with pytest.raises(ValueError, match="to have words for 2 labels, one a line, but got 1"):
        folder.with_prompts(words)


def test_pixels_that_are_not_counted_count_for_neither_side() -> None:
    truth = np.array([[0, 255, 254, 1]], np.uint8)
    sky, car = mask_overlaps({0: np.array([[True, True, True, False]])}, truth, 2)
    assert (sky.predicted_px, sky.true_px, sky.shared_px) == (2, 1, 1)
    assert (car.predicted_px, car.true_px, car.shared_px) == (0, 1, 0)


def test_figures_are_of_the_sums_over_all_pictures(tmp_path: Path) -> None:
    """Sky: 20 of 20 and then 10 of 30 pixels found; car: 10 erased and 10 painted."""
    folder = make_folder(tmp_path, [columns(0, 0, 2, 1), columns(0, 0, 0, 3)])
    first = {0: mask(0, 1), 1: mask(2)}
    made = compare(folder, candidates(first))
    (figures,) = made.figures
    sky, car = figures.labels
    assert (sky.pictures, sky.predicted, sky.close) == (2, 2, 1)
    assert sky.overlap.iou == pytest.approx(40 / 50)
    assert sky.overlap.saved_paint == pytest.approx(1 - 10 / 50)
    assert (car.pictures, car.predicted, car.close) == (2, 2, 0)
    assert car.overlap.iou == pytest.approx(0 / 30)
    assert car.overlap.saved_paint == pytest.approx(1 - 30 / 10)
    assert figures.mean_iou == pytest.approx((40 / 50 + 0) / 2)
    assert figures.all.overlap.saved_paint == pytest.approx(1 - 40 / 60)
    assert figures.all.close_share == pytest.approx(1 / 4)
    assert figures.seconds_per_picture == 0.5


def test_pictures_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 1)] * 3)
    (tmp_path / "images" / "1.jpg").write_bytes(b"broken")
    fixed = candidates({0: mask(0, width=2)})
    with pytest.raises(LayoutError, match=r"1.jpg cannot be read"):
        compare(folder, fixed)
    made = compare(folder, fixed, leave_out=(LayoutError,))
    assert made.figures[0].labels[0].pictures == 2
    ((name, reason),) = made.left_out
    assert name == "1"
    assert "1.jpg cannot be read" in reason
    content = json.loads(comparison_json(made))
    assert content["pictures"] == 2
    assert content["left_out"] == [{"name": name, "reason": reason}]
    (run,) = content["runs"]
    assert run["thresholds"] == {"sky": 0, "car": 0.5}
    assert run["presence"] == 0.1
    assert (run["miou"], run["saved_paint"]) == (0.5, 0.5)
    assert run["labels"]["car"]["close"] == 0
    for picture in (tmp_path / "images").iterdir():
        picture.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"No picture can be measured. 0: .*cannot be read"):
        compare(folder, fixed, leave_out=(LayoutError,))


def test_a_mask_is_close_from_nine_tenths_on() -> None:
    assert LabelFigures.of(MaskOverlap(10, 9, 9)).close == 1
    assert LabelFigures.of(MaskOverlap(11, 9, 9)).close == 0
    assert LabelFigures.of(MaskOverlap(0, 9, 0)).close_share is None


def test_the_worst_pictures_are_kept_the_worst_first(tmp_path: Path) -> None:
    maps = [columns(0, 0, 0, 0), columns(1, 1, 1, 1), columns(0, 0, 1, 1)]
    folder = make_folder(tmp_path, maps)
    made = compare(folder, candidates({0: mask(0, 1, 2, 3)}), shown=2)
    assert [picture.name for picture in made.worst] == ["1", "2"]
    black, truth, predicted = (image.astype(float) for image in made.worst[0].images)
    sky, car = 0.55 * palette(2)
    assert (black == 0).all()
    assert np.abs(truth - car).max() < 1
    assert np.abs(predicted - sky).max() < 1


def page_of(made: Comparison) -> str:
    return comparison_page(made).decode()


def test_a_page_needs_no_network_and_escapes_names(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 0, 1, 1)])
    evil: Any = Fixed({0: mask(0)}, model="<script>alert(1)</script>")
    other: Any = Fixed({1: mask(2, 3)}, model="plain")
    page = page_of(compare(folder, [evil, other], shown=1))
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert '<meta name="viewport"' in page, "a phone shows it at its own width"
    assert page.count("data:image/jpeg;base64,") == 4  # picture, truth and two predictions
    assert "saved paint 50.0" in page


LABELS = tuple(Label(name) for name in ("sky", "grass", "tree", "house"))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load("demo", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def image() -> RGBArray:
    return render_scene(HELD_OUT_SEEDS[3], (96, 128)).image


def test_the_paper_gives_each_pixel_its_best_label(segmenter: Segmenter, image: RGBArray) -> None:
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", AS_PAPER)], image)
    expected = segmenter.segment(image, LABELS).label_map
    assert (made.label_map(expected.shape) == expected).all()  # type: ignore[arg-type]
    assert (expected >= 0).all()
    assert made.seconds > 0


def test_the_backend_lets_other_words_win(segmenter: Segmenter, image: RGBArray) -> None:
    rule = PredictionRule(threshold=0.3, min_island_share=0.01)
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", rule)], image)
    segmentation = segmenter.segment(image, LABELS, contrast=True, threshold=0.3, refine=True)
    min_px = round(0.01 * 96 * 128)
    expected = segmentation.masks(min_px, min_px)
    assert {LABELS[index].name for index in made.masks} == set(expected)
    for index, mask in made.masks.items():
        assert np.array_equal(mask, expected[LABELS[index].name])


def test_each_label_may_have_a_threshold_and_1_is_never_reached(
    segmenter: Segmenter, image: RGBArray
) -> None:
    thresholds = (1.0, 0.6, 0.5, 0.7)
    rule = PredictionRule(threshold=thresholds, min_island_share=0)
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", rule)], image)
    segmentation = segmenter.segment(image, LABELS, contrast=True, refine=True)
    sure = segmentation.confidence.astype(float)
    won = [segmentation.label_map == index for index in range(4)]
    assert won[0].any()
    expected = {index: won[index] & (sure >= thresholds[index]) for index in (1, 2, 3)}
    there = {index: mask for index, mask in expected.items() if mask.any()}
    assert there.keys() == made.masks.keys()
    assert all(np.array_equal(mask, made.masks[index]) for index, mask in there.items())
    assert any((won[index] & ~mask).any() for index, mask in there.items())


def test_what_was_learned_changes_the_scores(segmenter: Segmenter, image: RGBArray) -> None:
    width = segmenter.embed(["sky"]).shape[1]
    grass = Adaptation(("grass",), np.zeros((1, width), np.float32), np.full(1, 9, np.float32), 1)
    candidate = Candidate(segmenter, LABELS, "demo", "", AS_PAPER, grass)
    (made,) = predict_all([candidate], image)
    assert list(made.masks) == [1]  # its scores are far above all others everywhere


def test_what_counts_beside_the_words_changes_the_masks(
    segmenter: Segmenter, image: RGBArray
) -> None:
    options = ScoreOptions(presence=0.4)
    labels = (Label("sky", ("sky", "road")), *LABELS[1:])
    plain = Candidate(segmenter, labels, "demo", "", AS_PAPER)
    usual, made = predict_all([plain, replace(plain, options=options)], image)
    expected = segmenter.segment(image, labels, options=options).label_map
    assert (made.label_map(expected.shape) == expected).all()  # type: ignore[arg-type]
    assert (usual.label_map(expected.shape) != expected).any()  # type: ignore[arg-type]
