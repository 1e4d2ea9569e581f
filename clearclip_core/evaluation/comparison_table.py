"""A comparison as tables for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from clearclip_core.clip.device_info import device_name
from clearclip_core.evaluation.candidate import Candidate
from clearclip_core.evaluation.comparison import CandidateFigures, Comparison
from clearclip_core.evaluation.comparison_page import DEFINITIONS, cells, title
from clearclip_core.quantities import quantity

#: Pictures that could not be read and that are named with the reason.
_NAMED = 5


def as_text(comparison: Comparison) -> str:
    """Format a comparison for the terminal: the candidates, then the labels of the best."""
    header = ["model", "method", "prompts", *DEFINITIONS, "s a picture"]
    rows = []
    for candidate, figures in zip(comparison.candidates, comparison.figures, strict=True):
        shares = cells(figures.mean_iou, figures.mean_boundary_iou, figures.all)
        called = [candidate.model, candidate.method, candidate.prompts]
        rows.append([*called, *shares, f"{figures.seconds_per_picture:.2f}"])
    best = comparison.best
    labels = []
    for name, each in zip(comparison.labels, comparison.figures[best].labels, strict=True):
        shares = cells(each.overlap.iou, each.overlap.boundary_iou, each)
        labels.append([name, str(each.pictures), *shares])
    device = device_name(comparison.candidates[0].segmenter.encoder.device)
    return "\n".join(
        [
            f"{quantity(len(comparison.figures[0].seconds), 'picture')}, "
            f"{quantity(len(comparison.labels), 'label')}, in percent, on {device}",
            "",
            *_columns([header, *rows], names=3),
            "",
            f"by label: {title(comparison, best)}",
            "",
            *_columns([["label", "pictures", *DEFINITIONS], *labels], names=1),
            *_left_out(comparison),
        ]
    )


def _left_out(comparison: Comparison) -> list[str]:
    """Name some of the pictures that are left out, with the reasons."""
    if not comparison.left_out:
        return []
    named = [f"{name}: {reason}" for name, reason in comparison.left_out[:_NAMED]]
    more = len(comparison.left_out) - len(named)
    return [
        "",
        f"pictures left out: {len(comparison.left_out)}",
        *named,
        *([f"and {more} more"] if more else []),
    ]


def _columns(rows: Sequence[Sequence[str]], names: int) -> list[str]:
    """Align columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            text.ljust(width) if place < names else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def as_json(comparison: Comparison) -> bytes:
    """Return all figures of a comparison as JSON."""
    pairs = zip(comparison.candidates, comparison.figures, strict=True)
    content = {
        "pictures": len(comparison.figures[0].seconds),
        "left_out": [{"name": name, "reason": reason} for name, reason in comparison.left_out],
        "runs": [_run(comparison.labels, *pair) for pair in pairs],
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _run(labels: Sequence[str], candidate: Candidate, figures: CandidateFigures) -> dict[str, Any]:
    thresholds = candidate.rule.thresholds(len(labels))
    return {
        "model": candidate.model,
        "method": candidate.method,
        "prompts": candidate.prompts,
        "contrast": candidate.rule.contrast,
        "refine": candidate.rule.refine,
        "propagate": candidate.rule.propagate,
        "presence": candidate.options.presence,
        "synonyms": "joined" if candidate.options.join_synonyms else "best",
        "thresholds": dict(zip(labels, thresholds, strict=True)),
        "miou": figures.mean_iou,
        "mean_boundary_iou": figures.mean_boundary_iou,
        "saved_paint": figures.all.overlap.saved_paint,
        "accepted_share": figures.all.accepted_share,
        "seconds_per_picture": figures.seconds_per_picture,
        "labels": {name: each.to_json() for name, each in zip(labels, figures.labels, strict=True)},
    }
