"""A second encoder: what it samples, which models of timm serve, and what words make of it."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from clearclip_core import (
    METHODS,
    Scores,
    Segmenter,
    Vocabulary,
    WeightsNotFoundError,
    render_scene,
    weights_id,
)
from clearclip_core.clip import weights
from clearclip_core.clip.attention import attend_proxy
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.second_encoder import SecondEncoder, load_second_encoder
from clearclip_core.clip.weights import ModelName, check_weights, download_weights
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.segmentation.windows import WindowPlan
from tests.core.conftest import MEAN, STD, picture
from tests.core.reference import Reference
from tests.core.test_segmenter import SIZES, model_of

#: A Vision Transformer, and two networks with a pyramid.
TIMM = ("test_vit", "test_convnext", "test_efficientnet")


def file_of(arch: str, folder: Path) -> str:
    """Write random weights of a model of timm; return the name of a second encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(arch)
    path = folder / f"{arch}.safetensors"
    save_file({name: each.contiguous() for name, each in model.state_dict().items()}, path)
    return f"{arch}@{path}"


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SecondEncoder]:
    folder = tmp_path_factory.mktemp("timm")
    names = {arch: file_of(arch, folder) for arch in TIMM}
    return {arch: load_second_encoder(names[arch], "cpu", "fp32") for arch in TIMM}


