"""Set projects up: annotations that came with their tasks, other names of the pictures."""

from collections.abc import Iterator
from typing import Any

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.set_up import name_labels, offered_config, split_names
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio


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
