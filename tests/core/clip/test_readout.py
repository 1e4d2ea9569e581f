"""Read-outs that are younger than the paper, at the shapes of B/16 and L/14, random weights."""

import dataclasses

import open_clip
import pytest
import torch

from clearclip_core import METHODS, Segmenter, render_scene
from clearclip_core.clip import readout
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.conftest import MEAN, STD, make_clip
from tests.core.reference import Reference

READOUTS = ("naclip", "pearl", "scclip", "sfp", "rfclip")
#: Channels that are above the limit in some tokens of the models here, not in all.
SINKS = (1, 5)

#: Name -> patch in px, and vision config: width and heads in miniature, then in full. The hidden
#: layers of the full ones are narrow, which no read-out sees, so that they are made sooner.
SHAPES = {
    "B/16": (16, {"layers": 12, "width": 96, "head_width": 16, "image_size": 96}),
    "L/14": (14, {"layers": 24, "width": 64, "head_width": 16, "image_size": 84}),
    "true B/16": (16, {"layers": 12, "width": 768, "head_width": 64, "image_size": 224}),
    "true L/14": (14, {"layers": 24, "width": 1024, "head_width": 64, "image_size": 224}),
}


def shaped(name: str) -> open_clip.CLIP:
    """A model whose patches differ, some of them with extreme channels."""
    patch_px, vision = SHAPES[name]
    clip = make_clip(quick_gelu=True, **vision, patch_size=patch_px, mlp_ratio=0.25)
    positions = clip.visual.positional_embedding
    with torch.no_grad():
        positions.mul_(2)
        positions[3::9, list(SINKS)] += 20.0
        clip.visual.ln_pre.bias.mul_(0.5)
        for block in clip.visual.transformer.resblocks:  # else what all tokens share prevails
            for part in (block.attn.out_proj, block.mlp.c_proj):
                part.weight.mul_(0.5)
                part.bias.mul_(0.1)
    return clip


def loaded(clip: open_clip.CLIP) -> LoadedModel:
    return LoadedModel("shaped", clip, lambda _: torch.empty(0), MEAN, STD, sink_channels=SINKS)


def sizes_of(name: str, side: int) -> Preprocessing:
    """Windows of `side` patches that overlap."""
    px = SHAPES[name][0] * side
    return Preprocessing(MEAN, STD, px, 3 * px, window_px=px, stride_px=px // 2)


def compared(clip: open_clip.CLIP, sizes: Preprocessing, method: str, hw: tuple[int, int]) -> float:
    """Largest distance between unit features of the library and of the reference."""
    model = loaded(clip)
    image = render_scene(6, size_hw=hw).image
    features = Segmenter(model, method, sizes).encode(image)
    windows = Reference(clip, sizes, METHODS[method], SINKS).encode(image)
    assert len(features.patches) == len(windows)
    return max(
        float((ours.double() - window.features.double()).norm(dim=-1).max())
        for ours, window in zip(features.patches, windows, strict=True)
    )


@pytest.mark.parametrize("method", READOUTS)
@pytest.mark.parametrize("name", ["B/16", "L/14"])
def test_features_are_the_references(name: str, method: str) -> None:
    """Three windows in a batch, the last pushed back; then one that is not square."""
    clip = shaped(name)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        clip = clip.to(dtype)
        assert compared(clip, sizes_of(name, 7), method, (100, 190)) <= tolerance
    flat = Preprocessing(MEAN, STD, 64, 150, window_px=150, stride_px=75)
    assert compared(clip.double(), flat, method, (60, 200)) <= 1e-5


@pytest.mark.parametrize(
    "name", ["true B/16", pytest.param("true L/14", marks=pytest.mark.thorough)]
)
def test_features_at_the_true_shape_are_the_references(name: str) -> None:
    clip, sizes = shaped(name), sizes_of(name, 7)
    for method in READOUTS if name == "true B/16" else ("scclip", "rfclip"):
        assert compared(clip, sizes, method, (90, 90)) <= 1e-4


def test_rfclip_without_sink_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="needs sink channels"):
        Segmenter(dataclasses.replace(loaded(shaped("B/16")), sink_channels=None), "rfclip")


def test_sink_channels_are_part_of_the_key_of_features() -> None:
    model = loaded(shaped("B/16"))
    other = dataclasses.replace(model, sink_channels=(2,))
    assert Segmenter(model, "rfclip").features_id != Segmenter(other, "rfclip").features_id
    assert Segmenter(model, "scclip").features_id == Segmenter(other, "scclip").features_id


def test_a_common_offset_changes_no_outlier_in_float32() -> None:
    patches = torch.randn(1, 100, 8, generator=torch.manual_seed(2), dtype=torch.float64)
    shifted = (patches + 1000).float()
    assert torch.equal(readout.density_outliers(shifted), readout.density_outliers(patches))


@pytest.mark.parametrize(("zero", "expected"), [(True, 0.0), (False, 3.0)])
def test_an_outlier_without_a_good_neighbour(zero: bool, expected: float) -> None:
    outliers = torch.tensor([[True, True, False]])
    found = readout.repair(torch.tensor([[[3.0], [4.0], [5.0]]]), (1, 3), outliers, zero)
    assert found.flatten().tolist() == [expected, 5.0, 5.0]