class Slopes(nn.Module):
    """Maps whose direction says where on the picture a cell is."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = [{"reduction": 8}] * 2
        self.pretrained_cfg = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
        self.unused = nn.Parameter(torch.zeros(1))

    def forward_intermediates(self, pixels: torch.Tensor, **_: object) -> list[torch.Tensor]:
        """Return (B, 2, h, w): of each cell a vector, its angle the mean of the red channel."""
        angle = F.avg_pool2d(pixels[:, 0], 8)
        return [7 * torch.stack([angle.cos(), angle.sin()], dim=1)]


def ramp_of(size_hw: Sequence[int], dim: int) -> torch.Tensor:
    """Return a picture (1, 3, H, W) that rises from 0 at one border to 1 at the other."""
    ramp = np.linspace(0, 1, 2 * size_hw[dim] + 1)[1::2]
    red = np.broadcast_to(ramp if dim else ramp[:, None], tuple(size_hw)).astype(np.float32)
    return torch.from_numpy(red.copy())[None, None].expand(1, 3, -1, -1)


@pytest.mark.parametrize("size_hw", [(64, 64), (50, 300), (140, 64)])
def test_each_patch_of_each_window_gets_what_lies_there(size_hw: tuple[int, int]) -> None:
    second = SecondEncoder.of("slopes", Slopes())
    plan = WindowPlan(size_hw, size_hw, 64, 32, (16, 16))
    for dim in (0, 1):
        pixels = ramp_of(size_hw, dim)
        seen = ramp_of([2 * 8 * -(-side // 8) for side in size_hw], dim)  # twice the size
        mosaic = second(seen, plan.rows.patch_centres, plan.columns.patch_centres)[0]
        found = torch.atan2(mosaic[..., 1], mosaic[..., 0])
        found = plan.cut_mosaic(found[..., None]).reshape(plan.count, *plan.grid_hw)
        whole = torch.stack([*plan.cut(pixels[0])])  # the picture's own windows, zeros around
        inside = torch.stack([*plan.cut(torch.ones(1, *size_hw))])
        wanted = F.avg_pool2d(whole[:, 0], 16) / F.avg_pool2d(inside[:, 0], 16)
        full = F.avg_pool2d(inside[:, 0], 16) > 0.99  # of others the centre is not the mean
        away = (wanted > 0.08) & (wanted < 0.92)  # at the border a map has nothing beyond
        assert (found - wanted)[full & away].abs().max() < 0.01


@pytest.mark.parametrize("arch", TIMM)
def test_models_of_timm_give_unit_features_of_pictures_of_any_size(
    seconds: dict[str, SecondEncoder], model: LoadedModel, arch: str
) -> None:
    second = seconds[arch]
    segmenter = Segmenter(model, "clearclip", SIZES, second=second)
    sizes_hw = [(64, 140), (50, 300), (64, 140), (1, 9), (140, 64)]
    images = [segmenter.prepare(picture(*hw, seed=i)) for i, hw in enumerate(sizes_hw)]
    together = segmenter.encode_batch(images, windows_at_once=7)
    for image, features in zip(images, together, strict=True):
        assert features.second is not None
        assert features.second.shape[:3] == features.patches.shape[:3]
        lengths = features.second.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, second.maps**0.5))
        (alone,) = segmenter.encode_batch([image])
        torch.testing.assert_close(features.second, alone.second, rtol=1e-4, atol=1e-5)


def test_networks_of_large_strides_see_pictures_at_twice_the_size(
    seconds: dict[str, SecondEncoder], model: LoadedModel
) -> None:
    """And a Vision Transformer at the side that it was trained on, where that is larger."""
    image = picture(100, 200)
    made = {arch: Segmenter(model, "clearclip", SIZES, second=seconds[arch]) for arch in TIMM}
    assert {arch: each.second_short_side_px for arch, each in made.items()} == {
        "test_vit": 160,  # at 64 px, CLIP's, it would see less than it was trained on
        "test_convnext": 128,
        "test_efficientnet": 128,
    }
    seen = made["test_convnext"].prepare(image).for_second
    assert seen is not None
    assert seen.shape == (128, 256, 3)
    assert seconds["test_vit"].default_short_side_px(448) == 448


@pytest.mark.parametrize("size_hw", [(6000, 8000), (300, 20_000), (1, 9), (700, 500)])
def test_the_second_encoders_pictures_have_a_bounded_size(
    seconds: dict[str, SecondEncoder], size_hw: tuple[int, int]
) -> None:
    second = seconds["test_convnext"]
    grey = np.full((*size_hw, 3), 90, np.uint8)
    resized = second.resize(grey, 2048)
    height, width = resized.shape[:2]
    assert height % second.stride_px == width % second.stride_px == 0
    assert height * width < 1.1 * 2048**2
    assert (resized == 90).all()


def test_a_shrunk_picture_is_antialiased(seconds: dict[str, SecondEncoder]) -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(seconds["test_convnext"].resize(stripes, 64)) <= 1


def test_caches_know_the_size_that_the_second_encoder_sees(
    seconds: dict[str, SecondEncoder], model: LoadedModel
) -> None:
    second, image = seconds["test_convnext"], picture(100, 200)
    made = [
        Segmenter(model, "clearclip", SIZES, second=second, second_short_side_px=px)
        for px in (128, 192)
    ]
    assert made[0].features_id != made[1].features_id
    other = image.copy()
    other[50, 100] = 255 - other[50, 100]
    prepared, changed = (made[1].prepare(each) for each in (image, other))
    unseen = dataclasses.replace(changed, resized=prepared.resized)  # CLIP's picture is the same
    assert unseen.digest != prepared.digest


def test_maps_are_the_models_own(seconds: dict[str, SecondEncoder]) -> None:
    """Of a Vision Transformer its output, of a pyramid the last two strides."""
    pixels = torch.randn(1, 3, 64, 96, generator=torch.manual_seed(1))
    vit: nn.Module = seconds["test_vit"].model
    tokens = vit.forward_features(pixels)[:, vit.num_prefix_tokens :]  # type: ignore[operator, index]
    rows, columns = ([(i + 0.5) / n for i in range(n)] for n in (4, 6))  # centres of its patches
    found = seconds["test_vit"](pixels, rows, columns)
    torch.testing.assert_close(found, F.normalize(tokens, dim=-1).reshape(1, 4, 6, -1))
    convnext = seconds["test_convnext"]
    last = convnext.model.forward_features(pixels)  # type: ignore[operator]
    rows, columns = ([(i + 0.5) / n for i in range(n)] for n in (2, 3))
    found = convnext(pixels, rows, columns)[..., -last.shape[1] :]
    torch.testing.assert_close(found, F.normalize(last, dim=1).permute(0, 2, 3, 1))
    assert (convnext.maps, seconds["test_vit"].maps) == (2, 1)


@pytest.mark.parametrize("arch", TIMM)
def test_proxyclip_is_the_reference(
    seconds: dict[str, SecondEncoder], clip_model: open_clip.CLIP, arch: str
) -> None:
    """Windows that overlap, the last one pushed back, in batches of 2; then others."""
    model = model_of(clip_model, torch.float64)
    sizes = Preprocessing(MEAN, STD, 80, 200, window_px=80, stride_px=48)
    for size_hw, count in (((100, 240), 4), ((60, 80), 2)):
        image = render_scene(6, size_hw=size_hw).image
        segmenter = Segmenter(model, "proxyclip", sizes, 2, second=seconds[arch])
        features = segmenter.encode(image)
        assert features.second is not None
        reference = Reference(model.clip, sizes, METHODS["proxyclip"])
        windows = reference.encode(image, list(features.second))
        assert len(features.patches) == len(windows) == count
        for ours, window in zip(features.patches, windows, strict=True):
            assert float((ours - window.features).norm(dim=-1).max()) <= 1e-5


def test_proxyclip_encodes_pictures_together_as_alone(
    seconds: dict[str, SecondEncoder], model: LoadedModel
) -> None:
    segmenter = Segmenter(model, "proxyclip", SIZES, second=seconds["test_convnext"])
    images = [segmenter.prepare(picture(*hw)) for hw in ((70, 150), (64, 64), (150, 70), (70, 150))]
    for image, together in zip(images, segmenter.encode_batch(images, 3), strict=True):
        (alone,) = segmenter.encode_batch([image])
        torch.testing.assert_close(together.patches, alone.patches, rtol=1e-4, atol=1e-5)


def test_proxyclip_reads_a_picture_of_one_colour() -> None:
    """All similarities are 1, which is less than 1.2 times their mean."""
    value = torch.randn(1, 2, 5, 3, generator=torch.manual_seed(0))
    attended = attend_proxy(torch.ones(1, 4, 6), value)
    torch.testing.assert_close(attended[:, :, 1:], value[:, :, 1:])


def test_proxyclip_without_a_second_encoder_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="looks at the features of a second encoder"):
        Segmenter(model, "proxyclip", SIZES)


def test_words_score_as_without_it(seconds: dict[str, SecondEncoder], model: LoadedModel) -> None:
    image = picture(70, 150)
    made = [Segmenter(model, "clearclip", SIZES, second=each) for each in (None, *seconds.values())]
    plain, *joined = (each.score(each.encode(image), ["sky", "dog"]).cosines for each in made)
    assert all(torch.equal(plain, each) for each in joined)
    assert len({each.features_id for each in made}) == len(made)


def test_what_is_learned_may_use_both_and_fits_no_other_model(
    seconds: dict[str, SecondEncoder], model: LoadedModel
) -> None:
    """Terms of joined features score as the joined matrix product says."""
    words = Vocabulary.of(["sky", "dog"])
    both = Segmenter(model, "clearclip", SIZES, second=seconds["test_vit"])
    features = both.encode(picture(70, 150))
    directions = torch.randn(2, features.width, generator=torch.manual_seed(0))
    wanted = features.plan.mosaic((features.joined @ directions.T).permute(0, 3, 1, 2))
    found = Scores.of(features, directions, words).cosines
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for width in (features.patches.shape[-1] - 1, features.width + 1):
        with pytest.raises(ValueError, match="another model's"):
            Scores.of(features, torch.zeros(2, width), words)


def test_a_picture_that_overflows_fp16_in_it_is_encoded_in_fp32(
    seconds: dict[str, SecondEncoder], clip_model: open_clip.CLIP, caplog: pytest.LogCaptureFixture
) -> None:
    half = LoadedModel("", copy.deepcopy(clip_model).half(), lambda _: torch.empty(0), MEAN, STD)
    second = copy.deepcopy(seconds["test_vit"].model)
    with torch.no_grad():
        second.norm.bias[3] = 1e5  # type: ignore[union-attr, index]
    loud = dataclasses.replace(seconds["test_vit"], model=second)
    wanted = Segmenter(half, "clearclip", SIZES, second=loud).encode(picture(64, 140))
    loud = dataclasses.replace(loud, model=copy.deepcopy(second).half())
    segmenter = Segmenter(half, "clearclip", SIZES, second=loud)
    assert wanted.second is not None
    loud_features = segmenter.encode(picture(64, 140)).second
    assert loud_features is not None
    assert loud_features.dtype is torch.float16
    assert "overflows fp16" in caplog.text


def test_names_are_timms(tmp_path: Path) -> None:
    parsed = ModelName.parse_second("vit_small_patch14_dinov2")
    assert parsed.arch == "vit_small_patch14_dinov2.lvd142m"
    names, file = weights._timm_names(), weights._timm_file(parsed)
    assert file == "timm/vit_small_patch14_dinov2.lvd142m/model.safetensors"
    assert {*timm.list_models()} <= names
    tagged = [each for each in names if "." in each]
    assert [each for each in tagged if not timm.get_pretrained_cfg(each)] == []
    assert all(ModelName.parse_second(each).name == each for each in tagged[:50])
    for name in ("ViT-B-16/openai", "nonsense", "convnext_tiny.nosuch", "test_vit@", ""):
        with pytest.raises(ValueError, match="one of timm's models"):
            ModelName.parse_second(name)
    both = weights_id("demo", file_of("test_vit", tmp_path))
    assert both.startswith(f"{weights_id('demo')}+test_vit-")


def test_weights_that_are_missing_damaged_or_another_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, SecondEncoder]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = "test_vit.r160_in1k"
    with pytest.raises(WeightsNotFoundError, match=rf"--download {name} --to.*SECOND_MODEL to"):
        load_second_encoder(name, "cpu", folder=tmp_path, download=False)
    source = file_of("test_vit", tmp_path).partition("@")[2]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: source)
    monkeypatch.setattr("clearclip_core.clip.weights._check_hub", lambda _name: None)
    brought = download_weights(name, tmp_path / "to")
    assert brought.name == f"{name}.safetensors"
    check_weights("demo", tmp_path / "to", second=name)
    assert load_second_encoder(name, "cpu", folder=tmp_path / "to", download=False).maps == 1
    brought.with_name(f"{brought.name}.sha256").write_text("0  other\n")
    with pytest.raises(WeightsNotFoundError, match="is damaged"):
        load_second_encoder(name, "cpu", folder=tmp_path / "to", download=False)
    with pytest.raises(ValueError, match="cannot be read"):
        load_second_encoder(f"test_convnext@{source}", "cpu")


def test_a_model_without_maps_of_any_size_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be the second encoder"):
        SecondEncoder.of("mixer", timm.create_model("mixer_s32_224"))


class Deadly:
    """What unpickles as a file that is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "run")


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"weight": Deadly(ran)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        load_second_encoder(f"test_vit@{tmp_path}/weights.pth", "cpu", "fp32")
    assert not ran.exists()


