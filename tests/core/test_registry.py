"""Things of other packages, found by their entry points."""

import pytest

from clearclip_core.registry import PluginError, Registry
from tests.packages import Packages

GROUP = "clearclip.tests"


def expect_number(name: str, found: object) -> int:
    if not isinstance(found, int):
        raise TypeError("is no number")
    return found


def registry() -> Registry[int]:
    return Registry(GROUP, "number", {"one": 1}, expect_number)


def test_a_number_of_another_package_is_found(packages: Packages) -> None:
    packages.install("theirs", "TWO = 2", GROUP, "two = theirs:TWO")
    assert (registry().names(), [*registry().all()]) == (["one", "two"], [1, 2])
    assert registry().find("two") == 2


def test_no_package_replaces_one_of_ours(packages: Packages) -> None:
    packages.install("theirs", "ONE = 7", GROUP, "one = theirs:ONE")
    assert [*registry().all()] == [1]


def test_of_two_packages_with_one_name_one_is_taken(packages: Packages) -> None:
    packages.install("theirs", "TWO = 2", GROUP, "two = theirs:TWO")
    packages.install("others", "TWO = 2", GROUP, "two = others:TWO")
    assert registry().names() == ["one", "two"]


def test_names_are_told_without_an_import(packages: Packages) -> None:
    packages.install("theirs", "raise SystemExit", GROUP, "two = theirs:TWO")
    assert registry().names() == ["one", "two"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [("1 / 0", "is broken: ZeroDivisionError: division by zero"), ("TWO = ''", "is no number")],
)
def test_what_cannot_be_used_is_said(packages: Packages, code: str, reason: str) -> None:
    packages.install("theirs", code, GROUP, "two = theirs:TWO")
    with pytest.raises(PluginError, match=f"^The number two of theirs {reason}.$"):
        registry().find("two")


def test_a_broken_package_costs_itself_alone(
    packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    packages.install("broken_one", "1 / 0", GROUP, "two = broken_one:TWO")
    packages.install("sound_one", "THREE = 3", GROUP, "three = sound_one:THREE")
    assert [*registry().all()] == [1, 3]
    assert "The number two of broken_one is broken" in caplog.text


def test_a_package_is_imported_once(packages: Packages) -> None:
    packages.install("theirs", "TWO = object()", GROUP, "two = theirs:TWO")
    objects = Registry[object](GROUP, "object", {}, lambda name, found: found)
    assert objects.find("two") is objects.find("two")
