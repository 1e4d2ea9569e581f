"""Click models: answers equal transformers' own to the last bit, and words choose between masks."""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from clearclip_core import (
    ClickModel,
    ClickModelPredictor,
    Point,
    RGBArray,
    Scores,
    Segmenter,
    Vocabulary,
    WeightsNotFoundError,
    check_weights,
)
from clearclip_core.clip.weights import ModelName, download_weights, known_click_models
from clearclip_core.prompting.click_model import ClickFeatures, label_probability, load_click_model
from clearclip_core.segmentation.windows import WindowPlan
from tests.core.conftest import picture
from tests.core.prompting.click_models import KINDS, write_click_model

SIZES = ((90, 150), (200, 61), (128, 128), (1, 7))

#: Points and whether they are on the thing: one click, a correction, several.
CLICKS = (
    ((40.25, 30.5, 1),),
    ((40.25, 30.5, 1), (10.0, 50.75, 0)),
    ((3.0, 3.0, 1), (50.0, 40.0, 1), (20.0, 2.0, 0), (59.5, 60.5, 0)),
)

_OWN = {
    "sam2": (transformers.Sam2Model, transformers.Sam2Processor),
    "sam3_tracker": (transformers.Sam3TrackerModel, transformers.Sam3TrackerProcessor),
    "edgetam": (transformers.EdgeTamModel, transformers.Sam2Processor),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("click models")
    return {kind: write_click_model(kind, parent / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, ClickModel]:
    return {kind: load_click_model(str(folder), "cpu", "fp32") for kind, folder in folders.items()}


def scores_of(size_hw: tuple[int, int], names: Sequence[str] = ("dog", "cat")) -> Scores:
    plan = WindowPlan(size_hw, size_hw, 64, 32, (16, 16))
    shape = len(names), len(plan.rows.patch_centres), len(plan.columns.patch_centres)
    return Scores(torch.zeros(shape), plan, Vocabulary.of(list(names)))


def predictor_of(model: ClickModel, image: RGBArray) -> ClickModelPredictor:
    features = model.encode([model.prepare(image)])[0]
    return ClickModelPredictor(model, features, scores_of(image.shape[:2]))


def by_transformers(folder: Path, kind: str, image: RGBArray, **prompt: object) -> torch.Tensor:
    """Return (H, W) bool of transformers' own model and processor, used as its guide says."""
    model_class, processor_class = _OWN[kind]
    model, processor = (each.from_pretrained(folder) for each in (model_class, processor_class))
    inputs = processor(images=Image.fromarray(image), return_tensors="pt", **prompt)
    several = len(prompt.get("input_points", [[[]]])[0][0]) == 1  # type: ignore[index]
    with torch.no_grad():
        out = model(**inputs, multimask_output=several)
    masks = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0]
    best: torch.Tensor = masks[out.iou_scores[0, 0].argmax()]
    return best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("clicks", CLICKS, ids=len)
def test_clicks_are_answered_as_transformers_answers_them(
    models: dict[str, ClickModel],
    folders: dict[str, Path],
    kind: str,
    size_hw: tuple[int, int],
    clicks: Sequence[tuple[float, float, int]],
) -> None:
    image = picture(*size_hw)
    inside = [(min(x, size_hw[1]), min(y, size_hw[0]), is_on) for x, y, is_on in clicks]
    found = predictor_of(models[kind], image).click(
        *(Point(x, y, bool(is_on)) for x, y, is_on in inside)
    )
    expected = by_transformers(
        folders[kind],
        kind,
        image,
        input_points=[[[[x, y] for x, y, _ in inside]]],
        input_labels=[[[is_on for _, _, is_on in inside]]],
    )
    assert np.array_equal(found.mask, expected.numpy())


def test_sizes_are_those_that_transformers_offers(
    models: dict[str, ClickModel], folders: dict[str, Path]
) -> None:
    image = picture(90, 150)
    model, processor = (each.from_pretrained(folders["sam2"]) for each in _OWN["sam2"])
    asked = {"input_points": [[[[30, 40], [90, 50]]]], "input_labels": [[[1, 0]]]}
    inputs = processor(images=Image.fromarray(image), return_tensors="pt", **asked)
    with torch.no_grad():
        out = model(**inputs, multimask_output=True)
    masks = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0]
    sizes = predictor_of(models["sam2"], image).click((30, 40), Point(90, 50, False), several=True)
    order = out.iou_scores[0, 0].argsort(descending=True)
    assert torch.equal(torch.from_numpy(np.stack([each.mask for each in sizes])), masks[order])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", SIZES[:3])
