"""Draw Figs. 5 and 6 of the paper from ablations."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.atomic_write import write_whole
from clearclip_core.evaluation.benchmarks import BENCHMARKS, SHORT_SIDE_PX
from clearclip_core.paper.figures import require_matplotlib
from clearclip_core.paper.tables import ALPHAS, ATTENTIONS, COMBINATIONS, STUDIES, Ablation
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The attentions in the notation of the paper.
_SIGNS = {"qk": "q-k", "identity": "I", "vv": "v-v", "kk": "k-k", "qq": "q-q"}
#: Okabe and Ito's colours, which differ for the colour-blind and in grey.
_COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#009E73")
_MARKERS = ("o", "s", "^", "D", "v")
_COMBINATION_NAMES = ("with both", "without FFN", "without residual", "without either")


def draw_figures(ablations: Sequence[Ablation], folder: Path) -> list[Path]:
    """Draw ``figure5.png`` and ``figure6.png``, if the ablations hold their methods.

    Each model has a panel with the mean over its benchmarks.

    Args:
        ablations: ablations of any models and benchmarks.
        folder: folder of the image files.

    Raises:
        ValueError: matplotlib is not installed; the message says how.

    Returns:
        Paths of the files written.
    """
    require_matplotlib()
    written = []
    for study, title, draw in (
        ("figure5", "Residual connection and FFN of the last block", draw_combinations),
        ("figure6", "Attention output against residual connection", draw_alphas),
    ):
        panels = averages(ablations, STUDIES[study])
        if panels:
            path = folder / f"{study}.png"
            write_whole(path, _png(draw_panels(title, panels, draw)))
            written.append(path)
    return written


def averages(
    ablations: Sequence[Ablation], methods: Sequence[Method]
) -> dict[str, dict[Method, float]]:
    """Return title of a panel -> method -> mIoU in percent, mean over benchmarks.

    An ablation is used if it holds all methods.

    Args:
        ablations: ablations of any models and benchmarks.
        methods: the methods of the figure.
    """
    groups: dict[str, dict[str, Ablation]] = {}
    for each in ablations:
        if set(methods) <= set(each.scores):
            groups.setdefault(_name(each), {})[each.config.benchmark] = each
    panels = {}
    for name, own in groups.items():
        titles = [_title(own[benchmark]) for benchmark in BENCHMARKS if benchmark in own]
        mean = "mean of " if len(titles) > 1 else ""
        panels[f"{name}\n{mean}{', '.join(titles)}"] = {
            method: 100 * sum(each.scores[method].miou for each in own.values()) / len(own)
            for method in methods
        }
    return panels


def _name(ablation: Ablation) -> str:
    """Return the title of a panel: the model, precision and a size unlike the paper's."""
    config = ablation.config
    size = "" if config.short_side_px == SHORT_SIDE_PX else f", {config.short_side_px} px"
    return f"{config.model}{size}, {config.precision}"


def _title(ablation: Ablation) -> str:
    config = ablation.config
    few = "" if config.limit is None else f" (only {quantity(config.pictures, 'picture')})"
    return f"{ablation.benchmark.title}{few}"


def draw_combinations(axes: Axes, miou: Mapping[Method, float]) -> None:
    """Draw Fig. 5: bars of the four combinations, a group for each attention."""
    width = 0.2
    for index, (residual, ffn) in enumerate(COMBINATIONS):
        heights = [miou[Method(attention, residual, ffn)] for attention in ATTENTIONS]
        places = [group + (index - 1.5) * width for group in range(len(ATTENTIONS))]
        label = _COMBINATION_NAMES[index]
        axes.bar(places, heights, 0.92 * width, color=_COLOURS[index], label=label)
    axes.set_xticks(range(len(ATTENTIONS)), [_SIGNS[attention] for attention in ATTENTIONS])
    axes.set_xlabel("attention of the last block")


def draw_alphas(axes: Axes, miou: Mapping[Method, float]) -> None:
    """Draw Fig. 6: a line for each attention over the factor α."""
    for attention, colour, marker in zip(ATTENTIONS, _COLOURS, _MARKERS, strict=True):
        heights = [miou[Method(attention, True, True, alpha)] for alpha in ALPHAS]
        axes.plot(ALPHAS, heights, marker=marker, color=colour, label=_SIGNS[attention])
    axes.set_xscale("log")
    axes.set_xticks(ALPHAS, [f"{alpha:g}" for alpha in ALPHAS])
    axes.minorticks_off()
    axes.set_xlabel("α, the weight of the attention output")


def draw_panels(
    headline: str,
    panels: Mapping[str, Mapping[Method, float]],
    draw: Callable[[Axes, Mapping[Method, float]], None],
) -> Figure:
    """Draw a panel for each model; all have one scale, so that models can be compared.

    Args:
        headline: title of the figure.
        panels: one or more panels, see `averages`.
        draw: `draw_combinations` or `draw_alphas`.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((6.4 * columns, 4.2 * rows + 0.8), dpi=160, layout="constrained")
    figure.suptitle(headline, fontsize="x-large")
    top = 1.06 * max(value for miou in panels.values() for value in miou.values())
    for index, (title, miou) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, index)
        draw(axes, miou)
        axes.set_title(title, fontsize="medium")
        axes.set_ylabel("mIoU in %")
        axes.set_ylim(0, top or None)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
