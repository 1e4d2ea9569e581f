"""Tabs. 1-3 of the paper beside the user's results, as Markdown with a source for each row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.clip.model_name import ModelName
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS, SHORT_SIDE_PX
from clearclip_core.evaluation.results import Result, percent
from clearclip_core.evaluation.run_config import RunConfig
from clearclip_core.paper.ablation import Ablation
from clearclip_core.paper.published_results import (
    LATER_RESULTS,
    MEASURED,
    TABLE_1,
    TABLE_1_MODEL,
    TABLE_2,
    TABLE_3,
    WITH_BACKGROUND,
    WITHOUT_BACKGROUND,
    PaperRow,
)
from clearclip_core.quantities import quantity

#: Source of rows that the user measured.
OWN = "**yours**"

_NAMES = {"clip": "CLIP", "maskclip": "MaskCLIP", "sclip": "SCLIP", "clearclip": "ClearCLIP"}
_NAMES |= {"clipsurgery": "CLIPsurgery", "gem": "GEM"}
_NAMES |= {result.preset: result.method for result in LATER_RESULTS}


@dataclass(frozen=True)
class OwnRow:
    """The user's results of one model and method.

    Attributes:
        method: name of the method.
        model: name of the model.
        notes: precision, and deviations from the paper's protocol.
        miou: benchmark -> mIoU in [0, 1].
    """

    method: str
    model: str
    notes: tuple[str, ...]
    miou: Mapping[str, float]

    @property
    def encoder(self) -> str:
        """Architecture in the notation of the paper; "" where the name has none."""
        arch = ModelName.parse(self.model).arch or ""
        parts = arch.split("-")
        return f"{'-'.join(parts[:2])}/{parts[2]}" if len(parts) > 2 else arch

    def cells(self, benchmarks: Sequence[str], others: Sequence[str] = ()) -> list[str]:
        """Return mIoU in percent: of each benchmark, their mean if complete, and of others."""
        values = [self.miou.get(name, math.nan) for name in benchmarks]
        mean = sum(values) / len(values)
        behind = [self.miou.get(name, math.nan) for name in others]
        return [percent(value).strip() for value in (*values, mean, *behind)]


def own_rows(results: Iterable[Result]) -> list[OwnRow]:
    """Group results by model, method and notes.

    Shards are left out if the whole run is among the results.

    Raises:
        ValueError: shards without the whole run, or two results of one configuration.
    """
    rows: dict[tuple[str, str, tuple[str, ...]], dict[str, float]] = {}
    every = sorted(results, key=lambda result: not result.is_whole)
    whole = {result.config for result in every if result.is_whole}
    for result in every:
        config = result.config
        if not result.is_whole and config in whole:
            continue
        if not result.is_whole:
            raise ValueError(
                f"Expected whole runs, but got shard {result.shard} of {config.benchmark}: "
                "put the shards together with `clearclip merge` first."
            )
        row = rows.setdefault((config.method, config.model, _notes(config)), {})
        if config.benchmark in row:
            raise ValueError(
                f"Expected one result of {config.method}, {config.model} on "
                f"{config.benchmark}, but got two."
            )
        row[config.benchmark] = result.tally.confusion.mean_iou
    return [OwnRow(*key, miou) for key, miou in rows.items()]


def _notes(config: RunConfig) -> tuple[str, ...]:
    notes = [config.precision]
    if config.short_side_px != SHORT_SIDE_PX:
        notes.append(f"{config.short_side_px} px")
    if config.limit is not None:
        notes.append(f"only {quantity(config.pictures, 'picture')}")
    if config.own_names:
        notes.append("own names")
    return tuple(notes)


def table_1(ablations: Sequence[Ablation]) -> str:
    """Format Tab. 1 with the user's ablations of any models.

    The mean is of the table's five benchmarks; other benchmarks follow it.
    """
    measured = {each.config.benchmark for each in ablations}
    others = [name for name in BENCHMARKS if name in measured - set(WITHOUT_BACKGROUND)]
    titles = [*_titles(WITHOUT_BACKGROUND), "Avg.", *_titles(others)]
    rows = []
    for model in dict.fromkeys([TABLE_1_MODEL, *(each.config.model for each in ablations)]):
        own = [each for each in ablations if each.config.model == model]
        for method, paper in TABLE_1.items():
            parts = ["qq", *("✓" if part else "✗" for part in (method.residual, method.ffn))]
            if model == TABLE_1_MODEL:
                cells = [*map(_printed, paper), *["-"] * len(others)]
                rows.append([model, *parts, *cells, MEASURED])
            rows += [
                [model, *parts, *row.cells(WITHOUT_BACKGROUND, others), _own_source(row)]
                for row in _ablated(own, method)
            ]
    return markdown(["Model", "Attn", "RC", "FFN", *titles, "source"], rows)


def _ablated(ablations: Sequence[Ablation], method: Method) -> list[OwnRow]:
    """Return the rows of one method of one model, one for each set of notes."""
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for each in ablations:
        if method in each.scores:
            row = rows.setdefault(_notes(each.config), {})
            row[each.config.benchmark] = each.scores[method].miou
    return [OwnRow(str(method), "", notes, miou) for notes, miou in rows.items()]


def table_2(own: Sequence[OwnRow]) -> str:
    """Format Tab. 2, benchmarks without a background class; later methods follow the paper's."""
    return _beside(TABLE_2, WITHOUT_BACKGROUND, own)


