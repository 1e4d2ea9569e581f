"""Tabs. 1-3 of the paper beside the user's results, as Markdown with a source for each row."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from clearclip_core.clip.methods import Method
from clearclip_core.clip.weights import ModelName
from clearclip_core.evaluation.benchmarks import BENCHMARKS, SHORT_SIDE_PX
from clearclip_core.evaluation.results import RunConfig, RunResult, format_percent, markdown
from clearclip_core.quantities import quantity


def _published(number: int) -> list[dict[str, str]]:
    """Return the rows of a table of the paper: column -> what is printed there."""
    text = (files(__package__) / f"table{number}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


#: Tabs. 2 and 3 of the paper: benchmarks without and with a background class. Each row has the
#: preset that repeats it, if there is one. SCLIP is cited with renamed classes, SCLIP* is measured
#: without: the preset is SCLIP*.
PUBLISHED: Final = {number: _published(number) for number in (2, 3)}

#: Tab. 1, for CLIP ViT-B/16: method -> mIoU in percent on the benchmarks of Tab. 2, and their mean.
TABLE_1: Final = {Method.of(row["method"]): [*row.values()][1:] for row in _published(1)}

#: The model of Tab. 1.
TABLE_1_MODEL = "ViT-B-16/openai"

#: The attentions of Figs. 2 and 5, and the factors of Fig. 6 (its text has 0.5 beside the list).
ATTENTIONS = ("qk", "identity", "vv", "kk", "qq")
ALPHAS = (0.1, 0.5, 1.0, 2.0, 10.0, 100.0)

#: With and without residual connection and FFN, in the order of Tab. 1.
COMBINATIONS = ((True, True), (True, False), (False, True), (False, False))

#: Study of the paper -> its methods. In Fig. 6 the FFN stays, as in Eqs. 2-3; the paper does not
#: say whether it does.
STUDIES: Final = {
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


def methods_of(studies: Iterable[str]) -> list[Method]:
    """Return the methods of several studies, each once.

    >>> len(methods_of(["table1"])), len(methods_of(STUDIES))
    (4, 45)
    """
    return list(dict.fromkeys(method for study in studies for method in STUDIES[study]))


OWN = "**yours**"  # source of rows that the user measured

#: Presets in the notation of the paper.
_NAMES = {row["preset"]: row["method"].strip("*") for rows in PUBLISHED.values() for row in rows}


@dataclass(frozen=True)
class OwnRow:
    """The user's results of one model and method."""

    method: str
    model: str
    notes: tuple[str, ...]
    miou: Mapping[str, float]  # benchmark -> mIoU in [0, 1]

    @property
    def encoder(self) -> str:
        """Architecture in the notation of the paper; "" where the name has none."""
        arch = ModelName.parse(self.model).arch or ""
        parts = arch.split("-")
        return f"{'-'.join(parts[:2])}/{parts[2]}" if len(parts) > 2 else arch

    def cells(self, benchmarks: Sequence[str], others: Sequence[str] = ()) -> list[str]:
        """Format mIoU in percent (of each, their mean if complete, of others) and the source."""
        values = [self.miou.get(name, math.nan) for name in benchmarks]
        behind = [self.miou.get(name, math.nan) for name in others]
        shown = map(format_percent, (*values, sum(values) / len(values), *behind))
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
    methods = set(map(str, TABLE_1))
    own = own_rows(each for each in results if each.settings.method in methods)
    columns = _benchmarks(2)
    measured = {name for row in own for name in row.miou}
    others = [name for name in BENCHMARKS if name in measured - set(columns)]

    rows: list[list[str]] = []
    for model in dict.fromkeys([TABLE_1_MODEL, *(row.model for row in own)]):
        for method in TABLE_1:
            rows += _table_1_rows(model, method, own, others)
    head = ["Model", "Attn", "RC", "FFN", *_titles(columns), "Avg.", *_titles(others), "source"]
    return markdown(head, *rows)


def _table_1_rows(
    model: str, method: Method, own: Iterable[OwnRow], others: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the paper's row of a model and method, if it has one, then the user's.

    `others` are the user's benchmarks that the table does not have.
    """
    parts = [model, "qq", _tick(method.residual), _tick(method.ffn)]
    if model == TABLE_1_MODEL:
        yield [*parts, *TABLE_1[method], *("-" for _ in others), "paper, measured"]
    for row in own:
        if row.model == model and row.method == str(method):
            yield parts + row.cells(_benchmarks(2), others)


def _tick(is_there: bool) -> str:
    return "✓" if is_there else "✗"


def paper_table(number: int, own: Sequence[OwnRow]) -> str:
    """Format Tab. 2 or 3, with the user's rows below those of the paper that they repeat."""
    columns = _benchmarks(number)
    left = [row for row in own if row.miou.keys() & set(columns)]
    rows = []
    for paper in PUBLISHED[number]:
        *printed, preset = paper.values()
        rows.append(printed)
        same = [row for row in left if (row.method, row.encoder) == (preset, paper["encoder"])]
        rows += [_own_cells(row, columns) for row in same]
        left = [row for row in left if row not in same]
    rows += [_own_cells(row, columns) for row in left]
    return markdown(["Methods", "Encoder", *_titles(columns), "Avg.", "source"], *rows)


def _own_cells(row: OwnRow, columns: Sequence[str]) -> list[str]:
    return [_NAMES.get(row.method, row.method), row.model, *row.cells(columns)]


def _benchmarks(number: int) -> list[str]:
    return [column for column in PUBLISHED[number][0] if column in BENCHMARKS]


def _titles(benchmarks: Iterable[str]) -> list[str]:
    return [BENCHMARKS[name].title for name in benchmarks]
