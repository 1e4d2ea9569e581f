"""int8 beside fp32: which layers pass, when they serve, and what is kept apart until then."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, repeat
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.inference.int8_check import PICTURES, Int8Check, Int8Status
from backend.settings import Settings
from clearclip_core import (
    DenseEncoder,
    Label,
    LoadedModel,
    Preprocessing,
    Segmenter,
    compare_features,
)
from tests.backend.inference.scene import eventually
from tests.core.conftest import make_clip

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=128, window_px=64, stride_px=32)
LABELS = (Label("dog"), Label("sky"))


def clip_with_outliers(*norms: str) -> open_clip.CLIP:
    """A model that computes the same in fp32, and worse in int8.

    Behind these norms one number of each token is 3000 times as large as before, and the weights
    that it meets are as much smaller: 8 bits of it leave nothing of the others.
    """
    clip = make_clip(layers=2, width=192, head_width=64)
    for block in clip.visual.transformer.resblocks:
        for name in norms:
            norm = getattr(block, name)
            layer = block.attn.in_proj_weight if name == "ln_1" else block.mlp.c_fc.weight
            norm.weight[5] *= 3000
            norm.bias[5] *= 3000
            layer[:, 5] /= 3000
    return clip


def segmenter_of(clip: torch.nn.Module) -> Segmenter:
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    model = LoadedModel("tiny", clip, tokenize, MEAN, STD, contrast=("wall",))
    return Segmenter(model, preprocessing=SIZES)


def picture(seed: int, width: int = 96) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)


def clock(*durations_s: float) -> Callable[[], float]:
    """A clock for calls that begin and end at once, and last so long; the last one for ever."""
    each = chain(durations_s, repeat(durations_s[-1]))
    steps: Iterator[float] = chain.from_iterable((0.0, duration) for duration in each)
    return accumulate(steps).__next__


FASTER = (2.0, 1.0) * PICTURES


@pytest.mark.parametrize(
    ("norms", "durations_s", "layers"),
    [
        ((), FASTER, "all"),
        (("ln_2",), (2.0, 1.0, 1.0, *FASTER), "without-ffn-inputs"),
    ],
)
def test_the_most_layers_serve_that_pass(
    norms: tuple[str, ...], durations_s: tuple[float, ...], layers: str
) -> None:
    segmenter, check = segmenter_of(clip_with_outliers(*norms)), Int8Check(clock(*durations_s))
    assert check.status == Int8Status("checking")
    images = [segmenter.prepare(picture(seed)) for seed in range(PICTURES)]
    made = [check.compare(segmenter, image) for image in images]
    assert [each is None for each in made] == [True] * (PICTURES - 1) + [False]
    assert made[-1] is not None
    cosines = [
        compare_features(*(s.encode(picture(seed), True) for s in (made[-1], segmenter)))
        for seed in range(PICTURES)
    ]
    assert check.status.least_cosine == pytest.approx(min(cosines), abs=1e-6)
    assert min(cosines) >= 0.999
    assert (check.status.state, check.status.layers) == ("serving", layers)
    assert (check.status.pictures, check.status.reason) == (PICTURES, "")
    assert made[-1].features_id == segmenter.to_int8(layers).features_id
    assert check.compare(segmenter, segmenter.prepare(picture(99))) is None, "it is over"


def test_fp32_stays_where_a_picture_fails_all_layers(caplog: pytest.LogCaptureFixture) -> None:
    segmenter, check = segmenter_of(clip_with_outliers("ln_1", "ln_2")), Int8Check()
    assert check.compare(segmenter, segmenter.prepare(picture(0))) is None
    status = check.status
    assert (status.state, status.layers, status.pictures) == ("fp32", "", 1)
    assert status.least_cosine is not None
    assert status.least_cosine < 0.999
    assert status.reason == "a picture's mean cosine to fp32 was below 0.999."
    assert f"fp32 stays (compared on 1 pictures, least mean cosine {status.least_cosine:.5f})" in (
        caplog.text
    )


def test_a_later_picture_that_fails_sends_the_earlier_ones_through_fewer_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    to_int8 = Segmenter.to_int8
    monkeypatch.setattr(
        Segmenter, "to_int8", lambda self, layers: asked.append(layers) or to_int8(self, layers)
    )
    cosines = iter([1.0, 0.9989, 0.9991, 0.9993, 0.9999, 0.9995])
    monkeypatch.setattr("backend.inference.int8_check.compare_features", lambda *_: next(cosines))
    segmenter, check = segmenter_of(make_clip()), Int8Check(clock(2, 1, 2, 1, 1, 1, *FASTER))
    for seed in range(PICTURES):
        check.compare(segmenter, segmenter.prepare(picture(seed)))
    assert asked == ["all", "without-ffn-inputs"]
    assert check.status == Int8Status("serving", PICTURES, 0.9991, "without-ffn-inputs")


@pytest.mark.parametrize(
    ("durations_s", "took"),
    [
        ((1.0,), "4.00 s where fp32 took 4.00 s"),
        ((1.0, 0.95) * PICTURES, "3.80 s where fp32 took 4.00 s"),  # which is noise
    ],
)
def test_fp32_stays_where_int8_is_not_clearly_faster(
    durations_s: tuple[float, ...], took: str
) -> None:
    segmenter, check = segmenter_of(make_clip()), Int8Check(clock(*durations_s))
    for seed in range(PICTURES):
        assert check.compare(segmenter, segmenter.prepare(picture(seed))) is None
    assert check.status.state == "fp32"
    assert check.status.reason.startswith(f"it took {took}, and serves from 10% less on")


def test_int8_serves_where_it_takes_a_tenth_less() -> None:
    segmenter, check = segmenter_of(make_clip()), Int8Check(clock(*(1.0, 0.89) * PICTURES))
    for seed in range(PICTURES):
        check.compare(segmenter, segmenter.prepare(picture(seed)))
    assert check.status.state == "serving"


@pytest.mark.parametrize("after", range(7))
def test_the_check_ends_between_two_passes_once_the_engine_has_stopped(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last picture takes seven passes where it fails the most layers: one to warm the next."""
    cosines = iter([1.0, 1.0, 1.0, 0.9] + [1.0] * 4)
    monkeypatch.setattr("backend.inference.int8_check.compare_features", lambda *_: next(cosines))
    segmenter, check = segmenter_of(make_clip()), Int8Check()
    for seed in range(PICTURES - 1):
        check.compare(segmenter, segmenter.prepare(picture(seed)))
    passes = []
    encode = Segmenter.encode_batch
    monkeypatch.setattr(
        Segmenter, "encode_batch", lambda *given, **more: passes.append(1) or encode(*given, **more)
    )
    last = segmenter.prepare(picture(PICTURES - 1))
    assert check.compare(segmenter, last, has_stopped=lambda: len(passes) == after) is None
    assert len(passes) == after
    assert check.status.state == "checking"


