"""Export a learned version to a JSON file, and read it back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from backend.errors import BadRequest
from backend.feedback.learning.versions import Version
from backend.settings import Settings
from clearclip_core import Adaptation

#: The form of an exported version.
_FORMAT: Final = 1


def export(settings: Settings, version: Version, adaptation: Adaptation | None, key: str) -> bytes:
    """Return the JSON file of a version.

    Args:
        settings: name model, method and image size.
        version: what was learned.
        adaptation: what it adds to scores; None where it is not better than the words alone.
        key: of the model in use, see `backend.feedback.learning.model_key.model_key`.
    """
    value = {
        "format": _FORMAT,
        "model": {
            "name": settings.model,
            "method": settings.method,
            "short_side_px": settings.short_side_px,
            "key": key,
        },
        "annotations": version.annotations,
        "pictures": version.pictures,
        "digest": version.digest,
        "text_iou": version.text_iou,
        "adapted_iou": version.adapted_iou,
        "text_ious": dict(version.text_ious),
        "adapted_ious": dict(version.adapted_ious),
        "thresholds": dict(version.thresholds),
        "adapted_thresholds": dict(version.adapted_thresholds),
        "adaptation": (
            None if adaptation is None else base64.b64encode(adaptation.to_bytes()).decode()
        ),
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def read_export(
    data: bytes, key: str, width: int | None = None
) -> tuple[Version, Adaptation | None]:
    """Read what `export` wrote.

    Args:
        data: the file's bytes.
        key: of the model in use, see `backend.feedback.learning.model_key.model_key`.
        width: numbers in a feature of the model in use, where that is known.

    Raises:
        BadRequest: it is no such file, or of another model.
    """
    try:
        value = json.loads(data)
        if value["format"] != _FORMAT:
            raise ValueError(f"format {value['format']!r}")
        if value["model"]["key"] != key:
            raise BadRequest(
                "Expected what was learned with this model, but got what was learned with "
                f"{_named(value['model'])}."
            )
        packed = value["adaptation"]
        adaptation = None
        if packed is not None:
            adaptation = Adaptation.from_bytes(base64.b64decode(packed, validate=True), width)
            if not adaptation.is_finite:
                raise ValueError("numbers that are none")
        version = Version(
            annotations=_count(value["annotations"]),
            pictures=_count(value["pictures"]),
            digest=str(value["digest"])[:64],
            better=adaptation is not None,
            text_iou=_share(value["text_iou"]),
            adapted_iou=_share(value["adapted_iou"]),
            text_ious=_shares(value["text_ious"]),
            adapted_ious=_shares(value["adapted_ious"]),
            thresholds=_shares(value["thresholds"]),
            adapted_thresholds=_shares(value["adapted_thresholds"]),
            origin="import",
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRequest(
            f"Expected a file of `clearclip-backend adapt export`, but got another ({error})."
        ) from None
    return version, adaptation


def _named(model: Mapping[str, Any]) -> str:
    parts = (model.get("name"), model.get("method"), model.get("short_side_px"))
    name, method, side = (str(part)[:100] for part in parts)
    return f"{name}, {method}, {side} px, or other weights of that name"


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"{str(value)[:50]!r} is no number of things")
    return value


def _share(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{str(value)[:50]!r} is no number from 0 to 1")
    return float(value)


def _shares(value: Any) -> dict[str, float]:
    shares = {str(name): _share(each) for name, each in value.items()}
    return {name: each for name, each in shares.items() if each is not None}
