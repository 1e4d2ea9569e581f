"""The paper's figures as pictures: feature maps (Figs. 1 to 4) and ablations (Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.benchmarks import BENCHMARKS, SHORT_SIDE_PX
from clearclip_core.evaluation.results import RunConfig, RunResult
from clearclip_core.images.drawing import blend, palette
from clearclip_core.images.label_maps import label_shares
from clearclip_core.paper.feature_statistics import MAP_NAMES, Float64s, MapExample, MapStatistics
from clearclip_core.paper.tables import ALPHAS, ATTENTIONS, COMBINATIONS, STUDIES
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which differ for the colour-blind, with different markers and dashes.
_STYLES: dict[str, dict[str, Any]] = {
    "X_sum": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "X_res": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "X_attn": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
}
_COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#009E73")
_MARKERS = ("o", "s", "^", "D", "v")

#: Maps, attentions and combinations in the notation of the paper.
_NAMES = {"X_sum": r"$X_{sum}$", "X_res": r"$X_{res}$", "X_attn": r"$X_{attn}$"}
_SIGNS = {"qk": "q-k", "identity": "I", "vv": "v-v", "kk": "k-k", "qq": "q-q"}
_COMBINATION_NAMES = ("with both", "without FFN", "without residual", "without either")

_RC_PARAMS: Any = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "savefig.dpi": 160,
}

_PANEL_INCHES = (4.6, 3.7)

_LEGEND_SHARE = 0.01  # share of a label map from which on a label is in the legend


def require_matplotlib() -> None:
    """Check that matplotlib is installed, before hours of measurement.

    Raises:
        ValueError: matplotlib is not installed; the message says how.
    """
    try:
        import matplotlib.figure  # noqa: F401 -- imported to check
    except ImportError as error:
        raise ValueError(
            "Figures need the extra: pip install 'clearclip-label-studio[paper]'."
        ) from error


def save_figures(
    found: Sequence[MapStatistics], examples: Sequence[MapExample], folder: Path
) -> list[Path]:
    """Write ``norms.png`` (Fig. 2) and ``layers.png`` (Fig. 4) of one or more towers.

    Where there are examples, ``maps.png`` (Figs. 1 and 3) has a row for each.
    """
    written = [
        _save(folder / "norms.png", draw_norms, found),
        _save(folder / "layers.png", draw_layers, found),
    ]
    return written + ([_save(folder / "maps.png", draw_examples, examples)] if examples else [])


def save_ablations(results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Write ``figure5.png`` and ``figure6.png``, if there are results of all their methods.

    Each model has a panel with the mean over its benchmarks.
    """
    written = []
    for study, draw in (("figure5", draw_combinations), ("figure6", draw_alphas)):
        panels = averages(results, STUDIES[study])
        if panels:
            written.append(_save(folder / f"{study}.png", draw, panels))
    return written


def _save(path: Path, draw: Callable[[Any], Figure], drawn: Any) -> Path:
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(_RC_PARAMS):
        draw(drawn).savefig(path)
    return path


def draw_examples(examples: Sequence[MapExample]) -> Figure:
    """Draw images, and their label maps by each map of the last block."""
    from matplotlib.patches import Patch

    names = ["picture", *examples[0].label_maps]
    aspect = examples[0].image.shape[0] / examples[0].image.shape[1]
    panel = (3.4, 3.4 * aspect + 0.45)
    figure, axes = _panels(len(examples), len(names), share_rows=False, panel_inches=panel)
    shown: dict[str, tuple[float, float, float]] = {}
    for (first, *others), example in zip(axes, examples, strict=True):
        colours = palette(len(example.labels))
        first.imshow(example.image)
        first.set_ylabel(example.name)
        for axis, label_map in zip(others, example.label_maps.values(), strict=True):
            axis.imshow(blend(example.image, label_map, colours, opacity=0.7))
            for index in np.flatnonzero(label_shares(label_map, len(colours)) >= _LEGEND_SHARE):
                red, green, blue = colours[index] / 255
                shown[example.labels[index]] = (red, green, blue)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(_NAMES.get(name, name))
    for axis in axes.flat:
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    patches = [Patch(color=colour, label=label) for label, colour in shown.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 9) or 1)
    return figure


