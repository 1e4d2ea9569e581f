"""Annotations that were made elsewhere are stored once each, and found again."""

from __future__ import annotations

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.writers import ImportedAnnotations, import_id
from tests.backend.fakes.label_studio import FakeStudio


def test_an_answer_that_is_lost_does_not_store_an_annotation_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.late = 1
    assert client.annotation_writer.write(2, "masks", [{"id": "a"}]) == ""
    assert client.annotation_writer.write(2, "masks", [{"id": "a"}]) == ""
    (stored,) = studio.annotations.values()
    assert (stored["result"], stored["import_id"]) == ([{"id": "a"}], import_id("masks"))


def test_those_of_an_import_are_told_from_others(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    theirs = studio.annotate(2, [])["id"]
    client.annotation_writer.write(2, "masks", [])
    client.annotation_writer.write(2, "other", [])
    found = client.annotation_writer.find_imported(2, "masks")
    (own,) = found.unchanged
    assert (found.changed, len(found.others), theirs in found.others) == ([], 2, True)
    client.annotation_writer.delete(own)
    client.annotation_writer.delete(own)
    left = ImportedAnnotations(others=found.others)
    assert client.annotation_writer.find_imported(2, "masks") == left
    assert client.annotation_writer.find_imported(999, "masks") == ImportedAnnotations()


@pytest.mark.parametrize("missing", ["updated_at", "created_at"])
def test_an_annotation_counts_as_changed_where_nothing_tells_that_it_is_not(
    client: LabelStudioClient, studio: FakeStudio, missing: str
) -> None:
    """What is unchanged may be deleted."""
    client.annotation_writer.write(2, "masks", [])
    (stored,) = studio.annotations.values()
    assert client.annotation_writer.find_imported(2, "masks").unchanged == [stored["id"]]
    stored[missing] = None
    found = client.annotation_writer.find_imported(2, "masks")
    assert (found.unchanged, found.changed) == ([], [stored["id"]])


def test_a_task_that_is_gone_is_refused_with_a_reason(client: LabelStudioClient) -> None:
    assert "404" in client.annotation_writer.write(999, "masks", [])