def test_boxes_are_answered_as_transformers_answers_them(
    models: dict[str, ClickModel], folders: dict[str, Path], kind: str, size_hw: tuple[int, int]
) -> None:
    image, box = picture(*size_hw), (4.5, 6.0, 50.0, 55.25)
    found = predictor_of(models[kind], image).box(box)
    expected = by_transformers(folders[kind], kind, image, input_boxes=[[list(box)]])
    assert np.array_equal(found.mask, expected.numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_encoded_together_as_transformers_does(
    models: dict[str, ClickModel], folders: dict[str, Path], kind: str
) -> None:
    images = [picture(90, 150), picture(70, 61, seed=1)]
    model = models[kind]
    found = model.encode([model.prepare(each) for each in images])
    model_class, processor_class = _OWN[kind]
    own = model_class.from_pretrained(folders[kind])
    processor = processor_class.from_pretrained(folders[kind])
    pixels = processor(images=[Image.fromarray(each) for each in images], return_tensors="pt")
    with torch.no_grad():
        expected = own.get_image_embeddings(pixels["pixel_values"])
    for level, maps in enumerate(expected):
        assert torch.equal(torch.stack([each.maps[level] for each in found]), maps)


def test_masks_of_the_random_models_are_neither_empty_nor_full(
    models: dict[str, ClickModel],
) -> None:
    for model in models.values():
        masks = [
            predictor_of(model, picture(90, 150)).click(Point(x, 40)).mask for x in (30, 70, 120)
        ]
        assert any(0 < each.mean() < 1 for each in masks)


def test_pictures_that_a_camera_has_turned_are_clicked_as_they_are_seen(
    tmp_path: Path, models: dict[str, ClickModel]
) -> None:
    seen = picture(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the file holds it turned by a quarter
    Image.fromarray(np.rot90(seen).copy()).save(tmp_path / "turned.png", exif=exif)
    segmenter = Segmenter.load("demo", device="cpu")
    segmenter.click_model = models["sam2"]
    turned = segmenter.set_image(tmp_path / "turned.png", ["sky"])
    plain = segmenter.set_image(seen, ["sky"])
    assert turned.size_hw == (60, 90)
    assert np.array_equal(turned.click((70, 20)).mask, plain.click((70, 20)).mask)


def test_threads_share_a_model(models: dict[str, ClickModel]) -> None:
    predictor = predictor_of(models["sam2"], picture(90, 150))
    points = [(float(x), float(y)) for x in range(5, 150, 20) for y in range(5, 90, 20)]
    alone = [predictor.click(point).mask for point in points]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda point: predictor.click(point).mask, points))
    assert all(map(np.array_equal, alone, together))


def test_bf16_is_for_the_image_encoder_alone(folders: dict[str, Path]) -> None:
    model = load_click_model(str(folders["sam2"]), "cpu", "bf16")
    assert model.dtype is torch.bfloat16
    assert next(model.model.mask_decoder.parameters()).dtype is torch.float32
    mask = predictor_of(model, picture(90, 150)).click((40, 30))
    assert mask.confidence.dtype == np.float16


# ---- which mask ----------------------------------------------------------------------------------


class Nested(ClickModel):
    """Offers the left quarter, the left half and all of a picture, and favours one of them."""

    def __init__(self, favourite: int) -> None:
        super().__init__("nested", Mock(), Mock())
        object.__setattr__(self, "favourite", favourite)

    def masks(self, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor]:
        log_odds = torch.full((3, 64, 64), -1.0)
        for index, columns in enumerate((16, 32, 64)):
            log_odds[index, :, :columns] = 1
        expected = torch.full((3,), 0.6)
        expected[self.favourite] = 0.8  # type: ignore[attr-defined]
        return log_odds, expected

    def enlarge(self, log_odds: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
        assert size_hw == log_odds.shape
        return log_odds


def nested(favourite: int, dog_columns: int) -> ClickModelPredictor:
    """Return a picture of 64 x 64 px, with a dog on its left columns by the words."""
    plan = WindowPlan((64, 64), (64, 64), 64, 64, (4, 4))
    is_dog = torch.arange(16) < dog_columns / 4
    dog = is_dog.float().expand(16, 16)
    scores = Scores(torch.stack([dog, 1 - dog]), plan, Vocabulary.of(["dog", "cat"]), 8.0)
    return ClickModelPredictor(Nested(favourite), ClickFeatures(()), scores)


@pytest.mark.parametrize(("index", "columns"), [(0, 16), (1, 32), (2, 64)])
@pytest.mark.parametrize("favourite", range(3))
def test_that_mask_is_taken_which_the_words_agree_with(
    index: int, columns: int, favourite: int
) -> None:
    found = nested(favourite, columns).click((5, 20), label="dog").mask
    assert found.sum() == 64 * columns, index


@pytest.mark.parametrize("favourite", range(3))
def test_without_a_label_the_model_chooses(favourite: int) -> None:
    found = nested(favourite, 32).click((5, 20)).mask
    assert found.sum() == 64 * (16, 32, 64)[favourite]


@pytest.mark.parametrize("favourite", range(3))
def test_words_that_do_not_see_the_label_at_the_click_have_no_say(favourite: int) -> None:
    found = nested(favourite, 32).click((5, 20), label="cat").mask
    assert found.sum() == 64 * (16, 32, 64)[favourite]


def test_all_sizes_come_with_the_likeliest_first() -> None:
    predictor = nested(favourite=2, dog_columns=32)
    for points in ([(5.0, 20.0)], [(5.0, 20.0), (9.0, 30.0)]):
        sizes = predictor.click(*points, label="dog", several=True)
        assert [int(each.mask.sum()) // 64 for each in sizes] == [32, 64, 16]


def test_a_labels_probability_is_that_of_the_softmax() -> None:
    predictor = nested(0, 32)
    probability = label_probability(predictor.scores, 0, 16)
    dog = np.where(np.arange(16) < 8, 8.0, 0.0)
    expected = np.exp(dog) / (np.exp(dog) + np.exp(8 - dog))
    assert probability.shape == (16, 16)
    away = np.r_[:7, 9:16]  # from the border between the two, which is smooth
    assert np.allclose(probability[:, away], expected[away], rtol=1e-4)


# ---- wrong calls ---------------------------------------------------------------------------------


def test_wrong_prompts_are_refused_as_without_a_click_model() -> None:
    predictor = nested(0, 32)
    with pytest.raises(ValueError, match="`points`"):
        predictor.click()
    with pytest.raises(TypeError, match="`points`"):
        predictor.click(60, 40)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`label`"):
        predictor.click((5, 5), label="horse")
    for box in ((70, 0, 90, 20), (20, 20, 20, 40)):
        with pytest.raises(ValueError, match="`box_xyxy`"):
            predictor.box(box)


def test_without_a_positive_click_nothing_is_found() -> None:
    made = nested(0, 32).click(Point(5, 5, positive=False))
    assert not made.mask.any()
    assert not made.confidence.any()


# ---- weights -------------------------------------------------------------------------------------


def test_weights_that_were_published_for_videos_hold_those_for_images(tmp_path: Path) -> None:
    video = load_click_model(str(write_click_model("sam2", tmp_path, "sam2_video")), "cpu", "fp32")
    assert type(video.model) is transformers.Sam2Model


def test_a_folder_without_safetensors_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["sam2"], tmp_path / "pickled")
    weights = tmp_path / "pickled" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(WeightsNotFoundError, match="safetensors"):
        load_click_model(str(tmp_path / "pickled"), "cpu")


def test_weights_of_another_type_or_with_gaps_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    other = write_click_model("sam2", tmp_path / "other", "sam")
    with pytest.raises(ValueError, match="type 'sam', and these are served: sam2"):
        load_click_model(str(other), "cpu")
    shutil.copytree(folders["sam2"], tmp_path / "gaps")
    weights = load_file(tmp_path / "gaps" / "model.safetensors")
    weights.pop("mask_decoder.mask_tokens.weight")
    save_file(weights, tmp_path / "gaps" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as mask_decoder"):
        load_click_model(str(tmp_path / "gaps"), "cpu")


def test_weights_come_on_a_disk_from_a_machine_with_network(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: None
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    name = "facebook/sam2.1-hiera-tiny"
    with pytest.raises(WeightsNotFoundError, match=f"--download {name} .* facebook--sam2.1"):
        load_click_model(name, "cpu", folder=tmp_path, download=False)
    fetched = Mock(return_value=str(folders["sam2"]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    brought = download_weights(name, tmp_path)
    assert fetched.call_args.kwargs["allow_patterns"] == [
        "*.json",
        "*.safetensors",
        "tokenizer.model",
    ]
    assert load_click_model(name, "cpu", "fp32", tmp_path, download=False).name == name
    check_weights("demo", tmp_path, click=name)
    assert next(row for row in known_click_models(tmp_path) if row.name == name).path == brought


def test_damaged_weights_are_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: None
) -> None:
    fetched = Mock(return_value=str(folders["sam2"]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    brought = download_weights("facebook/sam3", tmp_path)
    config = brought / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(WeightsNotFoundError, match=r"config\.json is damaged"):
        load_click_model("facebook/sam3", "cpu", folder=tmp_path, download=False)


@pytest.mark.parametrize("name", ["", "sam2", "local-dir:"])
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Expected the click model to be a folder such as"):
        ModelName.parse_click(name)


def test_nothing_is_downloaded_while_a_folder_is_loaded(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(*_: object, **__: object) -> None:
        raise AssertionError("a host was asked")

    monkeypatch.setattr("socket.getaddrinfo", asks)
    for folder in folders.values():
        load_click_model(str(folder), "cpu", "fp32")


def test_a_config_that_cannot_be_read_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["sam2"], tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_click_model(str(tmp_path / "broken"), "cpu")
    (tmp_path / "broken" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="'llama'"):
        load_click_model(str(tmp_path / "broken"), "cpu")