def test_a_file_without_weights_is_refused_and_no_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(*_: object, **__: object) -> None:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", asks)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", asks)
    torch.save({}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "nothing.pth").write_bytes(b"")
    for name in ("empty", "text", "nothing"):
        with pytest.raises(ValueError, match=f"{name}.pth cannot be read: ") as caught:
            load_second_encoder(f"test_vit@{tmp_path}/{name}.pth", "cpu", "fp32")
        assert "\n" not in str(caught.value)
        assert "hub" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    state["norm.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"norm\.weight holds numbers that are not finite"):
        load_second_encoder(f"test_vit@{tmp_path}/nan.pth", "cpu", "fp32")


def test_a_variant_sees_as_a_segmenter_that_is_loaded_alone(
    model: LoadedModel, tmp_path: Path
) -> None:
    name = file_of("test_vit", tmp_path)
    plain = Segmenter(model, preprocessing=SIZES)
    variant = plain.variant("naclip", 64, name)
    alone = Segmenter(
        model,
        "naclip",
        Preprocessing.of_short_side(MEAN, STD, 64),
        second=load_second_encoder(name, "cpu", "fp32"),
    )
    image = picture(64, 140)
    made, expected = variant.encode(image), alone.encode(image)
    assert torch.equal(made.patches, expected.patches)
    assert made.second is not None
    assert expected.second is not None
    assert torch.equal(made.second, expected.second)
    assert variant.embed is plain.embed


def test_the_bytes_of_all_networks_are_counted(model: LoadedModel, tmp_path: Path) -> None:
    plain = Segmenter(model, preprocessing=SIZES)
    beside = plain.variant("clearclip", 64, file_of("test_vit", tmp_path))
    numbers = sum(
        each.numel() for each in timm.create_model("test_vit", num_classes=0).parameters()
    )
    assert beside.weights_bytes - plain.weights_bytes == pytest.approx(4 * numbers, rel=0.01)
