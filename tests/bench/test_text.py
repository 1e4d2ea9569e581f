"""Text embeddings: seven templates against all of them, and the cache on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from clearclip_core import BEST_TEMPLATES, TEMPLATES, EmbeddingStore, TextEncoder, load_model
from clearclip_core.clip.text_encoder import Template
from tests.bench.conftest import Report
from tests.bench.timing import seconds

MODEL = "ViT-B-16/random"
#: Labels of a new vocabulary, and of one that is on the disk.
NEW, KEPT = 150, 1000


def words(count: int) -> list[str]:
    """Return different words of about the length of labels."""
    return [f"label {number}" for number in range(count)]


def test_seven_templates_are_cheaper(report: Report) -> None:
    """Counted is the processor time of the process, as the machine is shared."""
    model = load_model(MODEL, "cpu")

    def cpu_s(templates: Sequence[Template]) -> float:
        began = time.process_time()
        TextEncoder(model.embed, templates)(words(NEW))
        return time.process_time() - began

    all_s, best_s = cpu_s(TEMPLATES), cpu_s(BEST_TEMPLATES)
    report.add(
        f"{NEW} new labels, all {len(TEMPLATES)} templates over the best {len(BEST_TEMPLATES)}",
        "≥ 8×",
        f"{all_s / best_s:.1f}×",
        f"{all_s:.1f} s of processor against {best_s:.1f} s, {MODEL}",
    )


def test_words_from_disk(report: Report, tmp_path: Path) -> None:
    model, store = load_model(MODEL, "cpu"), EmbeddingStore(tmp_path, "weights")
    for word in words(KEPT):  # the disk does not mind what the numbers are
        row = torch.nn.functional.normalize(torch.randn(512), dim=0)
        store.put([template(word) for template in TEMPLATES], row)
    process = TextEncoder(model.embed, store=store)
    disk_s = seconds(lambda: process(words(KEPT)))
    report.add(
        "1,000 labels, in the next process, from disk",
        "",
        f"{1000 * disk_s:.0f} ms",
        f"{1000 * seconds(lambda: process(words(KEPT))):.1f} ms once in memory",
    )
    assert process.missing(words(KEPT)) == []
