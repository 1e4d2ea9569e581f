"""The pipeline's label-studio-ml face, for those who host their models with that package.

Importing this imports label-studio-ml, whose 2.x opens a SQLite file in ``MODEL_DIR`` when it is
imported; without that variable, in the current folder. So it gets the backend's own ``MODEL_DIR``.
The server of `create_app` does without label-studio-ml.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import read_predict_request
from backend.prediction.predictor import Predictor
from backend.prediction.task_runner import Entry
from backend.services import Services
from backend.settings import load_settings, share_model_dir

share_model_dir()
from label_studio_ml.model import LabelStudioMLBase  # noqa: E402


class ClearClipModel(LabelStudioMLBase):  # type: ignore[misc]
    """Predicts like `create_app`, one instance a label config; works with label-studio-ml 1 and 2.

    label-studio-ml makes an instance for each project or request. They share one pipeline, which
    the environment's settings describe, made when the first of them predicts.
    """

    _shared: ClassVar[Predictor | None] = None
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, *args: Any, label_config: str | None = None, **kwargs: Any) -> None:
        # label-studio-ml 2 keeps one config a project, and so none to rely on where none is named.
        self._own_config = label_config
        super().__init__(*args, label_config=label_config, **kwargs)

    @classmethod
    def use(cls, predictor: Predictor | None) -> None:
        """Share this pipeline instead of one made from the environment; None forgets it."""
        ClearClipModel._shared = predictor

    def setup(self) -> None:
        """Tell label-studio-ml 2 the model's version; it calls this at the end of its own init."""
        if self._config:
            self.set("model_version", self.version())

    def version(self) -> str:
        """The ``model_version`` of this label config, as /setup answers it."""
        return self._predictor().versions.current(parse_label_config(self._config))

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Entry]:
        """One entry a task, see `Predictor.predict`; waits for the model.

        Args:
            tasks: as Label Studio sends them.
            context: what an annotator drew or typed in the editor.
            kwargs: what else label-studio-ml hands on; not used.
        """
        message = {"tasks": tasks, "label_config": self._config}
        return self._predictor().predict(
            read_predict_request(message | {"params": {"context": context}})
        )

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing is trained; the method is training-free."""
        return {}

    @property
    def _config(self) -> str:
        return self._own_config or self.label_config or ""

    @classmethod
    def _predictor(cls) -> Predictor:
        with cls._making:
            if ClearClipModel._shared is None:
                services = Services(load_settings())
                services.engine.start()
                ClearClipModel._shared = services.database_free_predictor()
            return ClearClipModel._shared
