"""Training of the demo model's text tower: words of labels towards orthogonal directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from tqdm import tqdm

from clearclip_core.clip.text_encoder import TEMPLATES, TextEncoder
from clearclip_core.demo.architecture import CONFIG
from clearclip_core.vocabulary import Label

#: A word that stands for all that a model does not know.
UNKNOWN = Label("xylophone")

_TEXT_STEPS = 200


def train_text(model: Any, labels: Sequence[Label]) -> None:
    """Train the text tower, which stays fixed afterwards.

    All words of a label, under every template, are trained towards one of L orthonormal
    directions. Unknown words are trained towards one more: the rows of their tokens in the
    embedding table are zero, so that one unknown word represents all.

    Args:
        model: the open_clip model.
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
