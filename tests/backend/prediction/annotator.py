"""An annotator who asks a served stand-in as Label Studio would, and what is asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface

from backend import create_app
from backend.inference.engine import Engine
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import Context, parse_prompt
from backend.label_studio.requests import PredictRequest, Task
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import RGB, colour_engine, data_url
from tests.e2e.masks import Mask
from tests.e2e.masks import decode as mask_of

LABELS = '<Label value="red"/><Label value="blue"/>'
TOOLS = (
    f'<KeyPointLabels name="click" toName="image" smart="true">{LABELS}</KeyPointLabels>'
    f'<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>'
    '<TextArea name="words" toName="image"/>'
)
IMAGE = '<Image name="image" value="$image"/>'
BRUSH = f'<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>'
CONFIG = f"<View>{IMAGE}{BRUSH}{TOOLS}</View>"


@dataclass(frozen=True)
class RequestWithConfig(PredictRequest):
    """A request that keeps the XML of its labeling config."""

    xml: str = ""


def request_for(
    xml: str, *tasks: Task, project: int = 1, context: Context | None = None, **settings: Any
) -> RequestWithConfig:
    """A request as it is parsed, with what the settings give."""
    config = parse_label_config(xml, Settings(**settings))
    event, prompt = (context.event, parse_prompt(context, config)) if context else ("", None)
    return RequestWithConfig(tasks, config, project, event, prompt, xml=xml)


def config_of(*controls: str) -> str:
    return f"<View>{IMAGE}{''.join(controls)}{TOOLS}</View>"


def keypoint(
    x: float, y: float, label: str = "red", positive: bool = True, **changes: Any
) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return _region("keypointlabels", "click", value) | {"is_positive": positive} | changes


def rectangle(
    x: float, y: float, width: float, height: float, label: str = "red", rotation: float = 0
) -> dict[str, Any]:
    sides = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return _region("rectanglelabels", "box", sides | {"rectanglelabels": [label]})


def textarea(*texts: str) -> dict[str, Any]:
    return _region("textarea", "words", {"text": list(texts)})


def _region(kind: str, control: str, value: dict[str, Any]) -> dict[str, Any]:
    size = {"original_width": 60, "original_height": 40}
    place = {"id": "k", "type": kind, "from_name": control, "to_name": "image"}
    return {**place, **size, "value": value}


class Annotator:
    def __init__(self, engine: Engine | None = None, **settings: Any) -> None:
        self.client: FlaskClient = create_app(
            Settings(**{"min_island_share": 0, **settings}), engine or colour_engine()
        ).test_client()

    def asks(
        self, image: RGBArray | str, *context: Any, config: str = CONFIG, **task: Any
    ) -> list[dict[str, Any]]:
        params = {"context": {"result": list(context)}}
        entry = self._entry(image, config, task, params=params)
        if "score" in entry:
            assert LabelInterface(config).validate_prediction(entry)
            assert 0 <= entry["score"] <= 1
        return list(entry["result"])

    def tells(self, event: str, config: str, *prompts: Any) -> dict[str, Any]:
        params = {"context": {"event": event, "result": list(prompts)}}
        return self._entry(TWO, config, {}, params=params)

    def predicted(self, image: RGBArray, config: str = CONFIG) -> list[dict[str, Any]]:
        entry = self._entry(image, config, {})
        assert LabelInterface(config).validate_prediction(entry)
        return list(entry["result"])

    def _entry(
        self, image: RGBArray | str, config: str, task: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        url = image if isinstance(image, str) else data_url(image)
        tasks = [{"id": 1, "project": 1, "data": {"image": url}, **task}]
        body = {"tasks": tasks, "label_config": config, "project": "1.7", **more}
        (entry,) = self.client.post("/predict", json=body).get_json()["results"]
        return dict(entry)

    def mask(self, image: RGBArray | str, *context: Any, **options: Any) -> Mask:
        (region,) = self.asks(image, *context, **options)
        return mask_of(region)


def painted(size_hw: tuple[int, int], **boxes: tuple[int, int, int, int]) -> RGBArray:
    """Boxes of colours (left, top, right, bottom in px) on black."""
    image = np.zeros((*size_hw, 3), np.uint8)
    for colour, (left, top, right, bottom) in boxes.items():
        image[top:bottom, left:right] = RGB[colour]
    return image


def of_colour(image: RGBArray, colour: str) -> Mask:
    return (image == RGB[colour]).all(axis=-1)  # type: ignore[no-any-return]


TWO = painted((120, 200), red=(20, 30, 80, 100), blue=(120, 20, 190, 70))
CENTRE = 25, 50  # of the red box, in percent


def words_config(*labels: str, prompt_label: str = "") -> LabelConfig:
    attribute = f'prompt_label="{prompt_label}"' if prompt_label else ""
    return parse_label_config(
        f'<View>{IMAGE}<BrushLabels name="mask" toName="image">{"".join(labels)}</BrushLabels>'
        f'<TextArea name="words" toName="image" {attribute}/></View>',
        None,
    )


CAR = '<Label value="Car" predicted_values="car, van"/>'
LIGHT = '<Label value="TrafficLight" alias="tl"/>'
TREE = '<Label value="Veg" alias="tree" predicted_values="tree, bush"/>'
REST = '<Label value="background"/>'
STREET = words_config(CAR, LIGHT, TREE, REST)
