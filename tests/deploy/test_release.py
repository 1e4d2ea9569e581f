"""What keeps a tree from being released."""

from dataclasses import replace

import pytest

from tests.deploy.release import Tree, faults

READY = Tree(
    version="0.3.0",
    converter="0.3.0",
    changelog="## [Unreleased]\n\n## [0.3.0] - 2026-12-24\n\n- New.\n\n## [0.2.0]\n\n- Old.\n",
    revisions=("0200", "0300", "0301"),
)


def test_this_tree_belongs_together() -> None:
    assert faults(Tree.read()) == []


def test_a_tree_can_be_released() -> None:
    assert faults(READY, "v0.3.0") == []


def test_the_converter_has_the_same_version() -> None:
    (fault,) = faults(replace(READY, converter="0.2.0"))
    assert "packages/dataset has version 0.2.0" in fault


@pytest.mark.parametrize("tag", ["v0.2.0", "0.3.0", "v0.3.0.dev0"])
def test_a_tag_is_the_version(tag: str) -> None:
    (fault,) = faults(READY, tag)
    assert tag in fault


def test_a_version_on_the_way_is_no_release() -> None:
    on_the_way = replace(READY, version="0.3.0.dev0", converter="0.3.0.dev0")
    assert "0.3.0.dev0 is on the way" in " ".join(faults(on_the_way, "v0.3.0.dev0"))


def test_changes_have_the_heading_of_their_version() -> None:
    open_changes = READY.changelog.replace("[Unreleased]\n", "[Unreleased]\n\n- Newer.\n")
    (fault,) = faults(replace(READY, changelog=open_changes), "v0.3.0")
    assert "Unreleased" in fault


def test_the_tag_of_an_old_version_with_a_new_database_is_refused() -> None:
    """As a v0.2.0 would have been, of a tree whose database no 0.2.0 can open."""
    old = replace(READY, version="0.2.0", converter="0.2.0", changelog="## [0.2.0]\n\n- Old.\n")
    (fault,) = faults(old, "v0.2.0")
    assert "0301" in fault
