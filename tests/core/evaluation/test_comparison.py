"""Candidates compared on labelled pictures, by figures that are worked out by hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
    Segmenter,
    render_scene,
)
from clearclip_core.adaptation.fitting import HeldOutAdaptations
from clearclip_core.evaluation import comparison
from clearclip_core.evaluation.comparison import (
    AS_PAPER,
    Candidate,
    LabelledFolder,
    PredictionRule,
    compare,
    comparison_json,
    comparison_page,
    predict_all,
    shares_of,
)
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.images.drawing import palette
from clearclip_core.images.label_maps import LayoutError

NAMES = "sky\ncar, van\n-\n?\n"


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
    name: tuple[str, str, str] = ("m", "clearclip", "names.txt")

    def embed(self) -> None: ...


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(
        candidates: Sequence[Fixed], rgb: Any, _image: str
    ) -> list[tuple[dict[int, BoolMask], float]]:
        return [(each.masks, 0.5) for each in candidates]

    monkeypatch.setattr(comparison, "predict_all", predict)


def candidates(*masks: dict[int, BoolMask]) -> list[Candidate]:
    fixed: list[Any] = [Fixed(each) for each in masks]
    return fixed


def columns(*values: int) -> npt.NDArray[np.uint8]:
    """A label map of 10 rows whose columns have these values."""
    return np.tile(np.array(values, np.uint8), (10, 1))


def mask(*places: int, width: int = 4) -> BoolMask:
    made = np.zeros((10, width), bool)
    made[:, list(places)] = True
    return made


def test_a_folder_is_read_with_the_labels_of_its_names_or_other_words(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 1, 2, 3)])
    assert folder.labels == (Label("sky", ("sky",)), Label("car", ("car", "van")))
    _, truth = folder.pictures[0].read()
    assert truth[0].tolist() == [0, 1, 254, 255]
    words = tmp_path / "words.txt"
    words.write_text("heaven\nautomobile, taxi\n")
    other = Label("sky", ("heaven",)), Label("car", ("automobile", "taxi"))
    assert tuple(folder.with_prompts(words)) == other
    words.write_text("heaven\n")
    with pytest.raises(ValueError, match="to have words for 2 labels, one a line, but got 1"):
        folder.with_prompts(words)


def test_a_mask_is_close_from_nine_tenths_on() -> None:
    *_, close_share = shares_of([MaskOverlap(px, 9, 9) for px in (10, 11)])
    assert close_share == 1 / 2
    assert shares_of([MaskOverlap(0, 9, 0)])[3] is None


def test_figures_are_of_the_sums_over_all_pictures(tmp_path: Path) -> None:
    """Sky: 20 of 20 and then 10 of 30 pixels found; car: 10 erased and 10 painted."""
    folder = make_folder(tmp_path, [columns(0, 0, 2, 1), columns(0, 0, 0, 3)])
    first = {0: mask(0, 1), 1: mask(2)}
    made = compare(folder, candidates(first))
    (figures,) = made.figures
    sky, car = map(shares_of, figures.labels)
    assert list(map(len, figures.labels)) == [2, 2]
    assert (sky[0], sky[2], sky[3]) == pytest.approx((40 / 50, 1 - 10 / 50, 1 / 2))
    assert (car[0], car[2], car[3]) == pytest.approx((0, 1 - 30 / 10, 0))
    iou, _, saved_paint, close_share = figures.shares
    assert iou == pytest.approx((40 / 50 + 0) / 2)
    assert saved_paint == pytest.approx(1 - 40 / 60)
    assert close_share == pytest.approx(1 / 4)
    assert figures.seconds == [0.5, 0.5]


def test_pictures_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 1)] * 3)
    (tmp_path / "images" / "1.jpg").write_bytes(b"broken")
    fixed = candidates({0: mask(0, width=2)})
    with pytest.raises(LayoutError, match=r"1.jpg cannot be read"):
        compare(folder, fixed)
    made = compare(folder, fixed, leave_out=(LayoutError,))
    assert len(made.figures[0].labels[0]) == 2
    ((name, reason),) = made.left_out
    assert name == "1"
    assert "1.jpg cannot be read" in reason
    content = json.loads(comparison_json(made))
    assert content["pictures"] == 2
    assert content["left_out"] == [{"name": name, "reason": reason}]
    (run,) = content["runs"]
    assert (run["model"], run["prompts"]) == ("m", "names.txt")
    assert (run["iou"], run["saved_paint"], run["seconds_per_picture"]) == (0.5, 0.5, 0.5)
    assert run["labels"]["car"]["close_share"] is None
    for picture in (tmp_path / "images").iterdir():
        picture.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"No picture can be measured. 0: .*cannot be read"):
        compare(folder, fixed, leave_out=(LayoutError,))


def test_the_worst_pictures_are_kept_the_worst_first(tmp_path: Path) -> None:
    maps = [columns(0, 0, 0, 0), columns(1, 1, 1, 1), columns(0, 0, 1, 1)]
    folder = make_folder(tmp_path, maps)
    made = compare(folder, candidates({0: mask(0, 1, 2, 3)}), shown=2)
    assert [name for name, _ in made.worst] == ["1", "2"]
    black, truth, predicted = (image.astype(float) for image in made.worst[0][1].values())
    sky, car = 0.35 * palette(2)
    assert (black == 0).all()
    assert np.abs(truth - car).max() < 1
    assert np.abs(predicted - sky).max() < 1


def test_a_page_needs_no_network_and_escapes_names(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [columns(0, 0, 1, 1)])
    evil: Any = Fixed({0: mask(0)}, ("<script>alert(1)</script>", "clearclip", "names.txt"))
    other: Any = Fixed({1: mask(2, 3)})
    made = compare(folder, [evil, other], shown=1)
    assert made.best == 1
    page = comparison_page(made).decode()
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


def test_the_backend_lets_other_words_win(segmenter: Segmenter, image: RGBArray) -> None:
    rule = PredictionRule(threshold=(0.3,) * 4, min_island_share=0.01)
    ((made, _),) = predict_all([Candidate(segmenter, LABELS, "demo", "", rule)], image)
    segmentation = segmenter.segment(image, LABELS, contrast=True, threshold=0.3, refine=True)
    min_px = round(0.01 * 96 * 128)
    expected = segmentation.masks(min_px, min_px)
    assert {LABELS[index].name for index in made} == set(expected)
    for index, mask in made.items():
        assert np.array_equal(mask, expected[LABELS[index].name])


def test_what_was_learned_changes_the_scores(segmenter: Segmenter, image: RGBArray) -> None:
    width = segmenter.embed(["sky"]).shape[1]
    grass = Adaptation(("grass",), np.zeros((1, width), np.float32), np.full(1, 9, np.float32), 1)
    learned = HeldOutAdaptations({"other": grass})
    candidate = Candidate(segmenter, LABELS, "demo", "", AS_PAPER, learned)
    ((made, _),) = predict_all([candidate], image, "other")
    assert list(made) == [1]  # its scores are far above all others everywhere
    ((made, _),) = predict_all([candidate], image, "this")
    assert len(made) > 1


def test_a_best_that_may_be_so_by_chance_is_doubted(tmp_path: Path) -> None:
    """Five of five pictures are better by chance in 1 of 16 comparisons, six of six in 1 of 32."""
    half, whole = {0: mask(0, 1)}, {0: mask(0, 1, 2, 3)}
    for count, is_doubted in ((5, True), (6, False)):
        (tmp_path / str(count)).mkdir()
        folder = make_folder(tmp_path / str(count), [columns(0, 0, 0, 0)] * count)
        made = compare(folder, candidates(half, whole))
        assert made.best == 1
        assert ("5 of 5 pictures" in made.doubt) == is_doubted
        assert bool(made.doubt) == is_doubted