def table_3(own: Sequence[OwnRow]) -> str:
    """Format Tab. 3, benchmarks with a background class; later methods follow the paper's."""
    return _beside(TABLE_3, WITH_BACKGROUND, own)


def demo_table(results: Iterable[Result]) -> str:
    """Format results on the drawn scenes, best first; shards are left out."""
    found = [each for each in results if each.config.benchmark == "demo" and each.is_whole]
    found.sort(key=lambda each: -each.tally.confusion.mean_iou)
    rows = [
        [
            each.config.method,
            each.config.model,
            percent(each.tally.confusion.mean_iou).strip(),
            percent(each.tally.confusion.pixel_accuracy).strip(),
            str(each.tally.pictures),
            ", ".join(_notes(each.config)),
        ]
        for each in found
    ]
    return markdown(["method", "model", "mIoU", "pixel accuracy", "scenes", ""], rows)


def _beside(table: Sequence[PaperRow], benchmarks: Sequence[str], own: Sequence[OwnRow]) -> str:
    head = ["Methods", "Encoder", *_titles(benchmarks), "Avg.", "source"]
    fitting = [row for row in own if row.miou.keys() & set(benchmarks)]
    rows, shown = [], set()
    for paper in (*table, *(result.row(benchmarks) for result in LATER_RESULTS)):
        cells = [_printed(value) for value in paper.miou]
        rows.append([paper.method, paper.encoder, *cells, paper.source])
        for row in fitting:
            if (row.method, row.encoder) == (paper.preset, paper.encoder):
                rows.append(_own_cells(row, benchmarks))
                shown.add(id(row))
    rows += [_own_cells(row, benchmarks) for row in fitting if id(row) not in shown]
    return markdown(head, rows)


def _own_cells(row: OwnRow, benchmarks: Sequence[str]) -> list[str]:
    name = _NAMES.get(row.method, row.method) if row.method in METHODS else row.method
    return [name, row.model, *row.cells(benchmarks), _own_source(row)]


def _own_source(row: OwnRow) -> str:
    return ", ".join([OWN, *row.notes])


def _titles(benchmarks: Iterable[str]) -> list[str]:
    return [BENCHMARKS[name].title for name in benchmarks]


def _printed(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns.

    >>> print(markdown(["a", "bc"], [["123", "4"]]))
    | a   | bc |
    | --- | -- |
    | 123 | 4  |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )
