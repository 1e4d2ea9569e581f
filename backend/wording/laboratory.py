"""Try wordings of a label, or check all words, on pictures of a project."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch

from backend.errors import LabelConfigError
from backend.inference.engine import Engine
from backend.inference.image_request import EncodedImage, Priority
from backend.label_studio.annotations import AnnotatedProject
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig, score_options
from backend.label_studio.label_config_edit import with_words
from backend.label_studio.label_config_parser import parse_label_config
from backend.prediction.images import least_thresholds, prediction_rule
from backend.settings import Settings
from backend.wording.preview import preview
from backend.wording.trial_pictures import PictureChooser, TrialPicture
from backend.wording.wording_report import PictureTrial, Trial, WordingReport
from backend.wording.wording_request import Wording, WordingRequest
from clearclip_core import Label, PreparedImage, RGBArray
from clearclip_core.evaluation.comparison import LabelFigures, PredictionRule, draw_masks, overlaps
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.wording.vocabulary_check import Swallowing, check_vocabulary, image_vector

#: Is told how many steps are done, of how many.
Advance = Callable[[int, int], None]

#: Pictures whose masks are shown side by side.
SHOWN: Final = 6


@dataclass(frozen=True, eq=False)
class Laboratory:
    """Measures words on pictures; writes nothing to Label Studio.

    What a project has learned is left out: the words alone are compared.

    Args:
        client: Label Studio.
        read_image: reads the images of tasks.
        engine: the owner of the model, started.
        settings: how masks are drawn.
    """

    client: LabelStudioClient
    read_image: ReadImage
    engine: Engine
    settings: Settings

    def measure(
        self, asked: WordingRequest, advance: Advance = lambda _done, _all: None
    ) -> WordingReport:
        """Measure what is asked for.

        Args:
            asked: the wordings, or the check of all words.
            advance: is told of the progress.

        Raises:
            LabelConfigError: the project has no such label, or nothing that is drawn.
            ModelUnavailable: the model has failed to load, or the engine has stopped.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
            ValueError: no picture can be read.
        """
        with ExitStack() as stack:
            xml = self.client.label_config(asked.project)
            return _Measurement(self, asked, xml, advance, stack).report()


@dataclass(eq=False)
class _Measurement:
    """One request on one label config."""

    laboratory: Laboratory
    asked: WordingRequest
    xml: str
    advance: Advance
    stack: ExitStack
    encoding_s: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config: LabelConfig = parse_label_config(self.xml)
        self.tag = self.config.images[0]
        self.labels = self.config.labels_of(self.tag.name)
        lab = self.laboratory
        project = AnnotatedProject(
            lab.client, lab.read_image, self.asked.project, self.config, self.tag
        )
        self.chooser = PictureChooser(project, self._describe)
        names = [label.name for label in self.labels]
        if self.asked.label and self.asked.label not in names:
            stripped = self.asked.label.strip()
            if stripped not in names:
                raise LabelConfigError(
                    f"The project has no label {self.asked.label!r}; it has {', '.join(names)}."
                )
            self.asked = replace(self.asked, label=stripped)
        self.index = names.index(self.asked.label) if self.asked.label else None

    def report(self) -> WordingReport:
        on = self.asked.on
        if on == "auto":
            on = "corrected" if self.chooser.has_corrected() else "diverse"
        report = WordingReport(
            self.asked.label, tuple(label.name for label in self.labels), on, config=self.xml
        )
        made = self._try_words if self.asked.label else self._check
        report = made(report, self._pictures(on))
        if not report.pictures:
            reasons = list(self.chooser.left_out.values())
            raise ValueError(
                f"No picture can be measured. {reasons[0]}"
                if reasons
                else "The project has no task with a picture."
                if on == "diverse"
                else "The project has no annotated task: try words on diverse pictures."
            )
        return replace(report, left_out=self.chooser.left_out, encoding_s=self.encoding_s)

    def _pictures(self, on: str) -> Iterator[TrialPicture]:
        if on == "corrected":
            return self.chooser.corrected(self.asked.pictures, self.index)
        return self.chooser.diverse(self.asked.pictures, self.advance)

    def _check(self, report: WordingReport, pictures: Iterator[TrialPicture]) -> WordingReport:
        engine, swallowing, count = self._engine(""), Swallowing(report.labels), 0
        for count, picture in enumerate(pictures, 1):
            prepared = engine.segmenter().prepare(picture.rgb)
            began = time.perf_counter()
            swallowing.add(self._encode(prepared, "", self.labels).scores)
            self.encoding_s += time.perf_counter() - began
            self.advance(count, self.asked.pictures)

        def embed(words: Sequence[str]) -> torch.Tensor:
            return engine.embed((Label("words", tuple(words)),))

        contrast = engine.segmenter().model.contrast
        return replace(
            report,
            check=check_vocabulary(embed, self.labels, contrast),
            swallowed=tuple(swallowing.found()),
            responses=tuple(swallowing.responses()),
            pictures=count,
        )

    def _try_words(self, report: WordingReport, pictures: Iterator[TrialPicture]) -> WordingReport:
        distinct: dict[tuple[tuple[str, ...], float, str], Trial] = {}
        for trial in map(self._trial, self.asked.trials):  # of today first, which may be asked for
            distinct.setdefault((trial.words, trial.threshold, trial.method), trial)
        trials = list(distinct.values())
        for count, picture in enumerate(pictures, 1):
            # Methods differ in how pictures are encoded, and not in how they are prepared.
            prepared = self._engine("").segmenter().prepare(picture.rgb)
            for method in dict.fromkeys(trial.wording.method for trial in trials):
                self._warm_up(prepared, method)
            measured = [self._measure(trial, picture, prepared, count) for trial in trials]
            trials = [
                replace(trial, pictures=(*trial.pictures, figures))
                for trial, figures in zip(trials, measured, strict=True)
            ]
            self.advance(count, self.asked.pictures)
            report = replace(report, pictures=count)
        return replace(report, trials=tuple(trials))

    def _trial(self, wording: Wording) -> Trial:
        assert self.index is not None
        words = wording.words or self.labels[self.index].prompts
        threshold = self._thresholds()[self.index]
        return Trial(
            wording,
            words,
            threshold if wording.threshold is None else wording.threshold,
            wording.method or self.laboratory.settings.method,
            with_words(self.xml, self.asked.label, words, wording.threshold)[1],
        )

    def _warm_up(self, prepared: PreparedImage, method: str) -> None:
        """Have the features of a picture in the cache, and count the time that it takes."""
        began = time.perf_counter()
        self._encode(prepared, method, self.labels)
        self.encoding_s += time.perf_counter() - began

    def _measure(
        self, trial: Trial, picture: TrialPicture, prepared: PreparedImage, number: int
    ) -> PictureTrial:
        """Measure a wording on a picture; the features are in the cache before it is timed."""
        assert self.index is not None
        method, labels = trial.wording.method, self._labels(trial)
        engine, rule = self._engine(method), self._rule(trial)
        segmenter = engine.segmenter()
        engine.embed(labels)
        began = time.perf_counter()
        scores = self._encode(prepared, method, labels).scores
        masks = draw_masks(segmenter, scores, picture.rgb, rule)
        milliseconds = 1000 * (time.perf_counter() - began)
        mask = masks.get(self.index)
        own = all_ = None
        if picture.truth is not None:
            found = overlaps(masks, picture.truth, len(labels))
            own = LabelFigures.of(found[self.index])
            all_ = LabelFigures.of(sum(found, MaskOverlap()))
        return PictureTrial(
            picture.task,
            0.0 if mask is None else float(np.count_nonzero(mask) / mask.size),
            milliseconds,
            own,
            all_,
            preview(picture.rgb, mask) if number <= SHOWN else "",
        )

    def _labels(self, trial: Trial) -> tuple[Label, ...]:
        return tuple(
            replace(label, prompts=trial.words) if label.name == self.asked.label else label
            for label in self.labels
        )

    def _rule(self, trial: Trial) -> PredictionRule:
        assert self.index is not None
        thresholds = self._thresholds()
        thresholds[self.index] = trial.threshold
        return prediction_rule(self.laboratory.settings, thresholds)

    def _thresholds(self) -> list[float]:
        controls = [each for each in self.config.controls_of(self.tag.name) if each.is_predicted]
        return least_thresholds(controls, self.labels)

    def _engine(self, method: str) -> Engine:
        """Return the engine of a method; one for another method than the backend's is started."""
        own = self.laboratory.engine
        if method in ("", self.laboratory.settings.method):
            return own
        if method not in self.engines:
            self.engines[method] = self.stack.enter_context(own.of_method(method))
        return self.engines[method]

    def _encode(
        self, prepared: PreparedImage, method: str, labels: tuple[Label, ...]
    ) -> EncodedImage:
        settings = self.laboratory.settings
        if method:
            settings = settings.model_copy(update={"method": method})
        return self._engine(method).encode(
            prepared,
            labels,
            Priority.BATCH,
            self.asked.project,
            options=score_options(settings, self.config),
        )

    def _describe(self, rgb: RGBArray) -> torch.Tensor:
        prepared = self._engine("").segmenter().prepare(rgb)
        began = time.perf_counter()
        encoded = self._encode(prepared, "", self.labels)
        self.encoding_s += time.perf_counter() - began
        return image_vector(encoded.features)
