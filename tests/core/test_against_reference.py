"""The whole way against the plain reference: windows, synonyms, contrast, thresholds, dtypes."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    METHODS,
    SCENE_LABELS,
    Label,
    Method,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import MAPS
from clearclip_core.clip.weights import known_models
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.conftest import make_clip
from tests.core.reference import Reference

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=200, window_px=64, stride_px=32)
WORDS = Vocabulary(
    (Label("a", ("a", "b", "c")), Label("d"), *(Label(f"w{i}", (f"w{i}", f"v{i}")) for i in "12")),
    contrast=("x", "y"),
)
MANY = Vocabulary.of([f"label {i}" for i in range(70)])


def unit(count: int, width: int = 24, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


def model_of(clip: open_clip.CLIP, dtype: torch.dtype) -> LoadedModel:
    return LoadedModel(
        "tiny", copy.deepcopy(clip).to(dtype), lambda _: torch.empty(0), MEAN, STD, sink_channels=()
    )


@pytest.mark.parametrize(
    "image_hw",
    [
        (150, 223),  # overlapping windows, the last one pushed back
        (64, 64),  # one window, nothing resized
        (90, 400),  # limited by the long side, so padded: 45 px are no multiple of the patch
        (37, 41),  # made larger
        (301, 190),
    ],
)
@pytest.mark.parametrize("words", [WORDS, MANY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_label_map_is_the_references(
    clip_model: open_clip.CLIP,
    image_hw: tuple[int, int],
    words: Vocabulary,
    dtype: torch.dtype,
) -> None:
    model = model_of(clip_model, dtype)
    embeddings = unit(len(words.queries))
    image = render_scene(5, size_hw=image_hw).image
    reference = Reference(model.clip, SIZES)
    windows = reference.encode(image)
    features = Segmenter(model, preprocessing=SIZES).encode(image)
    scores = Scores.of(features, embeddings, words)
    for threshold in (0.0, 0.05, 0.3):
        expected = reference.label_map(
            windows, embeddings, words.query_labels, image_hw, [threshold] * len(words.labels)
        )
        labels = scores.label_map(threshold)
        assert (labels == expected).mean() >= 0.9999
        if threshold == 0.0 and dtype == torch.float64:
            assert np.array_equal(labels, expected)


#: Presets, the three maps, and every attention with every residual, FFN and alpha (Figs. 5-6).
COMBINATIONS = [
    *METHODS.values(),
    *MAPS.values(),
    *(
        Method(attention, residual, ffn, alpha)
        for attention, residual, ffn, alpha in itertools.product(
            ("qk", "qq", "kk", "vv", "identity", "ensemble", "qq+kk"),
            (True, False),
            (True, False),
            (1.0, 10.0),
        )
        if alpha == 1 or (residual and ffn)
    ),
    Method("qq", blocks=6),
    Method("kk", residual=True, blocks=2, alpha=3.0),
    Method("qq", remove_redundancy=True),
    Method("qk", residual=True, ffn=True, positions="size"),
]


@pytest.fixture(scope="module")
def deep_clip() -> open_clip.CLIP:
    """8 blocks, so that the last 6 are not all, with layer scale and QuickGELU."""
    return make_clip(quick_gelu=True, layers=8, ls_init_value=0.3)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest distance of two features; each has length 1."""
    return float((one.double() - other.double()).norm(dim=-1).max())


@pytest.mark.parametrize("method", COMBINATIONS, ids=str)
def test_dense_features_are_the_references(deep_clip: open_clip.CLIP, method: Method) -> None:
    """Four overlapping windows, more positions than trained, and one CLS feature a window."""
    sizes = Preprocessing(MEAN, STD, 80, 200, window_px=80, stride_px=48)
    image = render_scene(6, size_hw=(100, 200)).image
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        model = model_of(deep_clip, dtype)
        features = Segmenter(model, method, sizes).encode(image)
        windows = Reference(model.clip, sizes, method).encode(image)
        assert len(features.patches) == len(windows) == 3
        assert (features.cls is None) == (not method.remove_redundancy)
        for index, window in enumerate(windows):
            assert relative(features.patches[index], window.features) <= tolerance
            if window.cls is not None:
                assert features.cls is not None
                assert relative(features.cls[index], window.cls) <= tolerance


@pytest.mark.parametrize("name", METHODS)
def test_a_model_of_fewer_blocks_is_read_out_as_a_whole(
    clip_model: open_clip.CLIP, name: str
) -> None:
    model = model_of(clip_model, torch.float64)  # of 3 blocks
    image = render_scene(7, size_hw=(64, 64)).image
    (window,) = Reference(model.clip, SIZES, METHODS[name]).encode(image)
    features = Segmenter(model, name, SIZES).encode(image)
    assert relative(features.patches[0], window.features) <= 1e-5


#: Every architecture that the library accepts: CLIP's, OpenCLIP's, MetaCLIP's, DFN's and others.
ARCHITECTURES = sorted({row.name.split("/")[0] for row in known_models()} - {"demo"}) + [
    f"ViT-{size}-quickgelu" for size in ("B-32", "B-16", "L-14", "L-14-336", "H-14")
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_native_architecture_in_miniature(arch: str) -> None:
    """Patch, activation and switches as open_clip configures them; width, depth and image small."""
    assert {"ViT-B-16", "ViT-L-14"} <= set(ARCHITECTURES)
    config = open_clip.get_model_config(arch)
    patch = config["vision_cfg"]["patch_size"]
    small = {"layers": 7, "width": 32, "head_width": 16, "mlp_ratio": 2.0, "image_size": 3 * patch}
    clip = make_clip(bool(config.get("quick_gelu")), **(config["vision_cfg"] | small))
    model = model_of(clip, torch.float64)
    sizes = Preprocessing(MEAN, STD, 4 * patch, 4 * patch, 4 * patch, 4 * patch)
    image = render_scene(8, size_hw=(4 * patch, 4 * patch)).image
    for method in METHODS.values():
        (window,) = Reference(model.clip, sizes, method).encode(image)
        features = Segmenter(model, method, sizes).encode(image)
        assert relative(features.patches[0], window.features) <= 1e-5


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bf16"),
        pytest.param("cuda", "bf16", marks=NEEDS_CUDA),
        pytest.param("cuda", "fp16", marks=NEEDS_CUDA),
    ],
)
def test_half_precision_agrees_with_the_reference_on_drawn_scenes(
    device: str, precision: str
) -> None:
    exact = Segmenter.load("demo", device="cpu", precision="fp32")
    words = exact.vocabulary(SCENE_LABELS)
    embeddings = exact.embed(words.queries)
    reference = Reference(exact.model.clip, exact.preprocessing)
    halved = Segmenter.load("demo", device=device, precision=precision)
    agreed = []
    for seed in (11, 12):
        image = render_scene(seed).image
        expected = reference.label_map(
            reference.encode(image), embeddings, words.query_labels, image.shape[:2], [0.0] * 99
        )
        labels = Scores.of(halved.encode(image), embeddings, words).label_map()
        agreed.append((labels == expected).mean())
    assert np.mean(agreed) >= 0.99
