"""A comparison as text, JSON and a page with pictures."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import numpy.typing as npt
from PIL import Image

from clearclip_core.clip.devices import device_name
from clearclip_core.evaluation.comparison import (
    Candidate,
    CandidateFigures,
    Comparison,
    LabelFigures,
    ShownPicture,
)
from clearclip_core.images.label_maps import blend, palette
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.quantities import quantity

#: Nothing is loaded or run but what stands in the page.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
h1, h2, h3, figcaption { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } .text { max-width: 60rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #999; } th.name, td.name { text-align: left; }
.pictures { display: grid; gap: 1rem; }
@media (min-width: 40rem) { .pictures { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
figure { margin: 0; } img { display: block; width: 100%; }
.key { display: inline-block; margin-right: 1.2em; white-space: nowrap; }
.key i { display: inline-block; width: 1em; height: 1em; margin-right: .3em; }
"""

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
    """Return a comparison as an HTML page, with the worst pictures side by side."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    _text(head, "title", "Is it good enough?")
    _text(head, "style", _STYLE)
    body = SubElement(html, "body")
    _text(body, "h1", "Is it good enough?")
    _summary(body, comparison)
    _labels(body, comparison)
    _definitions(body)
    _pictures(body, comparison)
    return b"<!DOCTYPE html>\n" + bytes(tostring(html, "utf-8", method="html"))


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


def _summary(body: Element, comparison: Comparison) -> None:
    left_out = f" Pictures left out: {len(comparison.left_out)}." if comparison.left_out else ""
    _text(body, "p", f"{_size(comparison)}; figures in percent.{left_out}")
    _table(body, _candidate_rows(comparison), names=3)


def _labels(body: Element, comparison: Comparison) -> None:
    _text(body, "h2", f"By label: {title(comparison, comparison.best)}")
    _table(body, _label_rows(comparison), names=1)


def _definitions(body: Element) -> None:
    for name, meaning in DEFINITIONS.items():
        line = SubElement(body, "p", {"class": "text"})
        _text(line, "b", f"{name}: ").tail = meaning


def _pictures(body: Element, comparison: Comparison) -> None:
    if not comparison.worst:
        return
    _text(body, "h2", "The pictures with most to paint or erase")
    colours = palette(len(comparison.labels))
    key = SubElement(body, "p")
    for name, colour in zip(comparison.labels, colours.tolist(), strict=True):
        entry = SubElement(key, "span", {"class": "key"})
        SubElement(entry, "i", style=f"background: rgb{tuple(colour)}").tail = name
    for picture in comparison.worst:
        _picture(body, comparison, picture, colours)


def _picture(
    body: Element, comparison: Comparison, picture: ShownPicture, colours: RGBArray
) -> None:
    _text(body, "h3", picture.name)
    row = SubElement(body, "div", {"class": "pictures"})
    _figure(row, picture.image, "picture")
    _figure(row, blend(picture.image, picture.truth, colours), "truth")
    for index, label_map in enumerate(picture.predicted):
        saved = picture.figures[index].overlap.saved_paint
        paint = "" if saved is None else f"; saved paint {100 * saved:.1f}"
        caption = f"{title(comparison, index)}{paint}"
        _figure(row, blend(picture.image, label_map, colours), caption)


def title(comparison: Comparison, index: int) -> str:
    """Name a candidate by what tells it from the others; its method where nothing does."""
    candidates = comparison.candidates
    kinds: Sequence[Callable[[int], str]] = (
        lambda n: candidates[n].model,
        lambda n: candidates[n].method,
        lambda n: candidates[n].prompts,
    )
    places = range(len(candidates))
    telling = [kind(index) for kind in kinds if len({kind(place) for place in places}) > 1]
    return ", ".join(telling) or candidates[index].method


def _figure(row: Element, image: npt.NDArray[np.uint8], caption: str) -> None:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    figure = SubElement(row, "figure")
    SubElement(figure, "img", src=f"data:image/jpeg;base64,{data}", alt="")
    _text(figure, "figcaption", caption)


def _table(body: Element, rows: Sequence[Sequence[str]], names: int) -> None:
    table = SubElement(SubElement(body, "div", {"class": "scroll", "tabindex": "0"}), "table")
    for number, row in enumerate(rows):
        line = SubElement(table, "tr")
        for place, text in enumerate(row):
            named = {"class": "name"} if place < names else {}
            _text(line, "td" if number else "th", text, **named)


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


#: Pictures that could not be read and that are named with the reason.
_NAMED = 5


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison for the terminal: the candidates, then the labels of the best."""
    device = device_name(comparison.candidates[0].segmenter.encoder.device)
    return "\n".join(
        [
            f"{_size(comparison)}, in percent, on {device}",
            "",
            *_columns(_candidate_rows(comparison), names=3),
            "",
            f"by label: {title(comparison, comparison.best)}",
            "",
            *_columns(_label_rows(comparison), names=1),
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
        "synonyms": "joined" if candidate.options.join_synonyms else "best",
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
