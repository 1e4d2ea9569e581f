"""Give the start of servers a time of its own: the limit of a test begins after it.

The first test that needs Label Studio starts it, which takes minutes on a busy machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

#: Fixtures that start servers once a run, and the time that each of them has, in seconds.
STARTS: Final = ("demo_run", "studio", "backend_url")
START_TIMEOUT_S: Final = 900.0

_LIMITED: Final = pytest.StashKey[tuple[pytest.Item, Any]]()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Note the test whose time runs, and its limit; pytest-timeout itself sets the timer."""
    item.config.stash[_LIMITED] = item, settings


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Stop the time of the test while a server starts, and let it begin anew after that."""
    limited = request.config.stash.get(_LIMITED, None)
    if limited is None or fixturedef.argname not in STARTS:
        return (yield)
    item, settings = limited
    hook = request.config.hook
    hook.pytest_timeout_cancel_timer(item=item)
    hook.pytest_timeout_set_timer(item=item, settings=settings._replace(timeout=START_TIMEOUT_S))
    try:
        return (yield)
    finally:
        hook.pytest_timeout_cancel_timer(item=item)
        hook.pytest_timeout_set_timer(item=item, settings=settings)
