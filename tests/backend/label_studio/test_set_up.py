"""Set projects up: annotations that came with their tasks, other names of the pictures."""

from collections.abc import Iterator
from typing import Any

import pytest

from backend.errors import LabelConfigError, StudioRefused
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.set_up import (
    connect,
    name_labels,
    offered_config,
    split_names,
    tools_advice,
)
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked


def studio_with(data: dict[str, Any], config: str) -> FakeStudio:
    return FakeStudio(config, {11: data})


@pytest.fixture
def brushes() -> FakeStudio:
    return studio_with({"image": "/data/upload/7/a.png"}, brush_config("red"))


@pytest.fixture
def client(brushes: FakeStudio) -> Iterator[LabelStudioClient]:
    with brushes.served() as server:
        yield LabelStudioClient(server.url, TOKEN, retry_for_s=0)


def test_tools_that_ask_are_offered_where_nothing_is_annotated(client: LabelStudioClient) -> None:
    assert offered_config(client, 7) is not None


def test_annotations_that_came_with_their_tasks_keep_their_controls(
    brushes: FakeStudio, client: LabelStudioClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio's summary leaves them out; in another control nobody would see them."""
    brushes.annotate(11, [])
    monkeypatch.setattr(
        brushes, "_summary", lambda: {"created_labels": {}, "created_annotations": {}}
    )
    assert not client.region_counts(7).created_labels
    assert offered_config(client, 7) is None


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"photo": "/data/upload/7/a.png"}, "photo"),
        ({"id": "7", "photo": "s3://bucket/a.png"}, "photo"),
        ({"page": "https://example.com/7", "photo": "/data/local-files/?d=a.png"}, "photo"),
        ({"page": "see a/b", "photo": "data:image/png;base64,AA/"}, "photo"),
        ({"source": "https://example.com/a", "image": "/data/upload/7/a.png"}, "image"),
        ({"$undefined$": "/data/upload/7/a.png"}, "image"),  # uploaded before there was a config
    ],
)
def test_the_config_names_the_data_that_the_tasks_have(data: dict[str, Any], key: str) -> None:
    studio = studio_with(data, "<View></View>")
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
        name_labels(client, 7, "sky; tree")
        config = client.label_config(7)
    assert f'value="${key}"' in config
    assert [each.name for each in parse_label_config(config, None).labels] == ["sky", "tree"]


@pytest.mark.parametrize("typed", ["sky, tree", "sky;tree;", "sky\ntree", "sky, sky, tree, ,"])
def test_labels_are_typed_in_any_way(typed: str) -> None:
    assert split_names(typed) == ("sky", "tree")


def test_labels_are_asked_for_where_there_are_none(
    brushes: FakeStudio, client: LabelStudioClient
) -> None:
    brushes.label_config = "<View></View>"
    with pytest.raises(LabelConfigError, match=r"^Project 7 has no labels yet\. Name them"):
        name_labels(client, 7, " , ")


# ---- the connection ------------------------------------------------------------------------------

HERE = "http://backend:9090"
OTHER = {"id": 1, "url": "http://another:9090", "title": "SAM", "state": "CO"}


def refuses_connections(asked: Asked) -> Answer | None:
    """Refuse to connect a backend, and store nothing."""
    is_change = asked.path.startswith("/api/ml") and asked.method != "GET"
    return Answer(403, b'{"detail": "no permission"}') if is_change else None


def test_a_connection_whose_webhook_is_refused_is_there(
    brushes: FakeStudio, client: LabelStudioClient
) -> None:
    assert "address is reserved" in connect(client, 7, HERE)
    assert [each["url"] for each in brushes.backends] == [HERE]


@pytest.mark.parametrize("there", [OTHER, OTHER | {"title": "ClearCLIP"}])
def test_a_refused_connection_is_no_success_beside_another_one(
    brushes: FakeStudio, client: LabelStudioClient, there: dict[str, Any]
) -> None:
    brushes.backends.append(there)
    brushes.fault = refuses_connections
    with pytest.raises(StudioRefused, match=f"did not connect {HERE}"):
        connect(client, 7, HERE)
    assert brushes.shows == ""


# ---- tools that ask ------------------------------------------------------------------------------

BRUSHES_AND_ASKING = brush_config("red").replace(
    "</View>",
    '<RectangleLabels name="box" toName="img" smart="true"><Label value="red"/></RectangleLabels>'
    "</View>",
)


def test_a_config_is_announced_where_it_is_offered() -> None:
    assert "clearclip-backend connect" in tools_advice(brush_config("red"), is_annotated=False)


def test_an_annotated_project_is_told_of_a_tool_by_hand() -> None:
    advice = tools_advice(brush_config("red"), is_annotated=True)
    assert "connect" not in advice
    assert "RectangleLabels" in advice


def test_the_tool_by_hand_asks_and_leaves_the_controls() -> None:
    assert tools_advice(BRUSHES_AND_ASKING, is_annotated=True) == ""
    config = parse_label_config(BRUSHES_AND_ASKING, None)
    assert [each.kind for each in config.controls] == ["brushlabels"]
