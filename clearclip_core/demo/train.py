"""Train the demo model, or one like it on a folder of pictures with label maps.

``python -m clearclip_core.demo.train --out FOLDER`` trains the demo model, a tiny CLIP for **drawn
scenes, not for photographs**, so that everything in this package runs where no other weights are
available. Its vocabulary is the 18 `SCENE_LABELS` and their `SYNONYMS`; other words have no meaning
for it. It has 2.4 M parameters for images and 3.3 M for words, most of them zero rows of the
embedding table: 11.4 MB in half precision.

With ``--data FOLDER --names FILE`` the pictures of ``FOLDER/images`` take the place of the scenes,
and the words of FILE that of the vocabulary. Their crops are also labelled by cells of 64 px, see
`clearclip_core.demo.crops`.

1. The text tower is trained alone, in under a minute (`train_text`), and then stays fixed.
2. 6,000 scenes are rendered, or the folder is read. Random windows of them are resized to 64-128 px
   first, and to 192-448 px at the end (`_SCENE_STAGES`). The losses get the labels that are
   present, neither masks nor positions.
3. The patch embedding starts as the whitening of the images' patches (`whiten_patches`).
4. The image tower is trained on three losses (`PresenceLosses`): Muon on the matrices, AdamW on the
   rest, a learning rate that falls as a cosine of the time, in the faster of bfloat16 and float32
   (`faster_in_bfloat16`). `torch.optim.Muon` is required.

The number of steps depends on the time that a step takes, so equal commands give unequal weights.
Measurements are in ``docs/explanation/measurements.md``. **The gap between methods on this model is
no evidence for the paper**: two of the three losses train the dense readout of ``clearclip``
itself, and none trains the stock patch tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from clearclip_core.demo.architecture import CONFIG, MEAN, STD
from clearclip_core.demo.crops import Crops, crops
from clearclip_core.demo.losses import PresenceLosses
from clearclip_core.demo.text_training import UNKNOWN, label_embeddings, train_text
from clearclip_core.demo.training_images import TrainingImages, read_folder, render_scenes

#: Name of the file of weights in an open_clip folder.
WEIGHTS = "open_clip_model.safetensors"

#: Seeds of the training scenes; held-out seeds begin at ten million.
_SCENES = range(6_000)

#: Patches of a batch: cells say more of a patch, so that fewer do.
_SCENE_PATCHES, _PHOTOGRAPH_PATCHES = 3_600, 1_800

#: Share of the training up to which a stage lasts, sizes of its crops in px, and their zoom.
_Stages = tuple[tuple[float, tuple[int, ...], tuple[float, float]], ...]
_SCENE_STAGES: _Stages = (
    (0.40, (64, 96, 128), (0.7, 2.0)),
    (0.70, (96, 128, 192), (0.7, 1.7)),
    (0.88, (128, 192, 256), (0.75, 1.4)),
    (1.00, (192, 256, 320, 448), (0.8, 1.25)),
)

#: Of photographs: sizes are multiples of a cell.
_PHOTOGRAPH_STAGES: _Stages = (
    (0.30, (128, 192), (0.7, 1.5)),
    (0.60, (192, 256), (0.75, 1.4)),
    (1.00, (256, 320, 448), (0.8, 1.25)),
)

#: Size of the crops that measure the speed of a step, in px.
_TIMED_SIZE = 128


def main(arguments: list[str] | None = None) -> None:
    """Train a model from the command line; an error in the data ends with its message."""
    parser = argparse.ArgumentParser(description="Train a tiny CLIP on drawn scenes or pictures.")
    parser.add_argument("--minutes", type=float, default=38.5, help="time for the image tower")
    parser.add_argument("--out", type=Path, default=Path("demo-weights"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, help="folder with images/ and masks/ (index or palette PNGs)"
    )
    parser.add_argument("--part", default="", help="folder below both to train on, such as train")
    parser.add_argument(
        "--names", type=Path, help="words of each mask value, one line a value, name first"
    )
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument(
        "--start", type=Path, help="folder of an earlier run with these names, to go on from"
    )
    options = parser.parse_args(arguments)
    if (options.data is None) != (options.names is None):
        parser.error("--data and --names belong together.")
    try:
        images = _training_images(options.data, options.names, options.part)
        model = _start(options.start, options.seed)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    rng = np.random.default_rng(options.seed)
    if options.start is None:
        train_text(model, images.labels)
        whiten_patches(model, images, rng)
    words = (*images.labels, UNKNOWN) if images.photographs else images.labels
    losses = PresenceLosses(model, label_embeddings(model, words))
    losses.in_bfloat16 = _in_bfloat16(options.precision, losses, images, rng)
    train_images(losses, images, options.minutes, rng)
    save(model, options.out)


def _start(folder: Path | None, seed: int) -> Any:
    """Return a model at random weights, or at those of an earlier run.

    Raises:
        OSError: the weights cannot be read.
        ValueError: they are of another architecture.
    """
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    if folder is not None:
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"The weights in {folder} cannot be read: {error}") from error
    return model


def _in_bfloat16(
    precision: str, losses: PresenceLosses, images: TrainingImages, rng: np.random.Generator
) -> bool:
    if precision != "auto":
        return precision == "bf16"
    return faster_in_bfloat16(losses, _draw(images, _TIMED_SIZE, (1.0, 1.0), rng))


def _training_images(data: Path | None, names: Path | None, part: str) -> TrainingImages:
    if data is None or names is None:
        return render_scenes(_SCENES)
    return read_folder(data, names, part)


@torch.no_grad()
def whiten_patches(model: Any, images: TrainingImages, rng: np.random.Generator) -> None:
    """Initialize the patch embedding as the whitening of the images' patches.

    The filters become the strongest principal components, scaled to the same variance of their
    outputs: textures, whose variance is small beside plain colour's, weigh as much as colour from
    the first step.
    """
    conv = model.visual.conv1
    pixels = torch.cat([crops(images, 96, 64, (0.6, 2.0), rng).pixels for _ in range(24)])
    patches = F.unfold((pixels - MEAN) / STD, conv.kernel_size, stride=conv.stride)
    covariance = patches.transpose(0, 1).flatten(1).cov()  # (768, 768)
    variances, components = torch.linalg.eigh(covariance)  # ascending, in columns
    filters = 0.5 * components * (variances + 0.05).rsqrt()
    conv.weight.copy_(filters[:, -conv.out_channels :].T.reshape(conv.weight.shape))


def faster_in_bfloat16(
    losses: PresenceLosses, batch: Crops, clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Time a step in bfloat16 and in float32, and return whether bfloat16 is the faster.

    A CPU without instructions for bfloat16 emulates it. Each is timed twice, after a step that is
    not timed, and the faster of the two counts.

    Args:
        losses: the losses; their gradients are cleared.
        batch: a batch of crops.
        clock: returns seconds.
    """

    def seconds(bfloat16: bool) -> float:
        losses.in_bfloat16 = bfloat16
        start = clock()
        sum(losses(batch).values()).backward()
        return clock() - start

    seconds(True), seconds(False)
    times = {kind: min(seconds(kind), seconds(kind)) for kind in (True, False)}
    losses.zero_grad()
    losses.encoder.zero_grad()
    return times[True] < times[False]