def draw_norms(found: Sequence[MapStatistics]) -> Figure:
    """Draw Frobenius norms by attention (Fig. 2) and by layer; one column for each tower."""
    figure, axes = _panels(2, len(found), share_rows=False)
    for (above, below), tower in zip(axes.T, found, strict=True):
        _draw_attention_norms(above, tower)
        _draw_by_layer(below, tower.norm)
        above.set(title=tower.name, xlabel="attention of the last block")
        below.set(xlabel="layer", ylim=(0, None))
    for axis in axes.flat:
        axis.set_ylabel("Frobenius norm")
    _add_legend(figure, axes[1, 0], found)
    return figure


def draw_layers(found: Sequence[MapStatistics]) -> Figure:
    """Draw entropies, maxima and channel means (Fig. 4 a-c); one row for each tower."""
    figure, axes = _panels(len(found), 3, share_rows=True)
    for (entropy, maximum, channels), tower in zip(axes, found, strict=True):
        _draw_by_layer(entropy, tower.entropy)
        _draw_by_layer(maximum, tower.maximum)
        _draw_channel_means(channels, tower)
        label = f"{tower.name}\n\nnormalised entropy"
        entropy.set(xlabel="layer", ylabel=label, ylim=(-0.03, 1.06))
        maximum.set(xlabel="layer", ylabel="mean maximum", yscale="log")
        channels.set(xlabel="channels, sorted (%)", ylabel="normalised mean, last layer")
    titles = ("a  Entropy of all values", "b  Largest value", "c  Means of the channels")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, loc="left")
    _add_legend(figure, axes[0, 0], found)
    return figure


def _panels(
    rows: int, columns: int, share_rows: bool, panel_inches: tuple[float, float] = _PANEL_INCHES
) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = (panel_inches[0] * columns, panel_inches[1] * rows + 0.6)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False, sharey="col" if share_rows else False)
    return figure, axes


