"""A comparison as text, JSON and a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, Final

import jinja2

from clearclip_core.clip.devices import device_name
from clearclip_core.evaluation.comparison import (
    Candidate,
    CandidateFigures,
    Comparison,
    LabelFigures,
    ShownPicture,
)
from clearclip_core.images.label_maps import palette
from clearclip_core.images.opening import to_data_url
from clearclip_core.quantities import quantity

#: Columns of the tables, and what their figures mean.
DEFINITIONS: Final[dict[str, str]] = {
    "IoU": "Intersection over union of a label's pixels, summed over all pictures; in the first "
    "table, the mean over the labels.",
    "boundary IoU": "The same of the pixels within 2 % of the picture's diagonal of an edge (Cheng "
    "et al., 2021).",
    "saved paint": "1 - (pixels to paint + pixels to erase) / pixels of the label: 100 where "
    "nothing is left to do, 0 where drawing it from nothing is as much work, below 0 where the "
    "prediction makes more work than none.",
    "IoU ≥ 0.9": "Share of the predicted masks with an IoU of at least 0.9.",
}


def comparison_page(comparison: Comparison) -> bytes:
    """Return a comparison as an HTML page, with the worst pictures side by side.

    Nothing is loaded or run but what stands in the page.
    """
    template = (files(__package__) / "comparison.html").read_text(encoding="utf-8")
    colours = map(tuple, palette(len(comparison.labels)).tolist())
    page = jinja2.Environment(autoescape=True).from_string(template)
    return page.render(
        size=_size(comparison),
        left_out=len(comparison.left_out),
        candidates=_candidate_rows(comparison),
        best=title(comparison, comparison.best),
        labels=_label_rows(comparison),
        definitions=DEFINITIONS,
        key=list(zip(comparison.labels, colours, strict=True)),
        pictures=[(each.name, list(_shown(comparison, each))) for each in comparison.worst],
    ).encode()


def _shown(comparison: Comparison, picture: ShownPicture) -> Iterator[tuple[str, str]]:
    """Return data URL and caption of a picture, its truth and each prediction."""
    captions = ["picture", "truth"]
    for index, saved in enumerate(picture.saved_paint):
        paint = "" if saved is None else f"; saved paint {100 * saved:.1f}"
        captions.append(f"{title(comparison, index)}{paint}")
    return zip(map(to_data_url, picture.images), captions, strict=True)


def _cells(iou: float | None, boundary_iou: float | None, figures: LabelFigures) -> list[str]:
    """Format IoU, boundary IoU, saved paint and acceptance in percent; a dash for none."""
    shares = (iou, boundary_iou, figures.overlap.saved_paint, figures.close_share)
    return ["-" if share is None else f"{100 * share:.1f}" for share in shares]


def _candidate_rows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of all candidates, with their header."""
    rows = [["model", "method", "prompts", *DEFINITIONS, "s a picture"]]
    for each, figures in zip(comparison.candidates, comparison.figures, strict=True):
        shares = _cells(figures.mean_iou, figures.mean_boundary_iou, figures.all)
        named = [each.model, each.method, each.prompts]
        rows.append([*named, *shares, f"{figures.seconds_per_picture:.2f}"])
    return rows


def _label_rows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of all labels of the best candidate, with their header."""
    rows = [["label", "pictures", *DEFINITIONS]]
    best = comparison.figures[comparison.best]
    for name, each in zip(comparison.labels, best.labels, strict=True):
        shares = _cells(each.overlap.iou, each.overlap.boundary_iou, each)
        rows.append([name, str(each.pictures), *shares])
    return rows


def _size(comparison: Comparison) -> str:
    pictures = quantity(len(comparison.figures[0].seconds), "picture")
    return f"{pictures}, {quantity(len(comparison.labels), 'label')}"


def title(comparison: Comparison, index: int) -> str:
    """Name a candidate by what tells it from the others; its method where nothing does."""
    candidates = comparison.candidates
    kinds: Sequence[Callable[[Candidate], str]] = (
        lambda each: each.model,
        lambda each: each.method,
        lambda each: each.prompts,
    )
    telling = [kind(candidates[index]) for kind in kinds if len(set(map(kind, candidates))) > 1]
    return ", ".join(telling) or candidates[index].method


#: Pictures that could not be read and that are named with the reason.
_NAMED = 5


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison for the terminal: the candidates, then the labels of the best."""
    device = device_name(comparison.candidates[0].segmenter.encoder.device)
    lines = [
        f"{_size(comparison)}, in percent, on {device}",
        "",
        *_columns(_candidate_rows(comparison), names=3),
        "",
        f"by label: {title(comparison, comparison.best)}",
        "",
        *_columns(_label_rows(comparison), names=1),
    ]
    if left_out := comparison.left_out:
        lines += ["", f"pictures left out: {len(left_out)}"]
        lines += [f"{name}: {reason}" for name, reason in left_out[:_NAMED]]
        lines += [f"and {len(left_out) - _NAMED} more"] if len(left_out) > _NAMED else []
    return "\n".join(lines)


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


def comparison_json(comparison: Comparison) -> bytes:
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
        "thresholds": dict(zip(labels, thresholds, strict=True)),
        "miou": figures.mean_iou,
        "mean_boundary_iou": figures.mean_boundary_iou,
        "saved_paint": figures.all.overlap.saved_paint,
        "close_share": figures.all.close_share,
        "seconds_per_picture": figures.seconds_per_picture,
        "labels": {
            name: _label_figures(each) for name, each in zip(labels, figures.labels, strict=True)
        },
    }


def _label_figures(figures: LabelFigures) -> dict[str, Any]:
    overlap = figures.overlap
    return {
        "pictures": figures.pictures,
        "iou": overlap.iou,
        "boundary_iou": overlap.boundary_iou,
        "saved_paint": overlap.saved_paint,
        "predicted": figures.predicted,
        "close": figures.close,
        "predicted_px": overlap.predicted_px,
        "true_px": overlap.true_px,
        "shared_px": overlap.shared_px,
    }