def test_an_engine_that_stops_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    compare = Int8Check.compare

    def noted(self: Int8Check, *given: Any) -> Any:
        asked.append(given[-1]())
        engine._loader.stop()
        asked.append(given[-1]())
        return compare(self, *given)

    monkeypatch.setattr(Int8Check, "compare", noted)
    segmenter, check = segmenter_of(make_clip()), Int8Check()
    with Engine(lambda: segmenter, lambda: "m", int8_check=check) as engine:
        engine.encode(segmenter.prepare(picture(0)), LABELS)
        assert eventually(lambda: asked == [False, True])
    assert check.status == Int8Status("checking")


@pytest.mark.parametrize("cold", ["fp32", "int8"])
@pytest.mark.parametrize(("took_int8", "state"), [(0.85, "serving"), (0.95, "fp32")])
def test_a_first_pass_that_is_slow_counts_against_neither(
    cold: str, took_int8: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model takes ten times as long with a number of windows that it has not had."""
    now, seen = 0.0, set()
    encode = Segmenter.encode_batch

    def timed(self: Segmenter, images: Any, at_once: int | None = None, with_cls: bool = False):
        nonlocal now
        precision, (image,) = self.encoder.precision, images
        is_first = (precision, image.plan.count) not in seen
        seen.add((precision, image.plan.count))
        took = 1.0 if precision == "fp32" else took_int8
        now += took * (10 if is_first and precision == cold else 1)
        return encode(self, images, at_once, with_cls)

    monkeypatch.setattr(Segmenter, "encode_batch", timed)
    segmenter, check = segmenter_of(make_clip()), Int8Check(lambda: now)
    widths = (96, 96, 128, 128)  # two windows, and three
    images = [segmenter.prepare(picture(seed, width)) for seed, width in enumerate(widths)]
    assert {image.plan.count for image in images} == {2, 3}
    for image in images:
        check.compare(segmenter, image)
    assert check.status.state == state, check.status.reason


def test_a_picture_counts_once() -> None:
    segmenter, check = segmenter_of(make_clip()), Int8Check()
    for _ in range(PICTURES + 1):
        check.compare(segmenter, segmenter.prepare(picture(0)))
    assert (check.status.state, check.status.pictures) == ("checking", 1)


@pytest.mark.parametrize("broken", ["nan", "error"])
def test_what_goes_wrong_leaves_fp32(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        if broken == "nan":
            return float("nan")
        raise RuntimeError("out of luck\nframe #0: somewhere")

    monkeypatch.setattr("backend.inference.int8_check.compare_features", fail)
    segmenter, check = segmenter_of(make_clip()), Int8Check()
    assert check.compare(segmenter, segmenter.prepare(picture(0))) is None
    reason = "a picture's mean cosine to fp32 was below 0.999."
    assert check.status.reason == ("int8 failed: out of luck." if broken == "error" else reason)
    assert (check.status.state, check.status.least_cosine) == ("fp32", None)


def test_the_check_encodes_as_many_windows_at_once_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[str, int]] = []
    encode = DenseEncoder.forward

    def counted(self: DenseEncoder, pixels: torch.Tensor, with_cls: bool = False) -> Any:
        sizes.append((self.precision, len(pixels)))
        return encode(self, pixels, with_cls)

    monkeypatch.setattr(DenseEncoder, "forward", counted)
    segmenter = segmenter_of(make_clip())
    image = segmenter.prepare(picture(0))
    assert (image.plan.count, segmenter.windows_at_once) == (2, 4)
    Int8Check().compare(segmenter, image, windows_at_once=1)
    assert sizes == [("fp32", 1)] * 4 + [("int8", 1)] * 4


# In the engine


def test_the_engine_compares_with_its_own_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """BATCH_WINDOWS bounds memory; the check does not go above it."""
    sizes: list[int | None] = []
    encode = Segmenter.encode_batch

    def noted(self: Segmenter, images: Any, at_once: int | None = None, with_cls: bool = False):
        sizes.append(at_once)
        return encode(self, images, at_once, with_cls)

    monkeypatch.setattr(Segmenter, "encode_batch", noted)
    segmenter, check = segmenter_of(make_clip()), Int8Check()
    with Engine(lambda: segmenter, lambda: "m", windows_at_once=1, int8_check=check) as engine:
        engine.encode(segmenter.prepare(picture(0)), LABELS)
        assert eventually(lambda: check.status.pictures == 1)
    assert sizes == [1] * 5  # the answer, fp32 and int8, each of both once before it is timed


def test_fp32_serves_on_where_int8_fails_at_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, check = segmenter_of(make_clip()), Int8Check(clock(*FASTER))
    known = Segmenter.features_id

    def features_id(self: Segmenter) -> str:
        if self.encoder.precision == "int8":
            raise MemoryError
        return known.func(self)

    monkeypatch.setattr(Segmenter, "features_id", property(features_id))
    with Engine(lambda: segmenter, lambda: "m", int8_check=check) as engine:
        for seed in range(PICTURES):
            engine.encode(segmenter.prepare(picture(seed)), LABELS)
        assert eventually(lambda: check.is_over)
        assert check.status.state == "fp32"
        assert check.status.reason == "int8 failed: MemoryError."
        assert engine.snapshot().precision == "float32"
        later = segmenter.prepare(picture(PICTURES))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(engine.encode, later, LABELS).result(60).features is not None


def test_an_engine_of_another_method_names_the_precision_that_it_serves_in() -> None:
    int8 = segmenter_of(make_clip()).to_int8()
    made = Engine(lambda: int8, lambda: "m")
    derived = made.of_method("maskclip")
    with made:
        derived.start()
        assert derived.segmenter().encoder.precision == "int8"
        assert [each.snapshot().precision for each in (made, derived)] == ["int8", "int8"]


def test_the_first_pictures_are_answered_in_fp32_and_the_next_in_int8(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    models = [segmenter_of(clip_with_outliers())]
    fp32 = segmenter_of(copy.deepcopy(models[0].model.clip))
    int8 = fp32.to_int8()
    weight = weakref.ref(models[0].encoder.visual.transformer.resblocks[0].mlp.c_fc.weight)
    cache = FeatureCache(8 << 20)
    check = Int8Check(clock(*FASTER))
    with Engine(models.pop, lambda: "m", cache=cache, int8_check=check) as engine:
        for seed in range(PICTURES + 2):
            image = fp32.prepare(picture(seed))
            found = engine.encode(image, LABELS).features
            compared = min(seed + 1, PICTURES)
            assert eventually(lambda compared=compared: check.status.pictures == compared)
            exact = fp32.encode(picture(seed)).patches.half()
            if seed < PICTURES:
                torch.testing.assert_close(found.patches, exact, rtol=0, atol=2e-4)
            else:  # where sums differ in their last bit, int8 may round otherwise: a small step
                rounded = int8.encode(picture(seed)).patches.half()
                torch.testing.assert_close(found.patches, rounded, rtol=0, atol=0.02)
                assert (found.patches - exact).abs().max() > 1e-3
            then = "float32" if compared < PICTURES else "int8"
            assert eventually(lambda then=then: engine.snapshot().precision == then)
        status = engine.snapshot().int8
        assert status == check.status
        assert status is not None
        assert (status.state, status.layers, status.pictures) == ("serving", "all", PICTURES)
        assert engine.segmenter().features_id == int8.features_id
        gc.collect()
        assert weight() is None, "the weights in fp32 are freed"
        # Features of both are kept apart: what fp32 has answered is encoded anew.
        again = fp32.prepare(picture(0))
        assert f"{fp32.features_id} {again.digest}" in cache
        assert f"{int8.features_id} {again.digest}" not in cache
        windows = engine.snapshot().windows
        engine.encode(again, LABELS)
        assert engine.snapshot().windows == windows + again.plan.count
        assert f"{int8.features_id} {again.digest}" in cache
    assert "int8 serves from now on (layers: all): compared on 4 pictures" in caplog.text


def test_a_request_from_before_int8_keeps_nothing_under_the_key_of_fp32() -> None:
    """Its key was made while fp32 served, and its turn comes when int8 does."""
    segmenter, cache = segmenter_of(make_clip()), FeatureCache(8 << 20)
    image = segmenter.prepare(picture(0))
    with Engine(lambda: segmenter, lambda: "m", cache=cache) as engine:
        engine.segmenter()
        key = engine._loader.features_id
        encode = engine._enqueue

        def late(request: Any) -> None:
            engine._loader.replace(segmenter.to_int8())
            encode(request)

        engine._enqueue = late  # type: ignore[method-assign]
        engine.encode(image, LABELS)
        assert engine._loader.features_id != key
    assert f"{key} {image.digest}" not in cache


def test_the_setting_loads_fp32_first_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    loaded: list[str] = []

    def load(_name: str, precision: str, **_options: Any) -> Segmenter:
        loaded.append(precision)
        return segmenter_of(make_clip())

    monkeypatch.setattr(Segmenter, "load", load)
    settings = Settings(model="demo", precision="int8", device="cpu", model_dir=tmp_path)
    with Engine.from_settings(settings) as engine:
        image = engine.segmenter().prepare(picture(0))
        assert loaded == ["fp32"]
        assert engine.snapshot().int8 == Int8Status("checking")
        engine.encode(image, LABELS)
        assert eventually(lambda: engine.snapshot().int8 != Int8Status("checking"))
    fp32 = settings.model_copy(update={"precision": "fp32"})
    assert Engine.from_settings(fp32).snapshot().int8 is None


def test_a_graphics_card_is_told_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = Settings(model="demo", precision="int8", model_dir=tmp_path)
    with Engine.from_settings(settings) as engine:
        assert eventually(lambda: engine.status.state == "failed")
        assert "int8 is for CPUs" in engine.status.reason
