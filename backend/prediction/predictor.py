"""From a request to its predictions: the whole way in, one line a stage."""

import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.errors import Busy, ImageRefused, ModelUnavailable, TaskError
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.prompts import PromptRequest
from backend.label_studio.requests import PredictRequest, Task
from backend.learning.versions import ActiveModel, VersionStore
from backend.prediction.batches import Entry, Outcome, TaskRunner
from backend.prediction.images import PredictionSpec, TaskImageReader
from backend.prediction.masks import ImagePrediction, ImagePredictor, LabelMask
from backend.projects.task_scope import TaskScope
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker, TrackedTask

log = logging.getLogger(__name__)


class Predictor:
    """Answers requests for predictions.

    Args:
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        recall_image: reads images that annotators have open, which may be asked for again soon;
            `read_image` by default.
        task_runner: runs the tasks of requests without a prompt; by default it waits for all of
            them.
        tracker: records the end of each task; one of the predictor's own by default.
        learned: what projects have learned; by default none has learned anything.
        scope: says which tasks get no prediction for now; by default all get one.
    """

    def __init__(
        self,
        engine: Engine,
        read_image: ReadImage,
        settings: Settings,
        *,
        recall_image: ReadImage | None = None,
        task_runner: TaskRunner | None = None,
        tracker: TaskTracker | None = None,
        learned: VersionStore | None = None,
        scope: TaskScope | None = None,
    ) -> None:
        self._engine = engine
        self.settings = settings
        self._task_runner = task_runner or TaskRunner()
        self._tracker = tracker or TaskTracker()
        self._scope = scope
        self._images = TaskImageReader(
            engine, read_image, recall_image or read_image, settings.download_timeout_s
        )
        self._masks = ImagePredictor(engine, settings)
        self.versions = ModelVersions(settings, lambda: engine.model_id, learned)

    def predict(self, request: PredictRequest) -> list[Entry]:
        """Return one entry for each task in their order; ``[]`` for a task that fails.

        An editor's ``capabilities`` needs no task: one entry answers it.
        """
        config, project, prompt = request.config, request.project_id, request.prompt
        if request.event == "capabilities":
            return [capabilities(self.settings, config)]
        if request.event and prompt is None:
            return [{"result": []} for _ in request.tasks]
        learned = self.versions.active_model(config, project)
        spec = self.spec(config, priority(request), project, learned, prompt)
        if prompt is not None:
            return [self.outcome(task, spec).entry for task in request.tasks]
        return self._predict_tasks(request, spec)

    def _predict_tasks(self, request: PredictRequest, spec: PredictionSpec) -> list[Entry]:
        """Return one entry for each task in their order, ``[]`` for those that are withheld."""
        withheld = self._withheld(request)
        wanted = [task for task in request.tasks if task.id not in withheld]
        outcomes = iter(self.outcomes(wanted, spec, request.waited_s))
        return [[] if task.id in withheld else next(outcomes).entry for task in request.tasks]

    def _withheld(self, request: PredictRequest) -> set[int]:
        """Return the tasks that an experiment wants without a prediction."""
        if self._scope is None:
            return set()
        ids = [task.id for task in request.tasks if isinstance(task.id, int)]
        try:
            return self._scope.withhold(request.project_id, ids)
        except SQLAlchemyError as error:  # away: whoever waits is answered
            log.warning("No prediction is withheld: %s", error_message(error))
            return set()

    def warm_up(self, config: LabelConfig) -> None:
        """Have the words of a labeling config embedded before its first image; never wait."""
        for tag in config.images:
            self._engine.warm_up(config.labels_of(tag.name))

    def spec(
        self,
        config: LabelConfig,
        priority: Priority,
        project: int | None,
        learned: ActiveModel | None,
        prompt: PromptRequest | None = None,
    ) -> PredictionSpec:
        """Return a spec with one version for all tasks, whatever the project learns meanwhile."""
        return PredictionSpec(
            config,
            self.versions.of(config, learned),
            priority,
            project,
            prompt,
            None if learned is None else learned.adaptation,
        )

    def outcomes(
        self, tasks: Sequence[Task], spec: PredictionSpec, waited_s: float = 0.0
    ) -> list[Outcome]:
        """Return the outcomes of the tasks of a request, which has waited for `waited_s`."""
        return self._task_runner.run(tasks, spec, self.outcome, waited_s)

    def outcome(self, task: Task, spec: PredictionSpec) -> Outcome:
        """Return the outcome of one task; its errors cost no other task."""
        with self._tracker.task(task.id, spec.project, spec.priority.word) as work:
            try:
                return self._predict_task(task, spec, work)
            except TaskError as error:
                work.failed(error)
                return Outcome([], str(error), may_pass=isinstance(error, ImageRefused))
            except (Busy, ModelUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 -- the task tracker logs it
                work.failed(error)
                return Outcome([], f"Unexpected {type(error).__name__}: see the backend's log.")

    def prompted_masks(
        self, task: Task, config: LabelConfig, project: int, prompt: PromptRequest
    ) -> list[LabelMask]:
        """Answer a click or a box on a task by masks, as the editor's smart tools get them.

        Args:
            task: the task.
            config: its project's labeling config.
            project: number of the project.
            prompt: what was clicked on.

        Returns:
            A mask for each image that was found; none where nothing was.

        Raises:
            TaskError: the image cannot be read.
        """
        learned = self.versions.active_model(config, project)
        spec = self.spec(config, Priority.INTERACTIVE, project, learned, prompt)
        masks: list[LabelMask] = []
        for image in self._images.read(task, spec):
            if isinstance(image, TaskError):
                raise image
            masks += self._masks.find_masks(image, spec)
        return masks

    def _predict_task(self, task: Task, spec: PredictionSpec, work: TrackedTask) -> Outcome:
        """Return the prediction of a task's images, or the answer to a prompt.

        An image that is missing or refused costs no other one of its task.
        """
        images: list[ImagePrediction] = []
        errors: list[TaskError] = []

        for image in self._images.read(task, spec):
            if isinstance(image, TaskError):
                errors.append(image)
            else:
                images.append(self._masks.predict_image(image, spec))

        refused = _refused(errors)
        if errors and not images:
            raise refused[0] if refused else errors[0]

        work.regions, work.images = sum(len(image.regions) for image in images), len(images)
        entry = _entry(images, spec.version)
        if not errors:
            return Outcome(entry)

        missing = _missing(errors, len(images))
        work.incomplete(missing)
        return Outcome(entry, missing=str(missing), may_pass=bool(refused))


def _refused(errors: Sequence[TaskError]) -> list[ImageRefused]:
    """Return the errors of images that may be read another time."""
    return [each for each in errors if isinstance(each, ImageRefused)]


def _entry(images: Sequence[ImagePrediction], version: str) -> Entry:
    """Return what Label Studio is given for a task, by the predictions of its images."""
    result = [entry for image in images for region in image.regions for entry in region.entries()]
    return {"model_version": version, "score": _mean_score(images), "result": result}


def _mean_score(images: Sequence[ImagePrediction]) -> float:
    """Return the mean score of a task's images, each as much as its pixels; 0 without any."""
    pixels = sum(image.pixels for image in images)
    total = sum(image.score * image.pixels for image in images)
    return round(total / pixels, 6) if pixels else 0.0


def _missing(errors: Sequence[TaskError], predicted: int) -> TaskError:
    """Return an error of the first one's class that names all images that are not predicted."""
    reasons = " ".join(dict.fromkeys(map(str, errors)))
    total = predicted + len(errors)
    return type(errors[0])(f"Predicted without {len(errors)} of {total} pictures: {reasons}")


def priority(request: PredictRequest) -> Priority:
    """Return who waits: an annotator who has clicked, one who has opened a task, or nobody."""
    if request.event:
        return Priority.INTERACTIVE
    return Priority.OPENED if len(request.tasks) < 2 else Priority.BATCH


#: Controls that the contract names and the backend draws, and the form of their answers. Brush
#: regions have no name there.
_TARGETS: Final = {"BitmaskLabels": "mask", "RectangleLabels": "bbox", "PolygonLabels": "polygon"}


def capabilities(settings: Settings, config: LabelConfig) -> dict[str, Any]:
    """Return the entry that answers ``capabilities``: the targets that the labeling config has.

    It has all where the config has none of them: brush regions have no name in the contract.
    """
    kinds = {control.kind for control in config.controls}
    there = [tag for tag in _TARGETS if tag.lower() in kinds] or _TARGETS
    value = {
        "prompts": ["point", "box"],
        "targets": [{"tag": tag, "output": _TARGETS[tag]} for tag in there],
        "model_info": {"name": "ClearCLIP", "version": f"{settings.model} {settings.method}"},
    }
    region = {"id": secrets.token_hex(4), "type": "capabilities", "origin": "manual"}
    return {"result": [region | {"value": value}]}


# ---- the model version ---------------------------------------------------------------------------

_ALGORITHM: Final = 3  # raised by one whenever the same settings would give other masks than before


class ModelVersions:
    """Tells which version the predictions of a project have, and what they follow."""

    def __init__(
        self, settings: Settings, model_id: Callable[[], str], learned: VersionStore | None
    ) -> None:
        self._settings = settings
        self._model_id = model_id
        self._learned = learned

    def current(self, config: LabelConfig, project: int | None = None) -> str:
        """Return the version of predictions made now; see `of`."""
        return self.of(config, self.active_model(config, project))

    def active_model(
        self, config: LabelConfig, project: int | None, keep: str = ""
    ) -> ActiveModel | None:
        """Return what predictions of a project follow beside the words; None for the words alone.

        Args:
            keep: the version of a job that has begun. Where only the learned model has changed
                since, that version's model is returned in place of the live one.
        """
        if self._learned is None:
            return None
        live = self._learned.active(project, config.adapt)
        if keep in ("", self.of(config, live)):
            return live
        for earlier in self._learned.earlier(project, config.adapt):
            if self.of(config, earlier) == keep:
                return earlier
        return live

    def of(self, config: LabelConfig, learned: ActiveModel | None) -> str:
        """Return model, method, and a hash of weights, settings, vocabulary and learned model.

        Equal versions mean equal masks, up to rounding on another device or in another precision.
        The version is known before the weights are loaded. Where a project has learned, it ends
        with the number of annotations learned from, and of the version: ``demo clearclip 1a2b3c4d
        +20 v2``.
        """
        settings = self._settings
        parts = [
            _ALGORITHM,
            self._model_id(),
            settings.method,
            settings.resized_px,
            settings.templates,
            settings.min_island_share,
            settings.refine,
            settings.propagate,
            config.score,
            0.0,  # a weight that 0.2.0 had: equal predictions keep their version
            _config_parts(config),
            None if learned is None else learned.adaptation.digest,
        ]
        if settings.regions:
            parts.append(f"regions of {settings.click_model}")

        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
        count = "" if learned is None else f" +{learned.annotations} v{learned.number}"
        return f"{settings.model} {settings.method} {digest[:8]}{count}"


def _config_parts(config: LabelConfig) -> list[Any]:
    """Return the parts of a labeling config that change masks: not the labels' colours."""
    controls = []
    for control in config.controls:
        labels = tuple(replace(own, colour="") for own in control.labels)
        written = msgspec.to_builtins(replace(control, labels=labels))
        if not control.has_instances:
            del written["has_instances"]  # versions of before had no such key
        controls.append(written)
    return [config.images, controls, config.labels]
