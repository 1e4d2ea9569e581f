"""Statistics of feature maps against plain numpy and scipy, on maps that stock blocks give."""

from __future__ import annotations

import copy
import json

import numpy as np
import open_clip
import pytest
import scipy.special
import scipy.stats
import torch

from clearclip_core import METHODS, SCENE_LABELS, RGBArray, Segmenter, render_scene
from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.images.preprocessing import Preprocessing
from clearclip_core.paper import feature_statistics
from clearclip_core.paper.feature_statistics import (
    MAP_NAMES,
    ImageTower,
    MapExample,
    MapStatistics,
    as_lists,
    map_statistics,
)
from clearclip_core.paper.tables import ATTENTIONS
from tests.core.reference import attention

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=200, window_px=64, stride_px=32)


def stock_maps(clip: open_clip.CLIP, pixels: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """X_res, X_attn and X_sum of each block for one window, by listening to stock blocks."""
    heard: list[torch.Tensor] = []
    blocks = clip.visual.transformer.resblocks
    hooks = [b.register_forward_pre_hook(lambda _, given: heard.append(given[0])) for b in blocks]
    clip.visual(pixels[None])
    for hook in hooks:
        hook.remove()
    found = []
    for block, x in zip(blocks, heard, strict=True):
        maps = {"X_res": x, **{name: attention(block, x, name) for name in ATTENTIONS}}
        maps |= {"X_attn": maps["qk"], "X_sum": maps["X_res"] + maps["qk"]}
        found.append({name: each[0, 1:].numpy() for name, each in maps.items()})
    return found


def windows_of(image: RGBArray) -> list[torch.Tensor]:
    """Three windows of 64 px of a picture of 64 x 128 px."""
    pixels = (image.astype(np.float64) - MEAN) / STD
    cut = [pixels[:, left : left + 64].transpose(2, 0, 1) for left in (0, 32, 64)]
    return [torch.from_numpy(np.ascontiguousarray(each)) for each in cut]


def test_statistics_are_of_stock_blocks_and_means_over_windows(
    clip_model: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the encoder would read: its blocks are described as they were trained."""
    monkeypatch.setattr(feature_statistics, "_WINDOWS_AT_ONCE", 2)
    clip = copy.deepcopy(clip_model).double()
    images = [render_scene(seed, size_hw=(64, 128)).image for seed in (1, 2)]
    encoder = DenseEncoder(clip, METHODS["clipsurgery"])
    found = map_statistics(encoder, "tiny", images, SIZES)
    assert (found.name, found.norm.shape) == ("tiny", (2, 3, 3))
    for picture, image in enumerate(images):
        each = [stock_maps(clip, window) for window in windows_of(image)]
        for index, name in enumerate(MAP_NAMES):
            for layer in range(3):
                maps = [window[layer][name] for window in each]
                norms = [np.sqrt((m**2).sum()) for m in maps]
                assert found.norm[picture, index, layer] == pytest.approx(np.mean(norms))
                peaks = [m.max() for m in maps]
                assert found.maximum[picture, index, layer] == pytest.approx(np.mean(peaks))
                entropies = [
                    scipy.stats.entropy(scipy.special.softmax(m, axis=None).ravel()) for m in maps
                ]
                expected = np.mean(entropies) / np.log(16 * 64)
                assert found.entropy[picture, index, layer] == pytest.approx(expected)
            curves = [np.sort(window[-1][name].mean(axis=0)) for window in each]
            scaled = [(c - c[0]) / (c[-1] - c[0]) for c in curves]
            assert found.channel_means[picture, index] == pytest.approx(np.mean(scaled, axis=0))
        last = [
            np.mean([np.sqrt((window[-1][name] ** 2).sum()) for window in each])
            for name in ATTENTIONS
        ]
        assert found.attention_norm[picture] == pytest.approx(last)


def test_an_example_is_what_segmenters_of_the_maps_make() -> None:
    tower = ImageTower.of_model("demo", "cpu")
    assert tower.model is not None
    image = render_scene(4, size_hw=(100, 150)).image
    sizes = Preprocessing.of_short_side(tower.mean, tower.std, 112)
    example = MapExample.of(tower.model, image, SCENE_LABELS, sizes)
    assert (example.name, example.labels) == ("demo", SCENE_LABELS)
    spelled_out = {"X_sum": "qk-res", "X_res": "qk-res-a0", "X_attn": "qk", "ClearCLIP": "qq"}
    assert list(example.label_maps) == list(spelled_out)
    for name, method in spelled_out.items():
        expected = Segmenter(tower.model, method, sizes).segment(image, SCENE_LABELS).label_map
        assert np.array_equal(example.label_maps[name], expected)


def made_up(name: str = "tower", pictures: int = 2, layers: int = 4) -> MapStatistics:
    rng = np.random.default_rng(0)
    shape = (pictures, 3, layers)
    return MapStatistics(
        name,
        norm=rng.uniform(10, 900, shape),
        entropy=rng.uniform(0, 1, shape),
        maximum=rng.uniform(1, 90, shape),
        attention_norm=rng.uniform(10, 90, (pictures, 5)),
        channel_means=np.sort(rng.uniform(0, 1, (pictures, 3, 8)), axis=-1),
    )


def test_lists_hold_every_picture_and_layer_by_name() -> None:
    found = made_up()
    read = json.loads(json.dumps(as_lists(found)))
    assert (read["name"], read["layers"]) == ("tower", 4)
    for key in ("norm", "entropy", "maximum"):
        for index, name in enumerate(("X_sum", "X_res", "X_attn")):
            expected = getattr(found, key)[:, index]
            assert np.array(read[key][name]) == pytest.approx(expected, rel=1e-5)
    assert list(read["attention_norm"]) == ["qk", "identity", "vv", "kk", "qq"]
    assert read["attention_norm"]["vv"] == pytest.approx(found.attention_norm[:, 2], rel=1e-5)
    means = (found.channel_means[0, 1] + found.channel_means[1, 1]) / 2
    assert read["channel_means"]["X_res"] == pytest.approx(means, rel=1e-5)
