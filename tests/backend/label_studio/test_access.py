"""The parts that read Label Studio and write to it."""

import pytest

from backend.label_studio.access import StudioAccess
from backend.settings import Settings


def test_each_part_is_made_once() -> None:
    studio = StudioAccess(Settings())
    assert studio.files is studio.files
    assert studio.images is studio.images


@pytest.mark.parametrize("name", ["client", "brief_client", "page_client"])
def test_there_is_no_client_without_a_token(name: str) -> None:
    assert getattr(StudioAccess(Settings(label_studio_api_key=None)), name) is None


def test_all_clients_ask_the_same_label_studio() -> None:
    url = "http://studio.example:8080"
    studio = StudioAccess(Settings(label_studio_url=url, label_studio_api_key="0" * 40))
    clients = (studio.client, studio.brief_client, studio.page_client)
    assert {each.url for each in clients if each is not None} == {url}
