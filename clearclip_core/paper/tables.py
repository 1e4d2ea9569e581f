"""Tabs. 1-3 of the paper beside the user's results, as Markdown with a source for each row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clearclip_core.clip.methods import Method
from clearclip_core.clip.weights import ModelName
from clearclip_core.evaluation.benchmarks import BENCHMARKS, SHORT_SIDE_PX
from clearclip_core.evaluation.results import RunConfig, RunResult, format_percent, markdown
from clearclip_core.quantities import quantity

CITED = "paper, cited"
CITED_FROM_TCL = "paper, cited from TCL"
MEASURED = "paper, measured"

#: Benchmarks without and with a background class, in the order of the columns of Tabs. 2 and 3.
WITHOUT_BACKGROUND = ("voc20", "context59", "coco_stuff", "cityscapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")

_B, _L, _S = "ViT-B/16", "ViT-L/14", "ViT-S/16"


@dataclass(frozen=True)
class PaperRow:
    """A row of Tab. 2 or 3.

    Attributes:
        miou: mIoU in percent for each column, and their mean; None where the paper has a dash.
        source: where the figures are from.
        preset: name of the preset that repeats the row, if there is one.
    """

    method: str
    encoder: str
    miou: tuple[float | None, ...]
    source: str = CITED
    preset: str | None = None


#: Tab. 2. SCLIP is cited with renamed classes, SCLIP* is measured without: the preset is SCLIP*.
TABLE_2 = (
    PaperRow("GroupViT", _S, (79.7, 23.4, 15.3, 11.1, 9.2, 27.7), CITED_FROM_TCL),
    PaperRow("CoCu", _S, (None, None, 13.6, 15.0, 11.1, None)),
    PaperRow("TCL", _B, (77.5, 30.3, 19.6, 23.1, 14.9, 33.1)),
    PaperRow("CLIP", _B, (41.8, 9.2, 4.4, 5.5, 2.1, 12.6), preset="clip"),
    PaperRow("MaskCLIP", _B, (74.9, 26.4, 16.4, 12.6, 9.8, 28.0), CITED_FROM_TCL, "maskclip"),
    PaperRow("ReCo", _B, (57.7, 22.3, 14.8, 21.1, 11.2, 25.4), CITED_FROM_TCL),
    PaperRow("CLIPsurgery", _B, (None, None, 21.9, 31.4, None, None), preset="clipsurgery"),
    PaperRow("SCLIP", _B, (80.4, 34.2, 22.4, 32.2, 16.1, 37.1)),
    PaperRow("SCLIP*", _B, (78.2, 33.0, 21.1, 29.1, 14.6, 35.2), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _B, (80.9, 35.9, 23.9, 30.0, 16.7, 37.5), MEASURED, "clearclip"),
    PaperRow("CLIP", _L, (15.8, 4.5, 2.4, 2.9, 1.2, 5.4), MEASURED, "clip"),
    PaperRow("MaskCLIP", _L, (30.1, 12.6, 8.9, 10.1, 6.9, 13.7), MEASURED, "maskclip"),
    PaperRow("SCLIP", _L, (60.3, 20.5, 13.1, 17.0, 7.1, 23.6), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _L, (80.0, 29.6, 19.9, 27.9, 15.0, 34.5), MEASURED, "clearclip"),
)

#: Tab. 3.
TABLE_3 = (
    PaperRow("GroupViT", _S, (50.4, 18.7, 27.5, 32.2), CITED_FROM_TCL),
    PaperRow("SegCLIP", _S, (52.6, 24.7, 26.5, 34.6)),
    PaperRow("OVSegmentor", _B, (53.8, 20.4, 25.1, 33.1)),
    PaperRow("PGSeg", _S, (53.2, 23.8, 28.7, 35.2)),
    PaperRow("ViewCo", _S, (52.4, 23.0, 23.5, 33.0)),
    PaperRow("CoCu", _S, (40.9, 21.2, 20.3, 27.5)),
    PaperRow("TCL", _B, (51.2, 24.3, 30.4, 35.3)),
    PaperRow("CLIP", _B, (16.2, 7.7, 5.5, 9.8), preset="clip"),
    PaperRow("MaskCLIP", _B, (38.8, 23.6, 20.6, 27.7), CITED_FROM_TCL, "maskclip"),
    PaperRow("ReCo", _B, (25.1, 19.9, 15.7, 20.2), CITED_FROM_TCL),
    PaperRow("CLIPsurgery", _B, (None, 29.3, None, None), preset="clipsurgery"),
    PaperRow("GEM", _B, (46.2, 32.6, None, None), preset="gem"),
    PaperRow("SCLIP", _B, (59.1, 30.4, 30.5, 40.0)),
    PaperRow("SCLIP*", _B, (51.4, 30.5, 30.0, 37.3), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _B, (51.8, 32.6, 33.0, 39.1), MEASURED, "clearclip"),
)


#: Tab. 1, for CLIP ViT-B/16: method -> mIoU in percent on `WITHOUT_BACKGROUND`, and their mean.
TABLE_1 = {
    Method("qq", residual=True, ffn=True): (68.4, 24.9, 14.7, 20.8, 7.6, 27.3),
    Method("qq", residual=True, ffn=False): (62.8, 25.5, 14.6, 19.5, 6.9, 25.9),
    Method("qq", residual=False, ffn=True): (77.6, 31.8, 21.0, 23.4, 14.7, 33.7),
    Method("qq", residual=False, ffn=False): (80.9, 35.9, 23.9, 30.0, 16.7, 37.5),
}

#: The model of Tab. 1.
TABLE_1_MODEL = "ViT-B-16/openai"

#: The attentions of Figs. 2 and 5, and the factors of Fig. 6 (its text has 0.5 beside the list).
ATTENTIONS = ("qk", "identity", "vv", "kk", "qq")
ALPHAS = (0.1, 0.5, 1.0, 2.0, 10.0, 100.0)

#: With and without residual connection and FFN, in the order of Tab. 1.
COMBINATIONS = ((True, True), (True, False), (False, True), (False, False))

#: Study of the paper -> its methods. In Fig. 6 the FFN stays, as in Eqs. 2-3; the paper does not
#: say whether it does.
STUDIES: Mapping[str, tuple[Method, ...]] = MappingProxyType(
    {
        "table1": tuple(TABLE_1),
        "figure5": tuple(
            Method(attention, residual, ffn)
            for attention in ATTENTIONS
            for residual, ffn in COMBINATIONS
        ),
        "figure6": tuple(
            Method(attention, residual=True, ffn=True, alpha=alpha)
            for attention in ATTENTIONS
            for alpha in ALPHAS
        ),
    }
)


def methods_of(studies: Iterable[str]) -> list[Method]:
    """Return the methods of several studies, each once.

    >>> len(methods_of(["table1"])), len(methods_of(STUDIES))
    (4, 45)
    """
    return list(dict.fromkeys(method for study in studies for method in STUDIES[study]))


#: Source of rows that the user measured.
OWN = "**yours**"

#: Presets in the notation of the paper.
_NAMES = {row.preset: row.method.strip("*") for row in (*TABLE_2, *TABLE_3) if row.preset}


@dataclass(frozen=True)
class OwnRow:
    """The user's results of one model and method.

    Attributes:
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

    def line(self, benchmarks: Sequence[str]) -> list[str]:
        """Format the row of Tab. 2 or 3."""
        return [_NAMES.get(self.method, self.method), self.model, *self.cells(benchmarks)]

    def cells(self, benchmarks: Sequence[str], others: Sequence[str] = ()) -> list[str]:
        """Format mIoU in percent (of each, their mean if complete, of others) and the source."""
        values = [self.miou.get(name, math.nan) for name in benchmarks]
        mean = sum(values) / len(values)
        behind = [self.miou.get(name, math.nan) for name in others]
        shown = [format_percent(value).strip() for value in (*values, mean, *behind)]
        return [*shown, ", ".join([OWN, *self.notes])]


