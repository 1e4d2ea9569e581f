"""TIPSv2 behind the same door: features equal transformers' own to the last bit."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Tipsv2Model, Tipsv2Processor

from clearclip_core import (
    SCENE_LABELS,
    Example,
    Segmenter,
    WeightsNotFoundError,
    adapt,
    check_weights,
    render_scene,
    weights_id,
)
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.clip.tipsv2 import Tipsv2Tower
from clearclip_core.clip.weights import ModelName, download_weights, known_models
from tests.core.clip.tipsv2_models import SENTENCES, write_tipsv2
from tests.core.conftest import picture

NAME = "hf-hub:google/tipsv2-b14"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tipsv2(tmp_path_factory.mktemp("tipsv2"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(f"local-dir:{folder}", "cpu", "fp32")


@pytest.mark.parametrize("grid_hw", [(4, 4), (3, 5), (1, 9)])
@torch.inference_mode()
def test_patches_are_those_of_transformers(
    loaded: LoadedModel, folder: Path, grid_hw: tuple[int, int]
) -> None:
    height, width = grid_hw
    pixels = torch.rand(2, 3, 14 * height, 14 * width, generator=torch.Generator().manual_seed(1))
    patches = Tipsv2Tower(loaded.clip.visual, Method()).encode(pixels)
    own = Tipsv2Model.from_pretrained(folder).vision_model(pixels).last_hidden_state
    assert own.shape[1] == 2 + height * width  # behind a CLS and a register
    expected = F.normalize(own[:, 2:], dim=-1).reshape(2, height, width, -1)
    assert torch.equal(patches, expected)


@torch.inference_mode()
def test_sentences_are_embedded_as_transformers_does(loaded: LoadedModel, folder: Path) -> None:
    """Its processor pads all to 64 tokens; ours pads to the longest."""
    inputs = Tipsv2Processor.from_pretrained(folder)(text=list(SENTENCES), return_tensors="pt")
    assert inputs.input_ids.shape == (3, 64)
    expected = Tipsv2Model.from_pretrained(folder).get_text_features(**inputs).pooler_output
    torch.testing.assert_close(loaded.embed(SENTENCES), expected, rtol=1e-4, atol=1e-5)


def test_the_temperature_is_half_of_its_own_scale(loaded: LoadedModel, folder: Path) -> None:
    own = Tipsv2Model.from_pretrained(folder).temperature.detach()
    assert loaded.temperature == pytest.approx(0.5 / float(own))
    assert loaded.temperature == pytest.approx(98.7, abs=0.1)


def test_a_picture_is_given_as_values_from_0_to_1(loaded: LoadedModel) -> None:
    segmenter = Segmenter(loaded)
    image = picture(64, 64)
    (window, *_) = segmenter.windows([segmenter.prepare(image)])
    assert 0 <= window.min() < 0.1
    assert 0.9 < window.max() <= 1


@torch.inference_mode()
def test_half_precision_agrees(loaded: LoadedModel, folder: Path) -> None:
    halved = load_model(f"local-dir:{folder}", "cpu", "bf16")
    pixels = torch.rand(1, 3, 42, 70, generator=torch.Generator().manual_seed(1))
    precise, coarse = (
        Tipsv2Tower(each.clip.visual, Method()).encode(pixels.to(dtype)).float()
        for each, dtype in ((loaded, torch.float32), (halved, torch.bfloat16))
    )
    assert (precise * coarse).sum(-1).min() > 0.99


def test_masks_clicks_and_learning_work(loaded: LoadedModel) -> None:
    segmenter = Segmenter(loaded)
    names = SCENE_LABELS[:4]
    examples = []
    for seed in range(4):
        scene = render_scene(seed, size_hw=(96, 128))
        masks = {name: scene.label_map == SCENE_LABELS.index(name) for name in names}
        examples.append(Example.of(segmenter.encode(scene.image), masks, names, str(seed)))

    scene = render_scene(1, size_hw=(96, 128))
    assert segmenter.segment(scene.image, names).label_map.shape == (96, 128)
    assert segmenter.set_image(scene.image, names).click((60, 40), label="sky").mask.any()
    fit = adapt(examples, segmenter.embed, segmenter.vocabulary(names))
    assert fit.pictures >= 2  # random features make near-duplicates


def test_methods_of_native_towers_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="is read out with clearclip or clip"):
        Segmenter(loaded, method=METHODS["sclip"])


# ---- weights -------------------------------------------------------------------------------------


def test_weights_come_on_a_disk_from_a_machine_with_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: None
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsNotFoundError, match=f"--download {NAME} .* google--tipsv2-b14"):
        load_model(NAME, "cpu", folder=tmp_path, download=False)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", Mock(return_value=str(folder)))
    brought = download_weights(NAME, tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", Mock(side_effect=AssertionError("a host was asked")))
    made = load_model(NAME, "cpu", "fp32", tmp_path, download=False)
    assert made.embed(["snow"]).shape == (1, 32)
    check_weights(NAME, tmp_path)
    assert weights_id(NAME) == NAME
    row = next(row for row in known_models(tmp_path) if row.name == NAME)
    assert (row.path, row.licence, row.needs) == (brought, "Apache-2.0", "hf")

    config = brought / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(WeightsNotFoundError, match=r"config\.json is damaged"):
        load_model(NAME, "cpu", folder=tmp_path, download=False)


def test_a_folder_without_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(WeightsNotFoundError, match="safetensors"):
        load_model(f"local-dir:{tmp_path / 'pickled'}", "cpu")


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    weights["vision_encoder.norm.weight"][3] = torch.nan
    save_file(weights, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="not finite"):
        load_model(f"local-dir:{tmp_path / 'nan'}", "cpu")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"google/tipsv2-b14 needs the extra: .*\[hf\]"):
        ModelName.parse(NAME)
