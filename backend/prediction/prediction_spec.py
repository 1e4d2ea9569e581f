"""The values that a prediction works on: the spec of a request, and the images of its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.inference.image_request import Priority
from backend.label_studio.label_config import Control, LabelConfig
from backend.label_studio.requests import Task
from backend.prediction.prompt_parser import PromptRequest
from clearclip_core import Adaptation, Label, PreparedImage, RGBArray, ScoreOptions


@dataclass(frozen=True)
class PredictionSpec:
    """What all tasks of a request share.

    Attributes:
        config: the label config, with the thresholds that its project has learned.
        version: the ``model_version`` of the predictions.
        priority: the most urgent is served first.
        project: projects of one priority take turns.
        prompt: an annotator's prompt; None where all labels are predicted.
        adaptation: what scores follow beside the words; None for the words alone.
        options: what else counts in scores beside the words.
    """

    config: LabelConfig
    version: str
    priority: Priority
    project: int | None
    prompt: PromptRequest | None = None
    adaptation: Adaptation | None = None
    options: ScoreOptions = field(default_factory=ScoreOptions)

    def draws(self, control: Control) -> bool:
        """Return whether a control has regions: all answer prompts, some are not predicted."""
        return self.prompt is not None or control.is_predicted


@dataclass(frozen=True, eq=False)
class TaskImage:
    """One image of a task, with its part of the label config.

    Attributes:
        tag: name of the image tag.
        controls: the controls for the image that are drawn.
        labels: the labels that compete on it.
        item_index: its index in a list; None where the task has no list there.
        rgb: (H, W, 3) uint8.
        prepared: the image as the model takes it.
        task: its task.
    """

    tag: str
    controls: tuple[Control, ...]
    labels: tuple[Label, ...]
    item_index: int | None
    rgb: RGBArray
    prepared: PreparedImage
    task: Task

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.rgb.shape[:2]
        return height, width
