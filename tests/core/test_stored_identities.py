"""What earlier releases have stored: keys of caches, files, and names inside them.

Every expected value was stored by a release. It never changes without a new version number
beside it: feature caches, embedding caches, learned examples and results of evaluations would be
lost with it. Names of Python classes and attributes may change; none of this may follow them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load

from clearclip_core import Adaptation, Example, Method, Preprocessing, Segmenter, weights_id
from clearclip_core.adaptation.serialization import to_safetensors
from clearclip_core.clip.embedding_cache import EmbeddingStore, text_tower_id
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import MAPS, resolve_method
from clearclip_core.evaluation import checkpoint as checkpoint_module
from clearclip_core.evaluation.checkpoint import Checkpoint
from clearclip_core.evaluation.confusion_matrix import Confusion
from clearclip_core.evaluation.results import Result, Tally, dump
from clearclip_core.evaluation.speed import Measurement, as_json
from clearclip_core.paper.ablation import Ablation
from clearclip_core.segmentation.sliding_windows import WindowPlan
from clearclip_core.segmenter import PreparedImage
from tests.core.evaluation.factories import CONFIG, ablation, result

PIXELS = (np.arange(4 * 6 * 3) % 251).astype(np.uint8).reshape(4, 6, 3)

EXAMPLE = Example(
    ("dog", "sky"),
    ("", "sky"),
    np.array([1.5, 2.5], np.float32),
    np.array([[0.6, 0.8], [1, 0]], np.float32),
    np.array([[0.5, 0.5], [1, 0], [0, 1]], np.float16),
    np.array([[0, 1], [0.5, 0.5], [1, 0]], np.float16),
    np.array([1, 2, 1], np.float32),
    "p1",
)
ADAPTATION = Adaptation(
    ("sea", "sky"),
    np.array([[1, 2], [3, 4]], np.float32),
    np.array([0.5, -0.5], np.float32),
    pictures=3,
)
EXAMPLE_DIGEST = "02d3af9c1428a1182b35def55685d9a4bfb2bab3f989a5b4098d752765b3c365"
ADAPTATION_DIGEST = "b2c7866b4b9bd1a7aef6588304076cd7892af937ed66e374de5ccfc55922da95"

#: `EXAMPLE` and `ADAPTATION` as files.
EXAMPLE_FILE = base64.b64decode(
    "cAEAAAAAAAB7ImFyZWFzIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMCw4XX0sIm1l"
    "YW5zIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyLDJdLCJkYXRhX29mZnNldHMiOls4LDI0XX0sIndlaWdodHMiOnsi"
    "ZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzNdLCJkYXRhX29mZnNldHMiOlsyNCwzNl19LCJjb3ZlcmFnZSI6eyJkdHlwZSI6"
    "IkYxNiIsInNoYXBlIjpbMywyXSwiZGF0YV9vZmZzZXRzIjpbMzYsNDhdfSwicGF0Y2hlcyI6eyJkdHlwZSI6IkYxNiIs"
    "InNoYXBlIjpbMywyXSwiZGF0YV9vZmZzZXRzIjpbNDgsNjBdfSwiZmFjdHMiOnsiZHR5cGUiOiJVOCIsInNoYXBlIjpb"
    "MTg1XSwiZGF0YV9vZmZzZXRzIjpbNjAsMjQ1XX19IAAAwD8AACBAmpkZP83MTD8AAIA/AAAAAAAAgD8AAABAAACAPwAA"
    "ADwAOAA4ADwAAAA4ADgAPAAAAAAAPHsia2luZCI6ICJleGFtcGxlIiwgImZvcm1hdCI6IDEsICJkaWdlc3QiOiAiMDJk"
    "M2FmOWMxNDI4YTExODJiMzVkZWY1NTY4NWQ5YTRiZmIyYmFiM2Y5ODlhNWI0MDk4ZDc1Mjc2NWIzYzM2NSIsICJmYWN0"
    "cyI6IHsia25vd24iOiBbImRvZyIsICJza3kiXSwgIm5hbWVzIjogWyIiLCAic2t5Il0sICJwaWN0dXJlIjogInAxIn19"
)
ADAPTATION_FILE = base64.b64decode(
    "wAAAAAAAAAB7ImRpcmVjdGlvbnMiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsMl0sImRhdGFfb2Zmc2V0cyI6WzAs"
    "MTZdfSwib2Zmc2V0cyI6eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzE2LDI0XX0sImZh"
    "Y3RzIjp7ImR0eXBlIjoiVTgiLCJzaGFwZSI6WzE2NF0sImRhdGFfb2Zmc2V0cyI6WzI0LDE4OF19fSAgICAAAIA/AAAA"
    "QAAAQEAAAIBAAAAAPwAAAL97ImtpbmQiOiAiYWRhcHRhdGlvbiIsICJmb3JtYXQiOiAxLCAiZGlnZXN0IjogImIyYzc4"
    "NjZiNGI5YmQxYTdhZWY2NTg4MzA0MDc2Y2Q3ODkyYWY5MzdlZDY2ZTM3NGRlNWNjZmM1NTkyMmRhOTUiLCAiZmFjdHMi"
    "OiB7Im5hbWVzIjogWyJzZWEiLCAic2t5Il0sICJwaWN0dXJlcyI6IDN9fQ=="
)

#: `SETTINGS` of an evaluation, as its files have them.
CONFIG_JSON = {
    "benchmark": "voc20",
    "pictures": 9,
    "limit": None,
    "pictures_digest": "a",
    "own_names": False,
    "queries_digest": "b",
    "model": "ViT-B-16/openai",
    "weights": "demo-1",
    "method": "clearclip",
    "precision": "fp16",
    "device": "cuda",
    "short_side_px": 448,
    "long_side_px": 2048,
    "window_px": 448,
    "stride_px": 224,
    "mean": [1.5, 2, 3],
    "std": [4, 5, 6],
    "threshold": 0.0,
}
CONFIG_KEY = "0ca3c559c2eb95eefa452740ac39615e592b0b0827c80614ec6d29e97712d84a"


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model("demo", device="cpu", precision="fp32")


# ---- keys of caches --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            WindowPlan((8, 12), (4, 6), 4, 2, (2, 2)),
            "f2d26a51ffe6fd3b97dd2a128d4f1d7a022c5a0d9410e44f6114cfb53cb529cc",
        ),
        (
            WindowPlan((683, 1024), (448, 672), 448, 224, (16, 16)),
            "2cfc0ab63bc5ca622cf5af6787336f225e3d7428ddb1bc6c082d65492af7bcf5",
        ),
    ],
)
def test_the_digest_of_a_prepared_picture(plan: WindowPlan, expected: str) -> None:
    assert PreparedImage(PIXELS, plan).digest == expected


def test_the_digest_of_a_prepared_picture_is_of_this_text_and_the_pixels() -> None:
    text = (
        b"WindowPlan(image_hw=(683, 1024), resized_hw=(448, 672), window_px=448, stride_px=224, "
        b"patch_hw=(16, 16))"
    )
    plan = WindowPlan((683, 1024), (448, 672), 448, 224, (16, 16))
    expected = hashlib.sha256(text + PIXELS.tobytes()).hexdigest()
    assert PreparedImage(PIXELS, plan).digest == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("clearclip", "b49ff930626b3519c852f42fc155ad427845ac7f3831956a035f857210d1d5ca"),
        ("gem", "8023bca20f6aa8f2f2aea97c5e5561467825538d0ac1ff4b6bc5bb77f3f07aa7"),
        ("vv-res-b6-surgery", "da6183765f3d13ad33f485a8c954c4076ad9fbb86040fd964012804349a46c3f"),
        ("clipsurgery", "777b6fa98d3d22ad64ac2e627fea48926ff4769b46960d306af2c19866770749"),
        ("qk-res-a2", "28e66c797f1424c3d4b88fb5dd701f55113b07e8385e7bc342e8ac93760c0f7e"),
        (MAPS["X_res"], "8279dad91656394026c0c15127c5cc3ac40dc0ebc0a5ba18dc809fe3dcf323a6"),
    ],
)
def test_the_key_of_features(demo: LoadedModel, method: str | Method, expected: str) -> None:
    assert Segmenter(demo, method).features_id == expected


def test_the_key_of_a_method_is_this_text() -> None:
    """The first release knew only `positions_by_size`, and `clipsurgery` without bilinear ones."""
    start = "Method(attention='vv', residual=True, ffn=False, alpha=1.0, blocks=6, "
    for name, positions in (("", "False"), ("-size", "True"), ("-bilinear", "'bilinear'")):
        expected = f"{start}positions_by_size={positions}, remove_redundancy=True)"
        assert resolve_method(f"vv-res-b6{name}-surgery").key == expected


def test_the_key_of_features_with_another_mean_and_std(demo: LoadedModel) -> None:
    sizes = Preprocessing((1.5, 2, 3), (4, 5, 6))
    expected = "6d50bc950468304068196afa8814ecb6613eabeb0da4d2de301375928cc5eb7d"
    assert Segmenter(demo, preprocessing=sizes).features_id == expected


def test_the_ids_of_weights(demo: LoadedModel) -> None:
    assert weights_id("demo") == "demo-1c8c56fdeaee"
    expected = "8e35278ac144d8bf3e2e0f8bad405a90dd379182ad931e506dab7e3f27bf5e37"
    assert text_tower_id(demo) == expected


def test_a_kept_text_embedding(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, weights="abc")
    store.put(["a photo of a dog.", "a dog"], torch.tensor([0.6, 0.8]))
    (path,) = tmp_path.iterdir()
    name = "4440c8dd227a43b953d508fd7aad34635f474d8fe9ab45b25e850d495028b925.safetensors"
    assert path.name == name
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["embedding"]
        assert file.metadata() == {
            "sha256": hashlib.sha256(np.array([0.6, 0.8], "<f4").tobytes()).hexdigest(),
            "weights": "abc",
            "example": "a photo of a dog.",
        }


# ---- files -----------------------------------------------------------------------------------


def test_a_packed_example() -> None:
    assert EXAMPLE.digest == EXAMPLE_DIGEST
    without = replace(EXAMPLE, picture="")
    assert without.digest == "2a77f7d63134168b3e11b57b1c54dbd33ac3f874a978eea0cc8682b0dd39f030"
    made, kept = load(EXAMPLE.to_bytes()), load(EXAMPLE_FILE)
    assert {"areas", "means", "patches", "coverage", "weights", "facts"} == set(made) == set(kept)
    for name, array in kept.items():
        assert array.dtype == made[name].dtype
        assert np.array_equal(array, made[name]), name
    assert json.loads(made["facts"].tobytes()) == {
        "kind": "example",
        "format": 1,
        "digest": EXAMPLE_DIGEST,
        "facts": {"known": ["dog", "sky"], "names": ["", "sky"], "picture": "p1"},
    }


def test_a_packed_example_is_read() -> None:
    read = Example.from_bytes(EXAMPLE_FILE)
    assert (read.known, read.names, read.picture) == (("dog", "sky"), ("", "sky"), "p1")
    for name in ("areas", "means", "patches", "coverage", "weights"):
        assert np.array_equal(getattr(read, name), getattr(EXAMPLE, name)), name


def test_a_packed_adaptation() -> None:
    assert ADAPTATION.digest == ADAPTATION_DIGEST
    made, kept = load(ADAPTATION.to_bytes()), load(ADAPTATION_FILE)
    assert {"directions", "offsets", "facts"} == set(made) == set(kept)
    assert made["facts"].tobytes() == kept["facts"].tobytes()
    read = Adaptation.from_bytes(ADAPTATION_FILE)
    assert (read.names, read.pictures) == (("sea", "sky"), 3)
    assert np.array_equal(read.directions, ADAPTATION.directions)
    assert np.array_equal(read.offsets, ADAPTATION.offsets)


@pytest.mark.parametrize("names", [("directions",), ("directions", "offsets", "means")])
def test_a_packed_adaptation_of_other_arrays_is_refused(names: tuple[str, ...]) -> None:
    arrays = {"directions": ADAPTATION.directions, "offsets": ADAPTATION.offsets}
    others = {name: arrays.get(name, np.zeros(2, np.float32)) for name in names}
    packed = to_safetensors("adaptation", {"names": ["sea", "sky"], "pictures": 3}, others)
    with pytest.raises(ValueError, match="Expected the bytes of an adaptation, but got others"):
        Adaptation.from_bytes(packed)


def test_the_key_of_an_evaluation() -> None:
    assert CONFIG.key == CONFIG_KEY
    other = replace(CONFIG, limit=5, threshold=0.5, method="qk-res-a2")
    assert other.key == "cdd362bde475fb8705342126da38e88c821983406418300c9635ada682fef209"
    assert CONFIG.differences(other) == (
        "limit None and 5, method 'clearclip' and 'qk-res-a2', threshold 0.0 and 0.5"
    )


def test_the_file_of_a_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result("voc20", 50).write(path)
    written = json.loads(path.read_text())
    assert {name: written[name] for name in list(written)[:9]} == {
        "miou": 0.5,
        "pixel_accuracy": 200 / 300,
        "pictures": 9,
        "seconds_per_picture": 0.5,
        "seconds": 4.5,
        "shard": "0/1",
        "settings": CONFIG_JSON,
        "versions": {},
        "hardware": "a card",
    }
    assert list(written)[9:] == ["iou", "confusion"]
    assert list(written["settings"]) == list(CONFIG_JSON)
    read = Result.read(path)
    assert read.config == CONFIG


def test_the_file_of_an_ablation(tmp_path: Path) -> None:
    path = tmp_path / "ablation.json"
    written = {
        "readouts": {
            "clearclip": {
                "attention": "qq",
                "residual": False,
                "ffn": False,
                "alpha": 1.0,
                "miou": 0.5,
                "pixel_accuracy": 0.25,
            },
            "qk-res-ffn-a2": {
                "attention": "qk",
                "residual": True,
                "ffn": True,
                "alpha": 2,
                "miou": 0.25,
                "pixel_accuracy": 0.125,
            },
        },
        "settings": CONFIG_JSON | {"method": "ablation"},
        "versions": {"torch": "2"},
        "hardware": "a card",
    }
    scores = {Method(): 0.5, Method("qk", residual=True, ffn=True, alpha=2): 0.25}
    ablation("voc20", scores).write(path)
    assert path.read_bytes() == dump(written)
    read = Ablation.read(path)
    assert read.config == replace(CONFIG, method="ablation")
    assert {method: score.miou for method, score in read.scores.items()} == scores


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_a_result_with_other_settings_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "result.json"
    result("voc20", 50).write(path)
    facts = json.loads(path.read_text())
    if change == "one more":
        facts["settings"]["other"] = 1
    else:
        del facts["settings"]["stride_px"]
    path.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="to be a result of `clearclip eval`"):
        Result.read(path)


def test_the_file_of_an_interrupted_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "versions", lambda: {"torch": "2"})
    checkpoint = Checkpoint.beside(tmp_path / "r.json", CONFIG_KEY)
    checkpoint.save([Tally(Confusion(np.array([[1, 2], [3, 4]])), 7, 1.5)])
    path = tmp_path / "r.json.0ca3c559c2eb.partial"
    assert json.loads(path.read_text()) == {
        "key": CONFIG_KEY,
        "versions": {"torch": "2"},
        "pictures": 7,
        "seconds 0": 1.5,
        "confusion 0": [[1, 2], [3, 4]],
    }


def test_the_file_of_a_measurement() -> None:
    stages = {"read": 0.5, "score": 0.25, "decide": 0.5, "masks": 0.25}
    measured = Measurement(
        "demo",
        "clearclip",
        "fp32",
        "a CPU",
        2,
        ("avx2",),
        "2.5",
        (60, 40),
        (96, 64),
        1,
        4,
        3,
        stages,
        {1: 0.5},
        0.5,
        1.5,
        2.5,
        3,
        240,
        100.5,
        None,
    )
    assert json.dumps(as_json(measured)) == json.dumps(
        {
            "model": "demo",
            "method": "clearclip",
            "precision": "fp32",
            "device": "a CPU",
            "threads": 2,
            "cpu_flags": ["avx2"],
            "torch": "2.5",
            "picture_wh": [60, 40],
            "resized_wh": [96, 64],
            "windows": 1,
            "windows_at_once": 4,
            "labels": 3,
            "stages_s": stages,
            "window_s": {"1": 0.5},
            "encoder_tflops": 0.5,
            "matmul_tflops": 1.5,
            "text_s": 2.5,
            "text_labels": 3,
            "text_sentences": 240,
            "memory_mb": 100.5,
            "gpu_memory_mb": None,
            "pictures_per_s": 1 / 1.5,
            "picture_s": 1.5,
            "new_words_s": 1.0,
        }
    )
