"""Adapt the predictor to label-studio-ml, for servers that host their models with that package.

This module imports label-studio-ml. Its version 2 opens an SQLite file in ``MODEL_DIR`` when it is
imported, or in the current folder without that variable. So ``MODEL_DIR`` is set first, to the
folder of the backend. The server of `create_app` does not use label-studio-ml.
"""

import json
import threading
from typing import Any, ClassVar

from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import parse_predict
from backend.prediction.batches import Entry
from backend.prediction.predictor import Predictor
from backend.services import Services
from backend.settings import load_settings, share_model_dir

share_model_dir()
from label_studio_ml.model import LabelStudioMLBase  # noqa: E402


class ClearClipModel(LabelStudioMLBase):  # type: ignore[misc]
    """Predicts as the server does; works with label-studio-ml 1 and 2.

    label-studio-ml makes an instance for each project or request. All instances share one
    predictor, which is made from the settings of the environment when the first of them predicts.
    """

    _shared: ClassVar[Predictor | None] = None
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, *args: Any, label_config: str | None = None, **kwargs: Any) -> None:
        # label-studio-ml 2 keeps one config for each project: not to be relied on without one.
        self._own_config = label_config
        super().__init__(*args, label_config=label_config, **kwargs)

    @classmethod
    def use(cls, predictor: Predictor | None) -> None:
        """Share this predictor in place of one made from the environment; None: make a new one."""
        ClearClipModel._shared = predictor

    def setup(self) -> None:
        """Tell label-studio-ml 2 the model version; it calls this at the end of its own init."""
        if self._config:
            self.set("model_version", self.version())

    def version(self) -> str:
        """Return the ``model_version`` of this labeling config, as /setup answers it."""
        predictor = self._predictor()
        return predictor.versions.current(parse_label_config(self._config, predictor.settings))

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Entry]:
        """Return one entry for each task, see `Predictor.predict`; it waits for the model.

        `context` is the prompt of an annotator: regions drawn or words typed in the editor.
        """
        message = {"tasks": tasks, "label_config": self._config, "params": {"context": context}}
        predictor = self._predictor()
        return predictor.predict(parse_predict(json.dumps(message).encode(), predictor.settings))

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Train nothing: the method is training-free."""
        return {}

    @property
    def _config(self) -> str:
        return self._own_config or self.label_config or ""

    @classmethod
    def _predictor(cls) -> Predictor:
        with cls._making:
            if ClearClipModel._shared is None:
                services = Services(load_settings(), answers_clicks=True)
                services.engine.start()
                ClearClipModel._shared = services.predictor(uses_database=False)
            return ClearClipModel._shared
