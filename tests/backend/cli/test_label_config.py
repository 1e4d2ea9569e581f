"""The labeling config that `demo` and `export` make."""

from __future__ import annotations

from backend.cli.export import label_config
from backend.label_studio.label_config_parser import parse_label_config


def test_the_label_config_has_tools_that_ask_for_every_label() -> None:
    config = parse_label_config(label_config(["sky", "tree"]))
    assert [control.kind for control in config.controls] == ["brushlabels"]
    for name in ("click", "box"):
        tool = config.tool(name)
        assert tool is not None
        assert [label.name for label in tool.labels] == ["sky", "tree"]
    assert config.tool("words") is not None