def _draw_by_layer(axis: Axes, values: Float64s) -> None:
    """Draw mean and standard deviation over the images of (images, 3, layers) values."""
    layers = np.arange(1, values.shape[2] + 1)
    for index, name in enumerate(MAP_NAMES):
        mean, spread = values[:, index].mean(axis=0), values[:, index].std(axis=0)
        axis.plot(layers, mean, label=_NAMES[name], **_STYLES[name])
        axis.fill_between(
            layers, mean - spread, mean + spread, color=_STYLES[name]["color"], alpha=0.18, lw=0
        )
    axis.set_xticks(layers[:: max(1, len(layers) // 6)])


def _draw_attention_norms(axis: Axes, tower: MapStatistics) -> None:
    """Draw bars of ``X_attn`` by attention, and a line of ``X_res``, equal for all attentions."""
    places = np.arange(len(ATTENTIONS))
    mean, spread = tower.attention_norm.mean(axis=0), tower.attention_norm.std(axis=0)
    axis.bar(places, mean, yerr=spread, width=0.6, color=_STYLES["X_attn"]["color"], capsize=4)
    residual = tower.norm[:, MAP_NAMES.index("X_res"), -1]
    low, high = residual.mean() - residual.std(), residual.mean() + residual.std()
    style = _STYLES["X_res"]
    axis.axhline(residual.mean(), color=style["color"], linestyle=style["linestyle"])
    axis.axhspan(low, high, color=style["color"], alpha=0.18, lw=0)
    axis.set_xticks(places, [_SIGNS[name] for name in ATTENTIONS])
    axis.set_ylim(0, None)


def _draw_channel_means(axis: Axes, tower: MapStatistics) -> None:
    curves = tower.channel_means.mean(axis=0)  # (3, width)
    percent = np.linspace(0, 100, curves.shape[1])
    for index, name in enumerate(MAP_NAMES):
        axis.plot(percent, curves[index], **{**_STYLES[name], "marker": ""})
    axis.set_ylim(-0.03, 1.06)


def _add_legend(figure: Figure, axis: Axes, found: Sequence[MapStatistics]) -> None:
    """Add a legend above the panels, and a caption below."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    count = " or ".join(map(str, sorted({len(tower.norm) for tower in found})))
    caption = f"Means; pictures: {count}; bands and whiskers: one standard deviation."
    figure.supxlabel(caption, fontsize="small")


def averages(
    results: Sequence[RunResult], methods: Sequence[Method]
) -> dict[str, dict[Method, float]]:
    """Return title of a panel -> method -> mIoU in percent, mean over benchmarks.

    A benchmark counts where all methods were measured on it.
    """
    names = list(map(str, methods))
    panels = {}
    for title, by_benchmark in _by_panel(results).items():
        found = [by_benchmark[name] for name in BENCHMARKS if name in by_benchmark]
        complete = [by_method for by_method in found if by_method.keys() >= set(names)]
        if complete:
            first = [by_method[names[0]] for by_method in complete]
            panel = f"{title}\n{_titles_of(first)}"
            panels[panel] = {method: _mean_percent(complete, str(method)) for method in methods}
    return panels


def _titles_of(results: Sequence[RunResult]) -> str:
    """Return the titles of the benchmarks that a mean is of."""
    titles = ", ".join(result.benchmark.title + _few(result.settings) for result in results)
    return f"mean of {titles}" if len(results) > 1 else titles


def _mean_percent(by_benchmark: Sequence[Mapping[str, RunResult]], method: str) -> float:
    return 100 * fmean(by_method[method].matrix.mean_iou for by_method in by_benchmark)


def _by_panel(results: Sequence[RunResult]) -> dict[str, dict[str, dict[str, RunResult]]]:
    """Return model, size and precision, as a title -> benchmark -> method -> result."""
    panels: dict[str, dict[str, dict[str, RunResult]]] = {}
    for result in results:
        config = result.settings
        size_px = config.sizes.short_side_px
        size = "" if size_px == SHORT_SIDE_PX else f", {size_px} px"
        by_benchmark = panels.setdefault(f"{config.model}{size}, {config.precision}", {})
        by_benchmark.setdefault(config.benchmark, {})[config.method] = result
    return panels


def _few(config: RunConfig) -> str:
    return "" if config.limit is None else f" (only {quantity(config.pictures, 'picture')})"


def draw_combinations(panels: Mapping[str, Mapping[Method, float]]) -> Figure:
    """Draw Fig. 5: bars of the four combinations, a group for each attention."""
    figure, axes = _ablation_panels(panels)
    for axis, miou in zip(axes, panels.values(), strict=True):
        for index, (residual, ffn) in enumerate(COMBINATIONS):
            heights = [miou[Method(attention, residual, ffn)] for attention in ATTENTIONS]
            places = np.arange(len(ATTENTIONS)) + 0.2 * (index - 1.5)
            label = _COMBINATION_NAMES[index]
            axis.bar(places, heights, 0.18, color=_COLOURS[index], label=label)
        axis.set_xticks(range(len(ATTENTIONS)), [_SIGNS[attention] for attention in ATTENTIONS])
        axis.set_xlabel("attention of the last block")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_alphas(panels: Mapping[str, Mapping[Method, float]]) -> Figure:
    """Draw Fig. 6: a line for each attention over the factor α."""
    figure, axes = _ablation_panels(panels)
    for axis, miou in zip(axes, panels.values(), strict=True):
        for attention, colour, marker in zip(ATTENTIONS, _COLOURS, _MARKERS, strict=True):
            heights = [miou[Method(attention, True, True, alpha)] for alpha in ALPHAS]
            axis.plot(ALPHAS, heights, marker=marker, color=colour, label=_SIGNS[attention])
        axis.set_xscale("log")
        axis.set_xticks(ALPHAS, [f"{alpha:g}" for alpha in ALPHAS])
        axis.minorticks_off()
        axis.set_xlabel("α, the weight of the attention output")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _ablation_panels(panels: Mapping[str, Mapping[Method, float]]) -> tuple[Figure, Any]:
    """Make a panel for each model; all have one scale, so that models can be compared."""
    figure, axes = _panels(1, len(panels), share_rows=False, panel_inches=(6.4, 4.6))
    top = 1.06 * max(value for miou in panels.values() for value in miou.values())
    for axis, title in zip(axes[0], panels, strict=True):
        axis.set_title(title, fontsize="medium")
        axis.set(ylabel="mIoU in %", ylim=(0, top or None))
    return figure, axes[0]
