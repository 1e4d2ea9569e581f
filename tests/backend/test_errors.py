"""The errors: their status, and the tree that stands at the head of their file."""

import re
from collections.abc import Iterator

import pytest

from backend import errors
from backend.errors import BackendError, StudioRefused, TaskError, TooManyGuesses

Entry = tuple[str, str, int]  # name of an error, that of its base, and its HTTP status


def drawn() -> Iterator[Entry]:
    """Read the tree of the docstring: a base stands above, two columns further left."""
    above: list[str] = []
    lines = re.findall(r"^ {4}([│├└ ]*)(\w+) +(\d{3})$", errors.__doc__ or "", re.MULTILINE)
    for branches, name, status in lines:
        depth = len(branches) // 2
        del above[depth:]
        yield name, above[-1] if above else "", int(status)
        above.append(name)


def defined(error: type[BackendError], base: str = "") -> Iterator[Entry]:
    yield error.__name__, base, error.http_status
    for each in error.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from defined(each, error.__name__)


def test_the_tree_is_drawn_as_it_is() -> None:
    assert sorted(drawn()) == sorted(defined(BackendError))


def test_an_error_without_a_status_has_that_of_its_base() -> None:
    class OwnError(TaskError):
        pass

    assert OwnError("It failed.").http_status == 422


@pytest.mark.parametrize("status", [0, 409])
def test_a_refusal_keeps_label_studios_own_status(status: int) -> None:
    refused = StudioRefused("No.", status)
    assert (refused.status, refused.http_status) == (status, 424)


def test_who_guesses_is_told_when_to_try_again() -> None:
    error = TooManyGuesses(30)
    assert "in 30 s" in str(error)
    assert error.retry_after_s == 30
