"""Small plots of what was learned, drawn by matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Height of a label's row and width of a plot, in inches.
_ROW_INCHES: Final = 0.32
_WIDTH_INCHES: Final = 5.0


def draw_bars(series: Mapping[str, Sequence[float]], labels: Sequence[str], axis: str) -> Figure:
    """Draw one bar a label and series, the first label on top.

    Args:
        series: name of each series -> one value a label.
        labels: names of the labels.
        axis: what the values are.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Plots need matplotlib: pip install 'clearclip-label-studio[paper]'."
        ) from error

    height_inches = 1 + _ROW_INCHES * max(1, len(labels))
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.add_subplot()
    thickness = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        rows = [row + number * thickness for row in range(len(labels))]
        axes.barh(rows, list(values), thickness, label=name)

    middle = 0.4 - thickness / 2
    axes.set_yticks([row + middle for row in range(len(labels))], list(labels))
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    if len(series) > 1:
        figure.legend(loc="outside upper right", ncols=len(series), frameon=False)
    return figure


def png_of(plot: Callable[[], Figure]) -> bytes | None:
    """Return a plot as a PNG file, for notebooks; None without matplotlib."""
    try:
        figure = plot()
    except ModuleNotFoundError:
        return None
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
