"""Errors of files and values as one line of a command, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def click_errors(
    kinds: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Iterator[None]:
    """Turn errors of files and values into errors that click prints as one line.

    Args:
        kinds: the errors that are turned.

    Raises:
        click.ClickException: one of `kinds` was raised inside; the message stays.
    """
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error
