"""Other settings are measured as the library predicts with them, and one thing at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.runs.models import MODELS, ComparedModel, ModelsReport, choices
from backend.runs.run_store import Run
from backend.services import Services
from backend.settings import Settings
from clearclip_core import SCENE_LABELS, Segmenter
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.runs.conftest import Maker
from tests.backend.runs.scene_project import LABELS, SIZE_HW, scene_studio, scenes
from tests.core.clip.siglip_models import write_siglip

MIN_PX = round(0.0005 * SIZE_HW[0] * SIZE_HW[1])


@pytest.fixture
def measure(services: Services) -> Iterator[Maker]:
    with scene_studio(annotated=3).served() as server:
        yield Maker(MODELS, services, LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def words_iou(method: str, short_side_px: int = 224) -> float:
    """Mean IoU of the labels by the words alone, on the annotated scenes."""
    segmenter = Segmenter.load(
        "demo", method, device="cpu", precision="fp32", short_side_px=short_side_px
    )
    both, union = np.zeros(len(LABELS)), np.zeros(len(LABELS))
    for scene in scenes()[:3]:
        made = segmenter.segment(scene.image, LABELS, contrast=True, refine=True)
        masks = made.masks(MIN_PX, MIN_PX)
        for index, name in enumerate(LABELS):
            ours = masks.get(name, np.zeros(SIZE_HW, bool))
            theirs = scene.label_map == SCENE_LABELS.index(name)
            both[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
    return float(np.mean(both[union > 0] / union[union > 0]))


def test_each_choice_is_measured_as_the_library_predicts(
    measure: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.models._METHODS", ("clearclip", "naclip", "rfclip"))
    steps: list[tuple[int, int | None]] = []
    report = measure(lambda *step: steps.append(step))

    names = ["as it is now", "method naclip", "scores drawn together", "pictures at 336 px"]
    assert [each.name for each in report.models] == names
    assert list(report.refused) == ["method rfclip"], "its sink channels are not known"
    now, naclip, _, larger = report.models
    assert now.words_iou == pytest.approx(words_iou("clearclip"), abs=0.004)
    assert naclip.words_iou == pytest.approx(words_iou("naclip"), abs=0.004)
    assert larger.words_iou == pytest.approx(words_iou("clearclip", 336), abs=0.004)
    assert (now.gain, now.lines, naclip.lines) == (0, (), ("METHOD=naclip",))
    assert 0 < now.picture_mb < larger.picture_mb
    assert [done for done, _ in steps] == [*range(24)]
    assert steps[-1] == (23, 24), "of what is refused nothing is counted"


def test_another_family_is_compared_and_refuses_the_methods_of_clip(tmp_path: Path) -> None:
    model = f"local-dir:{write_siglip(tmp_path / 'siglip')}"
    made = Services(Settings(model=model, device="cpu", precision="fp32", short_side_px=160))
    with scene_studio(annotated=2).served() as server, made.engine:
        report = Maker(MODELS, made, LabelStudioClient(server.url, TOKEN, retry_for_s=1))()

    names = ["as it is now", "scores drawn together", "pictures at 240 px"]
    assert [each.name for each in report.models] == names
    assert all(each.words_iou and each.seconds > 0 for each in report.models)
    of_vits = ["naclip", "pearl", "sfp", "scclip", "rfclip"]
    assert list(report.refused) == [f"method {each}" for each in of_vits]
    assert all("native Vision Transformer" in reason for reason in report.refused.values())


def test_a_comparison_ends_where_its_progress_says_so(measure: Maker) -> None:
    """As for a run that somebody cancels."""

    def cancelled(done: int, _total: int | None) -> None:
        if done == 2:
            raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        measure(cancelled)


def test_a_project_without_annotations_has_nothing_to_compare(services: Services) -> None:
    with scene_studio(annotated=0).served() as server:
        parts = services.run_parts(LabelStudioClient(server.url, TOKEN, retry_for_s=1))
        run = Run(id=1, kind="models", project=7, asked={})
        with pytest.raises(ValueError, match="no annotated tasks"):
            MODELS.make(parts, run, MODELS.asked(), lambda _done, _total: None)


@pytest.mark.parametrize(
    ("given", "there", "second_px", "expected"),
    [
        ({}, (), None, []),
        ({}, ("a.x", "b.x"), None, ["second encoder a.x", "second encoder b.x"]),
        (
            {"second_model": "test_vit.r160_in1k"},
            ("test_vit.r160_in1k",),
            896,
            ["no second encoder", "second encoder at 448 px"],
        ),
        (
            {"second_model": "test_vit.r160_in1k", "method": "proxyclip"},
            (),
            336,
            ["second encoder at 672 px"],
        ),
    ],
)
def test_second_encoders_that_are_there_are_choices(
    given: dict[str, str], there: tuple[str, ...], second_px: int | None, expected: list[str]
) -> None:
    names = [*choices(Settings(model="demo", **given), there, second_px)]
    assert [name for name in names if "second" in name] == expected
    assert ("method proxyclip" in names) == ("second_model" in given and "method" not in given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"click_model": "a"}, [("regions that vote", True)]),
        ({"click_model": "a", "regions": "1"}, [("regions that do not vote", False)]),
    ],
)
def test_regions_are_a_choice_where_there_is_a_click_model(
    given: dict[str, str], expected: list[tuple[str, bool]]
) -> None:
    found = choices(Settings(model="demo", **given))
    assert [(name, of["regions"]) for name, of in found.items() if "regions" in of] == expected


def test_regions_are_not_compared_without_the_click_model_that_proposes_them(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.models._METHODS", ("clearclip",))
    settings = services.settings.model_copy(update={"click_model": "a"})
    without = Services(settings, given_engine=services.engine)
    with scene_studio(annotated=1).served() as server:
        report = Maker(MODELS, without, LabelStudioClient(server.url, TOKEN, retry_for_s=1))()
    assert list(report.refused) == ["regions that vote"]


def compared(learned: float, low: float = 0.0, losing: tuple[str, ...] = ()) -> ComparedModel:
    lines = ("METHOD=pearl",) if low else ()
    return ComparedModel("", lines, 0.3, learned, 0.5, 1.0, 9.0, 2.0, low + 0.1, low, 0.3, losing)


@pytest.mark.parametrize(
    ("pictures", "best", "is_sure"),
    [
        (10, compared(0.6, 0.01), True),
        (9, compared(0.6, 0.01), False),
        (10, compared(0.6, -0.01), False),
        (10, compared(0.6, 0.01, ("car",)), False),
        (10, compared(0.4, 0.01), False),
    ],
)
def test_the_best_counts_only_beyond_chance(
    pictures: int, best: ComparedModel, is_sure: bool
) -> None:
    assert ModelsReport(pictures, 3, (compared(0.5), best)).is_sure == is_sure
