"""Answer what this backend can be asked for, in the form of Label Studio's interactive contract.

Source: the example ``segment_anything_video_interactive`` of label-studio-ml-backend. An editor
that knows the contract asks ``context.event == "capabilities"`` once for each backend, and offers
the prompts for those controls of a labeling config that the answer names.
"""

from __future__ import annotations

import secrets
from typing import Any

from backend.settings import Settings

#: Shapes of regions that an annotator may ask with.
_PROMPTS = ("point", "box")
#: Controls that the contract names and the backend draws, and the form of their answers. Brush
#: regions have no name there.
_TARGETS = (("BitmaskLabels", "mask"), ("RectangleLabels", "bbox"), ("PolygonLabels", "polygon"))


def capabilities(settings: Settings) -> dict[str, Any]:
    """Return the entry that answers ``capabilities``; it depends on no task and no label config."""
    value = {
        "prompts": list(_PROMPTS),
        "targets": [{"tag": tag, "output": output} for tag, output in _TARGETS],
        "model_info": {"name": "ClearCLIP", "version": f"{settings.model} {settings.method}"},
    }
    region = {
        "id": secrets.token_hex(4),
        "type": "capabilities",
        "origin": "manual",
        "value": value,
    }
    return {"result": [region]}
