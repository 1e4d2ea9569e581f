"""Text embeddings: speed of the text tower, of seven templates, and of the cache on disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from clearclip_core import (
    BEST_TEMPLATES,
    TEMPLATES,
    EmbeddingStore,
    LoadedModel,
    TextEncoder,
    load_model,
)
from clearclip_core.clip.devices import cpu_has_bf16
from clearclip_core.clip.text_encoder import Template
from clearclip_core.evaluation.speed import label_words
from tests.bench.conftest import Report
from tests.bench.timing import compare, seconds

MODEL = "ViT-B-16/random"
LABELS = 50
#: Labels of a new vocabulary.
NEW_LABELS = 150


def one_by_one(model: LoadedModel, words: tuple[str, ...]) -> torch.Tensor:
    """Embed a word's 80 sentences as one batch, each padded to the full context."""
    rows = []
    with torch.inference_mode():
        for word in words:
            tokens = model.tokenize([template(word) for template in TEMPLATES])
            each = model.clip.encode_text(tokens, normalize=True).float()
            rows.append(torch.nn.functional.normalize(each.mean(0), dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("precision", ["bf16", "fp32"] if cpu_has_bf16() else ["fp32"])
def test_words_are_embedded(report: Report, precision: str) -> None:
    model = load_model(MODEL, "cpu", precision)
    words = label_words(LABELS)[:2]
    ours = TextEncoder(model.embed)(words)
    assert (ours * one_by_one(model, words)).sum(1).min() > 0.999
    both = compare(
        lambda: one_by_one(model, words),
        lambda: TextEncoder(model.embed)(words),
        rounds=3,
        warm_up=False,
    )
    report.add(
        f"text embedding, {precision}, against full-length sentences word by word",
        "",
        f"{both.ratio:.1f}×",
        f"{both} for {len(words)} labels × 80 templates, {MODEL}",
    )


def test_the_batch_size_matters_little(report: Report) -> None:
    """Measure batch sizes in turn, so that a drift of the machine's speed affects all of them."""
    model = load_model(MODEL, "cpu")
    words = label_words(6)  # a slice: 480 sentences
    times: dict[int, list[float]] = {32: [], 64: [], 128: [], 256: []}
    for _ in range(3):
        for batch, taken in times.items():
            taken.append(seconds(partial(TextEncoder(model.embed, batch=batch), words)))
    rates = {batch: 480 / statistics.median(taken) for batch, taken in times.items()}
    report.add(
        "text tower, by sentences at once",
        "",
        f"{max(rates.values()):.0f} sentences/s at best",
        ", ".join(f"{batch}: {rate:.0f}" for batch, rate in rates.items()) + f", {MODEL}",
    )


def test_seven_templates_are_cheaper(report: Report) -> None:
    """Counted is the processor time of the process, as the machine is shared."""
    model, words = load_model(MODEL, "cpu"), label_words(NEW_LABELS)

    def cpu_s(templates: Sequence[Template]) -> float:
        began = time.process_time()
        TextEncoder(model.embed, templates)(words)
        return time.process_time() - began

    all_s, best_s = cpu_s(TEMPLATES), cpu_s(BEST_TEMPLATES)
    report.add(
        f"{NEW_LABELS} new labels, all {len(TEMPLATES)} templates over the best "
        f"{len(BEST_TEMPLATES)}",
        "≥ 8×",
        f"{all_s / best_s:.1f}×",
        f"{all_s:.1f} s of processor against {best_s:.1f} s, {MODEL}",
    )


def test_a_thousand_labels(report: Report, tmp_path: Path) -> None:
    """Extrapolate the time without a cache from fewer labels, as all labels take equal time."""
    model = load_model(MODEL, "cpu")
    words = label_words(1000)
    store = EmbeddingStore(tmp_path, "weights")
    first_s = seconds(lambda: TextEncoder(model.embed, store=store)(words[:LABELS]))
    report.add(
        "1,000 labels × 80 templates, the first time",
        "",
        f"{first_s * 1000 / LABELS:.0f} s",
        f"extrapolated from {LABELS} labels in {first_s:.1f} s, {MODEL}, precision auto",
    )
    for word in words[LABELS:]:  # the disk does not mind what the numbers are
        row = torch.nn.functional.normalize(torch.randn(512), dim=0)
        store.put([template(word) for template in TEMPLATES], row)
    process = TextEncoder(model.embed, store=store)
    second_s = seconds(lambda: process(words))
    report.add(
        "1,000 labels, in the next process, from disk",
        "",
        f"{1000 * second_s:.0f} ms",
        f"{1000 * seconds(lambda: process(words)):.1f} ms once in memory",
    )
    assert process.missing(words) == []
