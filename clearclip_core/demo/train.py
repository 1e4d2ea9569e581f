"""Train the demo model: ``python -m clearclip_core.demo.train --out FOLDER``.

The demo model is a tiny CLIP for **drawn scenes, not for photographs**, so that everything in
this package runs where no other weights are available. Its vocabulary is the 18 `SCENE_LABELS` and
their `SYNONYMS`; other words have no meaning for it. It has 2.4 M parameters for images and 3.3 M
for words, most of them zero rows of the embedding table: 11.4 MB in half precision.

1. The text tower is trained alone, in under a minute (`train_text`), and then stays fixed.
2. 6,000 scenes are rendered. Random windows of them are resized to 64-128 px first, and to
   192-448 px at the end (`_STAGES`). The losses get image-level labels, neither masks nor
   positions.
3. The patch embedding starts as the whitening of the scenes' patches (`whiten_patches`).
4. The image tower is trained on three losses (`PresenceLosses`): Muon on the matrices, AdamW on the
   rest, a learning rate that falls as a cosine of the time, bfloat16 where the CPU has it.
   `torch.optim.Muon` is required.

The number of steps depends on the time that a step takes, so equal commands give unequal weights.
Measurements are in ``docs/explanation/measurements.md``. **The gap between methods on this model is
no evidence for the paper**: two of the three losses train the dense readout of ``clearclip``
itself, and none trains the stock patch tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

from clearclip_core.clip.text_encoder import TEMPLATES, TextEncoder
from clearclip_core.demo.crops import Crops, Scenes, crops, render_scenes
from clearclip_core.demo.losses import MEAN, STD, PresenceLosses
from clearclip_core.demo.scenes.scene import SCENE_LABELS, SYNONYMS

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 112,
            "layers": 5,
            "width": 192,
            "head_width": 64,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": {"mean": [MEAN] * 3, "std": [STD] * 3},
}

#: Seeds of the training scenes; held-out seeds begin at ten million.
_SCENES = range(6_000)

_TEXT_STEPS = 200
_PATCHES_A_BATCH = 3_600

#: Share of the training up to which a stage lasts, sizes of its crops in px, and their zoom.
_STAGES: tuple[tuple[float, tuple[int, ...], tuple[float, float]], ...] = (
    (0.40, (64, 96, 128), (0.7, 2.0)),
    (0.70, (96, 128, 192), (0.7, 1.7)),
    (0.88, (128, 192, 256), (0.75, 1.4)),
    (1.00, (192, 256, 320, 448), (0.8, 1.25)),
)


def main() -> None:
    """Train the demo model from the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model on drawn scenes.")
    parser.add_argument("--minutes", type=float, default=38.5, help="time for the image tower")
    parser.add_argument("--out", type=Path, default=Path("demo-weights"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.out, arguments.minutes, arguments.seed)


def train(out: Path, minutes: float, seed: int = 0) -> None:
    """Train both towers and write an open_clip folder.

    Args:
        out: folder for ``open_clip_config.json`` and ``open_clip_model.safetensors``.
        minutes: wall-clock time for the image tower; text and rendering take about three more.
        seed: seed of the initial weights and of everything drawn.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    train_text(model)
    scenes = render_scenes(_SCENES)
    whiten_patches(model, scenes, rng)
    train_images(model, scenes, minutes, rng)
    save(model, out)


def train_text(model: Any) -> None:
    """Train the text tower, which stays fixed afterwards.

    All words of a label, under every template, are trained towards one of 18 orthonormal
    directions. Unknown words are trained towards a 19th: the rows of their tokens in the embedding
    table are zero, so that one unknown word represents all.
    """
    tokens, owners, known = _sentences()
    directions = torch.linalg.qr(torch.randn(CONFIG["model_cfg"]["embed_dim"], 19))[0].T  # (19, D)
    weights = (
        torch.bincount(owners)[owners].float().reciprocal()
    )  # labels are sampled equally often
    parameters = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _TEXT_STEPS)
    for _ in tqdm(range(_TEXT_STEPS), desc="text", mininterval=5):
        _zero_unknown(model, known)
        pick = torch.multinomial(weights, 256)
        found = F.normalize(model.encode_text(tokens[pick]), dim=-1)
        loss = (1 - (found * directions[owners[pick]]).sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    _zero_unknown(model, known)


def _sentences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokenize all words under all templates.

    Returns:
        (S, 32) tokens; (S,) label index of each sentence, 18 for unknown words; (49408, 1) bool,
        true for tokens that occur in sentences of known words.
    """
    words = [word for label in SCENE_LABELS for word in (label, *SYNONYMS[label])]
    counts = [1 + len(SYNONYMS[label]) for label in SCENE_LABELS]
    owners = torch.arange(18).repeat_interleave(torch.tensor(counts) * len(TEMPLATES))
    tokens = _tokenize([template(word) for word in words for template in TEMPLATES])
    unknown = _tokenize([t("xylophone" * n) for n in (1, 2) for t in TEMPLATES])
    known = torch.zeros(CONFIG["model_cfg"]["text_cfg"]["vocab_size"], 1, dtype=torch.bool)
    known[tokens.flatten()] = True
    owners = torch.cat([owners, torch.full((len(unknown),), 18)])
    return torch.cat([tokens, unknown]), owners, known


def _tokenize(sentences: list[str]) -> torch.Tensor:
    context = CONFIG["model_cfg"]["text_cfg"]["context_length"]
    tokens: torch.Tensor = open_clip.tokenize(sentences, context_length=context)
    return tokens


@torch.no_grad()
def _zero_unknown(model: Any, known: torch.Tensor) -> None:
    """Set the embeddings of tokens without known words to zero."""
    model.token_embedding.weight.mul_(known)


@torch.no_grad()
def label_embeddings(model: Any) -> torch.Tensor:
    """Return (18, D) unit embeddings of the labels, as a `Segmenter` computes them."""
    return TextEncoder(lambda texts: model.encode_text(_tokenize(list(texts))))(SCENE_LABELS)


@torch.no_grad()
def whiten_patches(model: Any, scenes: Scenes, rng: np.random.Generator) -> None:
    """Initialize the patch embedding as the whitening of the scenes' patches.

    The filters become the strongest principal components, scaled to the same variance of their
    outputs: textures, whose variance is small beside plain colour's, weigh as much as colour from
    the first step.
    """
    conv = model.visual.conv1
    pixels = torch.cat([crops(scenes, 96, 64, (0.6, 2.0), rng).pixels for _ in range(24)])
    patches = F.unfold((pixels - MEAN) / STD, conv.kernel_size, stride=conv.stride)
    covariance = patches.transpose(0, 1).flatten(1).cov()  # (768, 768)
    variances, components = torch.linalg.eigh(covariance)  # ascending, in columns
    filters = 0.5 * components * (variances + 0.05).rsqrt()
    conv.weight.copy_(filters[:, -conv.out_channels :].T.reshape(conv.weight.shape))


def train_images(model: Any, scenes: Scenes, minutes: float, rng: np.random.Generator) -> None:
    """Train the image tower for a number of minutes; the text tower stays fixed."""
    losses = PresenceLosses(model, label_embeddings(model))
    muon, adam = _optimizers(model.visual, losses)
    bar = tqdm(_batches(scenes, minutes * 60, rng), desc="images", mininterval=10)
    for step, (progress, batch) in enumerate(bar):
        factor = min(1.0, (step + 1) / 150) * (0.51 + 0.49 * math.cos(math.pi * progress))
        for group in (*muon.param_groups, *adam.param_groups):
            group["lr"] = group["peak"] * factor
        parts = losses(batch)
        loss = 0.5 * parts["whole"] + parts["possible"] + parts["found"]
        muon.zero_grad()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in adam.param_groups for p in g["params"]], 1.0)
        muon.step()
        adam.step()
        if step % 50 == 0:
            bar.set_postfix({name: f"{value.item():.3f}" for name, value in parts.items()})