def train_images(
    losses: PresenceLosses, images: TrainingImages, minutes: float, rng: np.random.Generator
) -> None:
    """Train the image tower for a number of minutes; the text tower stays fixed."""
    muon, adam = _optimizers(losses.encoder.visual, losses)
    bar = tqdm(_batches(images, minutes * 60, rng), desc="images", mininterval=10)
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
    images: TrainingImages, seconds: float, rng: np.random.Generator
) -> Iterator[tuple[float, Crops]]:
    """Yield batches until the time is over, each with the share of the time that has passed.

    A thread makes the next batch while the last one is trained on.
    """
    start = time.monotonic()
    stages = _PHOTOGRAPH_STAGES if images.photographs else _SCENE_STAGES

    def draw(progress: float) -> Crops:
        _, sizes, zoom = next(stage for stage in stages if progress <= stage[0])
        return _draw(images, int(rng.choice(sizes)), zoom, rng)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(draw, 0.0)
        while (progress := (time.monotonic() - start) / seconds) < 1:
            batch = pending.result()
            pending = pool.submit(draw, progress)
            yield progress, batch


def _draw(
    images: TrainingImages, size: int, zoom: tuple[float, float], rng: np.random.Generator
) -> Crops:
    patches = _PHOTOGRAPH_PATCHES if images.photographs else _SCENE_PATCHES
    return crops(images, size, patches // (size // 16) ** 2, zoom, rng)


def save(model: Any, folder: Path) -> None:
    """Write a folder that open_clip loads as ``local-dir:FOLDER``, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)


if __name__ == "__main__":
    main()
