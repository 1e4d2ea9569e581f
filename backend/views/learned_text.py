"""Show what a project has learned on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from backend.feedback.report.tables import text_table
from backend.telemetry.logs import printable
from backend.views.learned import LearningView, VersionView
from clearclip_core.quantities import quantity


def learned_text(view: LearningView) -> str:
    """Return what a project has learned for a terminal."""
    lines = [*map(printable, _standing(view))]
    if view.versions:
        lines += ["", *_table(view.versions), ""]
    lines += map(printable, _reasons(view))
    return "\n".join(lines)


def _standing(view: LearningView) -> Iterator[str]:
    now = f"version {view.live} is in use" if view.live else "the words alone"
    pinned = ", chosen by hand" if view.pinned else ""
    yield (
        f"Project {view.project}: {now}{pinned}. {quantity(view.annotations, 'annotation')} to "
        f"learn from; {view.changed} changed since the last version."
    )
    if view.trouble:
        yield f"The last step has failed: {view.trouble}"
    if view.fallen:
        yield view.fallen
    if view.waits:
        yield f"Version {view.waits} waits for `adapt use`."


def _reasons(view: LearningView) -> Iterator[str]:
    """Say why labels and people teach nothing."""
    newest = view.newest
    for version in view.versions:
        if version.live or version is newest:
            for label, reason in version.refused.items():
                yield f"Version {version.number} leaves {label} as it was: {reason}"

    if newest is not None:
        yield from (person.sentence for person in newest.people)
    if view.left_out:
        yield f"Learned without {', '.join(view.left_out.values())}."
    if view.as_words:
        yield f"Labels that keep their words: {', '.join(view.as_words)}."


def _table(versions: Sequence[VersionView]) -> list[str]:
    head = (">version", "", ">made", ">annotations", ">words alone", ">learned", ">gain")
    return [
        "Held-out IoU: mean over labels with a figure, on corrected pictures that learning did not "
        "use; its gain in points over all labels",
        text_table(head, map(_row, versions)),
        "A version's model version ends with its annotations and number.",
    ]


def _row(version: VersionView) -> tuple[str, ...]:
    state = "" if version.better else "not passed"
    made = datetime.fromtimestamp(version.created).strftime("%Y-%m-%d %H:%M")
    before, after = version.iou_cells
    number, annotations = str(version.number), str(version.annotations)
    live = "live" if version.live else state
    return number, live, made, annotations, before, after, version.gain_cell
