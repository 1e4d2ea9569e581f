"""The ``model_version`` of predictions: a hash of all that changes masks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any, Final

from cachetools import TTLCache

from backend.label_studio.label_config import ControlLabel, LabelConfig, adapt_mode, score_options
from backend.learning.versions import ActiveModel, VersionStore
from backend.prediction.images import score_kind
from backend.settings import Settings
from clearclip_core import resolve_method
from clearclip_core.clip.sink_channels import sink_channels

#: Versions of `ModelVersions.current` that are kept, and for how long, in seconds.
_KEPT: Final = 64
_KEPT_FOR_S: Final = 1.0

#: Raised by one whenever the same settings would give other masks than before.
_ALGORITHM = 2

#: In place of `True` for refined masks: raised by one where they alone change, the others' versions
#: stay.
_REFINEMENT: Final = 2

#: In place of `_ALGORITHM` for a preset whose masks alone have changed: the others' versions stay.
_ALGORITHM_OF_PRESETS: Final = {"clipsurgery": 3}


class ModelVersions:
    """Tells which version the predictions of a project have, and what they follow.

    Args:
        model_id: identifies the weights; raises `ModelUnavailable` where they are not there.
        learned: what projects have learned; None where none has learned anything.
    """

    def __init__(
        self, settings: Settings, model_id: Callable[[], str], learned: VersionStore | None
    ) -> None:
        self._settings = settings
        self._model_id = model_id
        self._learned = learned
        self._lock = threading.Lock()
        self._current: TTLCache[tuple[int | None, LabelConfig], str] = TTLCache(_KEPT, _KEPT_FOR_S)

    def current(self, config: LabelConfig, project: int | None = None) -> str:
        """Return the version of predictions made now, or a second ago; see `of`.

        Label Studio asks for it each time an editor is opened. To read what a project has learned
        takes little, but much longer where many threads wait for the interpreter.
        """
        key = project, config
        with self._lock:
            known = self._current.get(key)
        if known is not None:
            return known
        version = self.of(config, self.active_model(config, project))
        with self._lock:
            self._current[key] = version
        return version

    def is_wanted(self, version: str, config: LabelConfig, project: int | None) -> bool:
        """Return whether a version is the current one, or was before the last training step."""
        learned = self.active_model(config, project, keep=version)
        return self.of(config, learned) == version

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
        mode = adapt_mode(self._settings, config)
        live = self._learned.active(project, mode)
        if keep in ("", self.of(config, live)):
            return live
        for earlier in self._learned.earlier(project, mode):
            if self.of(config, earlier) == keep:
                return earlier
        return live

    def of(self, config: LabelConfig, learned: ActiveModel | None) -> str:
        """Return model, method, and a hash of weights, settings, vocabulary and learned model.

        Equal versions mean equal masks, up to rounding on another device or in another precision.
        The version is known before the weights are loaded. Where a project has learned, it ends
        with the number of annotations learned from, and of the version: ``demo clearclip 1a2b3c4d
        +20 v2``.

        Args:
            learned: from `active_model`.
        """
        settings = self._settings
        parts: list[Any] = [
            _ALGORITHM_OF_PRESETS.get(settings.method, _ALGORITHM),
            self._model_id(),
            settings.method,
            settings.short_side_px,
            settings.templates,
            settings.min_island_share,
            settings.refine and _REFINEMENT,
            _config_parts(config),
        ]
        if (score := score_kind(settings, config)) != "confidence":
            parts.append(score)
        if resolve_method(settings.method).repair == "sinks":
            parts.append({"sinks": sink_channels(settings.model, settings.model_dir)})
        if settings.propagate:
            parts.append("propagate")
        options = score_options(settings, config)
        for name in ("presence", "join_synonyms"):
            if value := getattr(options, name):
                parts.append({name: value})
        if learned is not None:
            parts.append(learned.adaptation.digest)
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        count = "" if learned is None else f" +{learned.annotations} v{learned.number}"
        return f"{settings.model} {settings.method} {digest[:8]}{count}"


def _config_parts(config: LabelConfig) -> list[list[dict[str, Any]]]:
    """Return the parts of a label config that change masks; these names are part of the hash.

    A part for an attribute or a meaning that came later stands there only where it is used.
    """
    return [
        [{"name": image.name, "value": image.value} for image in config.images],
        [
            {
                "kind": control.kind,
                "name": control.name,
                "to_names": control.to_names,
                "labels": [_label_parts(own) for own in control.labels],
                "overlap": control.overlap,
                **({} if control.is_predicted else {"is_predicted": False}),
                **({"tool": control.tool} if control.tool else {}),
            }
            for control in config.controls
        ],
        [
            {"name": label.name, "prompts": label.prompts, "background": label.background}
            for label in config.labels
        ],
    ]


def _label_parts(own: ControlLabel) -> dict[str, Any]:
    parts: dict[str, Any] = {"name": own.name, "written": own.written, "threshold": own.threshold}
    if own.is_never_predicted:
        parts["is_never_predicted"] = True
    return parts