def own_rows(results: Iterable[RunResult]) -> list[OwnRow]:
    """Group results by model, method and notes.

    Raises:
        ValueError: two results of one configuration.
    """
    rows: dict[tuple[str, str, tuple[str, ...]], dict[str, float]] = {}
    for result in results:
        config = result.settings
        row = rows.setdefault((config.method, config.model, _notes(config)), {})
        if config.benchmark in row:
            raise ValueError(
                f"Expected one result of {config.method}, {config.model} on "
                f"{config.benchmark}, but got two."
            )
        row[config.benchmark] = result.matrix.mean_iou
    return [OwnRow(*key, miou) for key, miou in rows.items()]


def _notes(config: RunConfig) -> tuple[str, ...]:
    notes = [config.precision]
    if config.sizes.short_side_px != SHORT_SIDE_PX:
        notes.append(f"{config.sizes.short_side_px} px")
    if config.limit is not None:
        notes.append(f"only {quantity(config.pictures, 'picture')}")
    if config.own_names:
        notes.append("own names")
    return tuple(notes)


def table_1(results: Sequence[RunResult]) -> str:
    """Format Tab. 1 with the user's results of any models.

    The mean is of the table's five benchmarks; other benchmarks follow it.
    """
    own = own_rows(each for each in results if each.settings.method in map(str, TABLE_1))
    measured = {name for row in own for name in row.miou}
    others = [name for name in BENCHMARKS if name in measured - set(WITHOUT_BACKGROUND)]
    titles = [*_titles(WITHOUT_BACKGROUND), "Avg.", *_titles(others)]
    rows = []
    for model in dict.fromkeys([TABLE_1_MODEL, *(row.model for row in own)]):
        for method, paper in TABLE_1.items():
            parts = ["qq", *("✓" if part else "✗" for part in (method.residual, method.ffn))]
            if model == TABLE_1_MODEL:
                cells = [*map(_printed, paper), *["-"] * len(others)]
                rows.append([model, *parts, *cells, MEASURED])
            for row in own:
                if (row.model, row.method) == (model, str(method)):
                    rows.append([model, *parts, *row.cells(WITHOUT_BACKGROUND, others)])
    return markdown(["Model", "Attn", "RC", "FFN", *titles, "source"], *rows)


def table_2(own: Sequence[OwnRow]) -> str:
    """Format Tab. 2, benchmarks without a background class."""
    return _beside(TABLE_2, WITHOUT_BACKGROUND, own)


def table_3(own: Sequence[OwnRow]) -> str:
    """Format Tab. 3, benchmarks with a background class."""
    return _beside(TABLE_3, WITH_BACKGROUND, own)


def _beside(table: Sequence[PaperRow], benchmarks: Sequence[str], own: Sequence[OwnRow]) -> str:
    head = ["Methods", "Encoder", *_titles(benchmarks), "Avg.", "source"]
    fitting = [row for row in own if row.miou.keys() & set(benchmarks)]
    rows = []
    for paper in table:
        cells = [_printed(value) for value in paper.miou]
        rows.append([paper.method, paper.encoder, *cells, paper.source])
        same = [
            row for row in fitting if (row.method, row.encoder) == (paper.preset, paper.encoder)
        ]
        rows += [row.line(benchmarks) for row in same]
        fitting = [row for row in fitting if row not in same]
    rows += [row.line(benchmarks) for row in fitting]
    return markdown(head, *rows)


def _titles(benchmarks: Iterable[str]) -> list[str]:
    return [BENCHMARKS[name].title for name in benchmarks]


def _printed(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
