"""Train the demo model from image-level labels alone, or a like one on a folder of pictures."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from clearclip_core.clip.dense_encoder import DenseEncoder
from clearclip_core.clip.methods import METHODS
from clearclip_core.clip.text_encoder import TEMPLATES, TextEncoder
from clearclip_core.devices import cpu_has_bf16
from clearclip_core.vocabulary import Label
from examples.demo_model.images import (
    CONFIG,
    MEAN,
    STD,
    Crops,
    TrainingImages,
    crops,
    read_folder,
    render_scenes,
)

#: Temperature of the softmax over labels, as in the readout.
_TEMPERATURE = 50.0

#: One patch in this many has to show a label that is present.
_BEST = 24


class PresenceLosses(nn.Module):
    """Three losses of a batch of crops, from the labels that are present and absent in each crop.

    - ``whole``: sigmoid loss over (crop, label) of the CLS token, the stock output; scale and
      bias are learned. It trains the model as an ordinary CLIP.
    - ``possible``: each patch of ClearCLIP's readout shows one of the labels that are not absent:
      ``-log Σ p`` over these labels, p the softmax over labels at the readout's temperature.
    - ``found``: some patches show each label that is present: ``-log`` of its mean p over the
      best 24th of the patches.

    The last two losses train the dense readout, from the labels of each crop, or of each cell.

    Args:
        texts: (L, D) unit text embeddings of the crops' labels.
        in_bfloat16: multiply matrices in bfloat16.
    """

    texts: torch.Tensor

    def __init__(self, model: nn.Module, texts: torch.Tensor, in_bfloat16: bool) -> None:
        super().__init__()
        self.in_bfloat16 = in_bfloat16
        self.encoder = DenseEncoder(model, METHODS["clearclip"])
        self.register_buffer("texts", texts)
        self.scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, batch: Crops) -> dict[str, torch.Tensor]:
        """Return the three losses by name, scalars."""
        whole, patches = self.cosines(batch.pixels)  # (B, L), (B, N, L)
        log_p = by_cell((patches * _TEMPERATURE).log_softmax(-1), batch)
        return {
            "whole": self._whole(whole, batch),
            "possible": possible_loss(log_p, batch),
            "found": found_loss(log_p, batch),
        }

    def cosines(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels' cosines with the CLS token, (B, L), and with each patch, (B, N, L).

        Args:
            pixels: (B, 3, S, S) in 0..1, with S a multiple of the patch.
        """
        side = pixels.shape[-1] // self.encoder.patch_size_hw[0]
        # The fused CPU kernel is the slower one for few tokens.
        kernel = SDPBackend.MATH if side <= 12 else SDPBackend.FLASH_ATTENTION
        with torch.autocast("cpu", torch.bfloat16, self.in_bfloat16), sdpa_kernel(kernel):
            tokens = self.encoder.embed((pixels - MEAN) / STD, (side, side))
            for block in self.encoder.trunk:
                tokens = block(tokens)
            dense = self.encoder.last(tokens)[:, 1:]  # (B, N, width)
            cls = _stock_cls(self.encoder.last.blocks[-1], tokens)  # (B, width)
        return self._compare(cls), self._compare(dense)

    def _compare(self, features: torch.Tensor) -> torch.Tensor:
        visual = self.encoder.visual
        unit = F.normalize(visual.ln_post(features.float()) @ visual.proj, dim=-1)
        return unit @ self.texts.T

    def _whole(self, cosines: torch.Tensor, batch: Crops) -> torch.Tensor:
        logits = cosines * self.scale.exp() + self.bias
        known = batch.present | batch.absent
        target = batch.present[known].float()
        return F.binary_cross_entropy_with_logits(logits[known], target)


