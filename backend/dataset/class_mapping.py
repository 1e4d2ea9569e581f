"""Map the classes of a data set to the labels and controls of a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backend.errors import DatasetError
from backend.label_studio.label_config import Control, ControlLabel, LabelConfig
from backend.label_studio.label_config_parser import words

_DRAWN_BY: Final = "of the brushes, bitmasks, polygons and rectangles of the project"


@dataclass(frozen=True)
class Target:
    """Where the regions of a class go: a control, and the label as that control has it."""

    control: Control
    label: ControlLabel


@dataclass(frozen=True)
class ClassMapping:
    """Finds the label of each class.

    A class is the label of that name or alias; else the one label of the same words, so that
    "traffic_light" is "Traffic Light".

    Attributes:
        config: the project's.
        renamed: class -> label, as the caller wants it; an empty label leaves the class out.
        controls: names of the controls to draw with, the first of them that has the label; empty:
            any, masks before outlines before boxes.
    """

    config: LabelConfig
    renamed: Mapping[str, str] = field(default_factory=dict)
    controls: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = {control.name for control in self._all_controls()}
        for name in self.controls:
            if name not in known:
                raise DatasetError(
                    f'The labeling config has no control "{name}" that is drawn on a picture; it '
                    f"has {', '.join(sorted(known))}."
                )

    def leaves_out(self, name: str) -> bool:
        """Return whether the caller wants nothing of a class."""
        return self.renamed.get(name) == ""

    def target(self, name: str, tag: str) -> Target:
        """Return where the regions of a class go on an image.

        Args:
            name: of the class.
            tag: name of the image tag.

        Raises:
            DatasetError: no label of the image fits, or several do.
        """
        wanted = self.renamed.get(name, name)
        controls = [each for each in self._chosen_controls() if tag in each.to_names]
        targets = [Target(control, label) for control in controls for label in control.labels]
        exact = [each for each in targets if wanted in each.label.spellings]
        found = exact or [each for each in targets if _spoken(wanted) in _spoken_names(each.label)]
        labels = {each.label.name for each in found}
        if len(labels) == 1:
            return found[0]
        if labels:
            raise DatasetError(
                f'The class "{name}" could be the labels {_quoted(sorted(labels))}: say which by '
                f'--map "{name}=LABEL".'
            )
        drawn_by = f"of {' and '.join(self.controls)}" if self.controls else _DRAWN_BY
        found_none = f'The class "{name}" is no label'
        if wanted != name:
            found_none = f'"{wanted}", which --map names for the class "{name}", is no label'
        raise DatasetError(
            f"{found_none} {drawn_by}, which have "
            f"{_quoted(sorted({each.label.name for each in targets}))}: name one by --map "
            f'"{name}=LABEL", or leave the class out by --map "{name}=".'
        )

    def _chosen_controls(self) -> Iterator[Control]:
        """Iterate over the controls to draw with, the preferred ones first."""
        if not self.controls:
            yield from self._all_controls()
        for name in self.controls:
            yield from (each for each in self._all_controls() if each.name == name)

    def _all_controls(self) -> tuple[Control, ...]:
        return (*self.config.controls, *self.config.boxes)


def _spoken(text: str) -> str:
    return words(text).replace("-", " ").casefold()


def _spoken_names(label: ControlLabel) -> set[str]:
    return {_spoken(each) for each in label.spellings}


def _quoted(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f'"{name[:60]}"' for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
