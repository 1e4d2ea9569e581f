"""The whole way on a small model with random weights: each part against its own definition, and all
of it against the plain reference, with windows, synonyms, contrast, thresholds and dtypes.
"""

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clearclip_core import (
    BEST_TEMPLATES,
    METHODS,
    SCENE_LABELS,
    Adaptation,
    Label,
    Method,
    Point,
    PreparedImage,
    PromptPredictor,
    RGBArray,
    Scores,
    Segmentation,
    Segmenter,
    Vocabulary,
    WindowFeatures,
    render_scene,
)
from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.methods import MAPS
from clearclip_core.clip.weights import known_models
from clearclip_core.images.preprocessing import Preprocessing
from tests.core.conftest import MEAN, STD, make_clip, picture
from tests.core.reference import Reference

SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=256, window_px=64, stride_px=32)
WORDS = ("dog", "sky", "grass")


@pytest.fixture(scope="module")
def segmenter(model: LoadedModel) -> Segmenter:
    return Segmenter(model, preprocessing=SIZES)


def normalized(rgb: RGBArray) -> torch.Tensor:
    return ((torch.from_numpy(rgb) - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


def test_scores_by_words_have_the_models_temperature_and_learned_ones_the_papers(
    model: LoadedModel,
) -> None:
    segmenter = Segmenter(dataclasses.replace(model, temperature=80.0))
    features = segmenter.encode(picture(64, 140))
    width = features.patches.shape[-1]
    adaptation = Adaptation(("sky",), np.zeros((1, width), np.float32), np.zeros(1, np.float32), 3)
    assert segmenter.score(features, WORDS).temperature == 80
    assert segmenter.score(features, WORDS, adaptation=adaptation).temperature == 50


def test_an_adaptation_may_ask_for_propagation(segmenter: Segmenter) -> None:
    image = picture(64, 140)
    features = segmenter.encode(image)
    width = features.patches.shape[-1]
    numbers = torch.randn(1, width, generator=torch.manual_seed(0)).numpy(), np.ones(1, np.float32)
    adaptation = Adaptation(("sky",), *numbers, 3)
    propagated = dataclasses.replace(adaptation, propagate=True)
    plain, asking = (
        segmenter.score(features, WORDS, adaptation=a) for a in (adaptation, propagated)
    )
    wanted = segmenter.decide(plain, image=image, propagate=True)
    found = segmenter.decide(asking, image=image)
    assert np.array_equal(found.confidence, wanted.confidence)
    assert not np.array_equal(found.confidence, segmenter.decide(plain, image=image).confidence)
    with pytest.raises(ValueError, match="an image with `propagate`"):
        segmenter.decide(asking)


@pytest.mark.parametrize("windows_at_once", [1, 3, 8, 100])
@pytest.mark.parametrize("method", ["clearclip", "clipsurgery", "gem"])
def test_a_batch_of_mixed_sizes_gives_what_one_at_a_time_gives(
    clip_model: open_clip.CLIP, model: LoadedModel, windows_at_once: int, method: str
) -> None:
    double = dataclasses.replace(model, clip=copy.deepcopy(clip_model).double())
    segmenter = Segmenter(double, method, SIZES)
    sizes_hw = [(64, 140), (50, 300), (64, 64), (140, 64), (20, 640), (64, 140), (1, 9)]
    pictures = [segmenter.prepare(picture(*hw, seed=i)) for i, hw in enumerate(sizes_hw)]
    assert len({one.plan.grid_hw for one in pictures}) > 1
    together = segmenter.encode_batch(pictures, windows_at_once)
    assert [features.plan for features in together] == [one.plan for one in pictures]
    for features, one in zip(together, pictures, strict=True):
        pixels = normalized(one.resized).double()
        windows = list(one.plan.cut(pixels))
        expected = [segmenter.encoder(window[None]) for window in windows]
        patches = torch.cat([window.patches for window in expected])
        torch.testing.assert_close(features.patches, patches, rtol=1e-6, atol=1e-6)  # of float32
        if features.cls is not None:
            cls = torch.cat([window.cls for window in expected if window.cls is not None])
            torch.testing.assert_close(features.cls, cls, rtol=1e-6, atol=1e-6)
        assert (features.cls is not None) == (method == "clipsurgery")
    alone = [segmenter.encode_batch([one])[0] for one in pictures]
    for features, one_alone in zip(together, alone, strict=True):
        torch.testing.assert_close(features.patches, one_alone.patches, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(features.cls, one_alone.cls, rtol=1e-12, atol=1e-12)


def test_no_batch_is_larger_than_asked_and_windows_of_pictures_share_them(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(model, "clearclip", SIZES)
    encode, sizes = segmenter.encoder.forward, []

    def counted(pixels: torch.Tensor) -> WindowFeatures:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(segmenter.encoder, "forward", counted)
    wide = [segmenter.prepare(picture(64, 140, seed)) for seed in range(3)]  # 4 windows each
    segmenter.encode_batch(wide, windows_at_once=5)
    assert sizes == [5, 5, 2]
    sizes.clear()
    segmenter.encode_batch([segmenter.prepare(picture(64, 256))], windows_at_once=3)  # 7 windows
    assert sizes == [3, 3, 1]
    assert segmenter.encode_batch([]) == []


@pytest.mark.parametrize("method", ["clearclip", "rfclip", "clipsurgery"])
def test_a_picture_that_overflows_fp16_is_encoded_in_fp32(
    clip_model: open_clip.CLIP, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A bias doubles a channel of every token beyond the largest number of fp16, 65504."""
    clip = copy.deepcopy(clip_model)
    for block in clip.visual.transformer.resblocks[:2]:
        block.mlp.c_proj.bias[3] = 40000.0
    half = LoadedModel("", copy.deepcopy(clip).half(), lambda _: torch.empty(0), MEAN, STD)
    half = dataclasses.replace(half, sink_channels=())
    single = dataclasses.replace(half, clip=copy.deepcopy(half.clip).float())
    images = [Segmenter(half, method, SIZES).prepare(picture(64, width)) for width in (64, 140)]
    found = Segmenter(half, method, SIZES).encode_batch(images)
    wanted = Segmenter(single, method, SIZES).encode_batch(images)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.patches.dtype is torch.float16
        torch.testing.assert_close(ours.patches.float(), theirs.patches, rtol=0, atol=2e-3)
        if ours.cls is not None:
            torch.testing.assert_close(ours.cls, theirs.cls.half(), rtol=0, atol=2e-3)
    assert caplog.text.count("overflows fp16") == 2


def test_rfclip_stays_within_fp16_where_a_channel_is_large(
    clip_model: open_clip.CLIP, caplog: pytest.LogCaptureFixture
) -> None:
    clip = copy.deepcopy(clip_model)
    clip.visual.ln_pre.bias[3] += 300.0
    sizes = Preprocessing(MEAN, STD, 256, 256, window_px=256, stride_px=256)
    model = LoadedModel("", clip, lambda _: torch.empty(0), MEAN, STD, sink_channels=())
    half = dataclasses.replace(model, clip=copy.deepcopy(clip).half())
    both = (Segmenter(each, "rfclip", sizes) for each in (half, model))
    ours, wanted = (segmenter.encode(picture(256, 256)).patches for segmenter in both)
    assert not caplog.records
    assert float((ours.float() * wanted).sum(dim=-1).min()) > 0.999


def test_features_of_a_batch_own_their_memory(model: LoadedModel) -> None:
    """Else one cached picture would keep the whole batch alive."""
    segmenter = Segmenter(model, "clipsurgery", SIZES)
    one = segmenter.prepare(picture(64, 140))
    for features in [*segmenter.encode_batch([one, one]), *segmenter.encode_batch([one])]:
        assert features.cls is not None
        for part in (features.patches, features.cls):
            assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def test_batches_without_a_window_are_refused(segmenter: Segmenter, model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="`windows_at_once` to be 1 or more, but got"):
        Segmenter(model, windows_at_once=0)
    with pytest.raises(ValueError, match="`windows_at_once` to be 1 or more, but got"):
        segmenter.encode_batch([segmenter.prepare(picture(64, 64))], windows_at_once=0)
    with pytest.raises(TypeError, match="`images` to hold what `prepare` returns"):
        segmenter.encode_batch([picture(64, 64)])  # type: ignore[list-item]


def test_a_digest_is_of_picture_and_geometry(segmenter: Segmenter, model: LoadedModel) -> None:
    image = picture(64, 140)
    prepared = segmenter.prepare(image)
    assert prepared.digest == segmenter.prepare(image.copy()).digest
    changed = image.copy()
    changed[63, 139, 2] ^= 1
    other_stride = Segmenter(model, preprocessing=dataclasses.replace(SIZES, stride_px=16))
    others = [
        segmenter.prepare(changed),
        other_stride.prepare(image),
        PreparedImage(prepared.resized, dataclasses.replace(prepared.plan, image_hw=(32, 70))),
        segmenter.prepare(np.zeros((64, 140, 3), np.uint8)),
        segmenter.prepare(np.zeros((140, 64, 3), np.uint8)),
    ]
    assert len({prepared.digest, *(other.digest for other in others)}) == 6


def test_the_id_of_features_tells_weights_methods_and_precisions_apart(
    clip_model: open_clip.CLIP, model: LoadedModel
) -> None:
    def with_clip(clip: torch.nn.Module) -> Segmenter:
        return Segmenter(dataclasses.replace(model, clip=clip), preprocessing=SIZES)

    renamed = dataclasses.replace(model, name="other", clip=copy.deepcopy(clip_model))
    same = Segmenter(model, preprocessing=SIZES).features_id
    assert Segmenter(renamed, preprocessing=SIZES).features_id == same
    tuned = copy.deepcopy(clip_model)
    tuned.visual.transformer.resblocks[1].mlp.c_fc.bias[3] += 1e-3
    text_tuned = copy.deepcopy(clip_model)
    text_tuned.token_embedding.weight[0] += 1
    assert with_clip(text_tuned).features_id == same  # the words have no part in features
    others = [
        with_clip(tuned).features_id,
        with_clip(copy.deepcopy(clip_model).bfloat16()).features_id,
        Segmenter(model, "clip", SIZES).features_id,
        Segmenter(model, preprocessing=dataclasses.replace(SIZES, mean=(1, 2, 3))).features_id,
    ]
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    "size_hw", [(16, 16), (16, 2000), (1, 2000), (2000, 1), (17, 33), (333, 91), (641, 479), (1, 1)]
)
def test_every_size_comes_back_as_it_was(segmenter: Segmenter, size_hw: tuple[int, int]) -> None:
    result = segmenter.segment(picture(*size_hw), WORDS)
    assert result.label_map.shape == result.confidence.shape == size_hw
    assert set(np.unique(result.label_map).tolist()) <= {0, 1, 2}
    assert np.isfinite(result.confidence).all()
    assert result.labels == WORDS


def test_segment_is_decide_of_score_of_encode(segmenter: Segmenter, tmp_path: Path) -> None:
    """Of a file as of its pixels, and of words by name as of labels."""
    image = picture(100, 75)
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = [Label("pet", ("dog", "cat")), Label("sky")]
    words = {"pet": ["dog", "cat"], "sky": "sky"}
    whole = segmenter.segment(tmp_path / "a.png", words, threshold=0.5)
    features = segmenter.encode(image)
    parts = segmenter.decide(segmenter.score(features, labels), 0.5)
    assert np.array_equal(whole.label_map, parts.label_map)
    assert np.array_equal(whole.confidence, parts.confidence)
    assert whole.labels == parts.labels == ("pet", "sky")
    assert (segmenter.segment(image, labels, threshold=[1, 1]).label_map == -1).all()


def test_a_predictor_answers_clicks_and_boxes_from_its_scores(segmenter: Segmenter) -> None:
    image, points = picture(90, 120), [Point(40, 30), Point(100, 80, positive=False)]
    predictor = segmenter.set_image(image, ["dog", "sky"])
    features = segmenter.encode(image)
    other = PromptPredictor(features, segmenter.score(features, ["dog", "sky"]), image)
    for one, same in (
        (predictor.click(*points, label="sky"), other.click(*points, label="sky")),
        (predictor.box((9, 9, 80, 70), "dog"), other.box((9, 9, 80, 70), "dog")),
    ):
        assert one.mask.shape == (90, 120)
        assert np.array_equal(one.mask, same.mask)
        assert np.array_equal(one.confidence, same.confidence)
    assert segmenter.set_image(image).scores.vocabulary.names == ("sand", "wall")  # the model's own


class Meanings(LoadedModel):
    """A text tower that knows a few words, by the angle between them."""

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        near, far = (0.96, 0.28), (0.94, 0.3412)
        known = {"tree": (1, 0, 0), "wood": (*near, 0), "bush": (*far, 0), "sky": (0, 0, 1)}
        found = [[v for word, v in known.items() if word in each.lower()] for each in sentences]
        return torch.tensor([vectors[0] for vectors in found]).float()


def test_contrast_words_that_mean_what_a_label_means_are_left_out(model: LoadedModel) -> None:
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    meanings = Segmenter(Meanings(**values | {"contrast": ("wood", "Tree", "sky", "bush")}))
    words = meanings.vocabulary(["tree"], contrast=True)
    assert words.queries == ("tree", "sky", "bush")  # not wood, whose cosine is 0.96
    assert words.query_labels == (0, -1, -1)
    by_prompt = meanings.vocabulary([Label("plants", ("sky", "wood"))], contrast=True)
    assert by_prompt.contrast == ()  # all within 0.95 of wood: 1, 0.96, 0.998


def test_threads_share_a_segmenter(segmenter: Segmenter, model: LoadedModel) -> None:
    images = [picture(64 + 7 * i, 90 - 5 * i, seed=i) for i in range(6)]
    words = [[*WORDS, f"thing {i}"] for i in range(6)]
    alone = [segmenter.segment(*pair) for pair in zip(images, words, strict=True)]
    shared = Segmenter(model, preprocessing=SIZES)  # with no embedding yet
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(shared.segment, images * 2, words * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert (one.label_map == other.label_map).mean() > 0.999
        assert one.labels == other.labels


def test_half_precision_gives_nearly_the_same(model_folder: Path) -> None:
    name = f"local-dir:{model_folder}"
    younger = Segmenter.load(name, "scclip", "cpu", "fp32").prepare(picture(500, 700)).plan
    assert (younger.resized_hw, younger.window_px, younger.stride_px) == ((336, 470), 224, 112)
    loaded = Segmenter.load(name, "sclip", "cpu", "fp32", short_side_px=896)
    assert loaded.method == METHODS["sclip"]
    model = loaded.model
    assert loaded.preprocessing == Preprocessing(model.mean, model.std, 896, 4096, 448, 224)
    full, half = (Segmenter.load(name, "clearclip", "cpu", p, 64) for p in ("fp32", "bf16"))
    image = picture(64, 64)
    assert half.encode(image).patches.dtype == torch.bfloat16
    one, other = (s.score(s.encode(image), WORDS).cosines for s in (full, half))
    assert other.dtype == torch.float32
    torch.testing.assert_close(one, other, rtol=0, atol=0.05)


LABEL_MAP = np.array([[0, 0, -1], [2, 0, 2]], np.int16)
CONFIDENCE = np.array([[0.5, 0.75, 1], [0.25, 1, 0.5]], np.float16)
RESULT = Segmentation(LABEL_MAP, CONFIDENCE, ("dog", "cat", "sky"))


def test_a_segmentation_gives_the_masks_that_have_a_pixel_by_name() -> None:
    assert {name: mask.tolist() for name, mask in RESULT.masks().items()} == {
        "dog": [[True, True, False], [False, True, False]],
        "sky": [[False, False, False], [True, False, True]],
    }
    assert list(RESULT.masks(min_island_px=2)) == ["dog"]


def test_the_mask_of_a_label_without_a_pixel_is_empty() -> None:
    assert RESULT.mask("sky").tolist() == [[False, False, False], [True, False, True]]
    assert not RESULT.mask("cat").any()


def test_a_mask_of_an_unknown_label_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"`label` to be in .*'sky'\), but got 'horse'"):
        RESULT.mask("horse")


def test_a_segmentation_prints_the_shares_of_its_labels() -> None:
    assert repr(RESULT) == "<Segmentation 3 × 2 px: dog 50%, sky 33%, none 17%>"


def test_a_saved_segmentation_is_a_png_for_other_programs(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "labels")
    with Image.open(tmp_path / "labels") as read:
        assert np.asarray(read.convert("L")).tolist() == [[0, 0, 255], [2, 0, 2]]


def test_a_segmentation_is_not_saved_in_other_formats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` to end in \.png, .* np\.savez_compressed"):
        RESULT.save(tmp_path / "labels.npz")


def test_a_png_holds_255_labels_and_no_more(tmp_path: Path) -> None:
    Segmentation(LABEL_MAP, CONFIDENCE, ("dog",) * 255).save(tmp_path / "labels")
    with pytest.raises(ValueError, match="at most 255 labels, but got 256"):
        Segmentation(LABEL_MAP, CONFIDENCE, ("dog",) * 256).save(tmp_path / "labels")


def test_pixels_below_their_labels_threshold_lose_it() -> None:
    above = RESULT.above({"dog": 0.75, "sky": 0.3, "cat": 1.0})
    assert above.label_map.tolist() == [[-1, 0, -1], [-1, 0, 2]]
    assert LABEL_MAP[0, 0] == 0, "in a copy"
    assert RESULT.above({"dog": 0.0}) is RESULT


def test_every_float16_is_held_to_thresholds_that_round_up_and_down() -> None:
    steps = np.arange(0x3C01, dtype=np.uint16).view(np.float16)[None]
    every = Segmentation(np.zeros(steps.shape, np.int16), steps, ("dog",))
    for threshold in (1e-9, 0.1, 0.6, 0.99999, 1.0):
        reached = steps.astype(float) >= float(np.float16(threshold))
        assert np.array_equal(every.above({"dog": threshold}).label_map == 0, reached)


SYNONYMS = Vocabulary(
    (Label("a", ("a", "b", "c")), Label("d"), *(Label(f"w{i}", (f"w{i}", f"v{i}")) for i in "12")),
    contrast=("x", "y"),
)
MANY = Vocabulary.of([f"label {i}" for i in range(70)])


def unit(count: int, width: int = 24, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


def model_of(clip: open_clip.CLIP, dtype: torch.dtype) -> LoadedModel:
    moved = copy.deepcopy(clip).to(dtype)
    return LoadedModel("tiny", moved, lambda _: torch.empty(0), MEAN, STD, sink_channels=())


@pytest.mark.parametrize(
    "image_hw",
    [
        (150, 223),  # overlapping windows, the last one pushed back
        (64, 64),  # one window, nothing resized
        (90, 400),  # limited by the long side, so padded: 58 px are no multiple of the patch
        (37, 41),  # made larger
        (301, 190),
    ],
)
@pytest.mark.parametrize("words", [SYNONYMS, MANY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_label_map_is_the_references(
    clip_model: open_clip.CLIP, image_hw: tuple[int, int], words: Vocabulary, dtype: torch.dtype
) -> None:
    model = model_of(clip_model, dtype)
    embeddings = unit(len(words.queries))
    image = render_scene(5, size_hw=image_hw).image
    reference = Reference(model.clip, SIZES)
    windows = reference.encode(image)
    features = Segmenter(model, preprocessing=SIZES).encode(image)
    scores = Scores.of(features, embeddings, words)
    best = reference.probabilities(windows, embeddings, image_hw).amax(dim=0).numpy()
    mixed = np.where(np.arange(len(words.labels)) % 2, np.median(best), 0).tolist()
    for threshold in (0.0, 0.05, 0.3, mixed):
        limits = np.broadcast_to(threshold, len(words.labels))
        expected = reference.label_map(windows, embeddings, words.query_labels, image_hw, limits)
        labels, confidence = scores.decide(threshold)
        is_sure = np.abs(best[..., None] - limits).min(axis=2) > 3e-3
        assert (labels == expected)[is_sure].mean() >= 0.9999
        assert np.array_equal(scores.label_map(threshold), labels)
        assert confidence == pytest.approx(best, abs=2e-3)  # the winner's, contrast included
        if threshold == 0.0 and dtype == torch.float64:
            assert np.array_equal(labels, expected)


#: Presets that need no second encoder; the other one is compared in `test_second_encoder`.
ALONE = {name: method for name, method in METHODS.items() if not method.needs_second_encoder}
ATTENTIONS = ("qk", "qq", "kk", "vv", "identity", "ensemble", "qq+kk")
#: Presets, the three maps, and every attention with every residual, FFN and alpha (Figs. 5-6).
COMBINATIONS = [
    *ALONE.values(),
    *MAPS.values(),
    *(Method(*each) for each in itertools.product(ATTENTIONS, (True, False), (True, False))),
    *(Method(attention, True, True, 10.0) for attention in ATTENTIONS),
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


@pytest.mark.parametrize("name", ALONE)
def test_a_model_of_fewer_blocks_is_read_out_whole(clip_model: open_clip.CLIP, name: str) -> None:
    model = model_of(clip_model, torch.float64)  # of 3 blocks
    image = render_scene(7, size_hw=(64, 64)).image
    (window,) = Reference(model.clip, SIZES, METHODS[name]).encode(image)
    features = Segmenter(model, name, SIZES).encode(image)
    assert relative(features.patches[0], window.features) <= 1e-5


def test_a_glance_shows_model_method_precision_and_device() -> None:
    segmenter = Segmenter.load("demo", "sclip", device="cpu", precision="fp32")
    assert repr(segmenter) == "<Segmenter demo, sclip, fp32 on cpu, pictures of 448 px>"


def test_a_pickled_segmenter_loads_its_weights_by_name() -> None:
    segmenter = Segmenter.load(
        "demo", "sclip", "cpu", "fp32", short_side_px=224, templates=BEST_TEMPLATES
    )
    pickled = pickle.dumps(segmenter)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert repr(again) == repr(segmenter)
    assert again.features_id == segmenter.features_id
    assert again.embed.templates == BEST_TEMPLATES


def test_a_segmenter_of_a_model_without_a_name_is_not_pickled(segmenter: Segmenter) -> None:
    with pytest.raises(TypeError, match=r"of Segmenter\.load, whose weights have a name"):
        pickle.dumps(segmenter)


def test_a_deep_copy_has_weights_of_its_own(segmenter: Segmenter) -> None:
    other = copy.deepcopy(segmenter)
    with torch.no_grad():
        next(other.model.clip.visual.parameters()).add_(1)
    assert other.features_id != Segmenter(segmenter.model, preprocessing=SIZES).features_id


def test_a_copy_on_another_device_leaves_the_first_where_it_is(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert segmenter.to("cpu") is segmenter
    monkeypatch.setattr("clearclip_core.segmenter.choose_device", torch.device)
    moved = segmenter.to("meta")
    assert (moved.device.type, segmenter.device.type) == ("meta", "cpu")
    assert {each.device.type for each in moved.model.clip.parameters()} == {"meta"}


def test_many_images_are_segmented_in_order_as_one_by_one(segmenter: Segmenter) -> None:
    images = [picture(64, 140), picture(90, 64, seed=1), picture(64, 140, seed=2)]
    found = list(segmenter.segment_all(iter(images), WORDS))
    assert [each.source for each in found] == [0, 1, 2]
    for each, image in zip(found, images, strict=True):
        assert np.array_equal(each.image, image)
        alone = segmenter.segment(image, WORDS)
        assert np.mean(each.result.label_map == alone.label_map) > 0.999  # batches round otherwise


def test_windows_of_several_images_share_a_batch(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(model, preprocessing=SIZES, windows_at_once=8)
    sizes = []
    forward = segmenter.encoder.forward
    monkeypatch.setattr(
        segmenter.encoder, "forward", lambda pixels: sizes.append(len(pixels)) or forward(pixels)
    )
    list(segmenter.segment_all([picture(64, 64)] * 12, WORDS))
    assert max(sizes) == 8


def test_many_images_are_not_read_all_at_once(segmenter: Segmenter) -> None:
    taken = itertools.count()
    images = (picture(64, 64, seed=next(taken)) for _ in range(1000))
    next(segmenter.segment_all(images, WORDS))
    assert next(taken) < 20


def test_of_a_folder_files_that_cannot_be_read_are_named_and_left_out(
    segmenter: Segmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.png", "b/c.jpg", ".hidden.png"):
        Image.fromarray(picture(64, 64)).save(tmp_path / name)
    (tmp_path / "b" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("none either")

    found = [each.source for each in segmenter.segment_all(tmp_path, WORDS)]

    assert found == [tmp_path / "a.png", tmp_path / "b" / "c.jpg"]
    assert f"{tmp_path}/b/broken.png cannot be read and is left out" in caplog.text


def test_a_file_in_place_of_a_folder_of_images_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match=r"a folder or several images, but got 'photo\.jpg'"):
        next(segmenter.segment_all("photo.jpg", WORDS))


def is_native(arch: str) -> bool:
    """Whether the image tower is open_clip's own Vision Transformer, and its pooling a token."""
    if arch == "demo":
        return False
    vision = open_clip.get_model_config(arch)["vision_cfg"]
    is_transformer = "timm_model_name" not in vision and isinstance(vision["layers"], int)
    return is_transformer and not vision.get("attentional_pool")


#: Every native architecture that the library accepts: CLIP's, OpenCLIP's, MetaCLIP's and others.
_OF_OPEN_CLIP = {row.name.split("/")[0] for row in known_models() if ":" not in row.name}
ARCHITECTURES = sorted(filter(is_native, _OF_OPEN_CLIP)) + [
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
    for method in ALONE.values():
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
def test_half_precision_agrees_with_the_reference(device: str, precision: str) -> None:
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