def by_cell(patches: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Group the patches of each cell: (B, N, L) -> (B * C * C, N / (C * C), L)."""
    cells = math.isqrt(batch.cell_present.shape[1])
    side = math.isqrt(patches.shape[1]) // cells
    grid = patches.reshape(-1, cells, side, cells, side, patches.shape[-1])
    return grid.transpose(2, 3).reshape(-1, side * side, patches.shape[-1])


def possible_loss(log_p: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Return ``possible`` of `PresenceLosses` from `by_cell` of the log probabilities."""
    absent = batch.cell_absent.flatten(0, 1)  # (B * C * C, L)
    known = ~absent.all(-1)  # where no label is possible, nothing is known of the patches
    possible = log_p[known].masked_fill(absent[known, None], -1e4)
    return -possible.logsumexp(-1).sum() / max(1, possible.shape[0] * possible.shape[1])


def found_loss(log_p: torch.Tensor, batch: Crops) -> torch.Tensor:
    """Return ``found`` of `PresenceLosses` from `by_cell` of the log probabilities."""
    present = batch.cell_present.flatten(0, 1)
    best = log_p.topk(max(1, log_p.shape[1] // _BEST), dim=1).values  # (B * C * C, k, L)
    shown = best.exp().mean(1).clamp(1e-4, 1 - 1e-4)  # (B * C * C, L)
    return -shown[present].log().sum() / present.sum().clamp(min=1)


def _stock_cls(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run the last block as open_clip does, for the CLS token: (B, N, width) -> (B, width)."""
    normed = block.ln_1(tokens)
    attended, _ = block.attn(normed[:, :1], normed, normed, need_weights=False)
    cls = tokens[:, :1] + attended
    return (cls + block.mlp(block.ln_2(cls)))[:, 0]  # type: ignore[no-any-return]


#: A word that stands for all that a model does not know.
UNKNOWN = Label("xylophone")

_TEXT_STEPS = 200


def train_text(model: Any, labels: Sequence[Label]) -> None:
    """Train the text tower, which stays fixed afterwards.

    All words of a label, under every template, are trained towards one of L orthonormal
    directions. Unknown words are trained towards one more: the rows of their tokens in the
    embedding table are zero, so that one unknown word represents all.

    Args:
        labels: L labels, at most `MAX_LABELS`, whose prompts are the words.
    """
    tokens, owners, known = _sentences(labels)
    width = CONFIG["model_cfg"]["embed_dim"]
    directions = torch.linalg.qr(torch.randn(width, len(labels) + 1))[0].T  # (L + 1, D)
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


def _sentences(labels: Sequence[Label]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokenize all words of L labels under all templates.

    Returns:
        (S, 32) tokens; (S,) label index of each sentence, L for unknown words; (49408, 1) bool,
        true for tokens that occur in sentences of known words.
    """
    words = [word for label in labels for word in label.prompts]
    counts = torch.tensor([len(label.prompts) for label in labels])
    owners = torch.arange(len(labels)).repeat_interleave(counts * len(TEMPLATES))
    tokens = _tokenize([template(word) for word in words for template in TEMPLATES])
    unknown = _tokenize([t(UNKNOWN.name * n) for n in (1, 2) for t in TEMPLATES])
    known = torch.zeros(CONFIG["model_cfg"]["text_cfg"]["vocab_size"], 1, dtype=torch.bool)
    known[tokens.flatten()] = True
    owners = torch.cat([owners, torch.full((len(unknown),), len(labels))])
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
def label_embeddings(model: Any, labels: Sequence[Label]) -> torch.Tensor:
    """Return (L, D) unit embeddings of the labels' names, as a `Segmenter` computes them."""
    names = [label.name for label in labels]
    return TextEncoder(lambda texts: model.encode_text(_tokenize(list(texts))))(names)


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


def train_demo(arguments: list[str] | None = None) -> None:
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
    options = parser.parse_args(arguments)

    if (options.data is None) != (options.names is None):
        parser.error("--data and --names belong together.")

    try:
        images = (
            render_scenes(_SCENES)
            if options.data is None
            else read_folder(options.data, options.names, options.part)
        )
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    train_text(model, images.labels)
    whiten_patches(model, images, rng)
    words = (*images.labels, UNKNOWN) if images.photographs else images.labels
    losses = PresenceLosses(model, label_embeddings(model, words), cpu_has_bf16())
    train_images(losses, images, options.minutes, rng)
    save(model, options.out)


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
    patches = _PHOTOGRAPH_PATCHES if images.photographs else _SCENE_PATCHES

    def draw(progress: float) -> Crops:
        _, sizes, zoom = next(stage for stage in stages if progress <= stage[0])
        size = int(rng.choice(sizes))
        return crops(images, size, patches // (size // 16) ** 2, zoom, rng)

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
    save_file(tensors, folder / WEIGHTS)


if __name__ == "__main__":
    train_demo()
