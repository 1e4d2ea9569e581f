"""What background threads hold to that learn of connected projects from their setup."""

from __future__ import annotations

from typing import Final

#: How long after its setup a project counts as connected, in seconds: Label Studio asks for setup
#: before it connects the backend and makes the webhook.
SETTLED_AFTER_S: Final = 10.0

#: Most projects that are remembered: without a password anybody may send ``/setup``.
MOST_PROJECTS: Final = 1000