def _optimizers(
    visual: Any, losses: PresenceLosses
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return Muon for the matrices and AdamW for the rest.

    The rate of the patch embedding is smaller, as it starts whitened.
    """
    rest = dict(visual.named_parameters())
    patches = rest.pop("conv1.weight")
    names = [
        name for name, p in rest.items() if p.ndim == 2 and ("resblocks" in name or name == "proj")
    ]
    matrices = [rest.pop(name) for name in names]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": 4e-3}], weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    others = [*rest.values(), losses.scale, losses.bias]
    adam = torch.optim.AdamW(
        [{"params": others, "peak": 1.5e-3}, {"params": [patches], "peak": 3e-4}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return muon, adam


def _batches(
    scenes: Scenes, seconds: float, rng: np.random.Generator
) -> Iterator[tuple[float, Crops]]:
    """Yield batches until the time is over, each with the share of the time that has passed.

    A thread makes the next batch while the last one is trained on.
    """
    start = time.monotonic()

    def draw(progress: float) -> Crops:
        _, sizes, zoom = next(stage for stage in _STAGES if progress <= stage[0])
        size = int(rng.choice(sizes))
        return crops(scenes, size, _PATCHES_A_BATCH // (size // 16) ** 2, zoom, rng)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(draw, 0.0)
        while (progress := (time.monotonic() - start) / seconds) < 1:
            batch = pending.result()
            pending = pool.submit(draw, progress)
            yield progress, batch


def save(model: Any, folder: Path) -> None:
    """Write a folder that open_clip loads as ``local-dir:FOLDER``, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    main()
